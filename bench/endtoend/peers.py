"""Other senders: each loads its queue while it may not deliver, then is released, and only the delivery is measured.

Everything is the peer's best case: it relays all mail to the one receiver, so that it looks nothing up and has one
destination; it is fed before; its limits are raised; its queue lies on the same file system as the engine's spool. Its
processes share one core, as the engine does. They are Debian's packages, unpacked by tools/setup.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

from .processes import Cgroup, Failure, Tree, cores, libc, PR_SET_PDEATHSIG
from .senders import PERF_EVENT, Case, perf_count, receiver_facts

LOADING_CONNECTIONS = 16
SETTLE_S = 1.0      # behind the last message: queue files go, results are written
SAMPLE_S = 0.5


class Peer(Case):
    """One kind of sender. A subclass says how it is configured, started and released."""

    title = ""
    package = ""           # its folder below build/deps/receivers
    program = ""           # in that folder
    counts_switches = True  # False where processes come and go with messages

    def unavailable(self, workload):
        if os.getuid() != 0:
            return f"not measured: {self.title} needs root"
        if not (self.root() / self.program).exists():
            return f"not measured: {self.title} is not unpacked (tools/setup)"
        return ""

    def root(self):
        return self.bench.options.receivers / self.package

    # Each gets the run's folder, and the ports of the receiver and of the peer's own listener.
    def start(self, run, folder, to_port, own_port):
        raise NotImplementedError

    def release(self, run):
        raise NotImplementedError

    def measure(self, workload, messages, count_calls=False):
        messages = min(messages, self.bench.options.peer_messages)
        with self.folder() as name:
            folder = pathlib.Path(name)
            os.chmod(folder, 0o755)  # peers drop to users of their own
            sink = self.sink(folder, workload)
            run = None
            try:
                run = Run(folder)
                self.start(run, folder, sink.port, port := free_port())
                load_queue(self.bench, folder, workload, messages, port)
                if early := sink.messages():
                    raise Failure(f"{early} messages were delivered before the release")
                told = run.deliver(lambda: self.release(run), sink, messages, self.bench.options.timeout, count_calls)
            except Failure as failure:
                raise Failure(f"{failure}; {self.title} said: {log_tail(folder)}") from failure
            finally:
                if run:
                    run.end()
                sink_usage, counted = sink.finish()
        if count_calls:
            return told["calls"] and round(told["calls"] / messages, 3)
        # A duplicate is the peer's own affair; a loss would make its figures worthless.
        wrong = [f"distinct {counted.get('distinct')}, not {messages}"] if counted.get("distinct") != messages else []
        cpu = told["user_us"] + told["sys_us"]
        result = {"messages": messages, "secs": round(told["secs"], 3), "msg_s": round(messages / told["secs"], 1),
                  "cpu_us_msg": round(cpu / messages, 3), "user_us": round(told["user_us"] / messages, 3),
                  "sys_us": round(told["sys_us"] / messages, 3), "cpu_from": told["cpu_from"],
                  "maxrss_kb": told["memory_kb"], "duplicates": counted.get("duplicates"), **receiver_facts(sink_usage, counted, messages, told["secs"])}
        if self.counts_switches:
            result["switches_msg"] = round(told["switches"] / messages, 3)
        return {**result, "ok": not wrong, **({"wrong": "; ".join(wrong)} if wrong else {})}

    def count_system_calls(self, workload, messages):
        return self.measure(workload, messages, count_calls=True)


class Run:
    """The processes of one peer for one run."""

    def __init__(self, folder):
        self.folder = folder
        self.group = Cgroup.make() or Tree()
        self.children = []

    def start(self, name, command, environment=None):
        """A long-lived process on the sender's core; its output goes to <name>.out."""
        mask, group = cores(0), self.group

        def before_exec():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, mask)
            group.enter()

        with open(self.folder / f"{name}.out", "wb") as output:
            child = subprocess.Popen([str(c) for c in command], cwd=self.folder, env=environment,
                                     stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                     preexec_fn=before_exec)
        group.started(child.pid)
        self.children.append(child)
        return child

    def deliver(self, release, sink, messages, timeout, count_calls):
        """What the delivery alone has cost: from the release to the last message, and a moment for the clean-up."""
        perf = self.start_perf() if count_calls else None
        watch = MemoryWatch(self.group)
        switches, begun = switches_of(self.group.pids()), time.monotonic()
        user, system = self.group.cpu()
        release()
        ended = sink.wait_messages(messages, timeout)
        time.sleep(SETTLE_S)
        user_end, system_end = self.group.cpu()
        now = switches_of(self.group.pids())
        return {"secs": ended - begun, "user_us": user_end - user, "sys_us": system_end - system,
                "switches": sum(count - switches.get(thread, 0) for thread, count in now.items()),
                "memory_kb": watch.stop(), "cpu_from": self.group.kind,
                "calls": self.stop_perf(perf) if perf else None}

    def start_perf(self):
        """Attached to what runs now, and to all that it forks."""
        pids = ",".join(str(pid) for pid in self.group.pids())
        child = subprocess.Popen(["perf", "stat", "-x,", "-e", PERF_EVENT, "-o", self.folder / "perf", "-p", pids],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        return child

    def stop_perf(self, perf):
        perf.send_signal(signal.SIGINT)
        perf.wait()
        return perf_count(self.folder / "perf")

    def end(self):
        for child in self.children:
            child.terminate()
        self.group.end_all()
        for child in self.children:
            child.wait()
        self.group.remove()


class MemoryWatch:
    """The peak of the processes' memory together; pages that they share count once (PSS)."""

    def __init__(self, group):
        self.group, self.peak_kb = group, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(SAMPLE_S):
            total = 0
            for pid in self.group.pids():
                try:
                    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                except OSError:
                    continue  # it has ended
                total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
            self.peak_kb = max(self.peak_kb, total)

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak_kb


def switches_of(pids):
    """{thread: context switches so far}."""
    found = {}
    for pid in pids:
        for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue
            found[status.parent.name] = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return found


def load_queue(bench, folder, workload, messages, port):
    """Over SMTP, as a client would; every message must be taken."""
    wait_listening(port)
    done = subprocess.run([bench.limit_program, "--to", f"127.0.0.1:{port}", "--messages", str(messages), "--size",
                           str(workload.size), "--domains", str(workload.domains), "--connections",
                           str(LOADING_CONNECTIONS), "--dialogue", "lock", "--reconnect", "90"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"the queue was not loaded: {(done.stdout + done.stderr).strip()[-300:]}")
    subprocess.run(["sync", "--file-system", folder], stdin=subprocess.DEVNULL, check=True)


def log_tail(folder):
    texts = [path.read_text(errors="replace").strip()[-600:] for path in folder.glob("*.out")
             if path.name != "sink.out"]
    texts += [path.read_text(errors="replace").strip()[-600:] for path in folder.rglob("*log") if path.is_file()]
    return " | ".join(text for text in texts if text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_listening(port, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                if probe.recv(3) == b"220":
                    probe.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise Failure(f"nothing listens on port {port}")
        time.sleep(0.1)


def copy_program(source, target):
    """For a program that executes itself under a user who may not see the checkout."""
    shutil.copytree(source, target, symlinks=True)
    return target
