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
#include "engine/egress/egress_pool.h"
#include "engine/egress/path_limits.h"
#include "engine/egress/shaping_book.h"
#include "queue/name_table.h"

namespace postrider {

// What holds at a site, as of one version: never changed, shared by the workers of all shards.
struct SiteView {
    uint64_t version = 0;
    std::shared_ptr<const MailRoute> route;
    std::vector<PathView> paths;  // by source
};

// What all sites are made with.
struct SiteContext {
    const ShapingBook& book;
    const std::vector<EgressSource>& sources;
    const EgressPools& pools;
    CountLimit& sockets;
    ProviderTable& providers;
};

class Site {
  public:
    Site(SiteId id, std::string name, SiteContext context)
        : id_(id), name_(std::move(name)), context_(context), paths_(context.sources.size()), pools_(context.pools.size()) {}

    SiteId id() const { return id_; }
    const std::string& name() const { return name_; }

    // The route as of the last domain that was bound; the domain, when its name matters to the shaping (ShapingBook::
    // speaks_for_site), speaks for the site from now on. Thread-safe; takes a lock.
    void bind(std::shared_ptr<const MailRoute> route, std::string_view domain);
    std::shared_ptr<const MailRoute> route() const;
    // Moves whenever the route or anything of the shaping does. Whoever keeps a view compares it: two loads.
    uint64_t version() const { return context_.book.version() + bindings_.load(std::memory_order_acquire); }
    // The view of the version that is; what changed is set in the limits. Takes a lock: once for each worker and version.
    std::shared_ptr<const SiteView> view(MonoNs now);

    uint32_t connections(SourceId source) const { return paths_[source].connections.used(); }

    // Who keeps connections here, for a pool on a shard: each may have its share of the limits, by source and of all.
    void join(const EgressPool& pool);
    void part(const EgressPool& pool);
    uint32_t participants() const { return std::max(1u, participants_.load(std::memory_order_relaxed)); }
    uint32_t participants(SourceId source) const {
        return std::max(1u, paths_[source].participants.load(std::memory_order_relaxed));
    }
    // Windows of the pool's urgent mail that its home serves: while there are any, other shards take no other of the pool.
    void set_urgent(PoolId pool, uint32_t windows) { pools_[pool].urgent.store(windows, std::memory_order_relaxed); }
    uint32_t urgent(PoolId pool) const { return pools_[pool].urgent.load(std::memory_order_relaxed); }

    // Connections of all shards and pools.
    uint32_t connections_in_use() const { return connections_.used(); }
    // Times in a row that no host could be reached from the pool; or MAIL was answered by the end of the
    // session; 0 after a transaction that fared otherwise.
    uint32_t failed(PoolId pool) { return pools_[pool].failures.fetch_add(1, std::memory_order_relaxed) + 1; }
    void served(PoolId pool) { pools_[pool].failures.store(0, std::memory_order_relaxed); }

  private:
    struct Path {
        CountLimit connections;
        RateLimit connection_rate, message_rate, data_rate;
        std::atomic<uint32_t> participants{0};
    };
    struct OfPool {
        std::atomic<uint32_t> urgent{0}, failures{0};
    };
    void set_limits(SourceId source, PathView& path, uint64_t version, MonoNs now);

    const SiteId id_;
    const std::string name_;
    const SiteContext context_;
    std::vector<Path> paths_;
    std::vector<OfPool> pools_;
    CountLimit connections_;   // over all sources
    RateLimit message_rate_;
    std::atomic<uint32_t> participants_{0};
    mutable std::mutex mutex_;
    std::atomic<uint64_t> bindings_{0};
    std::shared_ptr<const MailRoute> route_;
    std::vector<std::string> domains_;  // that speak for the site
    std::shared_ptr<const SiteView> view_;
};

// Sites by name. A site is kept until the process ends.
class SiteTable {
  public:
    SiteTable(const ShapingBook& book, const std::vector<EgressSource>& sources, const EgressPools& pools, CountLimit& sockets)
        : providers_(sources.size()), context_{book, sources, pools, sockets, providers_} {}
    // Thread-safe; takes a lock: once for a domain's binding.
    Site& site(std::string_view name);
    // Thread-safe.
    Site& at(SiteId id);
    // Thread-safe; looks at each: for people. Null: there is none; one that was just made may not be bound yet.
    Site* find(std::string_view name);
    size_t size() const { return names_.size(); }
    const ProviderTable& providers() const { return providers_; }

  private:
    ProviderTable providers_;
    const SiteContext context_;
    NameTable names_;
    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Site>> sites_;
};

}  // namespace postrider
