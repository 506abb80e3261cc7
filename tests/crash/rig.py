"""What every crash campaign stands on: a folder, a loopback network, the sink, the engine, the ledger between them.

A campaign is a function `run(options)` in a module of this folder; `tools/crash-campaign` calls it. It ends by itself,
by an interrupt or by `Broken`, and whatever it started ends with it. What a broken campaign leaves (logs, spool) is
kept below `build/crash-failed/`; that of a good one is removed.
"""

import contextlib
import mmap
import os
import pathlib
import random
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import types

import harness
import receivers

KEPT = (".out", ".log", ".jsonl", ".toml", ".reason")
KEPT_MOST = 80 << 20
SKIPPED = 77  # what Meson takes for "not possible here"
REFUSE_RULE = 'rcpt=no-*@*.test reply="550 5.1.1 no such user"'
OPEN, RECIPIENTS = 1, 4  # words of the sink's counters file
OFTEN_RULE = 'rcpt=often-*@*.test reply="450 4.3.2 not now" times=4 per=address'
LATER_RULE = 'rcpt=later-*@*.test reply="451 4.7.1 greylisted" times=1 per=address'


class Broken(Exception):
    """A promise of DESIGN 1 does not hold, or the engine did what it must not."""


class Skipped(Exception):
    """This machine cannot do what the campaign needs."""


class Rig:
    """Stands in for harness.Case where no unittest runs: the same names, the same care for what it starts."""

    start = harness.Case.start
    eventually = harness.Case.eventually

    def __init__(self, name):
        if not harness.PROGRAM.exists():
            raise Broken(f"{harness.PROGRAM} is missing: run tools/build")
        self.name = name
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"postrider-{name}-"))
        self.network = harness.Network()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        harness.end_all()
        if kind is not None and issubclass(kind, (Broken, AssertionError)):
            self.keep()
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self):
        """Logs, journals and configuration. Only regular files of moderate size: a spool may hold devices and links."""
        kept = harness.ROOT / "build" / "crash-failed" / self.name
        shutil.rmtree(kept, ignore_errors=True)
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_blocks * 512 > KEPT_MOST or path.suffix not in KEPT:
                    continue
                target = kept / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        print(f"what it left: {kept}")

    def fail(self, text):
        raise Broken(text)

    def beneath(self, folder):
        """The same rig for an engine whose configuration, spool and log lie in `folder`."""
        return types.SimpleNamespace(folder=pathlib.Path(folder), network=self.network, start=self.start, fail=self.fail,
                                     eventually=self.eventually)


class Sink(receivers.Sink):
    """The sink with the counters that a producer watches and a hash of every content."""

    def __init__(self, rig, *options, number=1):
        super().__init__(rig, number, "--hash", "--counters", rig.folder / "sink.counters", "--rule", REFUSE_RULE,
                         "--rule", LATER_RULE, "--rule", OFTEN_RULE, *options, store=False)
        with open(rig.folder / "sink.counters", "rb") as file:
            self.counters = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def counted(self, word):
        """Sum over the workers of a word of tools/sink/tally.h."""
        workers, words = struct.unpack_from("<QQ", self.counters, 8)
        return sum(struct.unpack_from("<Q", self.counters, 8 * (4 + w * words + word))[0] for w in range(workers))

    def recipients(self):
        return self.counted(RECIPIENTS)

    def open_connections(self):
        return self.counted(OPEN)


def until(condition, what, seconds):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Broken(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return value


def drain(engine, seconds=120, until_empty="20s", environment=None):
    """Runs the engine to the end of its mail; everything must be final then."""
    process = engine.start(until_empty, environment)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise Broken(f"the engine did not end within {seconds} s: {process.text()[-2000:]}") from None
    text = process.text()
    process.end()
    if code != 0:
        raise Broken(f"the engine ended with {code}: {text[-2000:]}")
    return text


def kill(process):
    process.child.kill()
    process.child.wait()
    process.end()


def sanity(process):
    if not process.alive():
        raise Broken(f"the engine ended by itself with {process.child.returncode}: {process.text()[-2000:]}")


def now_us():
    """The clock of the sink's log."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def seed_of(options):
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"{options.campaign}: seed {seed}", flush=True)
    return random.Random(seed)


def command(*arguments):
    """Runs a tool that must succeed."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Broken(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout.strip()


def median_and_worst(numbers):
    ordered = sorted(numbers)
    return (ordered[len(ordered) // 2], ordered[-1]) if ordered else (0, 0)


def environment(**more):
    return {**os.environ, **more}


class Disk:
    """A file system of a given kind in a file, mounted by a loop device until the stack unwinds. Needs root."""

    def __init__(self, stack, image, mount, make=None, size=0):
        if os.getuid() != 0:
            raise Skipped("loop devices need root")
        if make and not shutil.which(make[0]):
            raise Skipped(f"{make[0]} is missing: run tools/setup")
        self.image, self.mount = pathlib.Path(image), pathlib.Path(mount)
        if make:
            with open(self.image, "wb") as file:
                file.truncate(size)
            command(*make, self.image)
        self.mount.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-o", "loop", self.image, self.mount], capture_output=True, text=True)
        if done.returncode != 0:
            raise Skipped(f"no loop mount: {done.stderr.strip()}")
        stack.callback(self.unmount)

    def by_pages(self):
        """The loop driver takes a write of which a part found no room for done; one of a page is done or fails."""
        device = subprocess.run(["findmnt", "-no", "SOURCE", self.mount], capture_output=True, text=True, check=True).stdout.strip()
        pathlib.Path(f"/sys/block/{device.removeprefix('/dev/')}/queue/max_sectors_kb").write_text("4")
        return self

    def unmount(self):
        # Whoever holds it open has been ended; the last close may lag behind by a moment.
        for _ in range(50):
            if subprocess.run(["umount", self.mount], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", self.mount], capture_output=True)
