"""What a sink's log says about limits, counted without a word of the engine's: when each MAIL came, how many connections
were open, how much of a rate was used. Times are the sink's, microseconds of CLOCK_MONOTONIC."""

import bisect
import json

CLOCK_S = 0.05  # the receiver's clock and the kernel's queues: so much of the rate may come late and together


def events(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def transactions(log, domain=None, suffix=None):
    """The transactions of a domain, or of all domains below a suffix, by the time of MAIL."""
    def mine(event):
        return event["event"] == "transaction" and any(
            (domain is None or r.endswith("@" + domain)) and (suffix is None or r.endswith(suffix))
            for r in event["recipients"])
    return sorted((e for e in log if mine(e)), key=lambda e: e["mail_us"])


def most_in_window(marks, window_s):
    """Of (time in s, weight), ascending: the largest sum over all windows [t, t + W]; such a window begins at a mark."""
    times = [t for t, _ in marks]
    sums = [0]
    for _, weight in marks:
        sums.append(sums[-1] + weight)
    return max((sums[bisect.bisect_right(times, t + window_s)] - sums[i] for i, t in enumerate(times)), default=0)


def excess(marks, rate, burst, windows_s=(1, 10, 60), clock_s=CLOCK_S):
    """The worst window, as what was sent above what is allowed; at most 0 when the limit held."""
    return max(most_in_window(marks, w) - (rate * w + burst + clock_s * rate) for w in windows_s)


def used(marks, rate):
    """The share of the rate that was used from the first mark to the last."""
    if len(marks) < 2:
        return 0.0
    return (sum(w for _, w in marks) - marks[-1][1]) / (rate * (marks[-1][0] - marks[0][0]))


def peak_connections(log, connections=None):
    """The most connections open at once, of all or of those numbers."""
    steps = []
    for event in log:
        if event["event"] in ("open", "close") and (connections is None or event["connection"] in connections):
            steps.append((event["mono_us"], 1 if event["event"] == "open" else -1))
    now = most = 0
    for _, step in sorted(steps):  # of two at one microsecond the close counts first
        now += step
        most = max(most, now)
    return most


def openings(log):
    return [(e["mono_us"] / 1e6, 1) for e in log if e["event"] == "open"]


def marks(log_transactions, weight=lambda t: 1):
    return [(t["mail_us"] / 1e6, weight(t)) for t in log_transactions]


class Steps:
    """A value that changes at times: values[i] from times[i] on. Its integral from the first time on."""

    def __init__(self, times, values):
        self.times, self.values, self.sums = times, values, [0.0]
        for i in range(len(times) - 1):
            self.sums.append(self.sums[-1] + values[i] * (times[i + 1] - times[i]))

    def at(self, time_s):
        return max(0, bisect.bisect_right(self.times, time_s) - 1)

    def integral(self, time_s):
        i = self.at(time_s)
        return self.sums[i] + self.values[i] * max(0.0, time_s - self.times[i])

    def highest(self, begin_s, end_s):
        return max(self.values[self.at(begin_s):self.at(end_s) + 1])


class ChangingLimit:
    """A limit that was changed: orders of (before, after, value), the times around each order. Between them either value may
    hold. The first one held from the beginning."""

    def __init__(self, orders):
        times, most, least = [], [], []
        for i, (before, after, value) in enumerate(orders):
            old = orders[i - 1][2] if i else value
            times += [before, after]
            most += [max(old, value), value]
            least += [min(old, value), value]
        self.most, self.least = Steps(times, most), Steps(times, least)
        self.highest = max(most)

    def excess(self, log_marks, burst, clock_s=CLOCK_S):
        """The worst window of any length, as what was sent above what the rates allowed; at most 0 when they held."""
        worst, base, count = float("-inf"), float("inf"), 0
        for time_s, weight in log_marks:
            allowed = self.most.integral(time_s)
            base = min(base, count - allowed)  # of a window that begins at this mark
            count += weight
            worst = max(worst, count - allowed - base)
        return worst - burst - clock_s * self.highest

    def used(self, log_marks):
        """The share of the rates that was used from the first mark to the last."""
        first, last = log_marks[0][0], log_marks[-1][0]
        allowed = self.least.integral(last) - self.least.integral(first)
        return (sum(w for _, w in log_marks) - log_marks[-1][1]) / allowed

    def opened_above(self, log, clock_s=CLOCK_S):
        """Connections that were opened while as many as the limit allows, at that time or `clock_s` before, were open."""
        steps = sorted((e["mono_us"] / 1e6, 1 if e["event"] == "open" else -1) for e in log if e["event"] in ("open", "close"))
        open_now, above = 0, 0
        for time_s, step in steps:
            open_now += step
            above += step > 0 and open_now > self.most.highest(time_s - clock_s, time_s)
        return above
