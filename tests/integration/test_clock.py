"""FAULTS 96: the wall clock is set by years, and queued mail neither dies of age, nor comes early, nor waits for years."""

import os
import pathlib
import signal
import struct
import time

import harness
import receivers

MODULE = pathlib.Path(os.environ.get("POSTRIDER_CLOCK_STEP", harness.ROOT / "build" / "tests" / "integration" / "libclock-step.so"))
YEAR_S = 365 * 86_400


class ClockTest(harness.Case):
    def check_step(self, step_s):
        sink = receivers.Sink(self, 1, "--rule", 'rcpt=* reply="451 4.3.0 later" times=1 per=address', store=False)
        engine = harness.Engine(self, sink.dns_port, retry_after=("6s",), max_age="1h")
        set_by = self.folder / "set_by"
        set_by.write_bytes(struct.pack("=q", 0))
        environment = {**os.environ, "LD_PRELOAD": str(MODULE), "CLOCK_SET_BY": str(set_by)}
        engine.put("before.eml", harness.eml("news@sender.test", ["before@d.test"], b"Subject: a\r\n\r\ntext\r\n"))
        process = engine.start(environment=environment)
        self.eventually(lambda: engine.records("before@d.test"), "the first attempt is deferred")
        deferred_at = time.monotonic()
        with open(set_by, "r+b") as file:
            file.write(struct.pack("=q", step_s))
        engine.put("after.eml", harness.eml("news@sender.test", ["after@d.test"], b"Subject: b\r\n\r\ntext\r\n"))
        self.eventually(lambda: len(engine.records("before@d.test")) == 2, "it is tried again")
        self.assertGreater(time.monotonic() - deferred_at, 5, "and not early")
        self.eventually(lambda: len(engine.records("after@d.test")) == 2, "so is what came after the step")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        for recipient in ("before@d.test", "after@d.test"):
            self.assertEqual([r["type"] for r in engine.records(recipient)], ["TransientFailure", "Delivery"])
        self.assertIn("clock was set by", process.text())
        first, last = engine.records("before@d.test")
        self.assertAlmostEqual(last["timestamp"] - first["timestamp"], step_s + 6, delta=10, msg="the log goes by the wall")
        return engine, sink, environment

    def test_forward(self):
        self.check_step(YEAR_S)

    def test_backward(self):
        self.check_step(-2 * YEAR_S)

    def test_a_retry_that_another_clock_put_years_ahead_is_not_waited_for(self):
        sink = receivers.Sink(self, 1, "--rule", 'rcpt=* reply="451 4.3.0 later" times=1 per=address', store=False)
        engine = harness.Engine(self, sink.dns_port, retry_after=("4s",), max_age="1h")
        set_by = self.folder / "set_by"
        set_by.write_bytes(struct.pack("=q", YEAR_S))
        environment = {**os.environ, "LD_PRELOAD": str(MODULE), "CLOCK_SET_BY": str(set_by)}
        engine.put("a.eml", harness.eml("news@sender.test", ["a@d.test"], b"Subject: a\r\n\r\ntext\r\n"))
        process = engine.start(environment=environment)
        self.eventually(lambda: engine.records("a@d.test"), "the first attempt is deferred")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        process = engine.start()  # the clock is right again
        self.eventually(lambda: len(engine.records("a@d.test")) == 2, "it is tried again")
        self.assertEqual(engine.last("a@d.test")["type"], "Delivery")


if __name__ == "__main__":
    harness.unittest.main()
