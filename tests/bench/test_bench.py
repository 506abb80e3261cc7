#!/usr/bin/python3
"""bench/run with a handful of messages: every workload and every sender that this machine can run delivers all of
them; and the arithmetic of its verdicts and tables."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BENCH_BUILD", ROOT / "build"))
RECEIVERS = pathlib.Path(os.environ.get("POSTRIDER_RECEIVERS", ROOT / "build" / "deps" / "receivers"))
PEERS = ("postfix", "exim", "opensmtpd")
sys.path.insert(0, str(ROOT / "bench"))
sys.dont_write_bytecode = True

from endtoend import report, targets, workloads  # noqa: E402


def run(*arguments):
    return subprocess.run([ROOT / "bench" / "run", "--build", BUILD, *arguments], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)


class SmokeTest(unittest.TestCase):
    def test_every_workload_once(self):
        with tempfile.TemporaryDirectory(prefix="postrider-bench-test-") as folder:
            lines, page = pathlib.Path(folder) / "lines.jsonl", pathlib.Path(folder) / "page.md"
            page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            done = run("--all", "--peers", "none", "--no-calls", "--runs", "1", "--messages", "100", "--json", lines, "--write-docs", page)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            results = [json.loads(line) for line in lines.read_text().splitlines()]
            written = page.read_text()
        for workload in workloads.WORKLOADS.values():
            ran = [r for r in results if r["workload"] == workload.name and r["case"] == "engine"]
            self.assertTrue(ran or f"{workload.name}, engine" in done.stdout, f"{workload.name} was left out silently")
        for result in results:
            self.assertTrue(result["ok"], result)
            self.assertGreater(result["cpu_us_msg"], 0)
            self.assertIn("commit", result)
        self.assertTrue(written.startswith("before\n") and written.endswith("\nafter\n"))
        self.assertNotIn("old", written)
        self.assertIn("| base | engine | 1 |", written)

    def test_every_peer_once(self):
        with tempfile.TemporaryDirectory(prefix="postrider-bench-test-") as folder:
            lines = pathlib.Path(folder) / "lines.jsonl"
            done = run("--only", "peers", "--peers", ",".join(PEERS), "--peer-messages", "20", "--runs", "1",
                       "--no-calls", "--receivers", RECEIVERS, "--json", lines)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            ran = [json.loads(line)["case"] for line in lines.read_text().splitlines()]
        for peer in PEERS:
            self.assertTrue(peer in ran or f"base, {peer}" in done.stdout, f"{peer} was left out silently")

    def test_an_unknown_workload_is_a_usage_error(self):
        done = run("--workload", "bsae")
        self.assertEqual(done.returncode, 2)
        self.assertIn("base", done.stderr)


def result(workload, case, cpu, ok=True, **more):
    return {"workload": workload, "case": case, "ok": ok, "cpu_us_msg": cpu, "msg_s": 1e6 / cpu, "user_us": 1,
            "sys_us": cpu - 1, "size": 10240, "maxrss_kb": 1024, **more}


class VerdictTest(unittest.TestCase):
    def words(self, *results):
        return [v.word for v in targets.verdicts(report.medians_of(results), {})]

    def test_medians_leave_failed_runs_out(self):
        runs = [result("base", "engine", cpu) for cpu in (9, 11, 10)] + [result("base", "engine", 1, ok=False)]
        self.assertEqual(report.medians_of(runs)["base", "engine"]["cpu_us_msg"], 10)

    def test_the_limit_is_its_best_dialogue(self):
        limits = [result("base", "limit-lock", 30), result("base", "limit-next", 10)]
        self.assertEqual(self.words(*limits, result("base", "engine", 16)), ["met", "reported"])
        self.assertEqual(self.words(*limits, result("base", "engine", 18)), ["least met, target missed by 12 %", "reported"])
        self.assertEqual(self.words(*limits, result("base", "engine", 24)), ["missed by 20 %", "reported"])

    def test_the_engine_stands_by_its_best_dialogue_too(self):
        limits = [result("base", "limit-next", 10), result("base", "limit-bdat-8", 8)]
        told = targets.verdicts(report.medians_of([*limits, result("base", "engine", 16), result("base", "engine-bdat-8", 12)]), {})
        self.assertEqual([(v.value, v.word) for v in told], [("1.50", "met"), ("1.60", "reported")])

    def test_one_file_each_stands_on_the_batch_and_the_files(self):
        base = result("base", "engine", 15)
        files = result("one-file", "files", 25)
        self.assertEqual(self.words(base, files, result("one-file", "engine", 50)), ["met"])
        self.assertEqual(self.words(base, files, result("one-file", "engine", 60)), ["missed by 20 %"])

    def test_a_peer_must_cost_fifty_times_as_much(self):
        base = result("base", "engine", 15)
        self.assertEqual(self.words(base, result("base", "postfix", 750)), ["met"])
        self.assertEqual(self.words(base, result("base", "postfix", 675)), ["missed by 10 %"])

    def test_a_distant_receiver_is_judged_by_its_steady_rate(self):
        self.assertEqual(self.words(result("rtt-50", "engine", 50, steady_msg_s=390)), ["met"])
        self.assertEqual(self.words(result("rtt-50", "engine", 50, steady_msg_s=190)), ["missed by 50 %"])

    def test_what_cannot_run_is_said(self):
        told = targets.verdicts({}, {("rtt-50-bdat", "engine"): "not available"})
        self.assertEqual([(v.what, v.word) for v in told], [("rtt-50-bdat, engine", "not available")])


if __name__ == "__main__":
    unittest.main(verbosity=2)
