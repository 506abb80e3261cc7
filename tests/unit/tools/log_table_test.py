#!/usr/bin/env python3
"""tools/log-table: what it counts where, and what is no delivery log. Usage: log_table_test.py PROGRAM"""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1)


def record(kind, number, host=None, **fields):
    return {"type": kind, "id": str(number), "recipient": f"r{number}@a.test", "queue": "a.test", "timestamp": 1,
            "peer_address": {"name": host, "addr": "192.0.2.1"} if host else None, **fields}


class LogTable(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def table(self, log, *options):
        return subprocess.run([sys.executable, PROGRAM, log, *options], capture_output=True, text=True, timeout=30)

    def log_of(self, *records):
        log = self.folder / "delivery.jsonl"
        log.write_text("".join(json.dumps(each) + "\n" for each in records))
        return log

    def test_only_bounces_are_counted_as_bounced(self):
        kinds = ("Delivery", "Bounce", "Expiration", "AdminBounce", "AdminBounce", "Rejection")
        done = self.table(self.log_of(*(record(kind, number) for number, kind in enumerate(kinds))))
        head, *_, total = (line.split() for line in done.stdout.splitlines())
        told = dict(zip(head[1:], total[1:]))
        self.assertEqual({name: told[name] for name in ("delivered", "bounced", "expired", "cancelled", "rejected")},
                         {"delivered": "1", "bounced": "1", "expired": "1", "cancelled": "2", "rejected": "1"})
        done = self.table(self.log_of(record("Delivery", 1)))
        self.assertNotIn("cancelled", done.stdout)

    def test_an_address_is_its_own_provider(self):
        log = self.log_of(record("Delivery", 1, "mx1.l.google.com"), record("Delivery", 2, "192.0.2.77"),
                          record("Bounce", 3, queue="[192.0.2.1]"), record("Bounce", 4, queue="[ipv6:2001:db8::1]"))
        rows = json.loads(self.table(log, "--json").stdout)["rows"]
        self.assertEqual([row["name"] for row in rows], ["google.com", "192.0.2.77", "[192.0.2.1]", "[ipv6:2001:db8::1]"])

    def test_what_is_no_delivery_log_is_an_error(self):
        packed = self.folder / "delivery.jsonl.gz"
        packed.write_bytes(gzip.compress(self.log_of(record("Delivery", 1)).read_bytes()))
        for log, told in ((packed, "zcat"), (self.folder / "none", "No such file"), (self.folder, "Is a directory")):
            done = self.table(log)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertTrue(done.stderr.startswith(f"log-table: {log}: ") and done.stderr.count("\n") == 1, done.stderr)
            self.assertIn(told, done.stderr)
        torn = self.log_of(record("Delivery", 1))
        torn.write_text(torn.read_text() + '{"type":"Deli')
        self.assertEqual(self.table(torn).returncode, 0)


if __name__ == "__main__":
    unittest.main()
