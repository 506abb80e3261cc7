// Sites, shared by all shards: a site is a canonical MX set (DESIGN 2.3), and every domain with that set shares its
// limits. What lives here is what shards must agree on; connections and windows belong to the shards (site_worker.h).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <algorithm>
#include <optional>
#include <utility>

#include "dns/resolver.h"
#include "engine/core/ids.h"
#include "engine/config/config.h"
#include "engine/egress/shaping_book.h"
#include "queue/name_table.h"

namespace postrider {

// An egress source as the sockets want it; number 0 is the kernel's choice.
struct EgressSource {
    std::string name;  // "unspecified" for the kernel's choice, as in KumoMTA
    std::optional<SocketAddress> address;
    std::string hostname;
};

// What holds at a site, as of one version: never changed, shared by the workers of all shards.
struct SiteView {
    uint64_t version = 0;
    std::shared_ptr<const MailRoute> route;
    std::vector<EffectiveShaping> paths;  // by source
};

class Site {
  public:
    Site(SiteId id, std::string name, const ShapingBook& book, const std::vector<EgressSource>& sources)
        : id_(id), name_(std::move(name)), book_(book), sources_(sources), paths_(sources.size()) {}

    SiteId id() const { return id_; }
    const std::string& name() const { return name_; }

    // The route as of the last domain that was bound; the domain, when its name matters to the shaping (ShapingBook::
    // speaks_for_site), speaks for the site from now on. Thread-safe; takes a lock.
    void bind(std::shared_ptr<const MailRoute> route, std::string_view domain);
    std::shared_ptr<const MailRoute> route() const;
    // Moves whenever the route or anything of the shaping does. Whoever keeps a view compares it: two loads.
    uint64_t version() const { return book_.version() + bindings_.load(std::memory_order_acquire); }
    // The view of the version that is. Takes a lock: once for each worker and version.
    std::shared_ptr<const SiteView> view();

    // One connection slot of the path source x site; promise 3: every SYN holds one.
    bool take_connection(SourceId source, uint32_t limit);
    void give_connection(SourceId source);
    uint32_t connections(SourceId source) const { return paths_[source].connections.load(std::memory_order_relaxed); }

    // How many shards keep connections here: each may have its share of the limit.
    void join() { participants_.fetch_add(1, std::memory_order_relaxed); }
    void part() { participants_.fetch_sub(1, std::memory_order_relaxed); }
    uint32_t participants() const { return std::max(1u, participants_.load(std::memory_order_relaxed)); }

    // Times in a row that no host could be reached; 0 after a session was opened.
    uint32_t failed() { return failures_.fetch_add(1, std::memory_order_relaxed) + 1; }
    void served() { failures_.store(0, std::memory_order_relaxed); }

  private:
    struct alignas(64) Path {
        std::atomic<uint32_t> connections{0};
    };
    const SiteId id_;
    const std::string name_;
    const ShapingBook& book_;
    const std::vector<EgressSource>& sources_;
    std::vector<Path> paths_;
    std::atomic<uint32_t> participants_{0};
    std::atomic<uint32_t> failures_{0};
    mutable std::mutex mutex_;
    std::atomic<uint64_t> bindings_{0};
    std::shared_ptr<const MailRoute> route_;
    std::vector<std::string> domains_;  // that speak for the site
    std::shared_ptr<const SiteView> view_;
};

// Sites by name. A site is kept until the process ends.
class SiteTable {
  public:
    SiteTable(const ShapingBook& book, const std::vector<EgressSource>& sources) : book_(book), sources_(sources) {}
    // Thread-safe; takes a lock: once for a domain's binding.
    Site& site(std::string_view name);
    // Thread-safe.
    Site& at(SiteId id);
    size_t size() const { return names_.size(); }

  private:
    const ShapingBook& book_;
    const std::vector<EgressSource>& sources_;
    NameTable names_;
    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Site>> sites_;
};

// [limits] connections: open sockets of all shards together.
class SocketBudget {
  public:
    explicit SocketBudget(uint32_t limit) : limit_(limit) {}
    bool take() {
        if (used_.fetch_add(1, std::memory_order_relaxed) < limit_) return true;
        used_.fetch_sub(1, std::memory_order_relaxed);
        return false;
    }
    void give() { used_.fetch_sub(1, std::memory_order_relaxed); }
    uint32_t used() const { return used_.load(std::memory_order_relaxed); }

  private:
    const uint32_t limit_;
    std::atomic<uint32_t> used_{0};
};

// A connection's right to exist; it ends with the lease.
class ConnectionLease {
  public:
    ConnectionLease() = default;
    // Empty when the path or the engine has no slot.
    static ConnectionLease take(Site& site, SourceId source, uint32_t limit, SocketBudget& sockets);
    ConnectionLease(ConnectionLease&& other) noexcept
        : site_(std::exchange(other.site_, nullptr)), source_(other.source_), sockets_(other.sockets_) {}
    ConnectionLease& operator=(ConnectionLease&&) = delete;
    ~ConnectionLease() {
        if (!site_) return;
        site_->give_connection(source_);
        sockets_->give();
    }
    explicit operator bool() const { return site_ != nullptr; }

  private:
    Site* site_ = nullptr;
    SourceId source_ = 0;
    SocketBudget* sockets_ = nullptr;
};

}  // namespace postrider
