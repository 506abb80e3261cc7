// The resolver as the rest of the engine sees it: where a domain's mail goes, and what addresses a
// host has. The simulation cuts here and brings its own; the real one is ares_resolver.h. One per
// shard, used on its thread only.
//
// Names are A-labels, as domain_to_ascii makes them: lower case, no final dot. A domain may be an
// address literal
// (`[192.0.2.1]`, `[IPv6:2001:db8::1]`, RFC 5321 4.1.3): a route of its own, answered without DNS.
//
// Failure policy: no answer is an answer. Whatever DNS cannot say now (SERVFAIL, REFUSED, silence,
// nonsense) is `temporary`, and only a plain "no such name" or "no such data" is permanent (FAULTS
// 78, 79).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/socket_address.h"
#include "engine/io/task.h"

namespace postrider {

struct MxHost {
    uint16_t preference = 0;
    std::string name;  // lower case, no final dot; for a literal domain the literal itself
    bool operator==(const MxHost&) const = default;
};

struct MailRoute {
    enum class Kind : uint8_t {
        hosts,           // `hosts` is not empty
        null_mx,         // the domain takes no mail: P 5.1.10 (RFC 7505)
        no_such_domain,  // P 5.1.2
        no_usable_host,  // MX records exist, but none can be delivered to: P 5.4.4
        temporary,       // ask again at `expires_ms`; burns no attempt
    };
    Kind kind = Kind::temporary;
    std::vector<MxHost> hosts;  // ascending preference, at most limits::kMxPerDomain
    bool implicit = false;      // no MX: the domain itself at preference 0 (RFC 5321 5.1)
    std::string site;           // canonical MX set, DESIGN 2.3; empty without hosts
    int64_t expires_ms = 0;     // reactor clock
    std::string why;            // for the log, e.g. "MX example.com: SERVFAIL"; empty for `hosts`
};

struct HostAddresses {
    enum class Kind : uint8_t {
        found,      // `addresses` is not empty
        none,       // the host does not exist, or has neither A nor AAAA
        temporary,  // ask again at `expires_ms`
    };
    Kind kind = Kind::temporary;
    std::vector<SocketAddress>
        addresses;           // both families, port 0, at most limits::kAddressesPerHost
    int64_t expires_ms = 0;  // reactor clock
    std::string why;         // for the log; empty for `found`
};

class Resolver {
  public:
    virtual ~Resolver() = default;

    // The answer, from the cache without suspension when it is there. Look-ups of one name at a
    // time are one query. Never null; the answer stays valid for whoever holds it, whatever becomes
    // of the cache.
    virtual Task<std::shared_ptr<const MailRoute>> route(std::string domain) = 0;
    virtual Task<std::shared_ptr<const HostAddresses>> addresses(std::string host) = 0;

    // What the cache holds and has not expired, else null. The pointer is valid until the caller
    // suspends.
    virtual const MailRoute* cached_route(std::string_view domain) = 0;
    virtual const HostAddresses* cached_addresses(std::string_view host) = 0;

    // Look-ups nobody waits for any more; they end before the resolver does.
    Gate& background() { return background_; }

  private:
    Gate background_;
};

}  // namespace postrider
