"""Local faults: a full disk, no descriptors, a parked domain whose mail comes of age, a shutdown in the middle of a connect
(FAULTS 93, 95, 98; DESIGN promises 1 and 4).

A full disk is a small tmpfs, which takes root to mount; without root those tests are skipped.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time

import harness
import receivers

MESSAGES = 40_000


class SmallDisk:
    """A tmpfs at `path`, and another program that keeps it full."""

    def __init__(self, case, path, size):
        if os.getuid() != 0:
            case.skipTest("mounting a tmpfs takes root")
        path.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "postrider-test", path],
                                 capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if mounted.returncode != 0:
            case.skipTest(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
        case.addCleanup(subprocess.run, ["umount", "-l", path], stdin=subprocess.DEVNULL)
        self.filler = path / "another-program"
        self.full = threading.Event()
        self.ended = threading.Event()
        thread = threading.Thread(target=self.keep_full, daemon=True)
        thread.start()
        case.addCleanup(thread.join)
        case.addCleanup(self.ended.set)

    def keep_full(self):
        block = bytes(64 << 10)
        while not self.ended.wait(0.01):
            if not self.full.is_set():
                with contextlib.suppress(FileNotFoundError):
                    self.filler.unlink()
                continue
            with contextlib.suppress(OSError), open(self.filler, "ab", buffering=0) as out:
                while self.full.is_set():
                    out.write(block)


class FullDisk(harness.Case):
    limit_s = 180

    def test_mail_waits_for_space_and_goes_on_alone(self):
        disk = SmallDisk(self, self.folder / "engine", "320m")
        sink = receivers.Sink(self, 1, "--latency", "2ms", store=False)
        engine = harness.Engine(self, sink.dns_port)
        subprocess.run([harness.PROGRAM, "gen", "--spool", engine.spool, "--messages", str(MESSAGES), "--size", "300",
                        "--domains", "20", "--domain-pattern", "d%02d.test", "--format", "bsmtp", "--per-file", "500"],
                       check=True, capture_output=True, stdin=subprocess.DEVNULL)
        process = engine.start(until_empty=True)
        self.eventually(lambda: len(engine.log()) > 500, "it sends")
        disk.full.set()
        self.eventually(lambda: "no space for the" in process.text(), "the full disk is told")
        # Whatever the reserves allow is done; then everything stands still, and nothing is lost or ended.
        before = -1
        while process.alive() and before != (now := len(engine.log())):
            before = now
            time.sleep(1.5)
        self.assertTrue(process.alive(), process.text())
        self.assertLess(before, MESSAGES, "the disk was full for long enough to stop the work")
        told = process.text().count("no space for the")
        time.sleep(1.5)
        self.assertEqual(told, process.text().count("no space for the"), "told once, not every second")
        disk.full.clear()
        self.eventually(lambda: len(engine.log()) > before + 500, "it goes on alone within 5 s of the space", 5)
        self.assertEqual(process.wait(90), 0, process.text())
        self.assertIn("there is space again", process.text())
        accepted = sink.accepted()
        self.assertEqual(len(accepted), MESSAGES, "each message once")
        self.assertEqual(len(set(accepted)), MESSAGES)
        records = engine.log()
        self.assertEqual({r["type"] for r in records}, {"Delivery"})
        self.assertEqual({r["num_attempts"] for r in records}, {1}, "no attempt counts for a local fault")
        self.assertEqual(len(records), MESSAGES)
        self.assertEqual(engine.files_left(), [])
        self.assertNotIn("BREACH", process.text())


class NoDescriptors(harness.Case):
    def test_no_descriptors_burns_no_attempt(self):
        sink = receivers.Sink(self, 1, store=False)
        engine = harness.Engine(self, sink.dns_port)
        process = engine.start()
        self.eventually(lambda: (engine.spool / "admin.sock").exists(), "it runs")
        pid = process.child.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        # What is open stays open, and not one more can be.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        for number in range(20):
            engine.put(f"{number}.eml", harness.eml("a@sender.test", [f"r{number}@d{number % 3}.test"], b"Subject: x\n\nx\n"))
        time.sleep(3)
        self.assertTrue(process.alive(), process.text())
        self.assertEqual(sink.accepted(), [], "without a descriptor nothing can be sent")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.eventually(lambda: len(sink.accepted()) == 20, "they go out when there are descriptors again", 10)
        self.eventually(lambda: len(engine.log()) == 20 and not engine.files_left(), "all are done")
        self.assertEqual({(r["type"], r["num_attempts"]) for r in engine.log()}, {("Delivery", 1)})
        self.assertLess(process.text().count("Too many open files"), 6, "told once, not for each")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)


class Age(harness.Case):
    def test_mail_of_a_parked_domain_expires_at_its_age(self):
        # Nobody listens: the site is parked for an hour by the retry schedule.
        engine = harness.Engine(self, receivers.Sink(self, 1, store=False).dns_port, retry_after=("1h",), max_age="4s",
                                port=self.network.port + 1)
        for number in range(5):
            engine.put(f"{number}.eml", harness.eml("a@sender.test", [f"r{number}@d.test"], b"Subject: x\n\nx\n"))
        process = engine.start()
        self.eventually(lambda: sum(r["type"] == "Expiration" for r in engine.log()) == 5,
                        "all expire although their domain is parked for an hour", 15)
        expired = [r for r in engine.log() if r["type"] == "Expiration"]
        for record in expired:
            self.assertLess(record["timestamp"] - record["created"], 8, record)
        self.eventually(lambda: not engine.files_left(), "nothing is left in the spool")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)


class Shutdown(harness.Case):
    def ends_soon(self, engine, process):
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0, process.text())
        self.assertLess(time.monotonic() - started, 4, "nothing of a message was under way")
        self.assertEqual(engine.log(), [], "no attempt was made")
        self.assertEqual(len(engine.files_left()), 1)

    def test_during_a_connect(self):
        with socket.socket() as deaf, contextlib.ExitStack() as fillers:
            deaf.bind((self.network.address(2), self.network.port))
            deaf.listen(0)
            for _ in range(4):  # its backlog is full: the next SYN is not answered
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            self.run_against(self.network.address(2), lambda: True)

    def test_during_the_wait_for_a_greeting(self):
        with socket.socket() as silent:
            silent.bind((self.network.address(2), self.network.port))
            silent.listen(8)
            silent.settimeout(20)
            peers = []

            def met():
                peers.append(silent.accept()[0])
                return True

            self.run_against(self.network.address(2), met)
            for peer in peers:
                peer.close()

    def run_against(self, address, met):
        dns = receivers.Sink(self, 1, store=False)
        (dns.folder / "dns.map").write_text(f"*.test A {address}\n")
        dns.process.signal(signal.SIGTERM)
        dns.process.wait(10)
        ready = dns.folder / "ready.json"
        ready.unlink()
        self.start("dns", [harness.PROGRAM, "sink", "--listen", f"{self.network.address(9)}:0", "--ready-file", ready,
                           "--dns", "127.0.0.1:0", "--dns-map", dns.folder / "dns.map"])
        self.eventually(ready.exists, "the DNS is ready")
        engine = harness.Engine(self, int(json.loads(ready.read_text())["dns"].rsplit(":", 1)[1]), shutdown_timeout="20s")
        engine.put("one.eml", harness.eml("a@sender.test", ["r@d.test"], b"Subject: x\n\nx\n"))
        process = engine.start()
        self.eventually(lambda: engine.claimed(), "the message is taken in")
        time.sleep(1)
        self.assertTrue(met())
        self.ends_soon(engine, process)
