"""Power cuts (FAULTS 92). The engine works on an ext4 whose disk is a file on an xfs with reflink: a clone of that file, one
atomic step, is the disk as it is when the power goes. What was not synced is not in it.

Under load the disk is cloned at random instants. Each clone is mounted, the engine recovers from it and sends what it
finds to a second sink, and the ledger looks:
  * whatever the producer had synced before the cut is delivered or failed, by the log in the clone; nothing is lost;
  * what the log in the clone calls delivered was taken by one of the sinks;
  * a recipient whose result was in the clone's journal is not sent again: only what was not durable may be repeated
    (repeated: taken by the first sink before the cut, and by the second after it);
  * what had an intent and no result in the clone's journal is announced as a possible duplicate;
  * no result is durable without its line in the log.
Messages have one recipient each here, so that the id of a log line names the journal's record.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time

import harness
from journal_view import JournalView, mix64
from ledger import DELIVERED, Ledger, Lines
from producer import Feeder, Producer
from rig import Broken, Disk, Rig, Sink, command, drain, median_and_worst, now_us, sanity, seed_of

FICLONE = 0x40049409
BATCH = 20
SHAPING = '["default"]\nconnection_limit = 4\n'
GIB = 1 << 30


def arguments(parser):
    parser.add_argument("--images", type=int, default=200, help="power cuts (default 200)")
    parser.add_argument("--ahead", type=int, default=1500, help="recipients kept waiting in the spool (default 1500)")


def clone(source, target):
    with open(source, "rb") as old, open(target, "wb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())


def log_id(key):
    """The id in the delivery log of the message that a journal record speaks of (engine/core/hash.h)."""
    file, place, _ = key
    return f"{file:016x}{mix64(file, place):016x}"


class PowerCampaign:
    def __init__(self, rig, stack, options):
        self.rig = rig
        self.generator = seed_of(options)
        self.root = self.scratch(rig, stack)
        Disk(stack, self.root / "xfs.img", self.root / "xfs", ["mkfs.xfs", "-q", "-m", "reflink=1"], 6 * GIB)
        self.images = self.root / "xfs"
        self.disk = Disk(stack, self.images / "disk.img", self.root / "disk", ["mkfs.ext4", "-q"], GIB)
        self.sink = Sink(rig, "--latency", "2ms")
        (rig.folder / "second").mkdir()
        self.second = Sink(rig.beneath(rig.folder / "second"), number=2)
        self.second_lines = Lines(self.second.log_file)
        self.engine = harness.Engine(rig.beneath(self.disk.mount), self.sink.dns_port, shaping=SHAPING)
        self.ledger = Ledger(self.engine, self.sink)
        producer = Producer(self.engine.spool, self.ledger, self.generator, sync=True, most_recipients=1)
        self.feeder = Feeder(producer, self.sink.recipients, options.ahead)
        self.recovery_ms, self.resent, self.repeated, self.announced, self.safe, self.durable = [], [], [], [], [], []

    @staticmethod
    def scratch(rig, stack):
        """In memory where there is enough: thousands of syncs would keep a real disk busy."""
        memory = pathlib.Path("/dev/shm")
        if not memory.is_dir() or shutil.disk_usage(memory).free < 6 * GIB:
            return rig.folder
        folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-power-", dir=memory))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def cut(self, number):
        """One power cut: the clone, and what was safe and taken before it."""
        safe = set(self.ledger.safe)
        image = self.images / f"cut-{number}.img"
        cut_us = now_us()
        clone(self.disk.image, image)
        self.feeder.rest()
        try:
            with contextlib.ExitStack() as stack:
                disk = Disk(stack, image, self.root / "cut")
                self.check(disk.mount, safe, cut_us)
        finally:
            image.unlink()

    def second_run(self, folder):
        """The engine on the disk as the cut left it; returns what the second sink took."""
        engine = harness.Engine(self.rig.beneath(folder), self.second.dns_port)
        self.second_lines.start_anew(truncate=True)
        begun_us = now_us()
        output = drain(engine)
        if "damaged" in output:
            raise Broken(f"a power cut is no damage: {output[-1000:]}")
        time.sleep(0.15)  # the sink writes its log within 100 ms
        taken, mails = set(), []
        for event in self.second_lines.read():
            if event["event"] == "transaction" and event["recipients"]:
                mails.append(event["mail_us"])
                if event["accepted"]:
                    taken.update(event["recipients"])
        if mails:
            self.recovery_ms.append((min(mails) - begun_us) / 1000)
        if left := engine.files_left():
            raise Broken(f"everything is final, and the spool holds {left[:9]}")
        if bad := list((engine.spool / "bad").iterdir()):
            raise Broken(f"good files were refused: {[b.name for b in bad[:9]]}")
        return taken

    def check(self, folder, safe, cut_us):
        log_file = folder / "engine" / "delivery.jsonl"
        journal = JournalView(folder / "engine" / "spool" / "journal")
        flying = {log_id(key) for key in journal.read()}
        durable = {log_id(key) for key in journal.final}
        before = {record["id"] for record in Lines(log_file).read()}
        if missing := durable - before:
            raise Broken(f"{len(missing)} results are durable without their line in the log: {sorted(missing)[:5]}")
        again = self.second_run(folder)
        words, flagged, recipient_of = {}, set(), {}
        for record in Lines(log_file).read():
            recipient_of[record["id"]] = record["recipient"]
            if record["type"] != "TransientFailure":
                words[record["recipient"]] = record["type"]
            if record.get("possible_duplicate"):
                flagged.add(record["recipient"])
        self.ledger.read_sink()
        taken = self.ledger.taken.keys()
        if lost := safe - words.keys():
            raise Broken(f"{len(lost)} of {len(safe)} lost: durable before the cut, no last word: {sorted(lost)[:9]}")
        if lost := {r for r, word in words.items() if word == DELIVERED} - taken - again:
            raise Broken(f"{len(lost)} logged as delivered and never taken: {sorted(lost)[:9]}")
        settled = {recipient_of[i] for i in durable}
        if needless := settled & again:
            raise Broken(f"{len(needless)} sent again although the result was durable: {sorted(needless)[:9]}")
        repeated = {r for r in again if self.ledger.taken_us.get(r, cut_us) < cut_us}
        known = {recipient_of[i] for i in flying if i in recipient_of}
        if silent := (repeated & known) - flagged:
            raise Broken(f"{len(silent)} duplicates known from an intent are not announced: {sorted(silent)[:9]}")
        for numbers, value in ((self.resent, again), (self.repeated, repeated), (self.announced, repeated & flagged),
                               (self.safe, safe), (self.durable, durable)):
            numbers.append(len(value))

    def batch(self, first, count):
        engine = self.engine.start()
        for number in range(first, first + count):
            self.feeder.feed()
            time.sleep(self.generator.uniform(0.2, 1.0))
            sanity(engine)
            self.cut(number)
        engine.end(seconds=20)
        drain(self.engine)
        self.ledger.settle()
        command("sync", "-f", self.disk.mount)

    def run(self, images):
        self.feeder.start()
        for first in range(0, images, BATCH):
            self.batch(first, min(BATCH, images - first))
            print(f"  {len(self.safe)} power cuts: {sum(self.resent)} sent again, {sum(self.repeated)} of them repeated",
                  flush=True)
        self.feeder.stop()

    def report(self):
        print("  the engine that went on:")
        self.ledger.report()
        recovery, worst = median_and_worst(self.recovery_ms)
        print(f"  {len(self.safe)} power cuts; recipients durable before a cut: {sum(self.safe)}, lost 0; "
              f"results in the journals of the cut disks: {sum(self.durable)}")
        print(f"  sent after the cuts: {sum(self.resent)}; repeated, none of them with a durable result: "
              f"{sum(self.repeated)}, most at one cut {max(self.repeated)}; announced: {sum(self.announced)}")
        print(f"  exec to the first MAIL on the cut disk: median {recovery:.0f} ms, worst {worst:.0f} ms")


def run(options):
    with Rig("power") as rig, contextlib.ExitStack() as stack:
        stack.callback(harness.end_all)  # before the disks go
        campaign = PowerCampaign(rig, stack, options)
        stack.callback(harness.end_all)
        campaign.run(options.images)
        campaign.report()
        if not sum(campaign.durable):
            rig.fail("no journal of a cut disk had a result: the checks of results mean nothing")
        if not sum(campaign.resent):
            rig.fail("nothing was ever left to send: the cuts mean nothing")
