"""What every integration test stands on: processes that end, folders that vanish, loopback addresses, the engine.

A test is a `Case`. It owns a temporary folder and a /24 of loopback of its own, so that tests run side by side and
twice in a row. Whatever it starts is ended by its id when the test ends, fails, runs out of time or is interrupted;
should the interpreter itself be killed, the kernel ends the children (PR_SET_PDEATHSIG).
"""

import atexit
import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("POSTRIDER", ROOT / "build" / "postrider"))
RECEIVERS = pathlib.Path(os.environ.get("POSTRIDER_RECEIVERS", ROOT / "build" / "deps" / "receivers"))

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)
running = []


class Process:
    """A child in a process group of its own. Its output goes to a file, which a failed test shows."""

    def __init__(self, name, arguments, folder, environment=None):
        self.name = name
        self.output = pathlib.Path(folder) / f"{name}-{len(running)}.out"
        with open(self.output, "wb") as output:
            self.child = subprocess.Popen(
                [str(a) for a in arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))
        running.append(self)

    def text(self):
        return self.output.read_text(errors="replace")

    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, seconds):
        return self.child.wait(timeout=seconds)

    def end(self, seconds=5):
        """SIGTERM, then SIGKILL to the whole group: a receiver forks children of its own."""
        if self.alive():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        with contextlib.suppress(ValueError):
            running.remove(self)


def end_all():
    for process in list(running):
        process.end(seconds=1)


atexit.register(end_all)
# Meson ends a test that takes too long with SIGTERM: leave through atexit.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class TimeLimit(Exception):
    """The test took longer than its `limit_s`."""


class Case(unittest.TestCase):
    """A test with a folder, a loopback network, a time limit and children that end."""

    limit_s = 120

    def run(self, result=None):
        self.result = result or self.defaultTestResult()
        return super().run(self.result)

    def problems(self):
        return len(self.result.errors) + len(self.result.failures)

    def setUp(self):
        self.assertTrue(RECEIVERS.is_dir(), f"{RECEIVERS} is missing: run tools/setup")
        self.assertTrue(PROGRAM.exists(), f"{PROGRAM} is missing: run tools/build")
        self.problems_before = self.problems()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-"))
        os.chmod(self.folder, 0o755)  # receivers drop to users of their own
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(end_all)
        self.addCleanup(self.show_outputs)
        self.addCleanup(signal.alarm, 0)
        signal.signal(signal.SIGALRM, self.on_alarm)
        signal.alarm(self.limit_s)
        self.network = Network()

    def on_alarm(self, *_):
        raise TimeLimit(f"{self.id()} took longer than {self.limit_s} s")

    def show_outputs(self):
        if self.problems() == self.problems_before:
            return
        for output in sorted(self.folder.rglob("*.out")) + sorted(self.folder.rglob("*.log")):
            text = output.read_text(errors="replace")
            if text.strip():
                print(f"--- {output.name}\n{text[-4000:]}", file=sys.stderr)

    def start(self, name, arguments, environment=None):
        return Process(name, arguments, self.folder, environment)

    def eventually(self, condition, what, seconds=30):
        """Waits until `condition()` is true and returns its value."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                self.fail(f"not within {seconds} s: {what}")
            time.sleep(0.02)
        return value


class Network:
    """A random /24 of 127.0.0.0/8 and one port that is free on it and on ::1: the engine dials one port everywhere."""

    def __init__(self):
        # Below the ephemeral range (32768 and up), so that no outgoing connection takes it meanwhile.
        chooser = random.SystemRandom()
        for _ in range(1000):
            self.prefix = f"127.{chooser.randrange(10, 250)}.{chooser.randrange(1, 250)}"
            self.port = chooser.randrange(10_000, 30_000)
            if self._free("0.0.0.0") and self._free("::1"):
                return
        raise RuntimeError("no free port on loopback")

    def _free(self, address):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            try:
                probe.bind((address, self.port))
            except OSError:
                return False
        return True

    def address(self, number):
        return f"{self.prefix}.{number}"

    def wait_listening(self, address, process, seconds=20):
        end = time.monotonic() + seconds
        while process.alive() and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection((address, self.port), timeout=1) as peer:
                peer.recv(4)
                return
            time.sleep(0.05)
        raise RuntimeError(f"{process.name} does not listen on {address}:{self.port}: {process.text()[-2000:]}")


def certificate(folder):
    """A self-signed certificate and its key, readable by receivers that run under another user."""
    folder = pathlib.Path(folder)
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    if not certificate_file.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "30", "-subj", "/CN=mx.test", "-keyout", key_file, "-out", certificate_file],
            check=True, capture_output=True, stdin=subprocess.DEVNULL)
        os.chmod(key_file, 0o644)
    return certificate_file, key_file


class Engine:
    """A configuration, a spool and runs of `postrider run` on them."""

    def __init__(self, case, dns_port, *, dns_address="127.0.0.1", **settings):
        self.case = case
        self.folder = case.folder / "engine"
        self.spool = self.folder / "spool"
        self.log_file = self.folder / "delivery.jsonl"
        self.config = self.folder / "postrider.toml"
        self.program = [PROGRAM]
        for name in ("tmp", "new"):
            (self.spool / name).mkdir(parents=True, exist_ok=True)
        self.write_config([f"{dns_address}:{dns_port}"], **settings)

    def write_config(self, dns, *, retry_after=("1s",), max_age="1h", prohibited=(), shutdown_timeout="5s",
                     shaping="", port=None, shards=2, more=""):
        shaping_file = self.folder / "shaping.toml"
        shaping_file.write_text(shaping)
        text = f"""
[server]
hostname = "sender.test"
spool = "{self.spool}"
log = "{self.log_file}"
shards = {shards}
shutdown_timeout = "{shutdown_timeout}"

[dns]
servers = {json.dumps(dns)}

[smtp]
port = {port or self.case.network.port}
"""
        if prohibited is not None:  # None: the default of the engine
            text += f"prohibited_hosts = {json.dumps(list(prohibited))}\n"
        text += f"""
[retry]
retry_after = {json.dumps(list(retry_after))}
max_age = "{max_age}"
"""
        if shaping:
            text += f'\n[shaping]\nfiles = ["{shaping_file}"]\n'
        self.config.write_text(text + more)

    def put(self, name, content):
        """Hands a file over as producers must: write, fsync, rename."""
        temporary = self.spool / "tmp" / name
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.spool / "new" / name)

    def run_as(self, user):
        """From now on the engine runs as another user and owns its folder; root only."""
        program = self.folder / "postrider"
        shutil.copy(PROGRAM, program)  # the checkout may be closed to that user
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, user, user, follow_symlinks=False)
        self.program = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=TERM", program]

    def command(self, until_empty=True):
        command = [*self.program, "run", "--config", self.config]
        if until_empty:
            command.append("--until-empty" if until_empty is True else f"--until-empty={until_empty}")
        return command

    def start(self, until_empty=False, environment=None):
        return self.case.start("engine", self.command(until_empty), environment)

    def run(self, until_empty=True, seconds=60, environment=None):
        """Runs to the end and returns (exit code, output)."""
        process = self.start(until_empty, environment)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.case.fail(f"the engine did not end within {seconds} s: {process.text()[-4000:]}")
        text = process.text()
        process.end()
        return code, text

    def log(self):
        if not self.log_file.exists():
            return []
        with open(self.log_file, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.endswith("\n")]

    def records(self, recipient):
        """A recipient's records in the order they were written."""
        return [r for r in self.log() if address_of(r) == recipient]

    def last(self, recipient):
        records = self.records(recipient)
        if not records:
            self.case.fail(f"no record of {recipient} in the delivery log: {self.log()}")
        return records[-1]

    def claimed(self):
        """Files the engine has taken and not finished: active/<2 hex>/<id>, an index may lie beside."""
        return [p for p in (self.spool / "active").rglob("*") if p.is_file() and "." not in p.name]

    def files_left(self):
        """Files that are neither done nor set aside."""
        waiting = [p for p in (self.spool / "new").rglob("*") if p.is_file() and not p.name.startswith(".")]
        return waiting + self.claimed()


def address_of(record):
    recipient = record.get("recipient")
    return recipient[0] if isinstance(recipient, list) else recipient


def enhanced(record):
    """'5.1.1', from the enhanced code of the response."""
    code = record["response"].get("enhanced_code")
    return f"{code['class']}.{code['subject']}.{code['detail']}" if code else None


def eml(sender, recipients, content, **labels):
    """An .eml file: the envelope block, then the content as it is. The block's line ends are those of the content."""
    end = b"\r\n" if content.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    lines = [f"x-sender: {sender}"] + [f"x-receiver: {r}" for r in recipients]
    lines += [f"x-{name.replace('_', '-')}: {value}" for name, value in labels.items()]
    return b"".join(line.encode() + end for line in lines) + content


def bsmtp(messages, end=b"\r\n"):
    """A batch file of (sender, recipients, content) with contents in the same line ends, dots stuffed."""
    out = []
    for sender, recipients, content in messages:
        out.append(f"MAIL FROM:<{sender}>".encode())
        out += [f"RCPT TO:<{r}>".encode() for r in recipients]
        out.append(b"DATA")
        lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
        out += [b"." + line if line.startswith(b".") else line for line in lines]
        out.append(b".")
    return end.join(out) + end
