"""A run's life: one engine to a spool, SIGTERM drains, feeding while it runs, `send` into a running engine."""

import signal
import subprocess
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
