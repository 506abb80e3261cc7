"""Kill at every named point (engine/io/crash_points.h): before and after each write, sync, rename and unlink (FAULTS 3, 91).

Needs the build with crash points: `tools/build --crash-points`. Each kill comes at the first or a later hit of its point.
Before it, the spool holds what the point needs: mail, refused files, a journal with a torn tail, a small segment size.
After some kills the engine drains the spool and the ledger is settled, as in the campaign `kill`. A point that is never
reached breaks the campaign: it would show nothing.
"""

import os
import random
import signal
import subprocess
import time

import harness
from journal_view import SEAL, JournalView
from ledger import Ledger
from producer import Producer
from rig import Broken, Rig, Sink, Skipped, drain, environment, kill, seed_of

CRASH_PROGRAM = harness.ROOT / "build-crash" / "postrider"
SETTLE_EVERY = 12
LOADS = 5
SHAPING = '["default"]\nconnection_limit = 4\n'
SEGMENT = str(4 << 10)


def arguments(parser):
    parser.add_argument("--hits", type=int, default=20, help="kills at each point (default 20)")
    parser.add_argument("--only", help="points whose name holds this word")


def crash_program():
    program = os.environ.get("POSTRIDER_CRASH_BUILD", CRASH_PROGRAM)
    if not os.path.exists(program):
        raise Skipped(f"{program} is missing: run tools/build --crash-points")
    return program


def point_names(program):
    listed = subprocess.run([program, "run", "--list-crash-points"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


class PointsCampaign:
    def __init__(self, rig, options):
        self.generator = seed_of(options)
        self.rig, self.program = rig, crash_program()
        self.names = [n for n in point_names(self.program) if not options.only or options.only in n]
        self.sink = Sink(rig)
        self.engine = harness.Engine(rig, self.sink.dns_port, shaping=SHAPING)
        self.engine.program = [self.program]
        self.ledger = Ledger(self.engine, self.sink)
        self.producer = Producer(self.engine.spool, self.ledger, self.generator, per_file=20)
        self.journals = JournalView(self.engine.spool / "journal")
        self.kills, self.hits_of, self.refused, self.orphans = 0, {}, 0, 0

    # ---- what a point needs

    def feed(self, name):
        for _ in range(4):
            self.producer.put()
        if name.startswith("bad."):
            self.refused += 1
            self.engine.put(f"refused-{self.refused}.eml", b"\0 refused %d-0;\n" % self.refused)
            self.engine.put(f"half-{self.refused}.bsmtp", self.refused_messages())
        if name.startswith(("journal.rotate", "journal.compact", "journal.remove", "journal.segment")):
            self.producer.often = name == "journal.compact.merged"
            for _ in range(30):
                self.producer.put()
            self.producer.often = False
        if name.startswith("recovery."):
            self.leave_something()

    def refused_messages(self):
        """A batch of nothing else: their recipients are strangers to the ledger."""
        return b"".join(b"MAIL FROM:<a@sender.test>\nRCPT TO:<refused@d1.test>\nDATA\nSubject: refused %d-%d;\n\na\0b\n.\n"
                        % (self.refused, n) for n in (1, 2, 3))

    def leave_something(self):
        """An engine that was killed, and a tail that the power cut tore."""
        process = self.engine.start(environment=self.variables())
        seen = self.sink.recipients()
        end = time.monotonic() + 2
        while self.sink.recipients() < seen + 20 and time.monotonic() < end:
            time.sleep(0.005)
        kill(process)
        self.journals.read()
        # Behind a seal nothing is torn: what is there came later, and is damage.
        newest = max((self.engine.spool / "journal").glob("*.log"), key=lambda p: int(p.stem.split("-")[1]))
        if newest.read_bytes()[-16:][5:6] != bytes([SEAL]):
            with open(newest, "ab") as file:
                file.write(random.Random(self.kills).randbytes(37))

    def variables(self, **more):
        return environment(POSTRIDER_SEGMENT_BYTES=SEGMENT, **more)

    # ---- one kill

    def attempt(self, name, hit, patience):
        process = self.engine.start(environment=self.variables(POSTRIDER_CRASH_AT=f"{name}:{hit}"))
        end, seen = time.monotonic() + patience, self.sink.recipients()
        while process.alive() and time.monotonic() < end:
            time.sleep(0.01)
            if name == "log.reopened" and self.sink.recipients() > seen:  # it knows the signal by now
                process.signal(signal.SIGHUP)
        reached = not process.alive()
        if reached and process.child.returncode != -signal.SIGKILL:
            raise Broken(f"{name}:{hit}: ended with {process.child.returncode}: {process.text()[-2000:]}")
        kill(process)
        self.journals.read()
        self.ledger.after_crash()
        return reached

    def hit_point(self, name, first):
        """The first hit for certain; later ones as far as this run comes to them. Some work, as merging segments, is only
        there when files end in a lucky order: it gets several loads."""
        later = [] if first else [self.generator.choice((1, 2, 3, 5, 9, 20, 40))]
        for hit in later + [1] * LOADS:
            self.feed(name)
            if self.attempt(name, hit, 1.5 if hit > 1 else 6):
                self.kills += 1
                self.hits_of[name] = self.hits_of.get(name, 0) + 1
                return
        raise Broken(f"{name} was not reached")

    def send_point(self, name):
        """`postrider send` dies: its message is there whole, or not at all."""
        self.producer.files += 1
        key, recipients, header, body = self.producer.message()
        content = header + self.producer.bodies.plain[body]
        before = set((self.engine.spool / "new").rglob("*.eml"))
        digest = self.producer.content_hash(header, body)
        done = subprocess.run([self.program, "send", "--spool", self.engine.spool, "-f", "news@sender.test", *recipients],
                              capture_output=True, input=content, env=self.variables(POSTRIDER_CRASH_AT=f"{name}:1"))
        if done.returncode != -signal.SIGKILL:
            raise Broken(f"{name}: send ended with {done.returncode}: {done.stderr[-500:]}")
        arrived = set((self.engine.spool / "new").rglob("*.eml")) - before
        if bool(arrived) != (name in ("send.renamed", "send.done")):
            raise Broken(f"{name}: {len(arrived)} files in new/")
        if arrived:
            self.ledger.handed_over(arrived.pop().name, [(key, recipients, digest)])
        self.kills += 1
        self.hits_of[name] = self.hits_of.get(name, 0) + 1

    def settle(self):
        drain(self.engine, environment=self.variables())
        self.check_bad()
        self.ledger.settle(in_flight=len(self.journals.ever_in_flight))
        self.journals.clear()

    def check_bad(self):
        """Whatever was refused lies there with its reason; then it is cleared away. Its name may be lost with the record
        of its claim: it is known by what is in it."""
        bad = self.engine.spool / "bad"
        wanted = {b"refused %d-%d;" % (number, part) for number in range(1, self.refused + 1) for part in range(4)}
        found = set()
        for path in bad.iterdir():
            # A reason is written before its file comes: a kill between leaves it alone, and the next one gets a number.
            if path.suffix == ".reason" or path.name.startswith("."):
                self.orphans += not path.with_suffix("").exists()
                continue
            content = path.read_bytes()
            marks = {mark for mark in wanted if mark in content}
            if not marks or not path.with_name(path.name + ".reason").exists():
                raise Broken(f"bad/{path.name} is a stray, or has no reason: {content[:200]!r}")
            found |= marks
        if missing := wanted - found:
            raise Broken(f"refused, and not in bad/: {sorted(missing)}; there is {sorted(p.name for p in bad.iterdir())}")
        for path in bad.iterdir():
            path.unlink()
        self.refused = 0

    def run(self, hits):
        begun = time.monotonic()
        for turn in range(hits):
            for number, name in enumerate(self.names):
                if name.startswith("send."):
                    self.send_point(name)
                else:
                    self.hit_point(name, turn == 0)
                if number % SETTLE_EVERY == SETTLE_EVERY - 1:
                    self.settle()
            self.settle()
            print(f"  {self.kills} kills at {len(self.hits_of)} points in {time.monotonic() - begun:.0f} s", flush=True)


def run(options):
    with Rig("points") as rig:
        campaign = PointsCampaign(rig, options)
        campaign.run(options.hits)
        campaign.ledger.report()
        reached = [n for n in campaign.names if n in campaign.hits_of]
        print(f"  {campaign.kills} kills at {len(reached)} of {len(campaign.names)} points; never reached: "
              f"{', '.join(sorted(set(campaign.names) - set(reached))) or 'none'}")
        if not options.only and len(reached) < 40:
            rig.fail("less than 40 points")
