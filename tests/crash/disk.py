"""Disks that fail (FAULTS 93, 94): a sync that fails once and then "succeeds", and a disk that is full, again and again.

sync    The engine's disk is an ext4 in a file on a tmpfs that has less room than the ext4 believes. When the tmpfs is
        full, writes go well and a sync fails, once; the next would report success for data that is gone. The engine must
        stop with exit code 4 and say why. After the space is back and the disk is mounted anew, a restart loses nothing.
full    The disk is filled to the last block under load and freed again, 20 times. The engine lives on, loses nothing,
        and is at full speed within 5 s after the space is back.

Root and loop devices are needed.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import harness
from ledger import Ledger
from producer import Feeder, Producer
from rig import Broken, Disk, Rig, Sink, Skipped, drain, sanity, seed_of, until

SHAPING = '["default"]\nconnection_limit = 4\n'
MIB = 1 << 20
FULL_SPEED, WITHIN_S = 0.7, 5


def arguments(parser):
    parser.add_argument("--fills", type=int, default=20, help="times that the disk is filled (default 20)")
    parser.add_argument("--syncs", type=int, default=5, help="runs that end in a failed sync (default 5)")


def memory_disk(stack, megabytes):
    if os.getuid() != 0:
        raise Skipped("mounts need root")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-disk-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"no tmpfs: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "-l", folder])
    return folder


def fill(path):
    """Takes every block that is left; returns the octets taken."""
    octets = bytes(MIB)
    with open(path, "ab", buffering=0) as file:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(octets[:size])
        return file.tell()


class DiskCampaign:
    def __init__(self, rig, generator, mount, sink):
        self.rig, self.generator, self.sink = rig, generator, sink
        self.engine = harness.Engine(rig.beneath(mount), sink.dns_port, shaping=SHAPING)
        self.ledger = Ledger(self.engine, sink)
        producer = Producer(self.engine.spool, self.ledger, generator, sync=True)
        self.feeder = Feeder(producer, sink.recipients, 3000, tolerant=True)
        self.feeder.start()

    # ---- a sync that fails

    def fail_a_sync(self, stack, under, image, mount):
        """One run until the engine stops; returns how long it took from the moment that the room was gone."""
        seen = self.sink.recipients()
        process = self.engine.start()
        self.feeder.feed()
        until(lambda: self.sink.recipients() > seen + 300 or not process.alive(), "mail flows", 30)
        sanity(process)
        ballast = under / "ballast"
        fill(ballast)
        begun = time.monotonic()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            raise Broken(f"its syncs fail, and the engine goes on: {process.text()[-2000:]}") from None
        took = time.monotonic() - begun
        text = process.text()
        process.end()
        self.feeder.rest()
        if code != 4 or "cannot be written, stopping" not in text:
            raise Broken(f"a failed sync must end in a loud exit 4, and it was {code}: {text[-2000:]}")
        print(f"  exit 4 after {took:.1f} s: {[line for line in text.splitlines() if 'stopping' in line][0][:150]}", flush=True)
        ballast.unlink()
        # What was in memory of the failed writes is gone with the mount, as after a power cut.
        stack.close()
        Disk(stack, image, mount).by_pages()
        self.engine.write_config([f"127.0.0.1:{self.sink.dns_port}"], shaping=SHAPING)  # nobody had synced it
        drain(self.engine)
        self.ledger.settle(only_safe=True)
        return took

    # ---- a disk that is full

    def rate(self, seconds):
        """Recipients a second that the sink takes."""
        begun, seen = time.monotonic(), self.sink.recipients()
        time.sleep(seconds)
        return (self.sink.recipients() - seen) / (time.monotonic() - begun)

    def back_at_speed(self, process, usual):
        begun = time.monotonic()
        best = 0
        while time.monotonic() - begun < 30:
            best = max(best, self.rate(0.5))
            sanity(process)
            if best >= FULL_SPEED * usual:
                return time.monotonic() - begun
        raise Broken(f"the space is back for 30 s, and of {usual:.0f} recipients/s come {best:.0f}: {process.text()[-1500:]}")

    def fill_and_free(self, process, ballast):
        usual = self.rate(1.0)
        taken = fill(ballast)
        time.sleep(self.generator.uniform(0.5, 2.5))
        for _ in range(3):  # what was freed meanwhile
            fill(ballast)
        sanity(process)
        ballast.unlink()
        took = self.back_at_speed(process, usual)
        print(f"  full ({taken // MIB} MiB taken), freed: at {FULL_SPEED:.0%} of {usual:.0f} recipients/s after {took:.1f} s",
              flush=True)
        return took

    def stop(self, process):
        self.feeder.rest()
        process.end(seconds=30)
        if process.child.returncode != 0:
            raise Broken(f"the engine ended with {process.child.returncode}: {process.text()[-2000:]}")
        drain(self.engine)
        self.ledger.settle(only_safe=True)


def run_syncs(options, generator):
    with Rig("disk-sync") as rig, contextlib.ExitStack() as outer:
        outer.callback(harness.end_all)
        under = memory_disk(outer, 300)
        sink = Sink(rig, "--latency", "2ms")
        inner = outer.enter_context(contextlib.ExitStack())
        image, mount = under / "disk.img", rig.folder / "mnt"
        Disk(inner, image, mount, ["mkfs.ext4", "-q"], 900 * MIB).by_pages()
        campaign = DiskCampaign(rig, generator, mount, sink)
        for _ in range(options.syncs):
            campaign.fail_a_sync(inner, under, image, mount)
        campaign.feeder.stop()
        print(f"  {options.syncs} failed syncs, each ended the engine with 4")
        campaign.ledger.report()


def run_fills(options, generator):
    with Rig("disk-full") as rig, contextlib.ExitStack() as stack:
        stack.callback(harness.end_all)
        under = memory_disk(stack, 1200)
        sink = Sink(rig, "--latency", "2ms")
        disk = Disk(stack, under / "disk.img", rig.folder / "mnt", ["mkfs.ext4", "-q"], 900 * MIB)
        stack.callback(harness.end_all)
        campaign = DiskCampaign(rig, generator, disk.mount, sink)
        process = campaign.engine.start()
        campaign.feeder.feed()
        until(lambda: sink.recipients() > 1000 or not process.alive(), "mail flows", 30)
        times = [campaign.fill_and_free(process, disk.mount / "ballast") for _ in range(options.fills)]
        campaign.stop(process)
        campaign.feeder.stop()
        print(f"  filled {options.fills} times; full speed again after at most {max(times):.1f} s")
        campaign.ledger.report()
        if max(times) > WITHIN_S:
            rig.fail(f"full speed only after {max(times):.1f} s")


def run(options):
    generator = seed_of(options)
    if options.syncs:
        run_syncs(options, generator)
    if options.fills:
        run_fills(options, generator)
