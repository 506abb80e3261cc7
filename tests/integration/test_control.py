"""The operator's hand on a running engine: queue cancel, suspend, resume, flush; over restarts; hostile requests."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import contents
import harness
import receivers

CONTENT = contents.text("control", b"text\r\n")


class ControlTest(harness.Case):
    def engine_with_sink(self, *sink_options, **settings):
        self.sink = receivers.Sink(self, 1, *sink_options)
        return harness.Engine(self, self.sink.dns_port, **settings)

    def fill(self, engine, name, campaign, messages, domains=20):
        """A batch of messages of one campaign."""
        text = "".join(f"MAIL FROM:<news@sender.test>\nRCPT TO:<{name}{n}@d{n % domains}.test>\nDATA\n"
                       f"x-campaign: {campaign}\nSubject: {n}\n\ntext\n.\n" for n in range(messages))
        engine.put(f"{name}.bsmtp", text.encode())

    def ask(self, engine, *arguments, code=0):
        done = subprocess.run([harness.PROGRAM, *arguments, "--config", engine.config], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout if code == 0 else done.stderr

    def queue(self, engine, *arguments, **named):
        return json.loads(self.ask(engine, "queue", *arguments, "--json", **named))

    def status(self, engine):
        return json.loads(self.ask(engine, "status", "--json"))

    def started(self, engine):
        process = engine.start()
        self.eventually(lambda: (engine.spool / "admin.sock").exists() or not process.alive(), "the engine answers")
        self.assertTrue(process.alive(), process.text())
        return process

    def arrived(self, prefix):
        return sum(r.startswith(prefix) for r in self.sink.accepted())

    def test_asked_with_a_broken_configuration(self):
        """What an operator is about to mend does not cut him off; where the engine listens must be right."""
        engine = self.engine_with_sink()
        self.started(engine)
        good = pathlib.Path(engine.config).read_text()
        pathlib.Path(engine.config).write_text(good.replace("[retry]", "[retry]\nretry_aftre = []"))
        done = subprocess.run([harness.PROGRAM, "status", "--config", engine.config], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("recipients", done.stdout)
        self.assertIn("retry_aftre", done.stderr)
        self.assertIn("is asked all the same", done.stderr)
        for bad in (good.replace("[server]", "[sever]"), good.replace("spool =", "spol ="), good.replace("[server]", "[server")):
            pathlib.Path(engine.config).write_text(bad)
            self.assertNotIn("all the same", self.ask(engine, "status", code=2))
        pathlib.Path(engine.config).write_text(good)

    def test_top(self):
        """Rates and queues of a running engine, screen behind screen, and its end with the engine."""
        engine = self.engine_with_sink("--latency", "20ms", shaping='["default"]\nconnection_limit = 1\n')
        self.fill(engine, "x", "spring", 4000, domains=4)
        process = self.started(engine)
        shown = self.ask(engine, "top", "--every", "1s", "--count", "2")
        first, second = shown.split("postrider, process ")[1:]
        self.assertIn("(-)", first)
        self.assertRegex(second, r"sent \d+ \([1-9]\d*/s\)")
        self.assertRegex(second, r"(?m)^ +\d+ +\d+  mx\.d\d\.test$")
        self.assertRegex(second, r"(?m)^ +\d+ +0 +0 +-[1-9]\d*/s  d\d\.test$")
        self.assertIn("--every: a time of at least a second", self.ask(engine, "top", "--every", "1ms", code=2))
        watching = self.start("top", [harness.PROGRAM, "top", "--every", "1s", "--config", engine.config])
        self.eventually(lambda: "sent" in watching.text(), "top shows a screen")
        process.signal(signal.SIGTERM)
        self.assertEqual(watching.wait(20), 0)
        self.assertIn("the engine has ended", watching.text())
        process.wait(15)

    def test_cancel_under_load(self):
        """Nothing of the campaign is sent once the command has returned; the rest arrives; each recipient has one fate."""
        engine = self.engine_with_sink("--latency", "20ms", shaping='["default"]\nconnection_limit = 2\n')
        self.fill(engine, "x", "spring", 6000)
        self.fill(engine, "y", "summer", 3000)
        process = self.started(engine)
        self.eventually(lambda: self.arrived("x") > 200, "the campaign is under way")
        self.fill(engine, "late", "spring", 500)  # in new/ before the command: it belongs to what is cancelled
        told = self.queue(engine, "cancel", "--campaign", "spring", "--reason", "wrong price")
        self.assertNotIn("note", told)
        for misspelt in (("--campaign", "sprnig"), ("--domain", "d0.tset"), ("--site", "mx.d0.tset"), ("--tenant", "x")):
            self.assertIn("is the name right?", self.queue(engine, "suspend", *misspelt, "--for", "1s")["note"])
        self.fill(engine, "again", "spring", 50)  # the corrected mail
        time.sleep(0.3)  # transactions past their 354 end
        before = self.arrived("x")
        self.assertLess(before, 5500, "the test was too slow to catch it in the middle")
        self.eventually(lambda: self.status(engine)["recipients"]["pending"] == 0, "every recipient is final", 60)
        self.assertEqual(self.arrived("x"), before, "something of it was sent after the command had returned")
        self.assertEqual(self.arrived("late"), 0)
        self.assertEqual((self.arrived("y"), self.arrived("again")), (3000, 50))
        recipients = self.status(engine)["recipients"]
        self.assertEqual(recipients["cancelled"], 6500 - before)
        self.assertEqual(recipients["delivered"], before + 3050)
        self.eventually(lambda: engine.files_left() == [], "the files are gone")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())
        fates = {}
        for record in engine.log():
            fates.setdefault(harness.address_of(record), []).append(record["type"])
        self.assertEqual({len(f) for f in fates.values()}, {1})
        cancelled = [r for r in engine.log() if r["type"] == "AdminBounce"]
        self.assertEqual(len(cancelled), 6500 - before)
        self.assertIn("wrong price", cancelled[0]["response"]["content"])
        self.assertEqual(cancelled[0]["meta"]["campaign"], "spring")
        self.assertIn("queue cancel campaign spring: wrong price", process.text())
        self.assertLess(told["took_ms"], 1000)

    def test_suspended_campaign_waits_and_others_go_on(self):
        engine = self.engine_with_sink()
        process = self.started(engine)
        self.queue(engine, "suspend", "--campaign", "spring", "--reason", "a moment")
        self.fill(engine, "x", "spring", 300)
        self.fill(engine, "y", "summer", 300)
        self.eventually(lambda: self.arrived("y") == 300, "the other campaign of the same domains arrives")
        self.eventually(lambda: self.status(engine)["recipients"]["waiting"] == 300, "it counts as waiting")
        self.assertEqual(self.arrived("x"), 0)
        held = self.queue(engine, "list")
        self.assertEqual(held["sums"]["suspended"], 300)
        self.assertEqual(held["holds"][0]["suspended_by"]["reason"], "a moment")
        self.assertEqual(self.status(engine)["holds"], held["holds"])
        self.assertEqual(self.queue(engine, "list", "--campaign", "spring")["sums"]["suspended"], 300)
        self.queue(engine, "resume", "--campaign", "spring")
        self.eventually(lambda: self.arrived("x") == 300, "it arrives when it is resumed")
        self.assertIn("is not suspended", self.ask(engine, "queue", "resume", "--campaign", "spring", code=2))
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_suspended_domain_site_and_for(self):
        engine = self.engine_with_sink()
        process = self.started(engine)
        self.queue(engine, "suspend", "--domain", "D0.test", "--for", "3s")
        self.fill(engine, "x", "spring", 40, domains=2)
        self.eventually(lambda: self.arrived("x") == 20, "d1.test arrives")
        time.sleep(0.2)
        self.assertEqual(self.arrived("x"), 20)
        self.eventually(lambda: self.arrived("x") == 40, "the suspension ends by itself", 10)
        self.assertEqual(self.queue(engine, "list")["holds"], [])
        self.assertRegex(process.text(), r": queue suspend domain d0\.test until 20[^\n]*\n")
        self.assertRegex(process.text(), r"postrider: queue suspend domain d0\.test by [^\n]* has ended")
        self.assertIn("no site's name has", self.ask(engine, "queue", "suspend", "--site", "a\nroot: queue resume", code=2))
        site = engine.last("x0@d0.test")["site"]
        self.queue(engine, "suspend", "--site", site)
        self.fill(engine, "s", "spring", 40, domains=2)
        self.eventually(lambda: self.arrived("s") == 20, "the other site's mail arrives")
        self.eventually(lambda: self.status(engine)["recipients"]["waiting"] == 20, "all of the site waits")
        self.assertEqual(self.arrived("s"), 20)
        self.queue(engine, "resume", "--site", site)
        self.eventually(lambda: self.arrived("s") == 40, "and goes on")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_kept_over_a_restart(self):
        """kill -9 right behind the commands: what was cancelled is never sent, what was suspended waits still."""
        engine = self.engine_with_sink("--latency", "20ms", shaping='["default"]\nconnection_limit = 1\n')
        self.fill(engine, "x", "spring", 3000)
        self.fill(engine, "z", "autumn", 100)
        process = self.started(engine)
        self.queue(engine, "suspend", "--campaign", "autumn")
        self.eventually(lambda: self.status(engine)["recipients"]["accepted"] == 3100, "all are taken in")
        self.queue(engine, "cancel", "--campaign", "spring")
        process.child.kill()
        process.wait(10)
        process.end()
        time.sleep(0.3)
        before = self.arrived("x"), self.arrived("z")
        code, output = engine.run()
        self.assertEqual(code, 75, output)
        self.assertEqual((self.arrived("x"), self.arrived("z")), before)
        finals = {harness.address_of(r) for r in engine.log() if r["type"] in ("Delivery", "AdminBounce")}
        self.assertEqual(len([r for r in finals if r.startswith("x")]), 3000)
        # The newer of the two control files is torn: the older one counts, and says so.
        process = self.started(engine)
        self.queue(engine, "resume", "--campaign", "autumn")
        self.eventually(lambda: self.arrived("z") == 100, "it goes on")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_damaged_control_files(self):
        engine = self.engine_with_sink()
        process = self.started(engine)
        self.queue(engine, "suspend", "--campaign", "spring")
        self.queue(engine, "suspend", "--campaign", "summer")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())
        newer = engine.spool / "control.0"  # the second change
        newer.write_bytes(newer.read_bytes().replace(b"summer", b"winter"))
        code, output = engine.run()
        self.assertEqual(code, 0, output)
        self.assertIn("control.0 is damaged", output)
        (engine.spool / "control.1").write_bytes(b"postrider-control 1 99999999999999999999 1 0\n{")
        code, output = engine.run()
        self.assertEqual(code, 1, output)
        self.assertIn("the other control file is not whole either", output)

    def test_flush(self):
        """What a refusal deferred for an hour is tried at once."""
        engine = self.engine_with_sink("--rule", 'rcpt=* reply="451 4.7.1 later" times=1 per=address', retry_after=("1h",))
        self.fill(engine, "x", "spring", 20)
        process = self.started(engine)
        self.eventually(lambda: self.status(engine)["recipients"]["waiting"] == 20, "all are deferred")
        self.queue(engine, "flush", "--domain", "d0.test")
        self.eventually(lambda: self.arrived("x") == 1, "the domain's mail arrives")
        self.queue(engine, "flush")
        self.eventually(lambda: self.arrived("x") == 20, "everything arrives")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_requests_are_hostile_until_parsed(self):
        engine = self.engine_with_sink()
        process = self.started(engine)
        path = str(engine.spool / "admin.sock")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        slow = []
        for _ in range(6):  # each would take a whole server that serves one at a time
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            peer.send(b"POST /queue/cancel HTTP/1.1\r\n")
            slow.append(peer)
        begin = time.monotonic()
        self.status(engine)
        self.assertLess(time.monotonic() - begin, 5, "a slow client keeps the others waiting")
        for peer in slow:
            peer.close()

        def post(path_, body, headers="Content-Type: application/json\r\n"):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                peer.settimeout(20)
                peer.sendall(f"POST {path_} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = b""
                while piece := peer.recv(65536):
                    answer += piece
                return int(answer.split()[1]) if answer else 0

        for body in (b"", b"{", b"[]", b"{}", b'{"scope":"campaign"}', b'{"scope":"campaign","name":7}',
                     b'{"scope":"everything","name":"x"}', b'{"scope":"campaign","name":"\\u0001"}',
                     b'{"scope":"domain","name":"a..b"}', b'{"scope":"campaign","name":"' + b"x" * 300 + b'"}',
                     b'{"scope":"campaign","name":"x","reason":"two\\nlines"}',
                     b'{"scope":"campaign","name":"x","for_s":-1}', b'{"scope":"campaign","name":"x","for_s":1e9}',
                     b'{"scope":"campaign","name":"\xff"}', b"[" * 50000):
            self.assertEqual(post("/queue/suspend", body), 400, body[:60])
        good = b'{"scope":"campaign","name":"x"}'
        self.assertEqual(post("/queue/suspend", good, "Content-Type: text/plain\r\n"), 400)
        self.assertEqual(post("/queue/suspend", good, "Content-Type: application/json\r\nOrigin: http://evil.test\r\n"), 400)
        self.assertNotEqual(post("/queue/suspend", b"x" * 100_000), 200)
        self.assertEqual(post("/nothing", good), 404)
        self.assertEqual(self.queue(engine, "list")["holds"], [])
        # Nobody says himself who he is.
        self.assertEqual(post("/queue/suspend", good, "Content-Type: application/json\r\nPostrider-Peer: ceo\r\n"), 200)
        self.assertNotEqual(self.queue(engine, "list")["holds"][0]["suspended_by"]["who"], "ceo")
        self.assertIn("allowed", self.ask(engine, "queue", "list", "--limit", "0", code=2) + "allowed")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())


class ShapeAndReloadTest(harness.Case):
    """Limits changed while the engine runs, by command and by file."""

    started, ask, queue, status, fill, arrived, engine_with_sink = (
        ControlTest.started, ControlTest.ask, ControlTest.queue, ControlTest.status, ControlTest.fill, ControlTest.arrived,
        ControlTest.engine_with_sink)

    def connections(self, engine):
        return self.status(engine)["connections"]["open"]

    def test_shape_set_holds_at_once_and_is_kept(self):
        engine = self.engine_with_sink("--latency", "20ms", shaping='["default"]\nconnection_limit = 4\n')
        self.fill(engine, "x", "spring", 20000, domains=1)
        process = self.started(engine)
        self.eventually(lambda: self.connections(engine) == 4, "four connections by the file")
        self.ask(engine, "shape", "set", "d0.test", "connection_limit=1", "--reason", "they complain")
        self.eventually(lambda: self.connections(engine) == 1, "one by the command", 5)
        shown = json.loads(self.ask(engine, "shape", "show", "D0.test", "--json"))["overrides"]
        self.assertEqual([(o["key"], o["value"], o["reason"]) for o in shown], [("connection_limit", "1", "they complain")])
        self.assertIn("shape set d0.test connection_limit=1: they complain", process.text())
        process.child.kill()
        process.wait(10)
        process.end()
        (engine.spool / "admin.sock").unlink()  # the killed engine's
        process = self.started(engine)
        self.eventually(lambda: self.connections(engine) == 1, "it is kept")
        time.sleep(0.5)
        self.assertEqual(self.connections(engine), 1)
        self.ask(engine, "shape", "set", "d0.test", "idle_timeout=20s")
        self.assertIn("idle_timeoot is not set",
                      self.ask(engine, "shape", "unset", "d0.test", "connection_limit", "idle_timeoot", code=2))
        self.assertEqual(len(json.loads(self.ask(engine, "shape", "show", "--json"))["overrides"]), 2)
        self.ask(engine, "shape", "unset", "d0.test")
        self.assertIn(": shape unset d0.test connection_limit idle_timeout\n", process.text())
        self.eventually(lambda: self.connections(engine) == 4, "the file's again", 15)
        self.ask(engine, "shape", "set", "default", "connection_limit=2", "--for", "2s")
        self.eventually(lambda: self.connections(engine) == 2, "two", 5)
        self.eventually(lambda: self.connections(engine) == 4, "it ends by itself", 15)
        self.assertRegex(process.text(), r": shape set default connection_limit=2 until 20[^\n]*\n")
        self.assertRegex(process.text(), r"postrider: shape set default connection_limit=2 by [^\n]* has ended")
        for wrong in (["d0.test", "conection_limit=1"], ["d0.test", "connection_limit=0"], ["d0.test", "connection_limit"],
                      ["d0.test"], ["d0..test", "connection_limit=1"], ['provider."none"', "connection_limit=1"]):
            self.ask(engine, "shape", "set", *wrong, code=2)
        self.ask(engine, "shape", "unset", "d0.test", code=2)
        self.assertEqual(json.loads(self.ask(engine, "shape", "show", "--json"))["overrides"], [])

    def test_reload(self):
        engine = self.engine_with_sink("--latency", "20ms", shaping='["default"]\nconnection_limit = 4\n')
        self.fill(engine, "x", "spring", 20000, domains=1)
        process = self.started(engine)
        self.eventually(lambda: self.connections(engine) == 4, "four connections")
        shaping = engine.folder / "shaping.toml"
        shaping.write_text('["default"]\nconnection_limit = 0\n')
        process.signal(signal.SIGHUP)
        self.eventually(lambda: "the configuration in force stays" in process.text(), "the bad file is refused")
        self.assertIn("shaping.toml:2", process.text())
        self.assertIn("shaping.toml:2", self.ask(engine, "reload", code=2))
        self.assertEqual(self.connections(engine), 4)
        shaping.write_text('["default"]\nconnection_limit = 2\n')
        engine.config.write_text(engine.config.read_text().replace("shards = 2", "shards = 3"))
        process.signal(signal.SIGHUP)
        self.eventually(lambda: self.connections(engine) == 2, "two by the new file", 10)
        self.assertIn("needs a restart to change: [server] shards", process.text())
        shaping.write_text('["default"]\nconnection_limit = 3\n')
        self.assertIn("read again", self.ask(engine, "reload"))
        self.eventually(lambda: self.connections(engine) == 3, "three by the command", 10)

    def neighbours(self, **settings):
        """An engine and a receiver at which a.test and b.test have the same mail server."""
        engine = self.engine_with_sink("--sites", "1", **settings)
        return engine, self.started(engine)

    def sent_within(self, seconds):
        """Messages from now on, by the receiver's clock: its log is written a little later."""
        begin_us = time.time() * 1e6
        time.sleep(seconds + 0.2)
        return sum(begin_us <= each["wall_us"] < begin_us + seconds * 1e6 for each in self.sink.transactions())

    def test_what_is_set_holds_for_the_neighbours_of_the_domain(self):
        """At once when the command returns, and after a restart, though no mail of the domain itself ever comes."""
        engine, process = self.neighbours(shaping='["default"]\nmax_message_rate = "200/s"\n')
        self.fill(engine, "x", "spring", 10_000, domains=1)
        self.eventually(lambda: self.arrived("x") > 50, "mail flows")
        self.ask(engine, "shape", "set", "other.test", "max_message_rate=1/s")
        self.assertLessEqual(self.sent_within(1), 5, "as the command has returned")
        process.child.kill()
        process.wait(10)
        process.end()
        (engine.spool / "admin.sock").unlink()
        process = self.started(engine)
        self.assertLessEqual(self.sent_within(2), 6, "after a restart")
        self.ask(engine, "shape", "unset", "other.test")
        self.eventually(lambda: self.sent_within(0.3) > 20, "it flows again")
        shaping = engine.folder / "shaping.toml"
        shaping.write_text(shaping.read_text() + '["third.test"]\nmax_message_rate = "1/s"\n')
        self.assertIn("read again", self.ask(engine, "reload"))
        self.assertLessEqual(self.sent_within(1), 5, "as reload has returned")

    def test_shape_tells_what_it_was_understood_as(self):
        engine = self.engine_with_sink(shaping='[provider."google"]\nmatch = [{MXSuffix = ".google.test"}]\n')
        process = self.started(engine)

        def told(*arguments):
            return subprocess.run([harness.PROGRAM, "shape", *arguments, "--config", engine.config], capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL, timeout=30)

        for name, why in (("provider.gogle", "no block in the shaping files names a provider gogle"),
                          ("d0.test.sources.ip-1", "live limits are per domain, provider or default")):
            self.assertIn(f"postrider shape: {name}: {why}", self.ask(engine, "shape", "set", name, "connection_limit=2", code=2))
        self.assertIn("nothing is set", self.ask(engine, "shape", "show"))
        done = told("set", "provider.gogle.", "connection_limit=1")
        self.assertEqual((done.returncode, done.stdout), (0, "provider.gogle: set, in force on all shards\n"), done.stderr)
        done = told("set", "provider.google", "connection_limit=1")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, 'provider."google": set, in force on all shards\n', ""))
        self.assertIn("provider.gogle is none",
                      self.ask(engine, "shape", "set", "provider.gogle.", "provider_connection_limit=5", code=2))
        # A value that could not be read again would keep the engine from starting.
        self.ask(engine, "shape", "set", "d0.test", f"max_message_rate={'0' * 300}5/s", code=2)
        (engine.folder / "shaping.toml").write_text("")
        self.assertIn("read again", self.ask(engine, "reload"))
        self.assertIn("connection_limit=1", self.ask(engine, "shape", "show", "provider.google"))
        self.ask(engine, "shape", "unset", "provider.google")
        self.ask(engine, "shape", "unset", "provider.gogle")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_a_suspended_provider_is_judged_again_by_reload(self):
        google = '[provider."google"]\nmatch = [{MXSuffix = ".google.test"}'
        engine = self.engine_with_sink(shaping=google + "]\n")
        self.started(engine)
        shaping = engine.folder / "shaping.toml"
        self.queue(engine, "suspend", "--provider", "google")
        self.fill(engine, "x", "spring", 40, domains=2)
        self.eventually(lambda: self.arrived("x") == 40, "other sites' mail arrives")
        self.queue(engine, "suspend", "--domain", "d0.test")
        self.fill(engine, "y", "spring", 20, domains=1)
        self.eventually(lambda: self.queue(engine, "list")["sums"]["suspended"] == 20, "mail waits")
        shaping.write_text(google + ', {MXSuffix = ".d0.test"}]\n')
        self.ask(engine, "reload")
        self.queue(engine, "resume", "--domain", "d0.test")
        time.sleep(0.5)
        self.assertEqual((self.arrived("y"), self.queue(engine, "list")["sums"]["suspended"]), (0, 20))
        shaping.write_text("# google is gone\n")
        self.ask(engine, "reload")
        self.eventually(lambda: self.arrived("y") == 20, "nothing holds it any more", 5)

    def test_explain_and_why(self):
        engine = self.engine_with_sink("--rule", 'rcpt=*@d1.test reply="451 4.7.1 come later"', retry_after=("1h",),
                                       shaping='["default"]\nconnection_limit = 4\n["d0.test"]\nconnection_limit = 3\n')

        def limit(answer):
            return next(line for line in answer["sources"][0]["limits"] if line["key"] == "connection_limit")

        alone = json.loads(self.ask(engine, "explain", "d0.test", "--json"))
        self.assertFalse(alone["engine"])
        self.assertIn("shaping.toml:4", limit(alone)["from"])
        self.assertIn("from the files alone", self.ask(engine, "explain", "d0.test"))
        process = self.started(engine)
        self.fill(engine, "x", "spring", 40, domains=2)
        self.eventually(lambda: self.status(engine)["recipients"]["waiting"] == 20, "d1.test is deferred")
        told = json.loads(self.ask(engine, "explain", "D0.test", "--json"))
        self.assertEqual((told["engine"], limit(told)["value"], told["site"]), (True, "3", "mx.d0.test"))
        self.assertIn("in_use", limit(told))
        self.ask(engine, "shape", "set", "d0.test", "connection_limit=2")
        told = json.loads(self.ask(engine, "explain", "d0.test", "--json"))
        self.assertEqual(limit(told)["value"], "2")
        self.assertIn("shape set d0.test connection_limit=2 by", limit(told)["from"])
        self.assertIn("connection_limit", self.ask(engine, "explain", "never-seen.test"))
        why = json.loads(self.ask(engine, "why", "d1.test", "--json"))
        self.assertEqual((why["deferred"], why["last_reply"]["code"]), (20, 451))
        for command, typed, told in (("explain", "", "is empty"), ("why", "", "is empty"), ("explain", "a b", '"a b" is no domain'),
                                     ("explain", "x@d1.test", "give its domain, d1.test"), ("why", "x@d1.test", "give its domain")):
            wrong = self.ask(engine, command, typed, code=2)
            self.assertIn(told, wrong)
            self.assertTrue(wrong.startswith(f"postrider {command}: ") and wrong.count("\n") == 1, wrong)
        self.assertIn("come later", why["last_reply"]["text"])
        self.assertEqual(why["last_reply"]["enhanced"], "4.7.1")
        self.assertGreater(why["next_due"], time.time() + 3000)
        self.assertRegex(self.ask(engine, "why", "d1.test"), r"refused +451 4\.7\.1 come later \(mx\.d1\.test, ")
        self.assertIn("none is queued", self.ask(engine, "why", "--campaign", "no-such-campaign"))
        self.assertNotIn("none is queued", self.ask(engine, "why", "--campaign", "spring"))
        deferred = next(r for r in engine.log() if r["type"] == "TransientFailure")
        told = json.loads(self.ask(engine, "why", deferred["id"], "--json"))
        self.assertEqual(told["waiting"], 1)
        [waits] = told["recipients"]
        self.assertEqual((waits["recipient"], waits["state"], waits["num_attempts"]), (deferred["recipient"], "deferred", 1))
        self.assertGreater(waits["next_due"], time.time() + 3000)
        text = self.ask(engine, "why", deferred["id"])
        self.assertIn("come later", text)
        self.assertIn(f"{deferred['recipient']}: deferred, 1 attempt made, next at", text)
        engine.put("later.eml", b"x-sender: a@sender.test\nx-receiver: l@d3.test\nx-not-before: %d\nSubject: x\n\ntext\n"
                   % (time.time() + 3000))
        engine.put("never.eml", b"x-sender: a@sender.test\nx-receiver: n@d3.test\nx-not-before: 4000000000\nSubject: x\n\ntext\n")
        self.eventually(lambda: "not before" in self.ask(engine, "why", "d3.test"), "a time is no retry")
        self.assertNotIn("next retry", self.ask(engine, "why", "d3.test"))
        self.eventually((engine.spool / "bad" / "never.eml.reason").exists, "what would expire unsent is refused")
        self.assertIn("max_age", (engine.spool / "bad" / "never.eml.reason").read_text())
        delivered = next(r for r in engine.log() if r["type"] == "Delivery")
        self.assertIn("look for the id in the delivery log", self.ask(engine, "why", delivered["id"]))
        self.queue(engine, "suspend", "--domain", "d2.test", "--reason", "a moment")
        self.fill(engine, "y", "summer", 30, domains=3)
        self.eventually(lambda: self.arrived("y") == 10, "d0.test arrives")
        self.assertIn("a moment", self.ask(engine, "why", "d2.test"))
        self.assertIn("10 suspended", self.ask(engine, "why", "summer"))
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(15), 0, process.text())

    def test_check_tells_what_cannot_be_meant(self):
        engine = self.engine_with_sink(shaping='[provider."p"]\nconnection_limit = 4\n')
        done = subprocess.run([harness.PROGRAM, "check", "--config", engine.config], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("shaping.toml:1:1: warning", done.stderr)
