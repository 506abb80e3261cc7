"""The n-th file operation of the engine fails, over a whole run of 50 messages: EIO, ENOSPC, EINTR, a short read or
write (FAULTS 52, 93, 94, 95). Needs the build with crash points: `tools/build --crash-points`.

The engine may go on (a local fault that it puts off), or stop, loudly, with exit code 1 or 4. Then it runs again without
a fault: nothing is lost, what is repeated was announced, and a journal is never called damaged.
"""

import re
import subprocess

import harness
from ledger import Ledger
from points import SHAPING, crash_program
from producer import Producer
from rig import Broken, Rig, Sink, drain, environment, seed_of

FAULTS = ("EIO", "ENOSPC", "EINTR", "short")
# 0 done; 1 and 4 stopped and said why; 75 mail waits.
CODES = {0, 1, 4, 75}
MESSAGES = 50


def part(text):
    number, count = map(int, text.split("/"))
    if not 1 <= number <= count:
        raise ValueError(text)
    return number, count


def arguments(parser):
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/N",
                        help="every N-th operation from the K-th on: N at the same time do the whole")
    parser.add_argument("--sample", type=int, help="so many operations, evenly spread, instead of every one")


class IoCampaign:
    def __init__(self, rig, options):
        self.generator = seed_of(options)
        self.sink = Sink(rig)
        self.engine = harness.Engine(rig, self.sink.dns_port, shaping=SHAPING)
        self.engine.program = [crash_program()]
        self.ledger = Ledger(self.engine, self.sink)
        self.producer = Producer(self.engine.spool, self.ledger, self.generator, per_file=6)
        self.codes, self.silent = {}, []

    def feed(self):
        target = self.producer.messages + MESSAGES
        while self.producer.messages < target:
            self.producer.put()

    def run_engine(self, variables):
        """(exit code, output)"""
        process = self.engine.start("5s", environment(**variables))
        try:
            code = process.wait(40)
        except subprocess.TimeoutExpired:
            raise Broken(f"{variables}: the engine did not end: {process.text()[-2000:]}") from None
        text = process.text()
        process.end()
        return code, text

    def operations(self):
        """The numbers to try. The start opens and lists hundreds of folders: of a row of one operation, which may be of
        several in turn, the first, the middle and the last stand for all."""
        for _ in range(2):  # the first run makes the folders
            self.feed()
            code, text = self.run_engine({"POSTRIDER_COUNT_IO": "2"})
            if code != 0:
                raise Broken(f"the run without faults ended with {code}: {text[-1000:]}")
            self.ledger.settle()
        names = re.findall(r"file operation \d+: (\S.*)", text)
        chosen, at = [], 0
        while at < len(names):
            period, rows = next(((p, n) for p in (1, 2, 3, 4) if (n := self.rows(names, at, p)) * p > 30), (1, 1))
            numbers = range(at + 1, at + period * rows + 1)
            middle = len(numbers) // 2
            chosen += numbers if rows == 1 else [*numbers[:period], *numbers[middle:middle + period], *numbers[-period:]]
            at += period * rows
        return names, chosen

    @staticmethod
    def rows(names, at, period):
        """How often the next `period` names stand there one after the other."""
        count = 1
        while names[at + count * period:at + (count + 1) * period] == names[at:at + period]:
            count += 1
        return count

    def fail_at(self, number, fault):
        self.feed()
        code, text = self.run_engine({"POSTRIDER_FAIL_IO": f"{number}:{fault}"})
        if code not in CODES:
            raise Broken(f"operation {number}, {fault}: exit code {code}: {text[-2000:]}")
        injected = re.search(r"injected at file operation \d+: (.*)", text)
        words = text.replace(injected[0], "") if injected else text
        if code in (1, 4) and "postrider: " not in words:
            raise Broken(f"operation {number}, {fault}: it stopped with {code} and did not say why: {text[-500:]}")
        self.codes[(fault, code)] = self.codes.get((fault, code), 0) + 1
        try:
            output = drain(self.engine, until_empty="5s")
            if "damaged" in output:
                raise Broken(f"a failed operation is no damage: {output[-1000:]}")
            self.ledger.settle()
        except Broken as what:
            raise Broken(f"operation {number} ({injected[1] if injected else 'not reached'}), {fault}, "
                         f"exit code {code}: {what}\n{text[-1500:]}") from None

    def run(self, sample, part):
        names, numbers = self.operations()
        # Runs differ a little in their order and number: some more than were counted.
        numbers += range(len(names) + 1, len(names) + len(names) // 50)
        print(f"  {len(names)} file operations in a run of {MESSAGES} messages; {len(numbers)} stand for all", flush=True)
        if sample:
            numbers = numbers[::max(1, len(numbers) // sample)]
        numbers = numbers[part[0] - 1::part[1]]
        for done, number in enumerate(numbers, 1):
            for fault in FAULTS if not sample else (self.generator.choice(FAULTS),):
                self.fail_at(number, fault)
            if done % 50 == 0:
                print(f"  {done} of {len(numbers)} operations", flush=True)


def run(options):
    with Rig("io") as rig:
        campaign = IoCampaign(rig, options)
        campaign.run(options.sample, options.part)
        campaign.ledger.report()
        for fault in FAULTS:
            ends = ", ".join(f"{n} with {code}" for (f, code), n in sorted(campaign.codes.items()) if f == fault)
            print(f"  {fault}: ended {ends}")
