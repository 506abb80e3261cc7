"""Every MX situation of the zone ends as FAULTS 78-85 say, with a real DNS server and real receivers."""

import signal
import subprocess
import time

import contents
import harness
import receivers
import zone

CONTENT = contents.text("mx", b"text\r\n")


class MxTest(harness.Case):
    def setUp(self):
        super().setUp()
        self.postfix = receivers.Postfix(self, 1)
        self.exim = receivers.Exim(self, 2)
        self.aiosmtpd = receivers.Aiosmtpd(self, 3, "::1")
        self.dead = [self.network.address(n) for n in range(100, 110)]
        self.small = [self.network.address(n) for n in (110, 111)]
        self.knot = receivers.Knot(self, zone.zone(self.postfix.address, self.exim.address, self.aiosmtpd.address,
                                                   self.dead, self.small))
        self.engine = harness.Engine(self, self.knot.port, dns_address=self.knot.address, retry_after=("1h",))

    def send(self, *domains):
        """One message for each domain; returns the exit code and the one record of each."""
        for domain in domains:
            self.engine.put(f"{domain}.eml", harness.eml("news@sender.test", [f"reader@{domain}"], CONTENT))
        code, self.output = self.engine.run()
        records = {}
        for domain in domains:
            found = self.engine.records(f"reader@{domain}")
            self.assertEqual(len(found), 1, f"{domain}: {found}\n{self.output}")
            records[domain] = found[0]
        return code, records

    def expect_delivered(self, places):
        """`places` maps a domain to the addresses at which its message may arrive."""
        code, records = self.send(*places)
        for domain, addresses in places.items():
            with self.subTest(domain):
                record = records[domain]
                self.assertEqual(record["type"], "Delivery", record)
                self.assertIn(record["peer_address"]["addr"].split(":" + str(self.network.port))[0].strip("[]"), addresses)
        self.assertEqual(code, 0, self.output)

    def expect_bounced(self, **codes):
        """Bounced at once, with the enhanced code; nobody got the message."""
        code, records = self.send(*codes)
        for domain, wanted in codes.items():
            with self.subTest(domain):
                self.assertEqual(records[domain]["type"], "Bounce", records[domain])
                self.assertEqual(harness.enhanced(records[domain]), wanted, records[domain])
        self.assertEqual(code, 0, self.output)
        self.assert_nobody_got_it()

    def expect_waiting(self, *domains):
        """Temporary: logged as such, the message stays in the spool, exit 75."""
        code, records = self.send(*domains)
        for domain in domains:
            with self.subTest(domain):
                self.assertEqual(records[domain]["type"], "TransientFailure", records[domain])
        self.assertEqual(code, 75, self.output)
        self.assertEqual(len(self.engine.files_left()), len(domains))
        self.assert_nobody_got_it()

    def assert_nobody_got_it(self):
        self.assertEqual(self.postfix.messages() + self.exim.messages() + self.aiosmtpd.messages(), [])

    def test_preferences(self):
        self.expect_delivered({
            "preference.test": [self.postfix.address], "PREFERENCE.Test": [self.postfix.address],
            "equal.test": [self.exim.address, self.aiosmtpd.address], "dead-first.test": [self.exim.address],
            "some-alive.test": [self.exim.address]})

    def test_more_mx_than_a_udp_answer_holds(self):
        """72 dead hosts, one alive in the thirteenth place: found by TCP, and within the bound on work."""
        self.expect_delivered({"many.test": [self.exim.address]})

    def test_implicit_mx(self):
        self.expect_delivered({"implicit.test": [self.exim.address], "implicit-six.test": ["::1"]})

    def test_aliases(self):
        self.expect_delivered({
            "alias.test": [self.postfix.address], "alias-implicit.test": [self.exim.address],
            "chain.test": [self.exim.address], "mx-to-alias.test": [self.exim.address]})

    def test_families(self):
        self.expect_delivered({"six-only.test": ["::1"], "both.test": ["::1"]})

    def test_size_leads_to_the_next_mx(self):
        sinks = self.expect_large_at_the_third()
        self.assertGreater(len(sinks[0].transactions()), 0)

    def test_size_leads_to_the_next_mx_with_one_connection_at_a_time(self):
        self.expect_large_at_the_third('["default"]\nconnection_limit = 1\n')

    def expect_large_at_the_third(self, shaping=""):
        """RFC 1870 6.1, FAULTS 47: too large for the first two hosts, taken by the third. Small mail stays at the first
        where there are connections for both. Answers the first two hosts."""
        sinks = [receivers.Sink(self, 110 + i, "--size-limit", 20_000 * (i + 1), name=f"small{i}") for i in range(2)]
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=("1h",), shaping=shaping)
        large = contents.text("large", b"a line of the text\r\n" * 3_000)
        for i in range(40):
            to = [f"{'large' if i % 4 == 0 else 'small'}{i}@small-first.test"]
            self.engine.put(f"{i}.eml", harness.eml("news@sender.test", to, large if i % 4 == 0 else CONTENT))
        for name in ("all-small", "small-and-dead"):
            self.engine.put(f"{name}.eml", harness.eml("news@sender.test", [f"reader@{name}.test"], large))
        code, output = self.engine.run()
        self.assertEqual(code, 75, output)
        delivered = [r for r in self.engine.log() if r["type"] == "Delivery"]
        self.assertEqual(len(delivered), 40, output)
        for record in delivered:
            if record["recipient"].startswith("large"):
                self.assertIn(self.exim.address, record["peer_address"]["addr"])
        [refused] = self.engine.records("reader@all-small.test")
        self.assertEqual((refused["type"], harness.enhanced(refused)), ("Bounce", "5.3.4"), refused)
        [waiting] = self.engine.records("reader@small-and-dead.test")
        self.assertEqual(waiting["type"], "TransientFailure", waiting)
        for sink in sinks:
            sink.process.end()  # it writes its log out
        self.assertEqual([t for sink in sinks for t in sink.transactions() if t["size"] > 20_000], [])
        return sinks

    def test_what_is_cancelled_while_it_waits_for_the_next_mx_is_not_sent(self):
        small = receivers.Sink(self, 110, "--size-limit", 20_000, name="small0")
        # The first connection, to the host that refuses, uses the rate up: the second comes six seconds later.
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=("1h",),
                                 shaping='["default"]\nmax_connection_rate = "10/min,max_burst=1"\n')
        large = contents.text("large", b"a line of the text\r\n" * 3_000)
        self.engine.put("large.eml", harness.eml("news@sender.test", ["reader@small-first.test"], large))
        process = self.engine.start()
        self.eventually(lambda: any(e["event"] == "open" for e in small.events()), "the first host is asked", 20)
        time.sleep(0.5)
        done = subprocess.run([harness.PROGRAM, "queue", "cancel", "--domain", "small-first.test", "--config", self.engine.config],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: self.engine.records("reader@small-first.test"), "it dies", 20)
        self.assertEqual([r["type"] for r in self.engine.records("reader@small-first.test")], ["AdminBounce"])
        time.sleep(7)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        self.assertEqual(self.engine.files_left(), [])
        self.assert_nobody_got_it()

    def test_null_mx_among_others_is_ignored(self):
        self.expect_delivered({"null-mixed.test": [self.exim.address]})

    def test_null_mx(self):
        self.expect_bounced(**{"null.test": "5.1.10"})

    def test_no_such_domain(self):
        self.expect_bounced(**{"absent.test": "5.1.2"})

    def test_mx_without_address_never_falls_back(self):
        self.expect_bounced(**{"no-address.test": "5.4.4", "no-host.test": "5.4.4", "literal.test": "5.4.4"})

    def test_all_mail_to_mx_without_address_bounces(self):
        """FAULTS 81: not one message for each attempt while the others wait and expire."""
        to = [f"reader{i}@{domain}.test" for i in range(150) for domain in ("no-host", "no-address")]
        self.engine.put("many.bsmtp", harness.bsmtp([("news@sender.test", [each], CONTENT) for each in to]))
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        records = self.engine.log()
        self.assertEqual(sorted(harness.address_of(r) for r in records), sorted(to))
        self.assertEqual({(r["type"], harness.enhanced(r)) for r in records}, {("Bounce", "5.4.4")})
        self.assert_nobody_got_it()

    def test_dns_failures_wait(self):
        # Knot says SERVFAIL for a zone it cannot load and REFUSED for what is not its own.
        self.expect_waiting("broken", "elsewhere.example", "mx-servfail.test")

    def test_dead_hosts_wait(self):
        self.expect_waiting("all-dead.test")

    def test_cname_loop_ends(self):
        _, records = self.send("loop.test")
        self.assertIn(records["loop.test"]["type"], ("Bounce", "TransientFailure"))

    def test_dead_dns_server_waits(self):
        self.knot.process.end()
        self.engine.put("a.eml", harness.eml("news@sender.test", ["reader@postfix.test"], CONTENT))
        code, output = self.engine.run()
        self.assertEqual(code, 75, output)
        self.assertEqual(len(self.engine.files_left()), 1)
        self.assertEqual([r for r in self.engine.log() if r["type"] in ("Delivery", "Bounce")], [])

    def test_loopback_is_refused_by_default(self):
        """Without `prohibited_hosts = []` a zone cannot make the engine talk to its own machine."""
        self.engine.write_config([f"{self.knot.address}:{self.knot.port}"], retry_after=("1h",), prohibited=None)
        _, records = self.send("postfix.test", "six-only.test")
        for record in records.values():
            self.assertNotEqual(record["type"], "Delivery")
        self.assert_nobody_got_it()
