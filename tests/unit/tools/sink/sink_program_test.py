#!/usr/bin/env python3
"""The command line of the sink: what it prints, what it leaves, how it ends. Usage: sink_program_test.py PROGRAM"""
import json
import os
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = sys.argv.pop(1)


class SinkProgram(unittest.TestCase):
    def start(self, *options):
        process = subprocess.Popen([PROGRAM, *options], stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stdout.close()))
        return process

    def deliver(self, address, number):
        host, port = address.rsplit(":", 1)
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            client.sendmail("a@b.test", ["c@d.test"], f"X-Seq: {number}\r\nX-Canary: 0\r\n\r\n.x\r\n")

    def test_says_where_it_listens_and_sums_up_at_the_end(self):
        with tempfile.TemporaryDirectory() as folder:
            ready = os.path.join(folder, "ready.json")
            process = self.start("--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0",
                                 "--ready-file", ready, "--summary")
            lines = [process.stdout.readline().split() for _ in range(3)]
            self.assertEqual([line[0] for line in lines], ["smtp", "smtp", "dns"])
            while not os.path.exists(ready):
                time.sleep(0.01)
            with open(ready) as file:
                told = json.load(file)
            self.assertEqual(told, {"smtp": [lines[0][1], lines[1][1]], "dns": lines[2][1], "pid": process.pid})
            self.deliver(told["smtp"][0], 1)
            self.deliver(told["smtp"][1], 1)
            process.send_signal(signal.SIGTERM)
            summary = json.loads(process.stdout.readline())
            self.assertEqual(process.wait(10), 0)
            self.assertEqual((summary["messages"], summary["distinct"], summary["duplicates"]), (2, 1, 1))

    def test_ends_when_the_expected_has_come(self):
        process = self.start("--listen", "127.0.0.1:0", "--expect", "2")
        address = process.stdout.readline().split()[1]
        for number in (1, 1, 2):
            self.assertIsNone(process.poll())
            self.deliver(address, number)
        self.assertEqual(process.wait(10), 0)

    def test_missing_deliveries_and_wrong_canaries_fail(self):
        process = self.start("--listen", "127.0.0.1:0", "--expect", "2")
        self.deliver(process.stdout.readline().split()[1], 1)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(10), 1)
        process = self.start("--listen", "127.0.0.1:0", "--check-canary")
        self.deliver(process.stdout.readline().split()[1], 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), 1)

    def test_usage_errors_are_2(self):
        for options in (["--frobnicate"], ["--rule", "rcpt=*"], ["--latency", "5"], ["--listen", "x"], ["--cert", "x"],
                        ["--sites", "2"], ["--dns-map", "x"], ["--rule", "rcpt=* reply=abc"]):
            self.assertEqual(subprocess.run([PROGRAM, *options], stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL).returncode, 2, options)
        self.assertEqual(subprocess.run([PROGRAM, "--help"], stdout=subprocess.DEVNULL).returncode, 0)


if __name__ == "__main__":
    unittest.main()
