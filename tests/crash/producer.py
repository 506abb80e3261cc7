"""What feeds the spool: files of messages that nobody else has, each remembered in the ledger before it is handed over.

Most files are batches, some single messages. A message has one to three recipients; a few are refused for good by the
sink (`no-`), a few are told to come again (`later-`). Contents differ in length, hold lines that begin with dots, and
are known by their hash. With `often` all are told to come again four times (`often-`).
"""

import hashlib
import os
import threading
import time

DOMAINS = 40
END = b"\r\n"


def body_lines():
    plain = [b"The quick brown fox jumps over the lazy dog, and then it rests for a while."] * 200
    for at in range(5, 200, 7):
        plain[at] = b"." * (at % 3 + 1) + b" a line that begins with dots"
    return plain


class Bodies:
    """Every length of the body ready made, in the form of the wire and in that of a batch file."""

    def __init__(self):
        lines = body_lines()
        stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
        self.plain = [END.join(lines[:n]) + END for n in range(1, len(lines))]
        self.stuffed = [END.join(stuffed[:n]) + END for n in range(1, len(stuffed))]


class Producer:
    def __init__(self, spool, ledger, generator, *, per_file=60, sync=False, domains=DOMAINS, longest=60,
                 most_recipients=3):
        self.spool, self.ledger, self.generator = spool, ledger, generator
        self.per_file, self.sync, self.domains, self.longest = per_file, sync, domains, longest
        self.most_recipients = most_recipients
        self.bodies = Bodies()
        self.messages = self.files = 0
        self.often = False
        self.tag = f"{generator.randrange(2**40):010x}"

    def recipients(self):
        chance = self.generator.random
        count = 1 if chance() < 0.9 else 1 + int(chance() * self.most_recipients)
        for place in range(count):
            kind = chance()
            name = "often-" if self.often else "no-" if kind < 0.02 else "later-" if kind < 0.03 else "r"
            yield f"{name}{self.messages}-{place}@d{int(chance() * self.domains)}.test"

    def message(self):
        """(recipients, header, number of the body); in the ledger."""
        self.messages += 1
        key = f"<{self.messages}.{self.tag}@sender.test>"
        recipients = list(self.recipients())
        header = (f"From: news@sender.test\r\nSubject: message {self.messages}\r\nMessage-ID: {key}\r\n"
                  f"X-To: {' '.join(recipients)}\r\n\r\n").encode()
        body = int(self.generator.random() * self.longest)
        return key, recipients, header, body

    def content_hash(self, header, body):
        digest = hashlib.sha256(header)
        digest.update(self.bodies.plain[body])
        return digest.hexdigest()

    def file(self):
        """(name, octets, messages as the ledger takes them) of the next file."""
        self.files += 1
        single = self.generator.random() < 0.2
        out, messages = [], []
        for _ in range(1 if single else 1 + int(self.generator.random() * 2 * self.per_file)):
            key, recipients, header, body = self.message()
            messages.append((key, recipients, self.content_hash(header, body)))
            if single:
                block = "x-sender: news@sender.test\r\n" + "".join(f"x-receiver: {r}\r\n" for r in recipients)
                out += [block.encode(), header, self.bodies.plain[body]]
            else:
                envelope = "MAIL FROM:<news@sender.test>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in recipients)
                out += [envelope.encode(), b"DATA\r\n", header, self.bodies.stuffed[body], b".\r\n"]
        return f"{self.files:07}.{'eml' if single else 'bsmtp'}", b"".join(out), messages

    def put(self):
        """Hands one file over; returns how many of its recipients the sink will take. Raises OSError when the disk does not
        take it."""
        name, octets, messages = self.file()
        temporary, target = self.spool / "tmp" / name, self.spool / "new" / name
        with open(temporary, "wb") as file:
            file.write(octets)
            file.flush()
            if self.sync:
                os.fsync(file.fileno())
        # Registered only when the disk has taken it: what a full disk refused was never handed over.
        self.ledger.handed_over(name, messages)
        os.rename(temporary, target)
        self.ledger.arrived(name)
        if self.sync:
            sync_folder(target.parent)
            self.ledger.durable(name)
        return sum(not recipient.startswith("no-") for _, recipients, _ in messages for recipient in recipients)


def sync_folder(path):
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Feeder(threading.Thread):
    """Keeps about `ahead` recipients in the spool that the sink has not seen yet, until it is stopped."""

    def __init__(self, producer, seen, ahead, tolerant=False):
        super().__init__(daemon=True)
        self.tolerant = tolerant  # of a disk that takes nothing
        self.producer, self.seen, self.ahead = producer, seen, ahead
        self.base, self.produced = seen(), 0
        self.go_on = threading.Event()
        self.stopped = False
        self.resting = threading.Event()
        self.error = None

    def run(self):
        try:
            while not self.stopped:
                if not self.go_on.is_set():
                    self.resting.set()
                    self.go_on.wait(0.05)
                elif self.produced - (self.seen() - self.base) < self.ahead:
                    self.produced += self.put()
                else:
                    time.sleep(0.005)
        except Exception as error:  # shown by whoever joins it
            self.error = error
        self.resting.set()

    def put(self):
        try:
            return self.producer.put()
        except OSError:
            if not self.tolerant:
                raise
            time.sleep(0.05)
            return 0

    def feed(self):
        self.base, self.produced = self.seen(), 0
        self.resting.clear()
        self.go_on.set()

    def rest(self):
        """Returns when nothing more is handed over."""
        self.resting.clear()
        self.go_on.clear()
        self.resting.wait()
        if self.error:
            raise self.error

    def stop(self):
        self.rest()
        self.stopped = True
        self.join()
