"""Limits, by the log of a receiver that knows nothing of them. tools/shaping-check is the long form."""

import contextlib
import json
import os
import signal
import subprocess
import time

import contents
import harness
import receivers
import shaping_log

CONTENT = contents.text("shaping", b"text\r\n")
# Who wakes late uses less of a rate than is allowed; tools/shaping-check asks for 95 % on a quiet machine.
BUSY_MACHINE = 0.3
# And what a busy disk holds up between the grant and the wire comes together at the receiver; there 50 ms are allowed.
STALL_S = 0.3
# domain: (key and value, messages or connections a second, burst)
RATES = {
    "d200.test": ('max_message_rate = "200/s"', 200, 20),
    "d60.test": ('max_message_rate = "60/s,max_burst=1"', 60, 1),
    "d7.test": ('max_message_rate = "7/s"', 7, 1),
    "d150.test": ('max_message_rate = "1000/s"\nsite_max_message_rate = "150/s"', 150, 15),
}
PROVIDER = 100
DATA = 200_000
RECIPIENTS = 100
SHAPING = "".join(f'["{domain}"]\n{keys}\n' for domain, (keys, _, _) in RATES.items()) + f"""
[provider."p"]
match = [{{MXSuffix = ".p.test"}}]
provider_max_message_rate = "{PROVIDER}/s"
["data.test"]
max_data_rate = "{DATA}/s"
["rcpt.test"]
max_message_rate = "{RECIPIENTS}/s"
message_rate_counts = "recipients"
"""


class ShapingTest(harness.Case):
    limit_s = 120

    def setUp(self):
        # The receiver's clock is the judge: where that is allowed, sink and engine do not wait for the rest of the machine.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        super().setUp()

    def put_many(self, engine, domain, messages, content=CONTENT, recipients=1):
        batch = [("news@sender.test", [f"r{n}-{i}@{domain}" for i in range(recipients)], content) for n in range(messages)]
        engine.put(f"{domain}.bsmtp", harness.bsmtp(batch))

    def ask(self, engine, *arguments):
        done = subprocess.run([harness.PROGRAM, *arguments, "--config", engine.config], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def let_run(self, engine, seconds):
        process = engine.start()
        self.eventually(lambda: len(engine.log()) > 50, "mail flows", 40)
        time.sleep(seconds)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())

    def check(self, name, marks, rate, burst, least=BUSY_MACHINE):
        self.assertLessEqual(shaping_log.excess(marks, rate, burst, (1, 10), STALL_S), 0, f"{name}: more than {rate}/s")
        share = shaping_log.used(marks, rate)
        print(f"{name}: {len(marks)} marks, {share:.1%} of {rate}/s used")
        self.assertGreaterEqual(share, least, name)

    def check_rates(self, shards):
        sink = receivers.Sink(self, 1, store=False)
        engine = harness.Engine(self, sink.dns_port, shaping=SHAPING, shards=shards)
        for domain, (_, rate, _) in RATES.items():
            self.put_many(engine, domain, rate * 10)
        for domain in ("a.p.test", "b.p.test"):
            self.put_many(engine, domain, PROVIDER * 8)
        self.put_many(engine, "data.test", 400, content=CONTENT + b"x" * 70 + b"\r\n" + (b"y" * 76 + b"\r\n") * 128)
        self.put_many(engine, "rcpt.test", 40, recipients=30)
        self.let_run(engine, 6)
        log = shaping_log.events(sink.log_file)
        for domain, (_, rate, burst) in RATES.items():
            self.check(domain, shaping_log.marks(shaping_log.transactions(log, domain)), rate, burst)
        both = shaping_log.transactions(log, suffix=".p.test")
        self.check("provider", shaping_log.marks(both), PROVIDER, PROVIDER // 10)
        shares = [len(shaping_log.transactions(log, d)) for d in ("a.p.test", "b.p.test")]
        self.assertGreater(min(shares), 0, f"no site of a provider starves: {shares}")
        data = shaping_log.transactions(log, "data.test")
        self.check("octets", shaping_log.marks(data, lambda t: t["size"]), DATA, DATA // 10 + 2 * data[0]["size"])
        rcpt = shaping_log.transactions(log, "rcpt.test")
        self.assertGreater(max(len(t["recipients"]) for t in rcpt), 1)
        self.check("recipients", shaping_log.marks(rcpt, lambda t: len(t["recipients"])), RECIPIENTS, RECIPIENTS // 10)

    def test_rates_hold_and_are_used_with_one_shard(self):
        self.check_rates(1)

    def test_rates_hold_and_are_used_with_four_shards(self):
        self.check_rates(4)

    def test_urgent_mail_of_a_site_goes_first_whatever_its_domain(self):
        """x-priority: high is a strict class: receipts to many domains of a site do not wait behind its newsletters."""
        sink = receivers.Sink(self, 1, "--sites", "1", store=False)
        engine = harness.Engine(self, sink.dns_port, shaping='["default"]\nsite_max_message_rate = "200/s"\n')

        def put(name, count, domains, fields):
            engine.put(f"{name}.bsmtp", "".join(
                f"MAIL FROM:<news@sender.test>\nRCPT TO:<{name}{n}@d{n % domains}.test>\nDATA\n{fields}Subject: {n}\n\ntext\n.\n"
                for n in range(count)).encode())

        put("news", 20_000, 300, "")
        process = engine.start()
        self.eventually(lambda: len(engine.log()) > 200, "newsletters flow", 40)
        put("receipt", 400, 40, "x-priority: high\n")
        self.eventually(lambda: sum(r["recipient"].startswith("receipt") for r in engine.log()) == 400, "receipts arrive", 40)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())
        sink.process.end()  # it writes its log out
        order = [e["recipients"][0].startswith("receipt") for e in shaping_log.transactions(shaping_log.events(sink.log_file))]
        self.assertEqual(sum(order), 400)
        first, last = order.index(True), len(order) - 1 - order[::-1].index(True)
        newsletters = order[first:last].count(False)
        self.assertLess(newsletters, 40, "newsletters between the first receipt and the last")

    def check_connections(self, shards, shaping, limit):
        sink = receivers.Sink(self, 1, "--latency", "20ms", store=False)
        engine = harness.Engine(self, sink.dns_port, shaping=shaping, shards=shards)
        for domain in ("a.p.test", "b.p.test", "c.p.test"):
            self.put_many(engine, domain, 4_000)
        self.let_run(engine, 4)
        log = shaping_log.events(sink.log_file)
        self.assertLessEqual(shaping_log.peak_connections(log), limit)
        self.assertGreater(shaping_log.peak_connections(log), limit // 2, "and they are used")
        return log

    def test_a_provider_has_so_many_connections_in_all(self):
        self.check_connections(4, '[provider."p"]\nmatch = [{MXSuffix = ".p.test"}]\nprovider_connection_limit = 5\n'
                                  '["default"]\nmax_deliveries_per_connection = 20\n', 5)

    def test_why_names_what_binds(self):
        sink = receivers.Sink(self, 1, "--latency", "1s", store=False)
        blocks = {"a.p.test": "", "site.test": "site_connection_limit = 1", "path.test": "connection_limit = 1",
                  "openings.test": 'max_connection_rate = "2/min"\nmax_deliveries_per_connection = 1',
                  "message.test": 'max_message_rate = "2/min"'}
        engine = harness.Engine(self, sink.dns_port, shaping='[provider."p"]\nmatch = [{MXSuffix = ".p.test"}]\n'
                                'provider_connection_limit = 1\n' +
                                "".join(f'["{domain}"]\n{keys}\n' for domain, keys in blocks.items()))
        for domain in blocks:
            self.put_many(engine, domain, 20)
        process = engine.start()
        self.eventually(lambda: len({r["queue"] for r in engine.log()}) == len(blocks), "each domain has had one")
        for domain, limit in (("a.p.test", "provider_connection_limit of p"), ("site.test", "site_connection_limit"),
                              ("path.test", "connection_limit"), ("openings.test", "max_connection_rate"),
                              ("message.test", "max_message_rate")):
            [binding] = json.loads(self.ask(engine, "why", domain, "--json"))["binding"]
            self.assertEqual(binding["limit"], limit)
            if limit.endswith("rate"):
                self.assertTrue(20_000 < binding["next_in_ms"] <= 30_000, binding)
            else:
                self.assertEqual((binding["in_use"], binding["allowed"]), (1, 1))
        self.assertIn("provider_connection_limit of p of source unspecified, 1 of 1 in use", self.ask(engine, "why", "a.p.test"))
        process.child.kill()

    def test_a_provider_that_comes_counts_what_is_open(self):
        """Its limit holds for the connections that its sites had before a reload named it, and ends with it."""
        sink = receivers.Sink(self, 1, "--latency", "60ms", store=False)
        base, provider = '["default"]\nconnection_limit = 6\n', '[provider."p"]\nmatch = [{MXSuffix = ".p.test"}]\n'
        engine = harness.Engine(self, sink.dns_port, shaping=base)
        for domain in ("a.p.test", "b.p.test"):
            self.put_many(engine, domain, 4_000)

        def reload(shaping):
            (engine.folder / "shaping.toml").write_text(shaping)
            self.ask(engine, "reload")

        def connections():
            return json.loads(self.ask(engine, "status", "--json"))["connections"]["open"]

        process = engine.start()
        self.eventually(lambda: engine.log(), "mail flows")
        self.eventually(lambda: connections() == 12, "each site has its six", 60)
        reload(base + provider + "provider_connection_limit = 2\n")
        self.eventually(lambda: connections() == 2, "two of both sites", 10)
        delivered = len(engine.log())
        self.eventually(lambda: len(engine.log()) > delivered + 20, "the two go on", 10)
        self.assertLessEqual(connections(), 2)
        told = self.ask(engine, "explain", "a.p.test").splitlines()
        self.assertIn("2 in use", next(line for line in told if "provider_connection_limit" in line))
        reload(base)
        self.eventually(lambda: connections() == 12, "the files' again", 20)
        reload(base + provider + "provider_connection_limit = 3\n")
        self.eventually(lambda: connections() == 3, "three, as no slot was lost", 10)
        process.signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, process.text())

    def test_connections_are_opened_at_their_rate(self):
        log = self.check_connections(2, '["default"]\nconnection_limit = 2\nmax_deliveries_per_connection = 3\n'
                                        'max_connection_rate = "5/s"\n', 6)
        # Three domains, three sites: three paths.
        self.check("connections", shaping_log.openings(log), 3 * 5, 3 * 1)


if __name__ == "__main__":
    harness.unittest.main()
