"""`postrider trace`: what it shows is what was said, and it is in nobody's way."""

import json
import signal
import socket
import subprocess

import contents
import harness
import receivers

CONTENT = contents.text("trace", b"the secret of this content\r\n")


class TraceTest(harness.Case):
    def engine_with_sink(self, *sink_options, **settings):
        self.sink = receivers.Sink(self, 1, *sink_options)
        engine = harness.Engine(self, self.sink.dns_port, **settings)
        self.process = engine.start()
        self.eventually(lambda: (engine.spool / "admin.sock").exists() or not self.process.alive(), "the engine answers")
        self.assertTrue(self.process.alive(), self.process.text())
        return engine

    def trace(self, engine, *arguments):
        """A trace that has begun; its lines are in text()."""
        process = self.start("trace", [harness.PROGRAM, "trace", *arguments, "--config", engine.config])
        self.eventually(lambda: process.text() or not process.alive(), "the trace begins")
        return process

    def ask(self, engine, *arguments):
        return subprocess.run([harness.PROGRAM, "trace", *arguments, "--config", engine.config], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30)

    def send(self, engine, name, recipient):
        engine.put(name, harness.eml("news@sender.test", [recipient], CONTENT))
        self.eventually(lambda: engine.records(recipient), f"the fate of {recipient} is logged")
        return engine.last(recipient)

    @staticmethod
    def lines(process):
        return [json.loads(line) for line in process.text().splitlines() if line.startswith("{") and line.endswith("}")]

    def test_the_dialogue(self):
        """In order, with TLS and sizes, of this site alone; the log's session_id; no octet of a content."""
        engine = self.engine_with_sink()
        self.send(engine, "before.eml", "before@other.test")
        traced = self.trace(engine, "Traced.test", "--json")
        record = self.send(engine, "one.eml", "one@traced.test")
        self.send(engine, "two.eml", "two@other.test")
        self.eventually(lambda: "250 2.0.0 Ok" in traced.text(), "the content is answered")
        head, *said = self.lines(traced)
        self.assertEqual((head["domain"], head["hosts"]), ("traced.test", ["mx.traced.test"]))
        dialogue = [({"sent": "->", "received": "<-", "note": "=="}[line["kind"]], line["text"]) for line in said]
        wanted = [("==", "connected after"), ("<-", "220 "), ("->", "EHLO "), ("<-", "STARTTLS"), ("->", "STARTTLS"), ("<-", "220 "),
                  ("==", "TLSv1.3"), ("->", "EHLO "), ("<-", "250"), ("->", "MAIL FROM:<news@sender.test>"),
                  ("->", "RCPT TO:<one@traced.test>"), ("->", "DATA"), ("<-", "250"), ("<-", "250"), ("<-", "354"),
                  ("==", "content: "), ("<-", "250")]
        at = 0
        for arrow, text in wanted:
            at = next((i + 1 for i in range(at, len(dialogue)) if dialogue[i][0] == arrow and text in dialogue[i][1]), None)
            self.assertIsNotNone(at, f"{arrow} {text} is missing, or out of order, in {dialogue}")
        self.assertEqual({line["session_id"] for line in said if line["session_id"]}, {record["session_id"]})
        self.assertTrue(all(line["peer_address"]["name"] == "mx.traced.test" for line in said if line["session_id"]))
        self.assertNotIn("secret", traced.text())
        self.assertNotIn("other.test", traced.text())
        self.process.signal(signal.SIGTERM)
        self.assertEqual(traced.wait(10), 0, "the trace ends with the engine")
        self.assertEqual(self.process.wait(15), 0, self.process.text())
        self.assertIn("the engine has ended", traced.text())

    def test_what_goes_wrong(self):
        """Refusals and dead hosts are told where they happen, hostile octets without their power over a terminal."""
        engine = self.engine_with_sink("--rule", 'rcpt=no* reply="550 5.1.1 no \\x1b[31m such mailbox"')
        traced = self.trace(engine, "traced.test")
        self.send(engine, "one.eml", "nobody@traced.test")
        self.eventually(lambda: "550 5.1.1 no" in traced.text(), "the refusal is told")
        self.assertRegex(traced.text(), r"(?m)^\d\d:\d\d:\d\d\.\d{3} [0-9a-f]{8} mx\.traced\.test <- 550 5\.1\.1 no ")
        self.assertNotIn("\x1b", traced.text())
        self.sink.process.end()
        dead = self.trace(engine, "traced.test")  # DNS is dead too: what the engine knows already is enough
        self.send(engine, "two.eml", "two@traced.test")
        self.eventually(lambda: "connection refused after" in dead.text(), "the dead host is told")
        self.eventually(lambda: "the site rests for" in dead.text(), "and that its site waits")

    def test_so_many_and_no_more(self):
        """Four at once; a place is free again when one ends, by its time or because its reader went."""
        engine = self.engine_with_sink()
        traces = [self.trace(engine, "traced.test", *arguments) for arguments in ((), (), (), ("--for", "2s"))]
        refused = self.ask(engine, "traced.test")
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertIn("4 traces are under way", refused.stderr)
        status = subprocess.run([harness.PROGRAM, "status", "--config", engine.config], capture_output=True, timeout=20)
        self.assertEqual(status.returncode, 0, "the admin socket has room for others")
        self.assertEqual(traces[3].wait(10), 0, "--for ends it")
        for number in (signal.SIGINT, signal.SIGTERM):
            traces.append(self.trace(engine, "traced.test"))
            self.assertEqual(self.ask(engine, "traced.test").returncode, 2)
            traces[-1].signal(number)
            self.assertEqual(traces[-1].wait(10), 0)
        self.assertEqual(self.ask(engine, "traced.test", "--for", "1s").returncode, 0, "a place is free at once")
        reader = subprocess.run(f"{harness.PROGRAM} trace traced.test --config {engine.config} | head -1", shell=True, text=True,
                                capture_output=True, timeout=30)
        self.assertIn("tracing traced.test", reader.stdout)

    def test_nobody_reads(self):
        """A trace of which nobody takes the lines is in no way of the mail, and ends by itself."""
        engine = self.engine_with_sink()
        request = json.dumps({"domain": "traced.test"}).encode()
        for _ in range(4):
            answer = self.http(engine, b"POST /trace", request)
            self.assertIn(b"200 OK", answer)
        self.assertEqual(self.ask(engine, "traced.test", "--for", "1s").returncode, 2)
        text = "".join(f"MAIL FROM:<news@sender.test>\nRCPT TO:<r{n}@traced.test>\nDATA\nSubject: {n}\n\ntext\n.\n" for n in range(3000))
        engine.put("many.bsmtp", text.encode())
        self.eventually(lambda: len(self.sink.accepted()) == 3000, "all are delivered beside it")
        self.eventually(lambda: self.ask(engine, "traced.test", "--for", "1s").returncode == 0, "their places are free")

    def test_hostile_requests(self):
        engine = self.engine_with_sink()
        for line, body, told in ((b"GET /trace?id=1", b"", b"the trace has ended"), (b"GET /trace?id=0", b"", b"id: allowed: 1 to"),
                                 (b"GET /trace?id=99999999999999999999999", b"", b"id: allowed"), (b"GET /trace", b"", b"has ended"),
                                 (b"POST /trace", b"[]", b"no JSON object"), (b"POST /trace", b'{"domain": 3}', b"no text"),
                                 (b"POST /trace", b'{"domain": "a b"}', b"--domain"), (b"POST /trace/end", b'{"id": -1}', b"no number"),
                                 (b"POST /trace/end", b"{}", b"no number"), (b"POST /trace/end", b'{"id": 77}', b"200 OK")):
            self.assertIn(told, self.http(engine, line, body), line)
        self.assertTrue(self.process.alive())

    def http(self, engine, line, body):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(engine.spool / "admin.sock"))
            client.sendall(line + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            return answer

    def test_wrong_arguments(self):
        engine = self.engine_with_sink()
        for arguments, told in ((["anna@traced.test"], "is an address; give its domain, traced.test"),
                                (["traced.test", "--for", "0s"], "--for: a time of at least a second"),
                                (["a b"], '"a b" is no domain name')):
            done = self.ask(engine, *arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(told, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.process.signal(signal.SIGTERM)
        self.process.wait(15)
        self.assertEqual(self.ask(engine, "traced.test").returncode, 1, "no engine answers")
