"""The tests' own ground: each receiver keeps octet for octet what a plain client sends, and Knot answers the zone."""

import smtplib
import ssl

import contents
import dns_query
import harness
import receivers
import zone


class ReceiversTest(harness.Case):
    def send_all(self, receiver):
        """smtplib stuffs dots and ends lines; nothing of the project takes part."""
        context = ssl._create_unverified_context()
        with smtplib.SMTP(receiver.address, receiver.port, timeout=30) as client:
            client.starttls(context=context)
            for name, content in contents.CONTENTS.items():
                wire = contents.arrived(content).replace(b"\n", b"\r\n")
                client.sendmail("news@sender.test", [f"{name}@receiver.test"], wire, mail_options=["BODY=8BITMIME"])
            code, text = client.docmd("MAIL", "FROM:<news@sender.test>")
            self.assertEqual(code, 250, text)
            code, text = client.docmd("RCPT", "TO:<refused@receiver.test>")
            self.assertEqual((code, text[:5]), (550, b"5.1.1"))

    def check(self, receiver):
        self.send_all(receiver)
        stored = self.eventually(
            lambda: (m := receiver.messages()) and len(m) == len(contents.CONTENTS) and m, "all messages are stored")
        kept = {}
        for recipients, content in stored:
            content = contents.without_trace(content)
            kept[contents.name_of(content)] = content
            self.assertEqual(recipients, [contents.name_of(content) + "@receiver.test"])
        for name, content in contents.CONTENTS.items():
            with self.subTest(name):
                self.assertEqual(kept[name], receiver.keeps(contents.arrived(content)))

    def test_postfix(self):
        self.check(receivers.Postfix(self, 1))

    def test_exim(self):
        self.check(receivers.Exim(self, 2))

    def test_aiosmtpd(self):
        self.check(receivers.Aiosmtpd(self, 3))

    def test_sink(self):
        sink = receivers.Sink(self, 4, "--rule", "rcpt=refused@* reply=\"550 5.1.1 no such user\"")
        self.send_all(sink)
        kept = [contents.without_trace(content) for _, content in sink.messages()]
        self.assertEqual(sorted(kept), sorted(map(contents.arrived, contents.CONTENTS.values())))
        wanted = sorted(f"{name}@receiver.test" for name in contents.CONTENTS)
        self.eventually(lambda: sorted(sink.accepted()) == wanted, "the sink's log tells of all")
        self.assertEqual(dns_query.ask("127.0.0.1", sink.dns_port, "a.test", "MX"), (0, 1, False))

    def test_knot(self):
        dead = [self.network.address(n) for n in range(100, 110)]
        knot = receivers.Knot(self, zone.zone("127.0.0.2", "127.0.0.3", "127.0.0.4", dead))
        for name, kind, expected in [
                ("preference.test", "MX", (0, 3, False)), ("absent.test", "MX", (3, 0, False)),
                ("implicit.test", "MX", (0, 0, False)), ("implicit.test", "A", (0, 1, False)),
                ("null.test", "MX", (0, 1, False)), ("six.mx.test", "AAAA", (0, 1, False)),
                ("many.test", "MX", (0, 0, True)), ("broken", "MX", (2, 0, False)), ("elsewhere", "MX", (5, 0, False))]:
            with self.subTest(name):
                self.assertEqual(dns_query.ask(knot.address, knot.port, name, kind), expected)
