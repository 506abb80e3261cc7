#!/usr/bin/python3
"""Builds, and runs every test of postrider; called by tools/test, which sets the machine up and says how it is used.

Test cases are counted, not programs: those of GoogleTest and of unittest by their own summary.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Words in the names of the unit tests whose subject is shared between threads.
LOCK_FREE = ("core", "io", "queue", "egress")
children = []


class Tally:
    """Test cases over all runs of Meson."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, record, label):
        output = record.get("stdout", "") + "\n" + record.get("stderr", "")
        cases, failed, skipped = count_cases(output)
        if record["result"] == "SKIP":
            cases, failed, skipped = 1, 0, 1
        elif record["result"] not in ("OK", "EXPECTEDFAIL"):
            failed = max(failed, 1)  # a crash, a time-out or a sanitizer's report leaves no summary
            self.failures.append((label + record["name"], record["result"], output))
        self.failed += failed
        self.skipped += skipped
        self.passed += max(cases - failed - skipped, 0)


def count_cases(output):
    """(cases, failed, skipped) by the summary in a test program's output; a program without one is one case."""
    ran = re.search(r"^\[==========\] (\d+) tests? from .* ran\.", output, re.M)
    if ran:
        failed = re.search(r"^\[  FAILED  \] (\d+) tests?, listed below", output, re.M)
        skipped = re.search(r"^\[  SKIPPED \] (\d+) tests?", output, re.M)
        return int(ran[1]), int(failed[1]) if failed else 0, int(skipped[1]) if skipped else 0
    ran = re.search(r"^Ran (\d+) tests? in", output, re.M)
    if ran:
        # Failing subtests are listed one by one; their test is one case.
        cases = {m[1] for m in re.finditer(r"^(?:FAIL|ERROR): (\S+ \([\w.]+\))", output, re.M)}
        skipped = re.search(r"skipped=(\d+)", output)
        return int(ran[1]), len(cases), int(skipped[1]) if skipped else 0
    return 1, 0, 0


def say(text):
    print(f"test: {text}", flush=True)


def run(command, quiet=None, **environment):
    """Runs a step; with `quiet`, its output goes to that file and is shown only when the step fails."""
    output = open(quiet, "wb") if quiet else None
    child = subprocess.Popen([str(c) for c in command], cwd=ROOT, env={**os.environ, **environment},
                             stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if quiet else None)
    children.append(child)
    code = child.wait()
    children.remove(child)
    if output:
        output.close()
        if code != 0:
            print(pathlib.Path(quiet).read_text(errors="replace")[-20_000:], flush=True)
    return code


def build(tally, label, *steps):
    """Runs the commands one after the other; a failure counts as a failed test."""
    begin = time.monotonic()
    log = ROOT / "build" / f"test-{label}.log"
    say(f"building ({label}; the log is {log.relative_to(ROOT)})")
    for step in steps:
        if run(step, quiet=log, NO_SETUP="1") != 0:
            tally.failed += 1
            tally.failures.append((f"build ({label})", "FAIL", "see above"))
            return False
    say(f"built ({label}) in {time.monotonic() - begin:.0f} s")
    return True


def meson_test(tally, folder, label, *arguments, **environment):
    """Meson prints a line for each test as it ends; results are read from its log."""
    log = ROOT / folder / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    code = run(["meson", "test", "-C", folder, "--no-rebuild", *arguments], **environment)
    if not log.exists():
        if code != 0:
            tally.failed += 1
            tally.failures.append((label + "meson test", "FAIL", f"exit code {code}"))
        return
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            tally.add(json.loads(line), label)


def listed(folder):
    """The tests of a build folder, as Meson describes them."""
    text = subprocess.run(["meson", "introspect", "--tests", folder], cwd=ROOT, check=True, capture_output=True).stdout
    return json.loads(text)


def unit_tests(folder, words=("",)):
    """{name: program below the folder} of the unit tests whose name holds one of the words."""
    found = {}
    for test in listed(folder):
        program = pathlib.Path(test["cmd"][0])
        unit = program.is_relative_to(ROOT / folder / "tests" / "unit") or test["name"] == "crash-journal-mutants"
        if unit and any(word in test["name"] for word in words):
            found[test["name"]] = program.relative_to(ROOT / folder)
    return found


def sanitized(tally, label, multiplier, words, **environment):
    """Builds and runs the unit tests alone: the receivers and the house need no sanitizer."""
    folder, option = f"build-{label}", f"--{label}"
    if not build(tally, f"{label}-setup", [ROOT / "tools" / "build", "--configure", option]):
        return
    tests = unit_tests(folder, words)  # and the damaged journals, which a sanitizer should see
    if build(tally, label, ["ninja", "-C", folder, *tests.values()]):
        meson_test(tally, folder, f"{label}: ", "--timeout-multiplier", str(multiplier), *tests, **environment)


def crash_program(tally):
    """The program with crash points: the campaigns `points` and `io` of the release build's tests start it."""
    folder = "build-crash"
    return build(tally, "crash-setup", [ROOT / "tools" / "build", "--configure", "--crash-points"]) and \
        build(tally, "crash", ["ninja", "-C", folder, "postrider"])


def interrupted(*_):
    for child in children:
        child.terminate()
    sys.exit(130)


def main():
    parser = argparse.ArgumentParser(prog="tools/test", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the sanitizers")
    parser.add_argument("names", nargs="*", help="parts of test names")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)

    tally = Tally()
    begin = time.monotonic()
    if build(tally, "release", [ROOT / "tools" / "build"]):
        names = [t["name"] for t in listed("build") if any(word in t["name"] for word in options.names)]
        if options.names and not names:
            parser.error(f"no test is called {' or '.join(options.names)}")
        if not options.names or any(name.startswith("crash-") for name in names):
            crash_program(tally)
        meson_test(tally, "build", "", *sorted(set(names)))
        if not options.quick and not options.names:
            sanitized(tally, "asan", 4, ("",), UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
                      ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1")
            sanitized(tally, "tsan", 6, LOCK_FREE, TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1")
    for name, result, output in tally.failures:
        print(f"\n===== {name}: {result}\n{output[-20_000:].rstrip()}")
    print(f"\ntest: {time.monotonic() - begin:.0f} s, {tally.skipped} skipped")
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
