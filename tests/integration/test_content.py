"""What arrives is what was spooled, octet for octet, at three real receivers and the sink (FAULTS 39-41, 51, 53)."""

import contents
import harness
import receivers
import zone


class ContentTest(harness.Case):
    limit_s = 240

    def setUp(self):
        super().setUp()
        self.receivers = {"postfix": receivers.Postfix(self, 1), "exim": receivers.Exim(self, 2),
                          "aiosmtpd": receivers.Aiosmtpd(self, 3)}
        addresses = [r.address for r in self.receivers.values()]
        dead = [self.network.address(n) for n in range(100, 110)]
        knot = receivers.Knot(self, zone.zone(*addresses, dead))
        self.dns = f"{knot.address}:{knot.port}"
        self.engine = harness.Engine(self, knot.port, dns_address=knot.address)

    def recipients(self, name):
        return [f"{name}@{domain}.test" for domain in self.receivers]

    def check(self, spooled):
        """`spooled` maps names to contents; each went to one recipient at each receiver."""
        code, output = self.engine.run(seconds=120)
        self.assertEqual(code, 0, output)
        for domain, receiver in self.receivers.items():
            stored = self.eventually(
                lambda: (m := receiver.messages()) and len(m) >= len(spooled) and m, f"{domain} has stored all")
            kept = {}
            for recipients, content in stored:
                content = contents.without_trace(content)
                name = contents.name_of(content)
                self.assertNotIn(name, kept, f"{domain} got {name} twice")
                self.assertEqual(recipients, [f"{name}@{domain}.test"])
                kept[name] = content
            for name, content in spooled.items():
                with self.subTest(receiver=domain, content=name):
                    self.assertIn(name, kept)
                    wanted = receiver.keeps(contents.arrived(content))
                    self.assertEqual(contents.sha256(kept[name]), contents.sha256(wanted))
                    record = self.engine.last(f"{name}@{domain}.test")
                    self.assertEqual((record["type"], record["num_attempts"]), ("Delivery", 1))
                    self.assertTrue(record["tls_protocol_version"], "STARTTLS was offered, and not used")

    def test_eml(self):
        for name, content in contents.CONTENTS.items():
            self.engine.put(f"{name}.eml", harness.eml("news@sender.test", self.recipients(name), content))
        self.check(contents.CONTENTS)

    def test_batch(self):
        for end, label in ((b"\r\n", "crlf"), (b"\n", "lf")):
            self.engine.put(f"{label}.bsmtp", harness.bsmtp(
                [("news@sender.test", self.recipients(name), content) for name, content in contents.CONTENTS.items()
                 if (b"\r\n" in content) == (end == b"\r\n")], end))
        self.check(contents.CONTENTS)

    def test_large_attachment(self):
        content = contents.attachment("thirty-megabytes", 22_500_000)
        self.assertGreater(len(content), 30_000_000)
        self.engine.put("large.eml", harness.eml("news@sender.test", self.recipients("thirty-megabytes"), content))
        self.check({"thirty-megabytes": content})

    def test_recipients_from_the_header(self):
        """Without an envelope block: To, Cc and Bcc get it; Bcc and Return-Path are not shown (FAULTS 58)."""
        begin, rest = contents.text("from-header", b"text\r\n").split(b"\r\n", 1)
        rest = rest.replace(b"To: reader@example.test", b"To: A <from-header@postfix.test>\r\nCc: from-header@exim.test")
        hidden = b"Return-Path: <bounces@sender.test>\r\nBcc: from-header@aiosmtpd.test\r\n"
        self.engine.put("header.eml", begin + b"\r\n" + hidden + rest)
        self.check({"from-header": begin + b"\r\n" + rest})
        self.assertEqual(self.receivers["aiosmtpd"].envelopes()[0]["sender"], "bounces@sender.test")

    def test_chunks_in_flight(self):
        """`pipeline_depth`: four transactions in flight by BDAT to Postfix and Exim, refused ones among them."""
        self.engine.write_config([self.dns], shaping='["default"]\nconnection_limit = 1\npipeline_depth = 4\n')
        spooled = dict(contents.CONTENTS)
        for number in range(40):
            spooled[f"small-{number}"] = contents.text(f"small-{number}", b"." * (number % 3) + b"body\r\n")
        messages = []
        for number, (name, content) in enumerate(spooled.items()):
            end = b"\r\n" if b"\r\n" in content else b"\n"
            self.engine.put(f"{name}.bsmtp", harness.bsmtp([("news@sender.test", self.recipients(name), content)], end))
            if number % 7 == 3:
                messages.append(("news@sender.test", self.recipients(f"refused-{number}"), spooled["small-0"]))
        self.engine.put("refused.bsmtp", harness.bsmtp(messages))
        self.check(spooled)
        for domain in ("postfix", "exim"):
            with self.subTest(receiver=domain):
                records = [r for r in self.engine.log() if r["recipient"].endswith(f"@{domain}.test")]
                refused = [r["type"] for r in records if r["recipient"].startswith("refused-")]
                self.assertEqual(refused, ["Bounce"] * len(messages))
                chunks = [r for r in records if r["response"]["command"] == "BDAT LAST"]
                self.assertGreater(len(chunks), len(spooled) // 2, "BDAT was hardly used")
