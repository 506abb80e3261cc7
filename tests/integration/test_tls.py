"""What the TLS policy demands is what happens, or the message waits (DESIGN promise 7; FAULTS 60, 61, 62, 65, 66)."""

import os
import signal
import subprocess
import time

import contents
import harness
import receivers

CONTENT = contents.text("tls", b"text\r\n")
GOOD = "mx.good.test"


class TlsTest(harness.Case):
    def certificate(self, name, alternative=None):
        """Self-signed, its own root. `alternative`: the subjectAltName; "" for none, by default the name as DNS."""
        certificate, key = self.folder / "mx.pem", self.folder / "mx.key"
        alternative = f"DNS:{name}" if alternative is None else alternative
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", f"/CN={name}", *(["-addext", f"subjectAltName={alternative}"] if alternative else []), "-keyout", key,
             "-out", certificate],
            check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return certificate, key

    def signed(self, name, days):
        """By a root of its own, for so many days; -1: it has ended. Certificate, key and root."""
        files = {what: self.folder / f"signed-{what}" for what in ("root", "root-key", "key", "request", "certificate")}
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for command in (
                ["req", "-x509", *new, "-days", "30", "-subj", "/CN=root", "-keyout", files["root-key"], "-out", files["root"]],
                ["req", *new, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", files["key"],
                 "-out", files["request"]],
                ["x509", "-req", "-in", files["request"], "-CA", files["root"], "-CAkey", files["root-key"], "-CAcreateserial",
                 "-days", str(days), "-copy_extensions", "copy", "-out", files["certificate"]]):
            subprocess.run(["openssl", *command], check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=self.folder)
        return files["certificate"], files["key"], files["root"]

    def send(self, policy, domains, *sink_options, roots=None, name="sink"):
        """Runs the engine once on a message to each domain; answers {domain: last record}."""
        self.sink = receivers.Sink(self, 1, *sink_options, name=name)
        engine = harness.Engine(self, self.sink.dns_port, shaping=f'["default"]\nenable_tls = "{policy}"\n', retry_after=("1h",))
        for domain in domains:
            engine.put(f"{domain}.eml", harness.eml("news@sender.test", [f"to@{domain}"], CONTENT))
        before = os.environ.get("SSL_CERT_FILE")
        if roots:
            os.environ["SSL_CERT_FILE"] = str(roots)
        try:
            self.code, self.output = engine.run(seconds=60)
        finally:
            os.environ.pop("SSL_CERT_FILE", None)
            if before:
                os.environ["SSL_CERT_FILE"] = before
        self.sink.process.end()  # its log is written out
        return {domain: engine.last(f"to@{domain}") for domain in domains}

    def test_required_takes_a_certificate_that_names_the_host(self):
        certificate, key = self.certificate(GOOD)
        records = self.send("Required", ["good.test", "other.test"], "--cert", certificate, "--key", key, roots=certificate)
        self.assertEqual(records["good.test"]["type"], "Delivery")
        self.assertTrue(records["good.test"]["tls_cipher"])
        self.assertEqual(records["other.test"]["type"], "TransientFailure", "the certificate is another host's")
        self.assertEqual(self.sink.accepted(), ["to@good.test"])
        self.assertEqual(self.code, 75, self.output)

    def check_certificate(self, alternative, delivered):
        certificate, key = self.certificate(GOOD, alternative)
        record = self.send("Required", ["good.test"], "--cert", certificate, "--key", key, roots=certificate)["good.test"]
        self.assertEqual(record["type"], "Delivery" if delivered else "TransientFailure", record)
        self.assertEqual(self.sink.accepted(), ["to@good.test"] if delivered else [])
        return record

    def test_a_wildcard_stands_for_the_first_label(self):
        self.check_certificate("DNS:*.good.test", True)

    def test_the_common_name_is_no_host_name(self):
        """RFC 9525 2, 6.3 (FAULTS 65)."""
        self.assertIn("subjectAltName", self.check_certificate("", False)["response"]["content"])

    def test_a_wildcard_stands_for_no_part_of_a_label(self):
        self.check_certificate("DNS:m*.good.test", False)

    def test_a_wildcard_stands_for_no_inner_label(self):
        self.check_certificate("DNS:mx.*.test", False)

    def test_only_dns_names_speak_for_a_host(self):
        self.check_certificate(f"email:{GOOD}", False)

    def test_required_refuses_an_unknown_root(self):
        certificate, key = self.certificate(GOOD)
        records = self.send("Required", ["good.test"], "--cert", certificate, "--key", key)
        self.assertEqual(records["good.test"]["type"], "TransientFailure")
        self.assertEqual(self.sink.accepted(), [])

    def test_required_refuses_an_expired_certificate(self):
        for days, delivered in ((30, True), (-1, False)):
            certificate, key, root = self.signed(GOOD, days)
            record = self.send("Required", ["good.test"], "--cert", certificate, "--key", key, roots=root, name=f"sink{days}")["good.test"]
            self.assertEqual(record["type"], "Delivery" if delivered else "TransientFailure", record)
            self.assertEqual(self.sink.accepted(), ["to@good.test"] if delivered else [])
        self.assertIn("date", record["response"]["content"].lower())

    def test_opportunistic_takes_an_expired_certificate(self):
        """RFC 7435: better than none."""
        certificate, key, _ = self.signed(GOOD, -1)
        record = self.send("Opportunistic", ["good.test"], "--cert", certificate, "--key", key)["good.test"]
        self.assertEqual(record["type"], "Delivery")
        self.assertTrue(record["tls_cipher"])

    def test_required_never_goes_in_clear(self):
        records = self.send("RequiredInsecure", ["good.test"], "--no-tls")
        self.assertEqual(records["good.test"]["type"], "TransientFailure")
        self.assertEqual(self.sink.accepted(), [])

    def test_required_insecure_takes_any_certificate(self):
        records = self.send("RequiredInsecure", ["good.test"])
        self.assertEqual(records["good.test"]["type"], "Delivery")
        self.assertTrue(records["good.test"]["tls_cipher"])

    def test_opportunistic_goes_in_clear_where_none_is_offered(self):
        records = self.send("Opportunistic", ["good.test"], "--no-tls")
        self.assertEqual(records["good.test"]["type"], "Delivery")
        self.assertNotIn("tls_cipher", records["good.test"])

    def test_disabled(self):
        records = self.send("Disabled", ["good.test"])
        self.assertEqual(records["good.test"]["type"], "Delivery")
        self.assertNotIn("tls_cipher", records["good.test"])

    def test_a_host_whose_handshake_fails_gets_its_mail_in_clear(self):
        """Opportunistic: a server that closes behind its 220 to STARTTLS is tried in clear, and the next time at once."""
        records = self.send("Opportunistic", ["good.test"], "--rule", 'starttls=* action=close reply="220 go"')
        self.assertEqual(records["good.test"]["type"], "Delivery", records)
        self.assertNotIn("tls_cipher", records["good.test"])

    def test_what_may_have_tls_does_not_go_over_a_connection_left_in_clear(self):
        """Two sites at one address share connections; one of them has TLS disabled (FAULTS 73, 74)."""
        sink = receivers.Sink(self, 1)
        engine = harness.Engine(self, sink.dns_port, shaping='["clear.test"]\nenable_tls = "Disabled"\n', retry_after=("1h",),
                                shards=1)
        process = engine.start()
        for domain in ("clear.test", "good.test"):
            engine.put(f"{domain}.eml", harness.eml("news@sender.test", [f"to@{domain}"], CONTENT))
            self.eventually(lambda: engine.records(f"to@{domain}"), f"the mail to {domain} goes out", 20)
        self.assertNotIn("tls_cipher", engine.last("to@clear.test"))
        self.assertTrue(engine.last("to@good.test").get("tls_cipher"), engine.last("to@good.test"))
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())

    def test_a_connection_that_was_taken_over_is_verified_for_its_own_host_alone(self):
        certificate, key = self.certificate(GOOD)
        sink = receivers.Sink(self, 1, "--cert", certificate, "--key", key)
        engine = harness.Engine(self, sink.dns_port, shaping='["good.test"]\nenable_tls = "Required"\n["default"]\nidle_timeout = "1m"\n',
                                retry_after=("1h",), max_age="1d", shards=1)
        process = engine.start(environment={**os.environ, "SSL_CERT_FILE": str(certificate)})

        def deliver(name, domain):
            engine.put(f"{name}.eml", harness.eml("news@sender.test", [f"{name}@{domain}"], CONTENT))
            self.eventually(lambda: engine.records(f"{name}@{domain}"), f"{name} is tried", 20)
            return engine.last(f"{name}@{domain}")

        first, second = deliver("first", "good.test"), deliver("second", "other.test")
        self.assertEqual(first["session_id"], second["session_id"], "taken over")
        self.ask(engine, "shape", "set", "other.test", "enable_tls=Required")
        self.assertEqual(deliver("third", "other.test")["type"], "TransientFailure")
        self.assertEqual(deliver("fourth", "good.test")["type"], "Delivery")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())

    def check_raised(self, demand):
        """Mail flows in clear over one connection that never rests; `demand(engine)` has returned: no more goes in clear."""
        sink = receivers.Sink(self, 1, "--no-tls", "--latency", "20ms")
        engine = harness.Engine(self, sink.dns_port, retry_after=("1h",), max_age="1d", shards=1,
                                shaping='["good.test"]\nconnection_limit = 1\n')
        process = engine.start()
        engine.put("a.bsmtp", harness.bsmtp([("news@sender.test", [f"r{n}@good.test"], CONTENT) for n in range(600)]))
        self.eventually(lambda: len(engine.log()) > 5, "mail flows", 20)
        demand(engine)
        sent = sum(r["type"] == "Delivery" for r in engine.log())
        time.sleep(2)  # of 12 in which the connection would carry what there is
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        sink.process.end()
        more = len(sink.accepted()) - sent
        self.assertLessEqual(more, 2, "what was under way when it was demanded, and no more")

    def ask(self, engine, *arguments):
        done = subprocess.run([harness.PROGRAM, *arguments, "--config", engine.config], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_tls_demanded_live_holds_for_open_connections(self):
        """FAULTS 60, 74."""
        self.check_raised(lambda engine: self.ask(engine, "shape", "set", "good.test", "enable_tls=RequiredInsecure"))

    def test_tls_demanded_by_reload_holds_for_open_connections(self):
        def demand(engine):
            with open(engine.folder / "shaping.toml", "a") as file:
                file.write('enable_tls = "Required"\n')
            self.ask(engine, "reload")
        self.check_raised(demand)
