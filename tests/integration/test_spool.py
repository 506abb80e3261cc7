"""Files that cannot be sent end in bad/ beside a reason, whatever they are, and the others go on (FAULTS 49, 97)."""

import os
import signal
import stat
import subprocess
import time

import contents
import harness
import receivers
import zone

CONTENT = contents.text("spool", b"text\r\n")


class SpoolTest(harness.Case):
    def setUp(self):
        super().setUp()
        self.aiosmtpd = receivers.Aiosmtpd(self, 3)
        here = self.aiosmtpd.address
        knot = receivers.Knot(self, zone.zone(here, here, here, [self.network.address(n) for n in range(100, 110)]))
        self.engine = harness.Engine(self, knot.port, dns_address=knot.address)
        self.new, self.bad = self.engine.spool / "new", self.engine.spool / "bad"

    def good(self, name, recipient):
        self.engine.put(name, harness.eml("news@sender.test", [recipient], CONTENT))

    def run_with_good_ones(self):
        """One good file sorts before all others and one after them; both must be delivered."""
        self.good("0-first.eml", "first@aiosmtpd.test")
        self.good("zz-last.eml", "last@aiosmtpd.test")
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        delivered = {r for e in self.aiosmtpd.envelopes() for r in e["recipients"]}
        self.assertLessEqual({"first@aiosmtpd.test", "last@aiosmtpd.test"}, delivered)
        self.assertEqual(self.engine.files_left(), [])
        return delivered

    def assert_bad(self, name, *words):
        reason = self.bad / f"{name}.reason"
        self.assertTrue(reason.exists(), f"{name}: no reason; bad/ holds {sorted(os.listdir(self.bad))}")
        text = reason.read_text()
        self.assertEqual(text.count("\n"), 1, f"the reason of {name} is one line: {text!r}")
        for word in words:
            self.assertIn(word, text.lower())
        self.assertTrue(os.path.lexists(self.bad / name), f"{name} itself lies in bad/")
        self.assertFalse(os.path.lexists(self.new / name))

    def test_contents_that_are_refused(self):
        envelope = b"x-sender: news@sender.test\nx-receiver: reader@aiosmtpd.test\n"
        refused = {
            "empty.eml": b"", "empty.bsmtp": b"", "envelope-only.eml": envelope,
            "no-recipient.eml": contents.text("x", b"text\r\n").replace(b"To: reader@example.test\r\n", b""),
            "nul.eml": envelope + b"Subject: x\n\na\0b\n", "bare-cr.eml": envelope + b"Subject: x\n\na\rb\n",
            "long-line.eml": envelope + b"Subject: x\n\n" + b"y" * 999 + b"\n",
            "cr-in-address.eml": b"x-sender: a@b.test\rBcc: c@d.test\nx-receiver: a@aiosmtpd.test\nSubject: x\n\ntext\n",
            "receiver-in-header.eml": envelope + b"Subject: x\nx-receiver: shown@aiosmtpd.test\n\ntext\n",
            "unfinished.bsmtp": b"MAIL FROM:<a@sender.test>\nRCPT TO:<reader@aiosmtpd.test>\nDATA\nSubject: x\n\ntext\n",
            "framing.bsmtp": b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<reader@aiosmtpd.test>\nDATA\r\nx\r\n.\r\n",
            "unknown-parameter.bsmtp": b"MAIL FROM:<a@sender.test> AUTH=<>\nRCPT TO:<reader@aiosmtpd.test>\nDATA\nx\n.\n",
            "letter.txt": envelope + b"Subject: x\n\ntext\n",
        }
        for name, content in refused.items():
            self.engine.put(name, content)
        delivered = self.run_with_good_ones()
        self.assertEqual(delivered, {"first@aiosmtpd.test", "last@aiosmtpd.test"})
        for name, content in refused.items():
            with self.subTest(name):
                self.assert_bad(name)
                self.assertEqual((self.bad / name).read_bytes(), content)

    def test_things_that_are_no_messages(self):
        secret = self.folder / "secret"
        secret.write_bytes(harness.eml("news@sender.test", ["leak@aiosmtpd.test"], CONTENT))
        (self.new / "link.eml").symlink_to(secret)
        (self.new / "dangling.eml").symlink_to(self.folder / "absent")
        os.link(secret, self.new / "hard.eml")
        os.mkfifo(self.new / "pipe.eml")
        (self.new / "folder.eml").mkdir()
        delivered = self.run_with_good_ones()
        self.assertEqual(delivered, {"first@aiosmtpd.test", "last@aiosmtpd.test"}, "a linked file was sent")
        for name in ("link.eml", "dangling.eml", "hard.eml", "pipe.eml"):
            with self.subTest(name):
                self.assert_bad(name)
        self.assertTrue(stat.S_ISFIFO((self.bad / "pipe.eml").lstat().st_mode))
        self.assertTrue(secret.exists(), "what a link points at is not touched")

    def test_things_made_while_the_engine_runs(self):
        secret = self.folder / "secret"
        secret.write_bytes(harness.eml("news@sender.test", ["leak@aiosmtpd.test"], CONTENT))
        process = self.engine.start()
        self.good("before.eml", "before@aiosmtpd.test")
        self.eventually(lambda: self.engine.records("before@aiosmtpd.test"), "the engine takes mail in")
        (self.new / "link.eml").symlink_to(secret)
        os.link(secret, self.new / "hard.eml")
        os.mkfifo(self.new / "pipe.eml")
        for name in ("link.eml", "hard.eml", "pipe.eml"):
            self.eventually(lambda: (self.bad / (name + ".reason")).exists(), f"{name} is refused at once", 10)
        self.assertTrue(process.alive())

    def test_unreadable(self):
        """Without root, as in production: what the engine may not read is set aside."""
        self.good("closed.eml", "closed@aiosmtpd.test")
        os.chmod(self.new / "closed.eml", 0)
        if os.getuid() == 0:
            self.engine.run_as(65534)
        delivered = self.run_with_good_ones()
        self.assertEqual(delivered, {"first@aiosmtpd.test", "last@aiosmtpd.test"})
        self.assert_bad("closed.eml")

    def test_odd_names(self):
        names = ["new\nline.eml", "umläut-日本.eml", "sp ace.eml", "x" * 251 + ".eml", "-rf.eml"]
        for number, name in enumerate(names):
            self.good(name, f"odd{number}@aiosmtpd.test")
        self.good(".hidden.eml", "hidden@aiosmtpd.test")
        delivered = self.run_with_good_ones()
        self.assertEqual(delivered, {"first@aiosmtpd.test", "last@aiosmtpd.test"} | {
            f"odd{n}@aiosmtpd.test" for n in range(len(names))})
        self.assertTrue((self.new / ".hidden.eml").exists(), "a dotfile belongs to its producer")

    def test_folders_one_level_below(self):
        (self.new / "producer-1").mkdir()
        os.rename(self.put_aside("a.eml", "below@aiosmtpd.test"), self.new / "producer-1" / "a.eml")
        self.assertIn("below@aiosmtpd.test", self.run_with_good_ones())

    def put_aside(self, name, recipient):
        path = self.engine.spool / "tmp" / name
        path.write_bytes(harness.eml("news@sender.test", [recipient], CONTENT))
        return path

    def test_bad_recipient_and_bad_message_of_a_batch_are_alone(self):
        """A bad address refuses only its recipient; refused content only its message."""
        batch = b"".join([
            b"MAIL FROM:<a@sender.test>\nRCPT TO:<good1@aiosmtpd.test>\nRCPT TO:<no at sign>\nDATA\n",
            contents.arrived(CONTENT), b".\n",
            b"MAIL FROM:<a@sender.test>\nRCPT TO:<never@aiosmtpd.test>\nDATA\nSubject: x\n\na\0b\n.\n",
            b"MAIL FROM:<a@sender.test>\nRCPT TO:<good2@aiosmtpd.test>\nDATA\n", contents.arrived(CONTENT), b".\n"])
        self.engine.put("batch.bsmtp", batch)
        delivered = self.run_with_good_ones()
        self.assertLessEqual({"good1@aiosmtpd.test", "good2@aiosmtpd.test"}, delivered)
        self.assertNotIn("never@aiosmtpd.test", delivered)
        self.assert_bad("batch.bsmtp.2.eml")
        types = [(r["type"], harness.enhanced(r)) for r in self.engine.log() if r["type"] not in ("Delivery",)]
        self.assertIn(("Bounce", "5.1.3"), types)
        self.assertIn("Rejection", [kind for kind, _ in types])

    def test_a_message_out_of_a_batch_comes_back_mended(self):
        line = b"y" * 999
        self.engine.put("b.bsmtp", b"MAIL FROM:<bounces@sender.test>\nRCPT TO:<real@aiosmtpd.test>\nDATA\nFrom: news@sender.test\n"
                                   b"To: list@aiosmtpd.test\nSubject: x\n\n" + line + b"\n..dot\n.\n")
        self.run_with_good_ones()
        self.assert_bad("b.bsmtp.1.eml", "in b.bsmtp")
        refused = self.bad / "b.bsmtp.1.eml"
        refused.write_bytes(refused.read_bytes().replace(line, b"short"))
        refused.rename(self.new / refused.name)
        code, output = self.engine.run()
        self.assertEqual(code, 0, output)
        sent = [e for e in self.aiosmtpd.envelopes() if "real@aiosmtpd.test" in e["recipients"]]
        self.assertEqual([(e["sender"], e["recipients"]) for e in sent], [("bounces@sender.test", ["real@aiosmtpd.test"])])
        self.assertNotIn("list@aiosmtpd.test", {r for e in self.aiosmtpd.envelopes() for r in e["recipients"]})
        self.assertEqual(self.engine.last("real@aiosmtpd.test")["response"]["command"], ".")

    def test_what_may_not_be_moved_is_left_and_told(self):
        if os.getuid() != 0:
            self.skipTest("another user's folder takes root")
        self.good("good.eml", "good@aiosmtpd.test")
        self.engine.run_as(65534)
        closed = self.new / "shop"
        closed.mkdir(mode=0o755)
        os.chmod(closed, 0o755)
        for n in range(20):
            (closed / f"{n}.eml").write_bytes(harness.eml("news@sender.test", ["late@aiosmtpd.test"], CONTENT))
        code, output = self.engine.run()
        self.assertEqual(code, 75, output)
        self.assertIn("new/shop/", output)
        self.assertEqual(output.count("Permission denied"), 2, "told once by each shard")
        self.assertEqual(len(list(closed.iterdir())), 20)
        process = self.engine.start()
        self.eventually(lambda: "new/shop/" in process.text(), "it is told")
        os.chown(closed, 65534, 65534)
        self.eventually(lambda: not list(closed.iterdir()), "taken without a restart", 12)
        self.eventually(lambda: len(self.engine.records("late@aiosmtpd.test")) == 20, "and delivered")

    def test_message_of_a_batch_without_recipient(self):
        self.engine.put("nobody.bsmtp", b"MAIL FROM:<a@sender.test>\nDATA\nSubject: x\n\ntext\n.\n")
        self.run_with_good_ones()
        self.assert_bad("nobody.bsmtp.1.eml")

    def test_nul_in_an_address(self):
        """Not sent, not lost from the books: the recipient is refused (5.1.3), or the file is set aside."""
        self.engine.put("nul.eml", b"x-sender: news@sender.test\nx-receiver: a\0b@aiosmtpd.test\nSubject: x\n\ntext\n")
        self.assertEqual(self.run_with_good_ones(), {"first@aiosmtpd.test", "last@aiosmtpd.test"})
        bounced = [r for r in self.engine.log() if r["type"] == "Bounce" and harness.enhanced(r) == "5.1.3"]
        self.assertTrue(bounced or (self.bad / "nul.eml.reason").exists(), self.engine.log())

    def test_name_taken_in_bad(self):
        for _ in range(2):
            self.engine.put("same.eml", b"")
            code, output = self.engine.run()
            self.assertEqual(code, 0, output)
            self.assertIn("; 1 file or message refused, see bad/ in the spool\n", output)
        reasons = [n for n in os.listdir(self.bad) if n.startswith("same.eml") and n.endswith(".reason")]
        self.assertEqual(len(reasons), 2, os.listdir(self.bad))


class RefusedRecipients(harness.Case):
    """A recipient who is refused has one Bounce line, whenever the engine is killed and however often it starts again."""

    def setUp(self):
        super().setUp()
        # The others wait: no name server answers.
        self.engine = harness.Engine(self, 9, retry_after=["10m"], shards=1, more='[journal]\ncommit = "2s"\n')
        self.refused = {"a.eml": "one@@aiosmtpd.test", "b.bsmtp": "two@@aiosmtpd.test"}

    def lines(self):
        return sorted(harness.address_of(r) for r in self.engine.log() if r["type"] == "Bounce")

    def kill(self, process):
        process.signal(signal.SIGKILL)
        process.wait(10)

    def test_they_are_told_once(self):
        process = self.engine.start()
        self.engine.put("c.eml", harness.eml("news@sender.test", ["good@aiosmtpd.test"], CONTENT))
        self.eventually(self.engine.log, "the first commit is over, and the next two seconds away")
        self.engine.put("a.eml", harness.eml("news@sender.test", ["good@aiosmtpd.test", "one@@aiosmtpd.test"], CONTENT))
        self.engine.put("b.bsmtp", b"MAIL FROM:<news@sender.test>\nRCPT TO:<good@aiosmtpd.test>\nRCPT TO:<two@@aiosmtpd.test>\n"
                                   b"DATA\nSubject: x\n\ntext\n.\n")
        journal = self.engine.spool / "journal"
        self.eventually(lambda: all(name in b"".join(p.read_bytes() for p in journal.iterdir()) for name in (b"a.eml", b"b.bsmtp")),
                        "both claims are written")
        self.assertEqual(self.lines(), [], "the commit is still to come")
        self.kill(process)
        for run in range(3):
            process = self.engine.start()
            self.eventually(lambda: len(self.lines()) >= 2, f"they are told in run {run}")
            time.sleep(2.5 if run == 0 else 0.5)  # a commit in the first
            self.kill(process)
            self.assertEqual(self.lines(), sorted(self.refused.values()))
        self.assertEqual({r["sender"] for r in self.engine.log() if r["type"] == "Bounce"}, {"news@sender.test"})


class Unwatched(harness.Case):
    """A kernel that gives no more inotify watches: the folders are listed instead."""

    def test_a_file_is_found_without_a_watch(self):
        limits = "/proc/sys/user/max_inotify_watches"
        wrap = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > {limits} && exec "$@"', "no-watches"]
        if subprocess.run([*wrap, "true"], capture_output=True, stdin=subprocess.DEVNULL).returncode != 0:
            self.skipTest("no user namespaces here")
        sink = receivers.Sink(self, 1)
        engine = harness.Engine(self, sink.dns_port, port=sink.port)
        engine.program = [*wrap, harness.PROGRAM]
        process = engine.start()
        self.eventually(lambda: "watch of" in process.text(), "it is told")
        engine.put("a.eml", harness.eml("news@sender.test", ["a@d1.test"], CONTENT))
        self.eventually(lambda: engine.log() and engine.files_left() == [], "it is delivered", 15)
        self.assertEqual(engine.last("a@d1.test")["type"], "Delivery")
        self.assertEqual(process.text().count("watch of"), 2, "told once by each shard")
