"""A configuration that is wrong is refused before anything is touched: exit 2, with file, line and key."""

import json
import os
import re
import subprocess

import harness

VALID = """[server]
hostname = "sender.test"
spool = "{spool}"
log = "{log}"
shards = 1

[dns]
servers = ["127.0.0.1:1"]

[retry]
retry_after = ["1s"]
"""


class ConfigTest(harness.Case):
    def setUp(self):
        super().setUp()
        self.config = self.folder / "postrider.toml"
        self.spool = self.folder / "spool"

    def text(self):
        return VALID.format(spool=self.spool, log=self.folder / "delivery.jsonl")

    def run_with(self, text, *arguments):
        if text is not None:
            self.config.write_text(text)
        return subprocess.run([harness.PROGRAM, "run", "--config", self.config, "--until-empty", *arguments],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)

    def assert_refused(self, line, *words, old, new):
        """`old` of the valid text replaced by `new`: the error names file, line and the words."""
        text = self.text()
        self.assertIn(old, text)
        done = self.run_with(text.replace(old, new, 1))
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 2, output)
        self.assertIn(f"{self.config}:{line}:", output)
        for word in words:
            self.assertIn(word, output)
        self.assertFalse((self.spool / "journal").exists(), "the spool was touched")

    def test_no_configuration_says_where_it_was_looked_for(self):
        if os.path.exists("/etc/postrider/postrider.toml"):
            self.skipTest("this machine has one")
        for command in ("run", "check", "status"):
            done = subprocess.run([os.path.abspath(harness.PROGRAM), command], capture_output=True, text=True, cwd=self.folder,
                                  stdin=subprocess.DEVNULL, timeout=30)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
            for word in ("./postrider.toml", "/etc/postrider/postrider.toml", "--config FILE"):
                self.assertIn(word, done.stderr)

    def test_help(self):
        """Of every command: an example and the exit codes; the same by `help COMMAND`."""
        def told(*arguments):
            return subprocess.run([harness.PROGRAM, *arguments], capture_output=True, text=True, timeout=30)
        commands = re.findall(r"^  (\w+) ", told("--help").stdout, re.MULTILINE)
        self.assertGreater(len(commands), 10)
        for command in commands:
            done = told(command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("Example", done.stdout)
            self.assertIn("\nExit codes: 0 ", done.stdout, command)
            self.assertEqual(told("help", command).stdout, done.stdout)
        self.assertIn("--version", told("--help").stdout)
        self.assertEqual(told("help", "nonsense").returncode, 2)

    def test_valid(self):
        done = self.run_with(self.text())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_unknown_key_names_the_nearest(self):
        self.assert_refused(2, "hostnam", "hostname", old="hostname", new="hostnam")

    def test_wrong_type(self):
        self.assert_refused(5, "shards", old="shards = 1", new='shards = "many"')

    def test_bad_duration(self):
        self.assert_refused(11, "retry_after", old='["1s"]', new='["1 fortnight"]')

    def test_bad_address(self):
        self.assert_refused(8, "servers", old='"127.0.0.1:1"', new='"127.0.0.300"')

    def test_toml_syntax(self):
        self.assert_refused(2, old='"sender.test"', new='"sender.test')

    def test_all_problems_at_once(self):
        text = self.text().replace("shards = 1", "shardz = 1").replace('["1s"]', '["soon"]')
        done = self.run_with(text)
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 2, output)
        self.assertIn("shardz", output)
        self.assertIn("soon", output)

    def test_missing_file(self):
        done = self.run_with(None)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertIn(str(self.config), done.stdout + done.stderr)

    def test_unknown_option_and_command(self):
        self.assertEqual(self.run_with(self.text(), "--no-such-option").returncode, 2)
        done = subprocess.run([harness.PROGRAM, "deliver"], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)

    def test_help_has_an_example(self):
        for command in ([], *([name] for name in ("run", "check", "send", "status", "top", "queue", "shape", "explain", "why", "trace",
                                             "reload", "sink", "gen"))):
            with self.subTest(command):
                done = subprocess.run([harness.PROGRAM, *command, "--help"], capture_output=True, text=True, timeout=30)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, "Examples?:|COMMAND --help")

    def test_check_tells_a_source_that_is_not_here(self):
        self.config.write_text(self.text() + "".join(
            f'[[source]]\nname = "{name}"\naddress = "{address}"\nhostname = "s.test"\n'
            for name, address in (("here", "127.0.0.1"), ("away", "192.0.2.10"))))
        done = subprocess.run([harness.PROGRAM, "check", "--config", self.config], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("[[source]] away: 192.0.2.10 is no address of this machine", done.stderr)
        self.assertNotIn("here:", done.stderr)

    def test_check_as_json(self):
        """Errors and warnings with their places; the exit code is that of the text."""
        shaping = self.folder / "shaping.toml"
        shaping.write_text('[provider."p"]\nprovider_connection_limit = 5\n')
        for wrong, code in (("", 0), ('retry_aftre = ["1s"]\n', 2)):
            self.config.write_text(self.text() + wrong + f'[shaping]\nfiles = ["{shaping}"]\n'
                                   '[[source]]\nname = "away"\naddress = "192.0.2.10"\nhostname = "s.test"\n')
            done = subprocess.run([harness.PROGRAM, "check", "--json", "--config", self.config], capture_output=True, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stderr), (code, ""), done.stdout)
            answer = json.loads(done.stdout)
            self.assertEqual((answer["file"], answer["ok"]), (str(self.config), code == 0))
            if code:
                (error,) = [p for p in answer["problems"] if p["severity"] == "error"]
                self.assertEqual((error["file"], error["line"]), (str(self.config), self.text().count("\n") + 1))
                self.assertIn("retry_after", error["text"], "the nearest name")
            else:
                self.assertEqual({p["severity"] for p in answer["problems"]}, {"warning"})
                self.assertTrue(any(p["line"] is None and "192.0.2.10" in p["text"] for p in answer["problems"]))
                self.assertTrue(any(p["file"] == str(shaping) and p["line"] == 1 for p in answer["problems"]), answer)

    def test_spool_that_cannot_be_made(self):
        done = self.run_with(self.text().replace(str(self.spool), "/proc/no/spool"))
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, output)
        self.assertIn("/proc/no/spool", output)
