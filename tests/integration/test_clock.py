"""FAULTS 96: the wall clock is set by years, and queued mail neither dies of age, nor comes early, nor waits for years."""

import json
import os
import pathlib
import signal
import struct
import subprocess
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

    def stepped(self, at_start_s, later_s, max_age="1h"):
        """An engine whose clock is wrong at the start and set while it runs, with a message that came after and is deferred."""
        sink = receivers.Sink(self, 1, "--rule", 'rcpt=late* reply="451 4.3.0 later"',
                              "--rule", 'rcpt=* reply="451 4.3.0 later" times=1 per=address', store=False)
        engine = harness.Engine(self, sink.dns_port, retry_after=("3s",), max_age=max_age)
        self.set_by = self.folder / "set_by"
        self.set_by.write_bytes(struct.pack("=q", at_start_s))
        environment = {**os.environ, "LD_PRELOAD": str(MODULE), "CLOCK_SET_BY": str(self.set_by)}
        process = engine.start(environment=environment)
        self.eventually((engine.spool / "admin.sock").exists, "the engine answers")
        self.set_clock(later_s)
        self.eventually(lambda: "clock was set by" in process.text(), "the step is seen")
        return engine, environment, process

    def set_clock(self, by_s):
        with open(self.set_by, "r+b") as file:
            file.write(struct.pack("=q", by_s))

    def ask(self, engine, *arguments):
        return subprocess.run([harness.PROGRAM, *arguments, "--config", engine.config], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30)

    def put(self, engine, recipient):
        engine.put(f"{recipient}.eml", harness.eml("news@sender.test", [f"{recipient}@d.test"], b"Subject: a\r\n\r\ntext\r\n"))
        self.eventually(lambda: engine.records(f"{recipient}@d.test"), "the first attempt is deferred")

    def end(self, process):
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())

    def check_restart_after_a_step(self, at_start_s, later_s, at_restart_s=None):
        engine, environment, process = self.stepped(at_start_s, later_s)
        put_at = time.time() + later_s
        self.put(engine, "a")
        self.end(process)
        if at_restart_s is not None:
            self.set_clock(at_restart_s)
        process = engine.start(environment=environment)
        self.eventually(lambda: len(engine.records("a@d.test")) == 2, "it is tried again")
        first, last = engine.records("a@d.test")
        self.assertEqual(last["type"], "Delivery", "and has not died of age")
        self.assertAlmostEqual(first["created"], put_at, delta=5, msg="the log tells the wall clock's time of the claim")
        if at_restart_s is None:
            self.assertAlmostEqual(last["created"], first["created"], delta=1)
            self.assertAlmostEqual(last["timestamp"] - first["timestamp"], 3, delta=3)
        self.end(process)

    def test_a_clock_that_was_behind_is_set_right_and_the_engine_started_again(self):
        self.check_restart_after_a_step(-YEAR_S, 0)

    def test_a_clock_that_was_ahead_is_set_right_and_the_engine_started_again(self):
        self.check_restart_after_a_step(2 * YEAR_S, 0)

    def test_a_clock_that_was_set_wrong_is_put_right_while_no_engine_runs(self):
        self.check_restart_after_a_step(0, -2 * YEAR_S, at_restart_s=0)

    def test_mail_still_dies_of_its_real_age_after_a_step_and_a_start(self):
        engine, environment, process = self.stepped(-YEAR_S, 0, max_age="9s")
        put_at = time.monotonic()
        self.put(engine, "late")
        self.end(process)
        process = engine.start(environment=environment)
        self.eventually(lambda: engine.last("late@d.test")["type"] == "Expiration", "it dies of age")
        self.assertGreater(time.monotonic() - put_at, 8, "not before its time")
        self.assertLess(time.monotonic() - put_at, 14, "and not long after")
        self.assertGreater(len(engine.records("late@d.test")), 2, "it was tried meanwhile")
        self.end(process)

    def test_a_cancel_holds_over_a_step_and_a_start_and_no_longer(self):
        engine, environment, process = self.stepped(YEAR_S, 0)
        self.put(engine, "late1")
        done = self.ask(engine, "queue", "cancel", "--domain", "d.test")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: engine.last("late1@d.test")["type"] == "AdminBounce", "what was there dies")
        self.end(process)
        process = engine.start(environment=environment)
        self.put(engine, "b")
        self.eventually(lambda: engine.last("b@d.test")["type"] == "Delivery", "what comes later is sent")
        self.end(process)

    def test_after_a_step_back_what_comes_is_not_taken_for_what_was_cancelled(self):
        engine, _, process = self.stepped(-YEAR_S, YEAR_S)
        self.put(engine, "late1")
        done = self.ask(engine, "queue", "cancel", "--domain", "d.test")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: engine.last("late1@d.test")["type"] == "AdminBounce", "what was there dies")
        self.set_clock(0)  # the cancel is a year ahead of the files' times now
        self.eventually(lambda: process.text().count("clock was set by") == 2, "the step is seen")
        self.put(engine, "b")
        self.eventually(lambda: engine.last("b@d.test")["type"] == "Delivery", "what comes later is sent")
        self.end(process)

    def test_a_suspension_ends_after_its_time_and_is_told_by_the_wall_clock(self):
        engine, _, process = self.stepped(-YEAR_S, 0)
        done = self.ask(engine, "queue", "suspend", "--domain", "d.test", "--for", "20s")
        self.assertEqual(done.returncode, 0, done.stderr)
        hold = json.loads(self.ask(engine, "queue", "list", "--json").stdout)["holds"][0]
        self.assertAlmostEqual(hold["until"], time.time() + 20, delta=4)
        self.set_clock(YEAR_S)
        self.eventually(lambda: process.text().count("clock was set by") == 2, "the second step is seen")
        hold = json.loads(self.ask(engine, "queue", "list", "--json").stdout)["holds"][0]
        self.assertAlmostEqual(hold["until"], time.time() + YEAR_S + 20, delta=8)
        self.end(process)

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


    def test_a_cancel_of_a_clock_that_was_ahead_kills_nothing_that_comes_later(self):
        sink = receivers.Sink(self, 1, store=False)
        engine = harness.Engine(self, sink.dns_port)
        set_by = self.folder / "set_by"
        set_by.write_bytes(struct.pack("=q", 3600))
        process = engine.start(environment={**os.environ, "LD_PRELOAD": str(MODULE), "CLOCK_SET_BY": str(set_by)})
        self.eventually(lambda: (engine.spool / "admin.sock").exists(), "the engine runs")
        subprocess.run([harness.PROGRAM, "queue", "cancel", "--domain", "d.test", "--config", engine.config], check=True,
                       capture_output=True, timeout=20)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        process = engine.start()  # the clock was put right meanwhile
        self.eventually(lambda: subprocess.run([harness.PROGRAM, "status", "--config", engine.config], capture_output=True,
                                               timeout=20).returncode == 0, "the engine runs")
        engine.put("a.eml", harness.eml("news@sender.test", ["a@d.test"], b"Subject: a\r\n\r\ntext\r\n"))
        self.eventually(lambda: engine.records("a@d.test"), "it has an end")
        self.assertEqual(engine.last("a@d.test")["type"], "Delivery")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        engine.put("b.eml", harness.eml("news@sender.test", ["b@d.test"], b"Subject: b\r\n\r\ntext\r\n"))
        code, output = engine.run(seconds=30)
        self.assertEqual((code, engine.last("b@d.test")["type"]), (0, "Delivery"), output)


if __name__ == "__main__":
    harness.unittest.main()
