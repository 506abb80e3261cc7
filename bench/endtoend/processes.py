"""The processes under measurement: pinned to a core, counted as a whole tree, ended by their id.

CPU time is that of a cgroup of the process's own where one can be made (cgroup v2, as root or delegated): whatever the
process forks is in it, and its clock is the scheduler's, exact to the nanosecond. Elsewhere it is the rusage of the
child and of the children that it has waited for. A result says which (`cpu_from`).
"""

import ctypes
import itertools
import os
import pathlib
import signal
import subprocess
import threading
import time

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count(1)


class Failure(Exception):
    """A run that did not do its work; the text says what."""


def cores(number):
    """For a child: the numbered one of the cores this process may use, or all of them: None, or too few cores."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[number]} if number is not None and len(usable) > number else set(usable)


class Cgroup:
    """A group of processes whose CPU time the kernel adds up."""

    kind = "cgroup"

    def __init__(self, folder):
        self.folder = folder

    @staticmethod
    def make():
        """A group below this process's own; None where that is not allowed."""
        try:
            own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
            mount = next(fields.split()[4] for fields in open("/proc/self/mountinfo") if " - cgroup2 " in fields)
            folder = pathlib.Path(mount + own) / f"postrider-bench-{os.getpid()}-{next(numbers)}"
            folder.mkdir()
        except (OSError, StopIteration):
            return None
        group = Cgroup(folder)
        try:
            with open(folder / "cgroup.procs", "w") as file:  # may be forbidden though the folder is not
                file.close()
            group.cpu()
        except (OSError, KeyError):
            group.remove()
            return None
        return group

    def started(self, pid):
        """The group has it already."""

    def enter(self):
        """In a child before exec."""
        file = os.open(self.folder / "cgroup.procs", os.O_WRONLY)
        os.write(file, b"0")
        os.close(file)

    def cpu(self):
        """(user, system) in microseconds; their sum is exact, their shares are sampled."""
        told = dict(line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        return int(told["user_usec"]), int(told["system_usec"])

    def pids(self):
        return [int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()]

    def end_all(self):
        end_all(self.pids)

    def remove(self):
        try:
            self.folder.rmdir()
        except OSError:
            pass


class Tree:
    """Where no cgroup can be made: processes that were started, and their descendants, by /proc. What has ended counts
    from when its parent has waited for it; the clock has the kernel's tick, a hundredth of a second."""

    kind = "proc"

    def __init__(self):
        self.roots = []

    def enter(self):
        """A descendant is found by its parents."""

    def started(self, pid):
        self.roots.append(pid)

    def pids(self):
        return list(self.stats())

    def stats(self):
        """{pid: the fields of /proc/<pid>/stat behind the name} of the whole tree."""
        every = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                every[int(path.parent.name)] = fields
        found, more = {}, [pid for pid in self.roots if pid in every]
        while more:
            pid = more.pop()
            found[pid] = every[pid]
            more += [child for child, fields in every.items() if int(fields[1]) == pid]
        return found

    def cpu(self):
        tick_us = 1_000_000 / os.sysconf("SC_CLK_TCK")
        stats = self.stats().values()
        return (sum(int(f[11]) + int(f[13]) for f in stats) * tick_us,
                sum(int(f[12]) + int(f[14]) for f in stats) * tick_us)

    def end_all(self):
        end_all(self.pids)

    def remove(self):
        self.roots = []


def end_all(list_pids, seconds=10):
    """SIGTERM, then SIGKILL, to processes that this program has started, until there are none."""
    deadline = time.monotonic() + seconds
    while pids := list_pids():
        kind = signal.SIGTERM if time.monotonic() < deadline - seconds / 2 else signal.SIGKILL
        for pid in pids:
            try:
                os.kill(pid, kind)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            raise Failure(f"processes {pids} do not end")
        time.sleep(0.1)


class Child:
    """A process whose own resource use is known at its end, killed by its id when it takes too long."""

    def __init__(self, command, core, output, timeout):
        self.group = Cgroup.make()
        mask = cores(core)

        def before_exec():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, mask)
            if self.group:
                self.group.enter()

        self.begun = time.monotonic()
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=output,
                                        stderr=subprocess.STDOUT, preexec_fn=before_exec)
        self.watchdog = threading.Timer(timeout, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def ended(self):
        return self.process.returncode is not None

    def wait(self):
        _, status, usage = os.wait4(self.process.pid, 0)
        seconds = time.monotonic() - self.begun
        self.watchdog.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        user, system = usage.ru_utime * 1e6, usage.ru_stime * 1e6
        if self.group:
            user, system = self.group.cpu()
        return {"code": self.process.returncode, "secs": seconds, "user_us": user, "sys_us": system,
                "cpu_from": "cgroup" if self.group else "rusage", "maxrss_kb": usage.ru_maxrss,
                "switches": usage.ru_nvcsw + usage.ru_nivcsw}

    def close(self):
        """Ends what is left and forgets the group; may be called twice."""
        if not self.ended():
            self.process.kill()
            self.wait()
        if self.group:
            self.group.end_all()
            self.group.remove()
            self.group = None

    def finish(self):
        """wait() and close(), closed also when the waiting is interrupted."""
        try:
            return self.wait()
        finally:
            self.close()

    def stop(self):
        """SIGTERM, then the same as wait()."""
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
        return self.wait()
