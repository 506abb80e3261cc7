// What the sites of a shard share at one address (with one source): the connections that rest there, and the pace at which
// new ones are opened. Thousands of domains with MX names of their own at one provider share connections this way.
//
// * A site that wants a connection takes over one that another site has left at rest. It is charged to one path at a time:
//   the taker's lease replaces the former one. Never to a weaker use: what demands TLS takes only a connection that has it,
//   and what would use TLS takes one in clear only where the host offers none, or its TLS failed lately.
// * No more connections are being opened at once than are open already, at least kFirstOpenings: slow start. Who may not
//   open waits, and is woken by a connection that comes to rest, an opening that ends, or its deadline. So a host that
//   takes few sessions is not met by a thousand that wait for its greeting while others rest.
// * When an address fails and nothing is open there, all who wait share the failure: one probe for all (FAULTS 89).
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/core/ids.h"
#include "engine/core/socket_address.h"
#include "engine/smtp/session.h"

namespace postrider {

class PooledConnection;

class AddressPool {
  public:
    static constexpr size_t kFirstOpenings = 4;

    struct Address {
        size_t users = 0;  // who looks for a connection here; between being woken and going on they stand in no list
        size_t opening = 0;
        size_t open = 0;
        std::vector<PooledConnection*> resting;
        std::deque<PooledConnection*> waiting;
        std::optional<SessionFailure> failure;  // the last opening's, while nothing was opened since
        bool may_open() const { return opening < std::max(kFirstOpenings, open); }
    };

    Address& at(const SocketAddress& address, SourceId source) {
        auto& entry = addresses_[Key{address, source}];
        if (!entry) entry = std::make_unique<Address>();
        return *entry;
    }
    size_t size() const { return addresses_.size(); }
    // Forgets the addresses of which nothing is known or held; once in a while.
    void sweep() {
        std::erase_if(addresses_, [](const auto& entry) {
            const Address& a = *entry.second;
            return a.users == 0 && a.opening == 0 && a.open == 0 && a.resting.empty() && a.waiting.empty();
        });
    }

  private:
    struct Key {
        SocketAddress address;
        SourceId source;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        size_t operator()(const Key& key) const { return key.address.hash() * 31 + key.source; }
    };
    std::unordered_map<Key, std::unique_ptr<Address>, Hash> addresses_;
};

}  // namespace postrider
