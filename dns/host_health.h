// What this shard has lately learned about addresses, hosts and address families, so that a new
// connection tries the living first (FAULTS 85, 89). It orders, it never forbids: what failed is
// tried last, and a success or the expiry clears it. Local trouble (no descriptors, no memory, no
// ports) condemns nobody (FAULTS 95).
//
// Expiry doubles from kFirstMs to kLongestMs with each failure. Bounded: at most kEntries, the
// oldest are forgotten. A family is taken for broken when the kernel has no route for it, or, for
// IPv6, when kFamilyFailures addresses in a row were not reached: many hosts publish AAAA on
// networks whose IPv6 leads nowhere (RFC 3974). Of IPv4 only the first counts: a bulk list has many
// dead IPv4 hosts in a row.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "dns/text_key.h"
#include "engine/core/socket_address.h"

namespace postrider {

class HostHealth {
  public:
    static constexpr int64_t kFirstMs = 60'000;
    static constexpr int64_t kLongestMs = 900'000;
    static constexpr size_t kEntries = 16'384;
    static constexpr uint32_t kFamilyFailures = 4;

    // `error`: the errno of connect (ETIMEDOUT for our own deadline).
    void connect_failed(const SocketAddress& address, int error, int64_t now_ms);
    void connected(const SocketAddress& address);

    // The host answered, but takes no session now: greeting 421 or 554, end of stream, a failed
    // handshake.
    void host_failed(std::string_view host, int64_t now_ms);
    void host_served(std::string_view host);

    bool address_healthy(const SocketAddress& address, int64_t now_ms) const;
    bool host_healthy(std::string_view host, int64_t now_ms) const;
    bool family_healthy(int family, int64_t now_ms) const;
    // All three.
    bool healthy(std::string_view host, const SocketAddress& address, int64_t now_ms) const;

  private:
    struct Mark {
        int64_t until_ms = 0;
        uint32_t failures = 0;
        bool holds(int64_t now_ms) const { return now_ms < until_ms; }
        void fail(int64_t now_ms);
    };
    // Two generations: when the young one is full the old one is forgotten, so that room costs
    // nothing to make.
    template <class Map>
    struct Marks {
        Map young, old;
        template <class Key>
        const Mark* find(const Key& key) const;
        template <class Key>
        Mark& at(const Key& key);
        template <class Key>
        void erase(const Key& key);
    };
    struct Family {
        Mark mark;
        uint32_t in_a_row = 0;
        SocketAddress last;
    };
    struct AddressHash {
        size_t operator()(const SocketAddress& address) const {
            return address.with_port(0).hash();
        }
    };
    struct AddressEqual {
        bool operator()(const SocketAddress& a, const SocketAddress& b) const {
            return a.same_address(b);
        }
    };

    Family& family(int number) { return number == AF_INET6 ? v6_ : v4_; }

    Marks<std::unordered_map<SocketAddress, Mark, AddressHash, AddressEqual>> addresses_;
    Marks<std::unordered_map<std::string, Mark, TextHash, TextEqual>> hosts_;
    Family v4_, v6_;
};

}  // namespace postrider
