"""Loads: what one file may hold, files that come while it runs, how soon an idle engine answers, a receiver that takes
few sessions. Small forms of what `bench/` measures; the bounds here only catch what is broken."""

import collections
import json
import os
import resource
import signal
import subprocess
import time

import contents
import harness
import receivers

CONTENT = contents.text("scale", b"text\r\n")
BUSY_MACHINE = 10  # times slower than a quiet one, and the tests still pass


def peak_memory(process):
    """Peak resident memory of a running process, in octets."""
    with open(f"/proc/{process.child.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class ScaleTest(harness.Case):
    limit_s = 300

    def generate(self, engine, messages, form, domains, *more):
        done = subprocess.run(
            [harness.PROGRAM, "gen", "--spool", engine.spool, "--messages", str(messages), "--domains", str(domains),
             "--format", form, *more], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_one_file_of_many_recipients_and_a_large_one(self):
        """100,000 recipients in one file and a message of 30 MB: in less than 100 MB of memory."""
        recipients = 100_000
        sink = receivers.Sink(self, 1)
        engine = harness.Engine(self, sink.dns_port)
        engine.put("many.eml", harness.eml("news@sender.test", [f"r{n}@d{n % 300}.test" for n in range(recipients)], CONTENT))
        large = b"From: a@sender.test\r\nMessage-ID: <large@sender.test>\r\n\r\n" + (b"A" * 76 + b"\r\n") * (30 * 2**20 // 78)
        engine.put("large.eml", harness.eml("news@sender.test", ["large@d1.test"], large))
        process = engine.start()
        self.eventually(lambda: len(engine.log()) >= recipients + 1, "all are delivered", 120)
        memory = peak_memory(process)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        print(f"peak memory {memory / 2**20:.0f} MiB, {len(sink.transactions())} transactions")
        self.assertLess(memory, 100 * 2**20)
        arrived = collections.Counter(sink.accepted())
        self.assertEqual(len(arrived), recipients + 1)
        self.assertEqual(max(arrived.values()), 1, "none twice")
        self.assertLess(len(sink.transactions()), recipients / 20, "one message goes to many recipients at once")
        self.assertEqual(engine.files_left(), [])

    def test_files_before_and_while_it_runs(self):
        """10,000 .eml at the start and 10,000 more while it runs: all delivered, none twice."""
        sink = receivers.Sink(self, 1, "--check-canary")
        engine = harness.Engine(self, sink.dns_port)
        self.generate(engine, 10_000, "eml", 100, "--size", "2KiB")
        process = engine.start()
        self.generate(engine, 10_000, "eml", 100, "--size", "2KiB", "--first", "10001")
        self.eventually(lambda: len(engine.log()) >= 20_000, "all are delivered", 120)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        arrived = collections.Counter(sink.accepted())
        self.assertEqual((len(arrived), sum(arrived.values())), (20_000, 20_000))
        self.assertEqual(engine.files_left(), [])

    def test_an_idle_engine_answers_at_once(self):
        """From the rename to MAIL. The clock of the sink's log is the one read here (CLOCK_MONOTONIC). What stalls the
        machine for a moment stalls a file or two of one round, not of three."""
        sink = receivers.Sink(self, 1)
        engine = harness.Engine(self, sink.dns_port)
        process = engine.start()
        files, domains, rounds = 220, 10, 3
        renamed = [{} for _ in range(rounds)]
        for place in range(rounds):
            for number in range(files):
                address, name = f"r{place}-{number}@d{number % domains}.test", f"{place}-{number}.eml"
                (engine.spool / "tmp" / name).write_bytes(harness.eml("news@sender.test", [address], CONTENT))
                renamed[place][address] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                os.rename(engine.spool / "tmp" / name, engine.spool / "new" / name)
                time.sleep(0.02)
        self.eventually(lambda: len(engine.log()) >= rounds * files, "all are delivered", 30)
        process.end()
        sink.process.end()  # its log is written out
        mail = {t["recipients"][0]: t["mail_us"] for t in sink.transactions()}
        found = []
        for of_round in renamed:
            # The first of each domain makes the connection.
            warm = sorted((mail[a] - at) / 1000 for a, at in list(of_round.items())[2 * domains:])
            found.append((warm[int(len(warm) * 0.99)], warm[len(warm) // 2]))
            print(f"rename to MAIL: median {found[-1][1]:.2f} ms, p99 {found[-1][0]:.2f} ms")
        late, median = min(found)
        self.assertLess(median, 5, "the target is 5 ms for p99 on a quiet machine")
        self.assertLess(late, 5 * BUSY_MACHINE)

    def test_many_sites_at_a_receiver_of_few_sessions(self):
        """Postfix's smtp-sink takes 256 sessions; 600 sites share its address, and none waits for idle time-outs."""
        names = receivers.Sink(self, 2)  # its DNS only
        address = self.network.address(2)
        library = harness.RECEIVERS / "postfix"
        program = library / "usr/sbin/smtp-sink"
        names.process.end()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        dns = self.start("dns", [harness.PROGRAM, "sink", "--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--dns-map",
                                 names.folder / "dns.map", "--ready-file", self.folder / "dns.json"])
        self.eventually(lambda: (self.folder / "dns.json").exists(), "DNS answers", 20)
        port = int(json.loads((self.folder / "dns.json").read_text())["dns"].rsplit(":", 1)[1])
        receiver = self.start("smtp-sink", [program, *user, f"{address}:{self.network.port}", "1024"], {
            "LD_LIBRARY_PATH": f"{library}/usr/lib/postfix:{library}/usr/lib/x86_64-linux-gnu"})
        self.network.wait_listening(address, receiver)
        engine = harness.Engine(self, port)
        self.generate(engine, 20_000, "bsmtp", 600)
        begun = time.monotonic()
        code, output = engine.run(seconds=120)
        took = time.monotonic() - begun
        self.assertEqual(code, 0, output)
        self.assertEqual(collections.Counter(r["type"] for r in engine.log()), {"Delivery": 20_000})
        self.assertTrue(dns.alive())
        print(f"{took:.1f} s, {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB")
        self.assertLess(took, 25, "sites wait for each other's idle time-outs")
