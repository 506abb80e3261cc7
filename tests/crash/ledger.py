"""The independent ledger: what was handed over, what the sink took, what the delivery log says, and what is left.

It knows nothing of the engine's own books. `in = delivered + failed + pending` holds to the unit when every recipient
handed over either has one last word in the delivery log or lies in a file of the spool. A campaign calls

  handed_over()   before each rename into new/, arrived() behind it
  after_crash()   when the engine is gone: the spool must hold every file with an open recipient
  settle()        when the engine has ended its mail: nothing is pending, nothing lost, duplicates are explained

Recipients are unique over a campaign, so a recipient names its message.
"""

import collections
import json
import os
import time

from rig import Broken

DELIVERED, FAILED = "Delivery", "Bounce"


class Lines:
    """The new whole lines of a growing file, as JSON."""

    def __init__(self, path):
        self.path, self.offset = path, 0

    def read(self):
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            octets = file.read()
        whole = octets.rfind(b"\n") + 1
        at = self.offset
        self.offset += whole
        for line in octets[:whole].splitlines(keepends=True):
            try:
                yield json.loads(line)
            except ValueError:
                raise Broken(f"{self.path}: no line of JSON at offset {at}: {line[:300]!r}") from None
            at += len(line)

    def start_anew(self, truncate):
        if self.path.exists():
            os.truncate(self.path, 0) if truncate else self.path.unlink()
        self.offset = 0


class Ledger:
    def __init__(self, engine, sink):
        self.engine, self.sink = engine, sink
        self.sink_read = 0  # recipients in the lines of the sink
        self.sink_lines, self.log_lines = Lines(sink.log_file), Lines(engine.log_file)
        self.totals = collections.Counter()
        self.clear()

    def clear(self):
        self.files = {}  # name in new/: recipients
        self.renamed = []  # names that were in new/ once
        self.hashes = {}  # Message-ID: of its content
        self.message_of = {}  # recipient: Message-ID
        self.safe = set()  # recipients whose files are durable for a producer's own sync
        self.taken = collections.Counter()  # recipient: times that the sink took it
        self.taken_us = {}  # recipient: when it did so first (CLOCK_MONOTONIC)
        self.last_word = {}  # recipient: DELIVERED or FAILED
        self.flagged = set()
        self.mail_us = []
        self.bounced_twice = 0

    # ---- what goes in

    def handed_over(self, name, messages):
        recipients = []
        for key, names, digest in messages:
            self.hashes[key] = digest
            for recipient in names:
                self.message_of[recipient] = key
                recipients.append(recipient)
        self.files[name] = recipients

    def arrived(self, name):
        self.renamed.append(name)

    def durable(self, name):
        self.safe.update(self.files[name])

    # ---- what came of it

    def read_sink(self):
        for event in self.sink_lines.read():
            if event["event"] != "transaction":
                continue
            if event["recipients"]:
                self.mail_us.append(event["mail_us"])
            if not event["accepted"]:
                continue
            self.sink_read += len(event["recipients"])
            key = event["message_id"]
            if self.hashes.get(key) != event["sha256"]:
                raise Broken(f"a content that was not handed over: {key} {event}")
            for recipient in event["recipients"]:
                if self.message_of.get(recipient) != key:
                    raise Broken(f"message {key} went to {recipient}, who was to have {self.message_of.get(recipient)}")
                self.taken[recipient] += 1
                self.taken_us.setdefault(recipient, event["mono_us"])

    def read_log(self):
        for record in self.log_lines.read():
            recipient, kind = record["recipient"], record["type"]
            if kind == "Rejection":
                continue  # of what a campaign gave to be refused
            if recipient not in self.message_of:
                raise Broken(f"the delivery log speaks of a stranger: {record}")
            if record.get("possible_duplicate"):
                self.flagged.add(recipient)
            if kind == "TransientFailure":
                continue
            expected = FAILED if recipient.startswith("no-") else DELIVERED
            if kind != expected:
                raise Broken(f"{kind} where {expected} is right: {record}")
            self.last_word[recipient] = kind

    def read(self):
        self.read_log()
        self.read_sink()

    def pending(self):
        return self.message_of.keys() - self.last_word.keys()

    # ---- the checks

    def after_crash(self):
        """The engine is gone. Every file with an open recipient is in new/ or active/."""
        self.read()
        renamed = list(self.renamed)  # a feeder goes on beside us
        waiting = {p.name for p in (self.engine.spool / "new").iterdir()}
        claimed = len(self.engine.claimed())
        open_files = [name for name in renamed if not self.last_word.keys() >= set(self.files[name])]
        lost = [name for name in open_files if name not in waiting]
        if len(lost) > claimed:
            raise Broken(f"{len(lost)} files have open recipients and left new/, but active/ holds {claimed}: {lost[:9]}")
        return len(open_files)

    def wait_for_sink(self):
        """Reads the sink's log until it is whole. The engine has ended, but its last octets may still lie in the
        sockets of the sink, which takes them, and writes its log up to 100 ms after its answer."""
        end = time.monotonic() + 10
        while self.sink.open_connections() or self.sink_read != self.sink.recipients():
            if time.monotonic() > end:
                raise Broken(f"the sink took {self.sink.recipients()} recipients and logged {self.sink_read}; "
                             f"{self.sink.open_connections()} connections are open without an engine")
            time.sleep(0.01)
            self.read_sink()

    def settle(self, in_flight=None, only_safe=False):
        """The mail has ended. `in_flight`: how many recipients were in flight at the crashes since the last call; None
        where it is not known. `only_safe`: the disk lost what was not synced, so that only what the producer had synced
        must be there. Adds to the totals and begins anew."""
        self.read()
        if pending := self.safe - self.last_word.keys() if only_safe else self.pending():
            raise Broken(f"{len(pending)} lost: no last word of them, and the engine says that it is done: "
                         f"{sorted(pending)[:9]}")
        if left := self.engine.files_left():
            raise Broken(f"everything is final, and the spool holds {len(left)} files: {left[:9]}")
        if bad := list((self.engine.spool / "bad").iterdir()):
            raise Broken(f"good files were refused: {bad[:9]}")
        self.wait_for_sink()
        delivered = {r for r, kind in self.last_word.items() if kind == DELIVERED}
        if lost := delivered - self.taken.keys():
            raise Broken(f"{len(lost)} lost: logged as delivered, never taken: {sorted(lost)[:9]}")
        ghosts = self.taken.keys() - delivered
        if ghosts := ghosts & self.safe if only_safe else ghosts:
            raise Broken(f"{len(ghosts)} were taken, and the log does not say so: {sorted(ghosts)[:9]}")
        repeated = {r for r, times in self.taken.items() if times > 1}
        # A disk that loses what was not synced loses intents too.
        if (silent := repeated - self.flagged) and not only_safe:
            raise Broken(f"{len(silent)} duplicates without possible_duplicate: {sorted(silent)[:9]}")
        if in_flight is not None and len(self.flagged) > in_flight:
            raise Broken(f"{len(self.flagged)} are flagged, and {in_flight} were in flight")
        self.totals.update(
            handed_in=len(self.last_word if only_safe else self.message_of), delivered=len(delivered), failed=len(self.last_word) - len(delivered),
            repeated=len(repeated), extra_copies=sum(self.taken.values()) - len(self.taken), flagged=len(self.flagged),
            in_flight=in_flight or 0)
        self.sink_lines.start_anew(truncate=True)
        self.log_lines.start_anew(truncate=False)
        self.clear()

    def report(self):
        t = self.totals
        if t["handed_in"] != t["delivered"] + t["failed"]:
            raise Broken(f"in {t['handed_in']} is not delivered {t['delivered']} + failed {t['failed']} + pending 0")
        print(f"  in {t['handed_in']} = delivered {t['delivered']} + failed {t['failed']} + pending 0; lost 0")
        print(f"  duplicates: {t['repeated']} recipients ({t['extra_copies']} copies too many); announced as possible: "
              f"{t['flagged']}", flush=True)
