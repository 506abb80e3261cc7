"""The receiver of every run: `postrider sink` on free ports of loopback, on a core of its own, with its catch-all DNS."""

import json
import mmap
import os
import struct
import threading
import time

from .processes import Child, Failure

# Where tools/sink/tally.h puts them: 4 words ahead, then each worker's, in the order of Counter.
HEAD_WORDS, MESSAGES_WORD = 4, 3
SAMPLE_S = 0.01


class Sink:
    def __init__(self, program, folder, workload, timeout, watch=False):
        ready = folder / "sink.json"
        self.output = folder / "sink.out"
        self.counters_file = folder / "sink.counters"
        options = ["--sites", workload.sites] if workload.sites else []
        options += ["--spread"] if workload.spread else []
        options += ["--latency", f"{workload.latency_ms}ms"] if workload.latency_ms else []
        with open(self.output, "wb") as output:
            self.child = Child([*program, "--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--ready-file", ready,
                                "--summary", "--counters", self.counters_file, *options], 1, output, timeout + 60)
        try:
            deadline = time.monotonic() + 20
            while not ready.exists():
                if time.monotonic() > deadline:
                    raise Failure(f"the sink did not start: {self.output.read_text()}")
                time.sleep(0.01)
            told = json.loads(ready.read_text())
        except BaseException:
            self.child.close()
            raise
        self.port = int(told["smtp"][0].rsplit(":", 1)[1])
        self.smtp, self.dns = f"127.0.0.1:{self.port}", told["dns"]
        self.watcher = Watcher(self.counters_file) if watch else None

    def messages(self):
        """Accepted so far."""
        with open(self.counters_file, "rb") as file:
            file.seek(8 * (HEAD_WORDS + MESSAGES_WORD))
            return struct.unpack("<Q", file.read(8))[0]

    def wait_messages(self, count, seconds, idle_seconds=20):
        """Returns when `count` have come, with the time of the last; nothing new for a while is a failure."""
        begun = last = time.monotonic()
        seen = 0
        while seen < count:
            now = time.monotonic()
            if (came := self.messages()) != seen:
                seen, last = came, now
            if now - begun > seconds or now - last > idle_seconds:
                raise Failure(f"{seen} of {count} messages came in {now - begun:.0f} s")
            time.sleep(SAMPLE_S)
        return last

    def finish(self):
        """Its resource use and its counters."""
        if self.watcher:
            self.watcher.stop()
        usage = self.child.stop()
        self.child.close()
        lines = [line for line in self.output.read_text().splitlines() if line.startswith("{")]
        return usage, json.loads(lines[-1]) if lines else {}


class Watcher:
    """Looks at the counter of messages a hundred times a second, for the rate between start-up and the last messages."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        self.map = mmap.mmap(self.file, 0, prot=mmap.PROT_READ)
        self.samples = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(SAMPLE_S):
            count = struct.unpack_from("<Q", self.map, 8 * (HEAD_WORDS + MESSAGES_WORD))[0]
            self.samples.append((time.monotonic(), count))

    def stop(self):
        self.over.set()
        self.thread.join()
        self.map.close()
        os.close(self.file)

    def steady_rate(self, messages):
        """Messages a second while the second half but the last tenth came: connections are open, none is drained."""
        middle = [(at, count) for at, count in self.samples if 0.5 * messages <= count <= 0.9 * messages]
        if len(middle) < 2 or middle[-1][0] == middle[0][0]:
            return None
        return (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
