// The addresses to try, in order, for one connection to a site: by preference, equal ones shuffled
// (RFC 5321 5.1), A and AAAA interleaved (RFC 8305 4), healthy ones before those that failed
// lately, prohibited ones left out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dns/host_health.h"
#include "dns/resolver.h"
#include "engine/config/address_block.h"
#include "engine/io/reactor.h"

namespace postrider {

using AddressBlocks = std::vector<AddressBlock>;

struct Candidate {
    SocketAddress address;  // with the port
    std::string host;       // the MX host it belongs to: the name for certificates and the log
    uint16_t preference = 0;
};

struct Candidates {
    MailRoute::Kind kind =
        MailRoute::Kind::temporary;  // hosts, no_usable_host or temporary, or the route's own
    std::vector<Candidate> list;     // at most limits::kAddressesPerSite; empty unless `hosts`
    int64_t expires_ms = 0;          // when asking again can bring something else
    std::string
        why;  // why hosts were left out: "mx.example.com: NXDOMAIN; mx2...: 127.0.0.1 prohibited"
};

// `resolver`, `reactor`, `health` and `prohibited` outlive the task. Without suspension when all
// hosts are cached.
Task<Candidates> candidates(Resolver& resolver, Reactor& reactor,
                            std::shared_ptr<const MailRoute> route, HostHealth& health,
                            const AddressBlocks& prohibited, uint16_t port);

// The pure part: `hosts[i]` are the addresses of `route.hosts[i]`; null for a host that was not
// asked.
Candidates order_candidates(const MailRoute& route,
                            const std::vector<std::shared_ptr<const HostAddresses>>& hosts,
                            const HostHealth& health, Random& random,
                            const AddressBlocks& prohibited, uint16_t port, int64_t now_ms);

}  // namespace postrider
