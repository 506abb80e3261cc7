"""A hostile spool: over 200 cases of links, FIFOs, sockets, devices, names and races (FAULTS 51, 97; hostile.py is the
table). Every case ends in bad/ with a reason, ignored, or delivered whole. Nothing is followed, nothing blocks the
others, and the engine lives on.

The engine runs as another user when the campaign runs as root, so that what is closed to it is closed. The static cases
are made twice: before the engine starts and while it runs.
"""

import collections
import os
import signal
import time

import harness
from hostile import BAD, DELIVERED, GONE, IGNORED, Case, deep_folder, folder_with_mail, good, static_cases, two_names
from hostile_races import race_cases, replaced, replaced_by_a_link
from rig import Broken, Rig, Sink, drain, sanity, until

NOBODY = 65534
# Their producer puts more than one message under the name, or may be met twice.
SEVERAL_MESSAGES = (replaced, replaced_by_a_link, two_names)


def arguments(parser):
    parser.add_argument("--races", type=int, default=10, help="repetitions of each race (default 10)")


class SpoolCampaign:
    def __init__(self, rig):
        self.root = os.getuid() == 0
        self.sink = Sink(rig)
        self.engine = harness.Engine(rig, self.sink.dns_port)
        self.new, self.bad = self.engine.spool / "new", self.engine.spool / "bad"
        (self.new / "shop").mkdir()
        self.bad_names = []
        self.cases = []
        self.secret = self.engine.folder / "secret"
        self.secret.write_bytes(harness.eml("news@sender.test", ["leak@d1.test"], b"Subject: secret\r\n\r\nsecret\r\n"))
        self.secret.chmod(0o644)
        os.chmod(rig.folder, 0o755)
        if self.root:
            self.engine.run_as(NOBODY)

    def path(self, case):
        return os.path.join(os.fsencode(self.new), case.folder, case.name)

    def put(self, cases):
        for case in cases:
            case.number = len(self.cases) + 1
            self.cases.append(case)
            case.make(case, self.path(case))

    def collisions(self):
        """Names in bad/ that are taken: by files, a folder, a link, a reason without its file."""
        self.bad.mkdir(exist_ok=True)
        if self.root:
            os.chown(self.bad, NOBODY, NOBODY)
        (self.bad / "taken-by-a-folder.txt").mkdir()
        (self.bad / "taken-by-a-link.txt").symlink_to(self.secret)
        (self.bad / "taken-by-a-reason.txt.reason").write_text("another\n")
        (self.bad / "taken-by-a-dangling-link.txt.reason").symlink_to("/nowhere")
        for name in ("folder", "link", "reason", "dangling-link"):
            yield Case(f"bad/ has a {name}", f"taken-by-a-{name}.txt".encode(), good, (BAD,))

    def same_name_again(self, times):
        """The same wrong name, again and again: each is kept."""
        for _ in range(times):
            case = Case("the same wrong name", b"again.txt", good, (BAD,))
            self.put([case])
            until(lambda c=case: not os.path.lexists(self.path(c)), "a wrong name is taken away", 20)

    def canary(self, label):
        """Good mail put now arrives soon: nothing blocks it."""
        case = Case(f"canary {label}", f"canary-{label}.eml".encode(), good, (DELIVERED,))
        self.put([case])
        begun = time.monotonic()
        until(lambda: case.recipient in self.arrived(), f"good mail arrives {label}", 20)
        print(f"  good mail {label}: {1000 * (time.monotonic() - begun):.0f} ms", flush=True)

    def arrived(self):
        """recipient: [hash of each content that came]"""
        came = collections.defaultdict(list)
        for transaction in self.sink.transactions():
            for recipient in transaction["recipients"]:
                came[recipient].append(transaction["sha256"])
        return came

    # ---- what became of a case

    def reason_is_good(self, name):
        try:
            with open(os.path.join(os.fsencode(self.bad), name + b".reason"), "rb") as file:
                text = file.read()
        except OSError:
            return False
        return text.count(b"\n") == 1 and text.endswith(b"\n") and len(text) > 10

    def set_aside(self, case):
        """It lies in bad/, under its name or with a number behind, beside its reason; a folder's name is the inner one."""
        stem = (case.inner if case.make is deep_folder else case.name)[:231]
        names = [n for n in self.bad_names if n == stem or (n.startswith(stem + b".") and n[len(stem) + 1:].isdigit())]
        return any(self.reason_is_good(name) for name in names)

    def end_of(self, case, came):
        hashes = came.get(case.recipient, [])
        if hashes:
            if len(hashes) > 1 and case.make not in SEVERAL_MESSAGES:
                return "sent repeatedly"
            return DELIVERED if set(hashes) <= case.hashes else "a message that nobody wrote"
        if self.set_aside(case):
            return BAD
        return IGNORED if os.path.lexists(self.path(case)) else GONE

    def judge(self):
        came = self.arrived()
        self.bad_names = os.listdir(os.fsencode(self.bad))
        if "leak@d1.test" in came or "never@d1.test" in came:
            return ["a link was followed, or a file sent that was refused"]
        wrong, ends = [], collections.Counter()
        for case in self.cases:
            end = self.end_of(case, came)
            ends[end] += 1
            if end not in case.ends:
                wrong.append(f"{case.label} ({case.name[:40]!r}): {end} where {' or '.join(case.ends)} is right")
        print("  " + ", ".join(f"{count} {end}" for end, count in sorted(ends.items())))
        return wrong

    def waiting(self):
        """What the engine should have taken and has not."""
        return [f"still waits: {c.label} {c.name!r}" for c in self.cases
                if IGNORED not in c.ends and c.make not in (folder_with_mail, deep_folder) and os.path.lexists(self.path(c))]

    def stop(self, process):
        sanity(process)
        process.signal(signal.SIGTERM)
        if (code := process.wait(20)) != 0:
            raise Broken(f"the engine ended with {code}: {process.text()[-1000:]}")
        process.end()

    def run(self, races):
        self.put(static_cases(b"", self.root))
        self.put(self.collisions())
        process = self.engine.start()
        self.canary("beside what lay there")
        self.put(static_cases(b"2", self.root))
        self.same_name_again(10)
        self.canary("beside what came")
        self.put(race_cases(races))
        self.canary("after the races")
        end = time.monotonic() + 60
        while (left := self.waiting()) and process.alive() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
        self.stop(process)
        # A message whose file changed after the claim is tried again, never sent; the next start sets the file aside.
        drain(self.engine)
        return left + self.judge()


def run(options):
    with Rig("spool") as rig:
        campaign = SpoolCampaign(rig)
        wrong = campaign.run(options.races)
        print(f"  {len(campaign.cases)} cases, {len(wrong)} ended wrongly")
        if wrong:
            rig.fail("\n  ".join(["", *wrong]))
