"""The workloads by name. Each varies the first, `base`, in what its name says."""

import dataclasses

KIB = 1024


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    says: str                      # for the report
    size: int = 10 * KIB           # octets of a message
    format: str = "bsmtp"          # of the spool: bsmtp, or eml: a file for each message
    domains: int = 1000
    sites: int = 50                # MX sites which the domains share; 0: one each
    spread: bool = False           # an address for each site; else all sites are at one
    tls: bool = False
    deliveries: int = 1_000_000    # messages a connection
    connections: int = 16          # of the limit, and of each site for the engine
    latency_ms: int = 0            # the receiver reads so much later
    shards: int = 1
    shaping: str = ""              # more keys of ["default"]
    needs_key: str = ""            # a shaping key that the engine must enforce, else the case is "not available"
    limits: tuple = ("limit-next", "limit-bdat")
    share: float = 1.0             # of --messages
    quick: bool = False            # part of --quick --all
    peers: bool = False            # the peers are measured with it
    flights: bool = False          # the engine also with eight transactions in flight by BDAT, as limit-bdat-8

    def messages(self, asked):
        return max(1, round(asked * self.share))

    def steady(self):
        """A receiver far away is judged by its rate once the connections are open."""
        return self.latency_ms > 0


ALL_LIMITS = ("limit-lock", "limit-group", "limit-next", "limit-bdat", "limit-bdat-8")
# Distant receivers: one site at one address, 20 connections, so that a round trip carries a known number of messages.
FAR = {"domains": 1, "sites": 1, "connections": 20, "limits": ()}
FAR_SHARES = {0: 1.0, 10: 0.2, 50: 0.1, 100: 0.05}


def far(latency_ms):
    share = FAR_SHARES[latency_ms]
    yield Workload(f"rtt-{latency_ms}", f"20 connections, receiver {latency_ms} ms away", latency_ms=latency_ms,
                   share=share, shaping='pipelining = "message"\n', **FAR)
    yield Workload(f"rtt-{latency_ms}-bdat", f"the same, BDAT with four transactions in flight", latency_ms=latency_ms,
                   share=min(1.0, 4 * share), shaping='pipelining = "message"\npipeline_depth = 4\n',
                   needs_key="pipeline_depth", **FAR)


WORKLOADS = {w.name: w for w in (
    Workload("base", "10 KiB, batch spool, 1,000 domains on 50 sites, in clear", limits=ALL_LIMITS, quick=True,
             peers=True, flights=True),
    Workload("1k", "1 KiB", size=KIB),
    Workload("100k", "100 KiB", size=100 * KIB, share=0.2),
    Workload("one-file", "one .eml file for each message", format="eml", share=0.25, quick=True, limits=()),
    Workload("one-domain", "one domain", domains=1, sites=1, quick=True, limits=()),
    Workload("many-domains", "100,000 domains on 1,000 sites", domains=100_000, sites=1000, share=2.0, limits=()),
    Workload("spread", "each of the 50 sites at an address of its own", spread=True, limits=()),
    Workload("tls", "STARTTLS, TLS 1.3", tls=True, quick=True, flights=True),
    Workload("tls-100k", "100 KiB, STARTTLS", tls=True, size=100 * KIB, share=0.2),
    Workload("every-1", "a new connection for every message", deliveries=1, share=0.4),
    Workload("every-20", "a new connection every 20 messages", deliveries=20),
    *far(0), *far(10), *far(50), *far(100),
    Workload("shards-2", "two shards on two cores, the receiver on the second too", shards=2, limits=()),
)}


def chosen(names):
    """The workloads of a comma-separated list; an unknown name is a ValueError."""
    unknown = [n for n in names.split(",") if n not in WORKLOADS]
    if unknown:
        raise ValueError(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return [WORKLOADS[n] for n in names.split(",")]
