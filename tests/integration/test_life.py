"""A run's life: one engine to a spool, SIGTERM drains, feeding while it runs, `send` into a running engine."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

import contents
import harness
import receivers

CONTENT = contents.text("life", b"text\r\n")


class LifeTest(harness.Case):
    def engine_with_sink(self, *sink_options, **settings):
        self.sink = receivers.Sink(self, 1, *sink_options)
        return harness.Engine(self, self.sink.dns_port, **settings)

    def fill(self, engine, messages, domains=20):
        engine.put("many.bsmtp", harness.bsmtp([
            ("news@sender.test", [f"r{n}@d{n % domains}.test"], contents.arrived(CONTENT)) for n in range(messages)],
            b"\n"))

    def wait_running(self, engine, process):
        self.eventually(lambda: (engine.spool / "journal").exists() or not process.alive(), "the engine runs")
        self.assertTrue(process.alive(), process.text())

    def test_second_engine_on_the_spool(self):
        engine = self.engine_with_sink()
        first = engine.start()
        self.wait_running(engine, first)
        code, output = engine.run(seconds=20)
        self.assertEqual(code, 3, output)
        self.assertIn(str(engine.spool), output)
        self.assertTrue(first.alive(), "the first engine goes on")
        self.fill(engine, 10)
        self.eventually(lambda: len(self.sink.transactions()) == 10, "the first engine delivers")

    def test_fed_while_it_runs(self):
        engine = self.engine_with_sink()
        process = engine.start()
        self.wait_running(engine, process)
        for number in range(20):
            engine.put(f"{number}.eml", harness.eml("news@sender.test", [f"r{number}@d.test"], CONTENT))
            time.sleep(0.02)
        self.eventually(lambda: len(self.sink.transactions()) == 20, "all are delivered")
        done = subprocess.run(
            [harness.PROGRAM, "send", "--config", engine.config, "-f", "news@sender.test", "by-hand@d.test"],
            input=contents.arrived(CONTENT), capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: engine.records("by-hand@d.test"), "`postrider send` is delivered")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())
        self.assertEqual(engine.files_left(), [])

    def test_the_last_line_counts_every_connection(self):
        engine = self.engine_with_sink("--sites", 10)
        self.fill(engine, 3000)
        code, output = engine.run(seconds=60)
        self.assertEqual(code, 0, output)
        sessions = len({r["session_id"] for r in engine.log()})
        opened = int(re.search(r"(\d+) connections?, \d+ with TLS", output).group(1))
        self.assertGreaterEqual(opened, sessions)
        self.assertLessEqual(opened, sum(e["event"] == "open" for e in self.sink.events()))

    def test_sigterm_is_obeyed_in_a_run_until_empty(self):
        engine = self.engine_with_sink("--latency", "20ms")
        self.fill(engine, 3000, domains=3)
        process = engine.start(until_empty=True)
        self.eventually(lambda: len(engine.log()) > 100, "it sends")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, "the stop was asked for")
        self.assertLess(len(engine.log()), 3000)

    def test_mail_that_comes_in_during_the_shutdown_does_not_hold_it_up(self):
        engine = self.engine_with_sink()
        for _ in range(8):
            process = engine.start()
            self.wait_running(engine, process)
            ended = threading.Event()
            feeders = [threading.Thread(target=self.feed, args=(engine, n, ended)) for n in range(2)]
            for feeder in feeders:
                feeder.start()
            time.sleep(0.3)
            process.signal(signal.SIGTERM)
            try:
                self.assertEqual(process.wait(15), 0, process.text())
            finally:
                ended.set()
                for feeder in feeders:
                    feeder.join()

    def feed(self, engine, number, ended):
        """Names that are noticed and passed over, as fast as they can come."""
        outside, inside = engine.spool / "tmp" / f".{number}", engine.spool / "new" / f".{number}"
        outside.write_bytes(b"")
        while not ended.is_set():
            os.rename(outside, inside)
            os.rename(inside, outside)

    def test_a_source_that_is_not_here_is_told(self):
        engine = self.engine_with_sink(more='[[source]]\nname = "far"\naddress = "192.0.2.9"\n')
        self.fill(engine, 5)
        process = engine.start()
        self.eventually(lambda: "192.0.2.9" in process.text(), "it is told")
        time.sleep(2.5)
        told = process.text().count("192.0.2.9")
        self.assertLessEqual(told, 2, "once by each shard, not every second")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_a_closed_socket_is_no_missing_engine(self):
        if os.getuid() != 0:
            self.skipTest("another user takes root")
        engine = self.engine_with_sink()
        self.wait_running(engine, engine.start())
        self.eventually((engine.spool / "admin.sock").exists, "it answers")
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir() and path.name != "spool" or path == engine.config:
                path.chmod(0o755)
        asked = subprocess.run([*self.as_nobody(engine), "status", "--config", engine.config], capture_output=True, text=True, timeout=20)
        self.assertEqual(asked.returncode, 1, asked.stderr)
        self.assertIn("permission denied", asked.stderr)

    def as_nobody(self, engine):
        program = self.folder / "postrider-for-all"
        shutil.copy(harness.PROGRAM, program)
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program]

    def test_sigterm_drains(self):
        """What is in flight is answered and recorded, the rest waits, the exit is 0; a second run brings it to 0."""
        engine = self.engine_with_sink("--latency", "20ms")
        self.fill(engine, 3000, domains=3)
        process = engine.start()
        self.eventually(lambda: len(engine.log()) >= 100, "deliveries have begun")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())
        logged = sorted(harness.address_of(r) for r in engine.log() if r["type"] == "Delivery")
        self.assertLess(len(logged), 3000, "the test was too slow to catch it in the middle")
        self.eventually(lambda: sorted(self.sink.accepted()) == logged, "each accepted message is logged, and no other")
        code, output = engine.run()
        self.assertEqual(code, 0, output)
        wanted = sorted(f"r{n}@d{n % 3}.test" for n in range(3000))
        self.eventually(lambda: sorted(self.sink.accepted()) == wanted, "each has arrived once, none is lost")
        self.assertEqual(engine.files_left(), [])

    def test_sigterm_ends_against_a_silent_peer(self):
        """An unanswered dot holds the drain for shutdown_timeout, not longer; the message stays, and is flagged."""
        engine = self.engine_with_sink("--rule", "dot=* action=hang times=1", shutdown_timeout="2s")
        engine.put("a.eml", harness.eml("news@sender.test", ["a@d.test"], CONTENT))
        process = engine.start()
        self.eventually(engine.claimed, "the message is claimed")
        time.sleep(1)  # the sink tells of a transaction only when it has ended; a dialogue on loopback takes 1 ms
        begin = time.monotonic()
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())
        self.assertLess(time.monotonic() - begin, 8)
        self.assertEqual(len(engine.files_left()), 1)
        code, output = engine.run(until_empty="10s")
        self.assertEqual(code, 0, output)
        record = engine.last("a@d.test")
        self.assertEqual((record["type"], record["possible_duplicate"]), ("Delivery", True))
