// The way of a window to its site, on one shard.
//
//   home shard of the domain: announce(window) -> route of the domain -> Site -> home shard of the site: attach(window)
//
// A domain is resolving (its route is being looked up; only then, and one look-up at a time), bound (its site is known until
// the route expires), or parked (DNS failed for now, or its mail names a pool that is not configured: no attempt is burned; one
// recipient tells it in the log). A domain that takes no mail is bounced here, record by record, without a connection.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/egress/site_worker.h"

namespace postrider {

// What the dispatcher asks of its shard besides.
class DispatcherOwner {
  public:
    virtual ~DispatcherOwner() = default;
    // To the site's home shard, reference included.
    virtual void send_window(Site& site, ReadyWindow& window, int64_t expires_ms) = 0;
    virtual std::string_view domain_name(DomainId domain) = 0;
    // Null: the configuration has no pool of that name.
    virtual const EgressPool* pool(DomainId domain) = 0;
    virtual std::string_view pool_name(DomainId domain) = 0;
};

class Dispatcher {
  public:
    Dispatcher(EgressContext& context, DispatcherOwner& owner, SiteTable& sites, ShapingBook& shaping, size_t shards);

    // Domain's home: the window comes with a reference.
    void announce(ReadyWindow& window);
    // Site's home, or an invited shard.
    void attach(Site& site, ReadyWindow& window, int64_t expires_ms);
    // The operator wants the site tried now.
    void end_park(SiteId site) {
        for (auto from = workers_.lower_bound({site, 0}); from != workers_.end() && from->first.first == site; ++from)
            from->second->end_park();
    }

    // Wakes what waits for a time to open connections; once in a while.
    void tick();
    void drain();

    template <class F>
    void for_each_worker(F&& visit) const {
        for (const auto& [key, worker] : workers_) visit(*worker);
    }
    size_t resolving() const { return resolving_; }

  private:
    struct Binding {
        Site* site = nullptr;
        int64_t expires_ms = 0;
        uint64_t version = 0;  // of ShapingBook::binding_version: whether domains share a site is the rules' business
        uint32_t failures = 0;  // parks in a row
    };

    Task<void> resolve(ReadyWindow& window);
    void keep_sites_known();
    Task<void> look_up_site(std::string domain);
    void bind(ReadyWindow& window, Binding& binding, std::shared_ptr<const MailRoute> route);
    Task<void> bounce_all(ReadyWindow& window, const MailRoute& route);
    void park_domain(ReadyWindow& window, Binding& binding, const Outcome& outcome);
    bool is_home(const Site& site) const { return site.id() % shards_ == context_.reactor.shard(); }

    EgressContext& context_;
    DispatcherOwner& owner_;
    SiteTable& sites_;
    ShapingBook& shaping_;
    const size_t shards_;
    std::unordered_map<DomainId, Binding> bindings_;
    std::map<std::pair<SiteId, PoolId>, std::unique_ptr<SiteWorker>> workers_;
    std::vector<SiteWorker*> in_turn_;  // for their ticks
    size_t turn_ = 0;
    uint64_t ticked_version_ = 0;  // of the book
    size_t resolving_ = 0;
    // Shard 0 alone: the sites of the domains that have a block or an override.
    std::unordered_map<std::string, int64_t> site_expires_ms_;
    uint64_t sites_looked_up_at_ = 0;  // version of the book
    int64_t look_up_again_ms_ = 0;
    size_t looking_up_ = 0;
    bool draining_ = false;
};

}  // namespace postrider
