"""Each recipient has a fate of its own: mixed replies, greylisting, refusals, expiry (FAULTS 5-11, 90)."""

import datetime
import signal

import contents
import harness
import receivers
import zone

CONTENT = contents.text("fates", b"text\r\n")


class FatesTest(harness.Case):
    def setUp(self):
        super().setUp()
        self.exim = receivers.Exim(self, 2)
        self.aiosmtpd = receivers.Aiosmtpd(self, 3)
        dead = [self.network.address(n) for n in range(100, 110)]
        self.knot = receivers.Knot(self, zone.zone(self.network.address(1), self.exim.address, self.aiosmtpd.address,
                                                   dead, [self.network.address(4)]))
        self.engine = harness.Engine(self, self.knot.port, dns_address=self.knot.address)

    def types(self, recipient):
        return [r["type"] for r in self.engine.records(recipient)]

    def test_mixed_recipients_at_two_receivers(self):
        recipients = ["ok@exim.test", "refused@exim.test", "two@exim.test", "ok@aiosmtpd.test",
                      "refused@aiosmtpd.test", "busy1@aiosmtpd.test"]
        self.engine.put("mixed.eml", harness.eml("news@sender.test", recipients, CONTENT))
        code, output = self.engine.run(until_empty="20s")
        self.assertEqual(code, 0, output)
        self.assertEqual({r: self.types(r) for r in recipients}, {
            "ok@exim.test": ["Delivery"], "refused@exim.test": ["Bounce"], "two@exim.test": ["Delivery"],
            "ok@aiosmtpd.test": ["Delivery"], "refused@aiosmtpd.test": ["Bounce"],
            "busy1@aiosmtpd.test": ["TransientFailure", "Delivery"]})
        stored = self.eventually(lambda: (m := self.exim.messages()) and m, "Exim has stored it")
        self.assertEqual(sorted(r for rs, _ in stored for r in rs), ["ok@exim.test", "two@exim.test"])
        self.assertEqual(sorted(r for rs, _ in self.aiosmtpd.messages() for r in rs),
                         ["busy1@aiosmtpd.test", "ok@aiosmtpd.test"])
        for recipients, content in stored + self.aiosmtpd.messages():
            self.assertEqual(contents.without_trace(content), contents.arrived(CONTENT))
        self.assertEqual(len({r["id"] for r in self.engine.log()}), 1, "one message has one id")
        self.assertEqual(self.engine.files_left(), [])

    def test_retry_after_4xx(self):
        recipient = "busy2@aiosmtpd.test"
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=["3s"])
        self.engine.put("busy.eml", harness.eml("news@sender.test", [recipient], CONTENT))
        code, output = self.engine.run(until_empty="30s")
        self.assertEqual(code, 0, output)
        records = self.engine.records(recipient)
        self.assertEqual([(r["type"], r["num_attempts"]) for r in records], [
            ("TransientFailure", 1), ("TransientFailure", 2), ("Delivery", 3)])
        self.assertEqual((records[0]["response"]["code"], harness.enhanced(records[0])), (451, "4.7.1"))
        self.assertEqual(records[0]["response"]["content"], "greylisted")
        # Jitter is +-10 %, and a queued record keeps its time in whole seconds.
        for earlier, later in zip(records, records[1:]):
            self.assertGreaterEqual(seconds(later) - seconds(earlier), 1.7)

    def test_a_waiting_message_stays_and_a_later_run_delivers_it(self):
        recipient = "busy1-later@aiosmtpd.test"
        self.engine.put("later.eml", harness.eml("news@sender.test", [recipient], CONTENT))
        code, output = self.engine.run()
        self.assertEqual(code, 75, output)
        self.assertEqual(len(self.engine.files_left()), 1)
        code, output = self.engine.run(until_empty="20s")
        self.assertEqual(code, 0, output)
        self.assertEqual([(r["type"], r["num_attempts"]) for r in self.engine.records(recipient)],
                         [("TransientFailure", 1), ("Delivery", 2)])

    def test_bounce_after_5xx(self):
        self.engine.put("refused.eml", harness.eml("news@sender.test", ["refused@aiosmtpd.test"], CONTENT, campaign="c1"))
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        record = self.engine.last("refused@aiosmtpd.test")
        self.assertEqual((record["type"], record["response"]["code"], harness.enhanced(record)), ("Bounce", 550, "5.1.1"))
        self.assertEqual(record["meta"]["campaign"], "c1")
        self.assertEqual(record["peer_address"]["name"].rstrip("."), "aiosmtpd.mx.test")
        self.assertEqual(self.engine.files_left(), [])

    def test_5xx_to_the_dot_is_for_all_recipients(self):
        recipients = ["full@aiosmtpd.test", "other@aiosmtpd.test"]
        self.engine.put("full.eml", harness.eml("news@sender.test", recipients, CONTENT))
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        for recipient in recipients:
            record = self.engine.last(recipient)
            self.assertEqual((record["type"], record["response"]["code"]), ("Bounce", 552))

    def test_too_old_expires(self):
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], max_age="3s")
        self.engine.put("old.eml", harness.eml("news@sender.test", ["later@aiosmtpd.test"], CONTENT))
        code, output = self.engine.run(until_empty="30s")
        self.assertEqual(code, 0, output)
        types = self.types("later@aiosmtpd.test")
        self.assertEqual(types[-1], "Expiration", types)
        self.assertEqual(set(types[:-1]), {"TransientFailure"})
        self.assertEqual(self.engine.files_left(), [])

    def grown_to_four_connections(self, retry_after, *sink_options):
        """An engine that keeps four connections to a host, which all have ended; the host is another one now."""
        first = receivers.Sink(self, 1, "--latency", "30ms", store=False, name="first")
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=retry_after, shards=1,
                                 shaping='["default"]\nconnection_limit = 4\nidle_timeout = "1s"\n')
        process = self.engine.start()
        self.put_many("first", 400)
        self.eventually(lambda: len(self.engine.log()) == 400, "all is delivered", 40)
        self.eventually(lambda: sum({"open": 1, "close": -1}.get(e["event"], 0) for e in first.events()) == 0, "all close", 10)
        self.assertEqual(sum(e["event"] == "open" for e in first.events()), 4)
        first.process.end()
        return process, receivers.Sink(self, 1, "--latency", "30ms", *sink_options, store=False, name="second")

    def put_many(self, name, count):
        self.engine.put(f"{name}.bsmtp", harness.bsmtp(
            [("news@sender.test", [f"{name}{i}@postfix.test"], CONTENT) for i in range(count)]))

    def expect_second_delivered(self, process):
        self.put_many("second", 100)
        self.eventually(lambda: len([r for r in self.engine.log() if r["type"] == "Delivery"]) == 500, "all is delivered", 20)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        return [r for r in self.engine.log() if r["type"] != "Delivery"]

    def test_openings_that_fail_together_are_one_failure(self):
        """FAULTS 89: the site is parked for the first wait, not for that of the fourth failure in a row."""
        process, sink = self.grown_to_four_connections(
            ("2s", "1h"), "--rule", 'connect=* times=4 reply="421 4.3.2 not now"')
        self.assertEqual([r["type"] for r in self.expect_second_delivered(process)], ["TransientFailure"])
        self.assertEqual(sum(e["event"] == "open" for e in sink.events()[:4]), 4)

    def test_an_opening_refused_beside_others_parks_nothing(self):
        """A host that takes three sessions refuses the fourth before it has answered the others."""
        process, _ = self.grown_to_four_connections(("1h",), "--max-connections-per-mx", 3)
        self.assertEqual(self.expect_second_delivered(process), [])

    def throttled(self, rule, count=30):
        """A run against a host that takes nothing; answers how many were tried."""
        sink = receivers.Sink(self, 1, "--rule", rule, store=False)
        self.engine.write_config([f"127.0.0.1:{sink.dns_port}"], retry_after=("1h",), max_age="1d")
        self.put_many("r", count)
        code, output = self.engine.run(until_empty=True, seconds=40)
        self.assertEqual(code, 75, output)
        records = self.engine.log()
        self.assertEqual({r["type"] for r in records}, {"TransientFailure"})
        return len(records)

    def test_a_host_that_throttles_every_session_rests_as_one_that_is_down(self):
        """421 to MAIL, or sessions that end some other way, park the site; they do not burn the attempts of all its mail."""
        self.assertLessEqual(self.throttled('mail=* reply="421 4.7.0 slow down"'), 6)

    def test_a_host_that_hangs_up_at_every_mail_rests_too(self):
        self.assertLessEqual(self.throttled("mail=* action=close"), 6)

    def test_large_mail_set_apart_rests_with_its_site(self):
        receivers.Sink(self, 4, "--size-limit", 2000, store=False, name="small")
        receivers.Sink(self, 1, "--rule", 'mail=* reply="421 4.7.0 slow down"', store=False, name="throttles")
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=("1h",), max_age="1d",
                                 shaping='["default"]\nidle_timeout = "1s"\n')
        self.engine.put("large.bsmtp", harness.bsmtp(
            [("news@sender.test", [f"r{n}@small-and-postfix.test"], CONTENT + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100) for n in range(12)]))
        code, output = self.engine.run(until_empty=True, seconds=60)
        self.assertEqual(code, 75, output)

    def test_a_host_that_closes_behind_each_refusal_is_asked_on(self):
        """Bounces are progress."""
        sink = receivers.Sink(self, 1, "--rule", 'rcpt=* action=close-after-reply reply="550 5.1.1 no such user"', store=False)
        self.engine.write_config([f"127.0.0.1:{sink.dns_port}"], retry_after=("1h",), max_age="1d")
        self.put_many("r", 30)
        code, output = self.engine.run(until_empty=True, seconds=40)
        self.assertEqual(code, 0, output)
        self.assertEqual([r["type"] for r in self.engine.log()], ["Bounce"] * 30)

    def test_an_envelope_of_megabytes_goes_out_in_parts(self):
        """However many recipients one transaction may have, the connection holds their commands."""
        sink = receivers.Sink(self, 1, store=False)
        self.engine.write_config([f"127.0.0.1:{sink.dns_port}"], shards=1,
                                 shaping='["default"]\nmax_recipients_per_batch = 1000000\n')
        domain = ".".join(["d" * 60] * 3) + ".test"
        recipients = [f"{i:05}{'a' * 50}@{domain}" for i in range(12_000)]
        self.engine.put("many.eml", harness.eml("news@sender.test", recipients, CONTENT))
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        sink.process.end()
        self.assertEqual(sorted(sink.accepted()), recipients)
        most = max(len(t["recipients"]) for t in sink.transactions())
        self.assertGreater(most, 500)
        self.assertLess(most * (len(recipients[0]) + 14), 300_000)

    def test_null_sender_and_odd_addresses(self):
        """FAULTS 50: quoted and oddly dotted local parts pass as they are."""
        recipients = ['"a b"@aiosmtpd.test', "two..dots@aiosmtpd.test", "end.@aiosmtpd.test", "a+b=c@aiosmtpd.test"]
        content = b"\n".join([b"MAIL FROM:<>"] + [f"RCPT TO:<{r}>".encode() for r in recipients] + [
            b"DATA", contents.arrived(CONTENT) + b".", b""])
        self.engine.put("odd.bsmtp", content)
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        envelopes = self.aiosmtpd.envelopes()
        self.assertEqual({e["sender"] for e in envelopes}, {""})
        delivered = {r for e in envelopes for r in e["recipients"]}
        self.assertLessEqual({'"a b"@aiosmtpd.test', "a+b=c@aiosmtpd.test"}, delivered)
        # Those aiosmtpd itself refuses must have been offered as written, and its answer logged.
        for recipient in set(recipients) - delivered:
            self.assertEqual(self.engine.last(recipient)["response"]["code"] // 100, 5)


def seconds(record):
    return datetime.datetime.fromisoformat(record["event_time"].replace("Z", "+00:00")).timestamp()
