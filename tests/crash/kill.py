"""`kill -9` at random instants under full load, the number of shards changing between the restarts (FAULTS 3, 91).

One sink lives through the campaign, a feeder keeps the spool full. A cycle starts the engine, lets it run for a random
while and kills it; then the ledger looks. After each batch of cycles the engine drains the spool and the ledger is
settled. Every duplicate must be announced: after a kill every dot given to the kernel has its intent in the journal.

Recovery time is that from exec to the first MAIL at the sink.
"""

import bisect
import time

import harness
from journal_view import JournalView
from ledger import Ledger
from producer import Feeder, Producer
from rig import Rig, Sink, drain, kill, median_and_worst, now_us, sanity, seed_of, until

BATCH = 25
SHARDS = (1, 2, 3, 4)
SHAPING = '["default"]\nconnection_limit = 4\n'


def arguments(parser):
    parser.add_argument("--cycles", type=int, default=1000, help="kills (default 1000)")
    parser.add_argument("--ahead", type=int, default=6000, help="recipients kept waiting in the spool (default 6000)")


class KillCampaign:
    def __init__(self, rig, options):
        self.generator = seed_of(options)
        # A round trip of 5 ms keeps transactions in flight on every connection.
        self.sink = Sink(rig, "--latency", "5ms")
        self.engine = harness.Engine(rig, self.sink.dns_port, shaping=SHAPING)
        self.ledger = Ledger(self.engine, self.sink)
        self.feeder = Feeder(Producer(self.engine.spool, self.ledger, self.generator), self.sink.recipients,
                             options.ahead)
        self.journals = JournalView(self.engine.spool / "journal")
        self.flying, self.recovery_ms, self.open_files = [], [], []

    def configure(self):
        self.engine.write_config([f"127.0.0.1:{self.sink.dns_port}"], shaping=SHAPING,
                                 shards=self.generator.choice(SHARDS))

    def cycle(self):
        self.configure()
        begun_us = now_us()
        seen = self.sink.recipients()
        process = self.engine.start()
        # One kill in four comes at any moment from exec on, recovery included; the others when mail flows again.
        if self.generator.random() < 0.25:
            time.sleep(self.generator.uniform(0.02, 0.5))
        else:
            until(lambda: self.sink.recipients() > seen or not process.alive(), "mail flows after a kill", 30)
            time.sleep(self.generator.uniform(0, 0.5))
        sanity(process)
        kill(process)
        self.flying.append(len(self.journals.read()))
        return begun_us, now_us()

    def batch(self, cycles):
        runs = []
        self.feeder.feed()
        for _ in range(cycles):
            runs.append(self.cycle())
            self.open_files.append(self.ledger.after_crash())
        self.feeder.rest()
        self.configure()
        drain(self.engine)
        self.ledger.read()
        mails = sorted(self.ledger.mail_us)
        for begun, ended in runs:
            at = bisect.bisect_left(mails, begun)
            if at < len(mails) and mails[at] < ended:
                self.recovery_ms.append((mails[at] - begun) / 1000)
        self.ledger.settle(in_flight=len(self.journals.ever_in_flight))
        self.journals.clear()

    def run(self, cycles):
        self.feeder.start()
        begun = time.monotonic()
        done = 0
        while done < cycles:
            size = min(BATCH, cycles - done)
            self.batch(size)
            done += size
            print(f"  {done} kills in {time.monotonic() - begun:.0f} s: {self.ledger.totals['handed_in']} recipients, "
                  f"{self.ledger.totals['repeated']} repeated", flush=True)
        self.feeder.stop()

    def report(self):
        self.ledger.report()
        flying, most = median_and_worst(self.flying)
        recovery, worst = median_and_worst(self.recovery_ms)
        open_files, most_files = median_and_worst(self.open_files)
        print(f"  in flight at the kill: median {flying}, most {most}, {sum(self.flying)} together; "
              f"open files: median {open_files}, most {most_files}")
        print(f"  exec to the first MAIL after a kill: median {recovery:.0f} ms, worst {worst:.0f} ms "
              f"({len(self.recovery_ms)} runs that came to one)")


def run(options):
    with Rig("kill") as rig:
        campaign = KillCampaign(rig, options)
        campaign.run(options.cycles)
        campaign.report()
        if not campaign.recovery_ms or not sum(campaign.flying):
            rig.fail("nothing was ever in flight: the kills mean nothing")
