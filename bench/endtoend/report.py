"""Tables of medians for people: on the terminal, and as Markdown between the markers of docs/benchmarks.md."""

import os
import pathlib
import platform
import re
import statistics
import subprocess
import time

KEYS = ("msg_s", "cpu_us_msg", "user_us", "sys_us", "sink_cpu_us_msg", "sink_core_percent", "maxrss_kb", "switches_msg",
        "steady_msg_s", "calls_msg")
BUSY_SINK_PERCENT = 90
BEGIN, END = "<!-- bench/run --write-docs: from here -->", "<!-- bench/run --write-docs: to here -->"


def medians_of(results):
    """{(workload, case): {figure: median over the good runs}}, with the spread of CPU and the number of runs."""
    groups = {}
    for result in results:
        if result["ok"]:
            groups.setdefault((result["workload"], result["case"]), []).append(result)
    found = {}
    for key, runs in groups.items():
        middle = {}
        for figure in KEYS:
            values = [r[figure] for r in runs if r.get(figure) is not None]
            if values:
                middle[figure] = statistics.median(values)
        costs = [r["cpu_us_msg"] for r in runs]
        found[key] = {**middle, "runs": len(runs), "least": min(costs), "most": max(costs), "size": runs[0]["size"]}
    return found


def rows_of(medians, order):
    """The table as lists of cells; `order` is [(workload, case)]."""
    rows = [["workload", "case", "runs", "msg/s", "CPU us/msg", "least to most", "user", "sys", "of limit", "calls",
             "switches", "RSS MiB", "sink us", "sink core"]]
    for workload, case in order:
        m = medians.get((workload, case))
        if m is None:
            rows.append([workload, case, "0"] + ["-"] * 11)
            continue
        limits = [x["cpu_us_msg"] for (w, c), x in medians.items() if w == workload and c.startswith("limit-")]
        sink = m.get("sink_core_percent")
        rate = m["steady_msg_s"] if "steady_msg_s" in m else m["msg_s"]
        rows.append([
            workload, case, str(m["runs"]), f"{rate:,.0f}", f"{m['cpu_us_msg']:.1f}",
            f"{m['least']:.1f}-{m['most']:.1f}", f"{m['user_us']:.1f}", f"{m['sys_us']:.1f}",
            f"{m['cpu_us_msg'] / min(limits):.2f}" if limits else "-",
            f"{m['calls_msg']:.2f}" if "calls_msg" in m else "-",
            f"{m['switches_msg']:.2f}" if "switches_msg" in m else "-",
            f"{m['maxrss_kb'] / 1024:.0f}" if "maxrss_kb" in m else "-",
            f"{m['sink_cpu_us_msg']:.1f}" if "sink_cpu_us_msg" in m else "-",
            "-" if sink is None else f"{sink:.0f} %" + (" (saturated)" if sink >= BUSY_SINK_PERCENT else "")])
    return rows


def plain(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                     .rstrip() for row in rows)


def markdown(rows, left=2):
    line = "|" + "|".join("---" if i < left else "---:" for i in range(len(rows[0]))) + "|"
    cells = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([cells[0], line, *cells[1:]])


def verdict_rows(verdicts):
    return [["target row", "target", "measured", "verdict"], *[[v.what, v.target, v.value, v.word] for v in verdicts]]


def machine():
    """What the figures were taken on; the same words in each JSON line."""
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def source(root):
    """The commit, and whether the tree differs from it."""
    def git(*words):
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return {"commit": git("rev-parse", "--short=12", "HEAD") or "unknown",
            "changed": bool(git("status", "--porcelain", "--untracked-files=no"))}


def file_system(folder):
    """The type of the file system that the spools lie on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    name = done.stdout.strip() or "unknown"
    return "ext4" if name == "ext2/ext3" else name  # one number for all of them


def write_docs(path, text):
    """Replaces what stands between the markers."""
    page = pathlib.Path(path).read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{path} has not exactly one pair of markers")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    pathlib.Path(path).write_text(f"{head}{BEGIN}\n\n{text.strip(chr(10))}\n\n{END}{tail}", encoding="utf-8")


def document(facts, command, medians, order, verdicts, workloads):
    """The Markdown of a whole run."""
    named = "; ".join(f"`{w.name}`: {w.says}" for w in workloads)
    changed = " and uncommitted changes" if facts["changed"] else ""
    parts = [
        f"    {command}",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, "
        f"{facts['file_system']}; {facts['flags']}; commit {facts['commit']}{changed}; "
        f"medians of {facts['runs']} runs of {facts['messages']:,} messages (a workload's own share of them: "
        f"bench/endtoend/workloads.py).",
        f"Workloads: {named}.",
        markdown(verdict_rows(verdicts), left=4) if verdicts else "",
        markdown(rows_of(medians, order)),
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(part for part in parts if part))
