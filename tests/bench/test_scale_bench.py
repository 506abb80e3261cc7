#!/usr/bin/python3
"""bench/scale with a few thousand recipients of each form, and with a few connections: every step ends with right counts
and tells its figures. What the figures are is no matter here: a queue of that size says nothing."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BENCH_BUILD", ROOT / "build"))
RECIPIENTS = 3000
OF_QUEUE = {"resident, empty engine", "rate", "for each recipient, beyond the base", "tried before the kill; journals",
            "first delivery", "all known again", "peak resident"}


class ScaleTest(unittest.TestCase):
    def figures(self, *arguments):
        with tempfile.TemporaryDirectory(prefix="postrider-scale-test-") as folder:
            lines = pathlib.Path(folder) / "lines.jsonl"
            done = subprocess.run([sys.executable, ROOT / "bench" / "scale", "--build", BUILD, "--folder", folder, "--timeout", "60",
                                   "--json", lines, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            left = [p.name for p in pathlib.Path(folder).iterdir() if p != lines]
            self.assertEqual(left, [], "it cleans up")
            return {f["figure"]: f["value"] for f in json.loads(lines.read_text())["figures"]}

    def test_a_backlog_of_each_form(self):
        for form in ("eml", "batch", "files"):
            with self.subTest(form):
                figures = self.figures("--recipients", str(RECIPIENTS), "--form", form, "--domains", "50", "--sites", "5")
                self.assertEqual(OF_QUEUE - figures.keys(), set())
                self.assertGreaterEqual(figures["tried before the kill; journals"], RECIPIENTS // 2)

    def test_connections(self):
        figures = self.figures("--recipients", "0", "--connections", "4", "--each", "10")
        self.assertGreaterEqual(figures["busy connections"], 1)


if __name__ == "__main__":
    unittest.main()
