"""The targets of the engine: one verdict for each, from the medians of one run of bench/run.

A target is a ratio of two figures of the same run, so that it means the same on every machine. `medians` is
{(workload, case): {figure: median}}.
"""

import dataclasses

MET, MISSED, LEAST, REPORTED = "met", "missed", "least met", "reported"


@dataclasses.dataclass(frozen=True)
class Verdict:
    what: str       # the row's words
    target: str
    value: str      # as measured
    word: str       # met, missed by ..., least met, reported


class Figures:
    """Access to the medians; a figure that was not measured is a KeyError, which leaves the row out."""

    def __init__(self, medians):
        self.medians = medians

    def cpu(self, workload, case="engine"):
        return self.medians[workload, case]["cpu_us_msg"]

    def limit(self, workload):
        """The limit's best dialogue."""
        costs = [m["cpu_us_msg"] for (w, case), m in self.medians.items() if w == workload and case.startswith("limit-")]
        if not costs:
            raise KeyError(workload)
        return min(costs)

    def best(self, workload):
        """The engine's best dialogue: its default, or the one that the limit's best is."""
        deep = self.medians.get((workload, "engine-bdat-8"), {}).get("cpu_us_msg", float("inf"))
        return min(self.cpu(workload), deep)

    def rate(self, workload):
        return self.medians[workload, "engine"]["steady_msg_s"]


def missed(share):
    return f"{MISSED} by {share * 100:.0f} %" if share >= 0.01 else f"{MISSED} by {share * 100:.1f} %"


def at_most(what, ratio, target, words, least=None):
    text = f"at most {target:.2f} {words}"
    if least:
        text += f" (the least: {least:.2f})"
    if ratio <= target:
        word = MET
    elif least and ratio <= least:
        word = f"{LEAST}, target missed by {(ratio / target - 1) * 100:.0f} %"
    else:
        word = missed(ratio / (least or target) - 1)
    return Verdict(what, text, f"{ratio:.2f}", word)


def at_least(what, value, target, text, shown):
    word = MET if value >= target else missed(1 - value / target)
    return Verdict(what, text, shown, word)


def base(f):
    return at_most("10 KiB, batch spool, in clear, best dialogue", f.best("base") / f.limit("base"), 1.6,
                   "x the limit's best dialogue", least=2.0)


def base_default(f):
    """What a user gets without a word about the dialogue; DESIGN sets no target."""
    ratio = f.cpu("base") / f.cpu("base", "limit-next")
    return Verdict("the same, the default dialogue", "x the limit's same dialogue", f"{ratio:.2f}", REPORTED)


def one_file(f):
    floor = f.cpu("base") + f.cpu("one-file", "files")
    return at_most(f"one file each, against {f.cpu('base'):.1f} us of the batch and {f.cpu('one-file', 'files'):.1f} us "
                   "of the files alone", f.cpu("one-file") / floor, 1.25, "x their sum")


def tls(f):
    return at_most("TLS 1.3, pooled", f.cpu("tls") / f.cpu("base"), 1.6, "x in clear")


def one_domain(f):
    return at_most("1 domain", f.cpu("one-domain") / f.cpu("base"), 1.1, "x 1,000 domains")


def many_domains(f):
    return at_most("100,000 domains", f.cpu("many-domains") / f.cpu("base"), 1.5, "x 1,000 domains")


def distant(f):
    full = 20 / 0.05
    share = f.rate("rtt-50") / full
    return at_least("50 ms away, 20 connections, `message`", share, 0.95, "at least 95 % of 20 per round trip",
                    f"{share * 100:.0f} % ({f.rate('rtt-50'):.0f} msg/s)")


def distant_bdat(f):
    times = f.rate("rtt-50-bdat") / (20 / 0.05)
    return at_least("50 ms away, 20 connections, BDAT depth 4", times, 3.5, "at least 3.5 x 20 per round trip",
                    f"{times:.2f} x ({f.rate('rtt-50-bdat'):.0f} msg/s)")


def large_tls(f):
    return at_most("100 KiB over TLS", f.cpu("tls-100k") / f.cpu("100k"), 1.8, "x in clear")


def two_shards(f):
    return at_most("2 shards against 1", f.cpu("shards-2") / f.cpu("base"), 1.25, "x the CPU of one")


def against(peer, title, target):
    def row(f):
        times, best = f.cpu("base", peer) / f.cpu("base"), f.cpu("base", peer) / f.best("base")
        return at_least(f"against {title}, its queue loaded before", times, target,
                        f"at least {target} x less CPU for a message",
                        f"{times:.1f} x ({f.cpu('base', peer):.0f} us); best dialogue {best:.1f} x")
    return row


ROWS = (base, base_default, one_file, tls, one_domain, many_domains, distant, distant_bdat, against("postfix", "Postfix", 50),
        against("opensmtpd", "OpenSMTPD", 30), large_tls, two_shards)


def verdicts(medians, unavailable):
    """A verdict for each row whose figures were measured; `unavailable` is {(workload, case): why}."""
    found = []
    for row in ROWS:
        try:
            found.append(row(Figures(medians)))
        except KeyError:
            continue
    for (workload, case), why in sorted(unavailable.items()):
        found.append(Verdict(f"{workload}, {case}", "-", "-", why))
    return found
