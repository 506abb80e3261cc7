"""Sources and pools of them: mail goes out from where x-pool says, in proportion to the weights, and one pool's trouble is its own."""

import collections
import json
import signal
import subprocess
import time

import contents
import harness
import receivers
import shaping_log

CONTENT = contents.text("pools", b"text\r\n")


class PoolsTest(harness.Case):
    def start_sink(self, *options):
        self.sink = receivers.Sink(self, 1, *options, store=False)

    def make_engine(self, names, pools="", **settings):
        sources = "".join(f'\n[[source]]\nname = "{name}"\naddress = "{self.network.address(20 + i)}"\nhostname = "{name}.test"\n'
                          for i, name in enumerate(names))
        self.engine = harness.Engine(self, self.sink.dns_port, more=sources + pools, **settings)
        self.addresses = {name: self.network.address(20 + i) for i, name in enumerate(names)}

    def put(self, name, count, field="", domains=1):
        self.engine.put(f"{name}.bsmtp", "".join(
            f"MAIL FROM:<news@sender.test>\nRCPT TO:<{name}{n}@d{n % domains}.test>\nDATA\n{field}Subject: {n}\n\ntext\n.\n"
            for n in range(count)).encode())

    def sent_from(self, prefix):
        """How many deliveries to recipients of that name each source made; their addresses must be its own."""
        counts = collections.Counter()
        for record in self.engine.log():
            if record["type"] != "Delivery" or not record["recipient"].startswith(prefix):
                continue
            counts[record["egress_source"]] += 1
            self.assertEqual(record["source_address"]["address"].rsplit(":", 1)[0], self.addresses[record["egress_source"]])
        return counts

    def deliver(self, code=0):
        got, output = self.engine.run()
        self.assertEqual(got, code, output)

    def command(self, *arguments):
        done = subprocess.run([harness.PROGRAM, *arguments, "--config", self.engine.config], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_mail_goes_out_from_its_pool(self):
        self.start_sink()
        self.make_engine(["ip-1", "ip-2", "ip-3"], '\n[[pool]]\nname = "news"\nsources = ["ip-1", {name = "ip-2"}]\n')
        for name, field in (("news", "x-pool: news\n"), ("vmta", "x-virtual-mta: news\n"), ("single", "x-pool: ip-3\n"),
                            ("none", ""), ("default", "x-pool: default\n")):
            self.put(name, 200, field, domains=3)
        self.deliver()
        for name, sources in (("news", {"ip-1", "ip-2"}), ("vmta", {"ip-1", "ip-2"}), ("single", {"ip-3"}),
                              ("none", {"ip-1", "ip-2", "ip-3"}), ("default", {"ip-1", "ip-2", "ip-3"})):
            counts = self.sent_from(name)
            self.assertEqual(counts.total(), 200, name)
            self.assertEqual(set(counts), sources, name)
        pools = {r["egress_pool"] for r in self.engine.log() if r["recipient"].startswith("single")}
        self.assertEqual(pools, {"ip-3"})
        self.sink.process.end()
        self.assertEqual(len(set(self.sink.accepted())), 1000)

    def check_weights(self, shaping, messages, options=()):
        self.start_sink(*options)
        self.make_engine(["ip-1", "ip-2"], '\n[[pool]]\nname = "default"\nsources = ["ip-1", {name = "ip-2", weight = 3}]\n',
                         shaping=shaping, shards=1)
        self.put("all", messages, domains=3)
        self.deliver()
        counts = self.sent_from("all")
        self.assertEqual(counts.total(), messages)
        share = counts["ip-2"] / messages
        self.assertTrue(0.70 <= share <= 0.80, f"three parts of four go out from ip-2: {counts}")

    def test_weights_with_one_connection_each(self):
        self.check_weights('["default"]\nconnection_limit = 1\n', 3_000, ("--latency", "2ms"))

    def test_weights_with_many_connections(self):
        self.check_weights("", 3_000, ("--latency", "5ms"))

    def test_weights_with_short_connections(self):
        self.check_weights('["default"]\nmax_deliveries_per_connection = 3\n', 1_000)

    def test_weights_at_a_rate_that_all_sources_share(self):
        self.check_weights('["default"]\nsite_max_message_rate = "300/s"\n', 2_000, ("--sites", "1", "--latency", "2ms"))

    def test_a_source_at_its_limit_leaves_the_others_their_pace(self):
        self.start_sink()
        self.make_engine(["ip-1", "ip-2"], shaping='["default".sources."ip-1"]\nmax_message_rate = "20/s"\n')
        self.put("all", 4_000)
        self.deliver()  # within the minute: ip-1 would need more for its half
        counts = self.sent_from("all")
        self.assertEqual(counts.total(), 4_000)
        self.assertGreater(counts["ip-2"], 3_000, counts)

    def check_slow_rates(self, idle_timeout):
        """A source that waits for its own rate holds no other up, whether its connection rests or has ended meanwhile."""
        self.start_sink()
        names = ["ip-1", "ip-2", "ip-3", "ip-4"]
        self.make_engine(names, shaping=f'["default"]\nmax_message_rate = "1/s"\nidle_timeout = "{idle_timeout}"\n', shards=1)
        self.put("slow", 100)
        process = self.engine.start()
        self.eventually(lambda: self.engine.log(), "mail flows")
        time.sleep(6)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        counts = self.sent_from("slow")
        for name in names:
            self.assertTrue(5 <= counts[name] <= 9, f"7 are allowed, and those of a busy machine's second: {counts}")

    def test_slow_rates_are_used_with_connections_at_rest(self):
        self.check_slow_rates("1m")

    def test_slow_rates_are_used_with_connections_that_end(self):
        self.check_slow_rates("900ms")

    def test_a_source_that_is_refused_leaves_its_mail_to_the_others(self):
        self.start_sink("--rule", 'ehlo=blocked.test reply="554 5.7.1 your address is blocked"')
        self.make_engine(["blocked", "fine"], '\n[[pool]]\nname = "both"\nsources = ["blocked", "fine"]\n', retry_after=("1h",))
        self.put("both", 300, "x-pool: both\n", domains=3)
        self.put("one", 5, "x-pool: blocked\n")
        self.deliver(75)
        self.assertEqual(self.sent_from("both"), {"fine": 300})
        self.assertEqual(self.sent_from("one").total(), 0, "what is for the blocked one alone waits")
        told = [r for r in self.engine.log() if r["type"] != "Delivery"]
        self.assertTrue(all(r["recipient"].startswith("one") for r in told), told)
        self.assertEqual({r["response"]["code"] for r in told}, {554})
        self.assertTrue(all(r["source_address"] and r["session_id"] for r in told), "a session that was refused was one")

    def test_what_is_greylisted_comes_again_from_the_same_source(self):
        """RFC 6647: the receiver remembers the address; from another one the wait begins anew."""
        self.start_sink("--rule", 'rcpt=grey*@* reply="450 4.2.0 Greylisted, come again" times=1 per=address',
                        "--rule", 'rcpt=busy*@* reply="450 4.2.1 busy" times=1 per=address')
        self.make_engine(["ip-1", "ip-2", "ip-3"])
        for name in ("grey", "busy"):
            self.put(name, 90)
        got, output = self.engine.run("30s")
        self.assertEqual(got, 0, output)
        same = {"grey": 0, "busy": 0}
        for name in same:
            for n in range(90):
                first, second = self.engine.records(f"{name}{n}@d0.test")
                self.assertEqual((first["type"], second["type"]), ("TransientFailure", "Delivery"))
                same[name] += first["egress_source"] == second["egress_source"]
        self.assertEqual(same["grey"], 90)
        self.assertLess(same["busy"], 90, "others go out from whichever source has its turn")

    def test_a_pool_that_is_not_there_holds_its_own_mail(self):
        self.start_sink()
        self.make_engine(["ip-1"])
        self.put("wrong", 3, "x-pool: newz\n")
        self.put("right", 3)
        process = self.engine.start()
        self.eventually(lambda: len(self.engine.log()) == 4, "three are delivered, one tells of the pool")
        self.assertEqual(self.sent_from("right"), {"ip-1": 3})
        [told] = [r for r in self.engine.log() if r["type"] != "Delivery"]
        self.assertEqual((told["type"], told["egress_pool"], told["num_attempts"]), ("TransientFailure", "newz", 0))
        self.assertIn("newz", told["response"]["content"])
        self.assertIn("d0.test from pool newz", self.command("queue", "list"))
        self.assertIn("newz", self.command("why", "d0.test"))
        [parked] = json.loads(self.command("status", "--json"))["parked"]
        self.assertEqual((parked["domain"], parked["pool"]), ("d0.test", "newz"))
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        self.make_engine(["ip-1"], '\n[[pool]]\nname = "newz"\nsources = ["ip-1"]\n')
        self.deliver()
        self.assertEqual(self.sent_from("wrong"), {"ip-1": 3})

    def test_a_pool_without_mail_keeps_nothing_of_the_limits(self):
        self.start_sink("--latency", "20ms")
        self.make_engine(["ip-1"], shaping='["default"]\nconnection_limit = 8\n', shards=1)
        self.put("early", 3, "x-pool: ip-1\n")
        process = self.engine.start()
        self.eventually(lambda: len(self.engine.log()) == 3, "the first pool's mail is delivered")
        self.eventually(lambda: [e["event"] for e in self.sink.events()].count("close") > 0, "its connection has gone", 40)
        self.put("late", 2_000)
        self.eventually(lambda: len(self.engine.log()) == 2_003, "the other pool's mail is delivered", 40)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        self.sink.process.end()
        self.assertEqual(shaping_log.peak_connections(self.sink.events()), 8)

    def test_a_cancel_of_a_domain_concerns_all_its_pools(self):
        self.start_sink()
        self.make_engine(["ip-1", "ip-2"], shaping='["default"]\nmax_message_rate = "1/min"\n')
        for name in ("ip-1", "ip-2"):
            self.put(name, 50, f"x-pool: {name}\n")
        process = self.engine.start()
        self.eventually(lambda: len(self.engine.log()) >= 2, "both pools send")
        self.command("queue", "cancel", "--domain", "d0.test")
        self.eventually(lambda: len(self.engine.log()) == 100, "the rest dies")
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        self.assertEqual(collections.Counter(r["type"] for r in self.engine.log())["Delivery"], 2)
        self.assertEqual(self.engine.files_left(), [])


if __name__ == "__main__":
    harness.unittest.main()
