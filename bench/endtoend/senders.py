"""The senders: the limit, the engine, and what the files of a spool cost alone. A case measures one run of a workload.

`measure()` returns the facts of the run, per message where that makes sense; `ok` is False when the sink has not seen
every delivery once, with `wrong` saying what.
"""

import json
import pathlib
import re
import subprocess
import tempfile
import time

from .processes import Child, Failure
from .sink import Sink

PERF_EVENT = "raw_syscalls:sys_enter"


class Case:
    """One sender in one build."""

    available = ""  # why it cannot run, when it cannot

    def __init__(self, name, bench):
        self.name, self.bench = name, bench

    def folder(self):
        return tempfile.TemporaryDirectory(prefix="postrider-bench-", dir=self.bench.options.folder)

    def unavailable(self, workload):
        """A reason why this case cannot run the workload; empty when it can."""
        return ""

    def sink(self, folder, workload):
        return Sink(self.bench.sink_program, folder, workload, self.bench.options.timeout, watch=workload.steady())


def perf_count(path):
    """What `perf stat -x,` has counted; None where it could not."""
    told = path.read_text() if path.exists() else ""
    found = re.search(rf"^(\d+),.*{PERF_EVENT}", told, re.M)
    return int(found[1]) if found else None


def facts(usage, messages):
    """What every case says of its sender."""
    return {"messages": messages, "secs": round(usage["secs"], 3), "msg_s": round(messages / usage["secs"], 1),
            "cpu_us_msg": round((usage["user_us"] + usage["sys_us"]) / messages, 3),
            "user_us": round(usage["user_us"] / messages, 3), "sys_us": round(usage["sys_us"] / messages, 3),
            "cpu_from": usage["cpu_from"], "maxrss_kb": usage["maxrss_kb"],
            "switches_msg": round(usage["switches"] / messages, 4)}


def receiver_facts(usage, counted, messages, secs):
    cpu = usage["user_us"] + usage["sys_us"]
    return {"sink_cpu_us_msg": round(cpu / messages, 3), "sink_core_percent": round(cpu / secs / 1e4, 1),
            "connections": counted.get("connections"), "violations": counted.get("violations")}


def faults(counted, messages, tls):
    """What the sink has seen and should not have."""
    wrong = [f"{key} {counted.get(key)}, not {expected}"
             for key, expected in (("distinct", messages), ("duplicates", 0), ("violations", 0))
             if counted.get(key) != expected]
    if tls and counted.get("tls_messages") != counted.get("messages"):
        wrong.append("some messages went in clear")
    return wrong


class Program(Case):
    """A sender that is one command and ends by itself."""

    core = 0

    def prepare(self, folder, workload, messages):
        """Outside of what is measured; returns facts to add."""
        return {}

    def command(self, folder, workload, messages, sink):
        raise NotImplementedError

    def cores(self, workload):
        return 0 if workload.shards == 1 else None

    def measure(self, workload, messages):
        with self.folder() as name:
            folder = pathlib.Path(name)
            more = self.prepare(folder, workload, messages)
            sink = self.sink(folder, workload)
            try:
                command = self.command(folder, workload, messages, sink)
                with open(folder / "sender.out", "wb") as output:
                    usage = Child(command, self.cores(workload), output, self.bench.options.timeout).finish()
            finally:
                sink_usage, counted = sink.finish()
            said = (folder / "sender.out").read_text(errors="replace")[-2000:]
        wrong = [f"exit code {usage['code']}: {said.strip()[-500:]}"] if usage["code"] else []
        wrong += faults(counted, messages, workload.tls)
        result = {**facts(usage, messages), **receiver_facts(sink_usage, counted, messages, usage["secs"]), **more}
        if sink.watcher and (rate := sink.watcher.steady_rate(messages)):
            result["steady_msg_s"] = round(rate, 1)
        return {**result, "ok": not wrong, **({"wrong": "; ".join(wrong)} if wrong else {})}

    def count_system_calls(self, workload, messages):
        """System calls a message, in a run of its own under `perf stat`; None where perf cannot count."""
        with self.folder() as name:
            folder = pathlib.Path(name)
            self.prepare(folder, workload, messages)
            sink = self.sink(folder, workload)
            try:
                command = ["perf", "stat", "-x,", "-e", PERF_EVENT, "-o", folder / "perf",
                           *self.command(folder, workload, messages, sink)]
                Child(command, self.cores(workload), subprocess.DEVNULL, self.bench.options.timeout).finish()
            finally:
                sink.finish()
            calls = perf_count(folder / "perf")
        return calls and round(calls / messages, 3)


class Limit(Program):
    """A sender with no queue, no DNS and no disk: what the kernel and the dialogue cost."""

    dialogues = {
        "limit-lock": ["--dialogue", "lock"],
        "limit-group": ["--dialogue", "group"],
        "limit-next": ["--dialogue", "next"],
        "limit-bdat": ["--dialogue", "bdat"],
        "limit-bdat-8": ["--dialogue", "bdat", "--depth", "8"],
    }

    def command(self, folder, workload, messages, sink):
        reconnect = ["--reconnect", workload.deliveries] if workload.deliveries < messages else []
        return [self.bench.limit_program, "--to", sink.smtp, "--messages", messages, "--size", workload.size,
                "--domains", workload.domains, "--connections", workload.connections, *self.dialogues[self.name],
                *reconnect, *(["--tls"] if workload.tls else [])]


class Engine(Program):
    """`postrider run --until-empty` over a spool that has been in use, filled and synced before."""

    def __init__(self, name, bench, program, shaping=""):
        super().__init__(name, bench)
        self.program, self.shaping = program, shaping

    def prepare(self, folder, workload, messages):
        begun = time.monotonic()
        configure(folder, workload, 25, "127.0.0.1:53")
        subprocess.run([self.program, "run", "--config", folder / "postrider.toml", "--until-empty"],
                       stdin=subprocess.DEVNULL, capture_output=True, check=True)
        fill_spool(self.bench, folder, workload, messages)
        return {"gen_secs": round(time.monotonic() - begun, 3)}

    def command(self, folder, workload, messages, sink):
        configure(folder, workload, sink.port, sink.dns, self.shaping)
        return [self.program, "run", "--config", folder / "postrider.toml", "--until-empty"]

    def unavailable(self, workload):
        if not workload.needs_key:
            return ""
        with self.folder() as name:
            configure(pathlib.Path(name), workload, 25, "127.0.0.1:53")
            done = subprocess.run([self.program, "check", "--config", f"{name}/postrider.toml"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        # `check` warns of a key that is not enforced yet, with its name.
        told = done.stdout + done.stderr
        return f"not available: {workload.needs_key} is not enforced" if f"{workload.needs_key}" in told else ""


class Files(Case):
    """What open, read, rename and unlink of the spool's files cost, with nothing else done to them."""

    def measure(self, workload, messages):
        with self.folder() as name:
            folder = pathlib.Path(name)
            fill_spool(self.bench, folder, workload, messages)
            with open(folder / "files.out", "wb") as output:
                usage = Child([self.bench.build / "bench" / "file-costs", folder / "spool"], 0, output,
                              self.bench.options.timeout).finish()
            said = (folder / "files.out").read_text(errors="replace")
        if usage["code"] != 0:
            return {"ok": False, "wrong": f"file-costs: exit code {usage['code']}: {said.strip()[-500:]}"}
        told = json.loads(said)
        if told["files"] != messages:
            return {"ok": False, "wrong": f"file-costs: {told['files']} files, not {messages}"}
        return {**facts(usage, messages), "ok": True}


def fill_spool(bench, folder, workload, messages):
    """Synced: write-back of the load generator is not the sender's. The folder is new for each run, because creating
    files where many were just deleted is slow on ext4."""
    (folder / "spool").mkdir(exist_ok=True)
    done = subprocess.run([bench.program, "gen", "--spool", folder / "spool", "--messages", str(messages),
                           "--domains", str(workload.domains), "--size", str(workload.size), "--format",
                           workload.format],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"postrider gen ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    subprocess.run(["sync", "--file-system", folder / "spool"], stdin=subprocess.DEVNULL, check=True)


def configure(folder, workload, port, dns, shaping=""):
    tls = "Opportunistic" if workload.tls else "Disabled"
    (folder / "shaping.toml").write_text(
        f'["default"]\nenable_tls = "{tls}"\nconnection_limit = {workload.connections}\n'
        f"max_deliveries_per_connection = {workload.deliveries}\n{workload.shaping}{shaping}")
    (folder / "postrider.toml").write_text(f"""[server]
hostname = "sender.test"
spool = "{folder}/spool"
log = "{folder}/delivery.jsonl"
shards = {workload.shards}

[dns]
servers = ["{dns}"]

[smtp]
port = {port}
prohibited_hosts = []

[shaping]
files = ["{folder}/shaping.toml"]
""")
