// TLS sessions to resume, by host name, address and security level; one table for all shards,
// looked up once a handshake. Sessions rest in their serialised form: no library object is shared
// between threads. Striped, so that shards rarely meet at a lock; each stripe forgets what was used
// least recently.
#pragma once

#include <array>
#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/core/socket_address.h"
#include "engine/net/tls_context.h"

namespace postrider {

class SessionCache {
  public:
    static constexpr size_t kStripes = 16;
    // A ticket is opaque and as large as a server likes; a larger one is not worth its memory.
    static constexpr size_t kSessionMax = 4096;

    explicit SessionCache(size_t capacity = 16'384) : per_stripe_(capacity / kStripes + 1) {}

    static std::string key(std::string_view host, const SocketAddress& address, TlsLevel level);

    void store(const std::string& key, std::string session);
    // Empty: none. A session stays for others: the connections of a pool resume the same one.
    std::string find(const std::string& key);
    void forget(const std::string& key);
    size_t size() const;

  private:
    struct Entry {
        std::string key, session;
    };
    struct alignas(64) Stripe {
        mutable std::mutex mutex;
        std::list<Entry> entries;  // most recently used first
        std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key;
    };
    Stripe& stripe(const std::string& key);

    size_t per_stripe_;
    std::array<Stripe, kStripes> stripes_;
};

}  // namespace postrider
