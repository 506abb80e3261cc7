#include "engine/egress/site.h"

namespace postrider {

void Site::bind(std::shared_ptr<const MailRoute> route, std::string_view domain) {
    std::scoped_lock lock(mutex_);
    const bool speaks = !domain.empty() && std::ranges::find(domains_, domain) == domains_.end();
    const bool moved = !route_ || route_->hosts != route->hosts;
    route_ = std::move(route);
    if (speaks) domains_.emplace_back(domain);
    if (speaks || moved) bindings_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const MailRoute> Site::route() const {
    std::scoped_lock lock(mutex_);
    return route_;
}

std::shared_ptr<const SiteView> Site::view() {
    std::scoped_lock lock(mutex_);
    // Read before what it stands for: a change meanwhile is seen as another version.
    const uint64_t now = version();
    if (view_ && view_->version == now) return view_;
    auto view = std::make_shared<SiteView>();
    view->version = now;
    view->route = route_;
    std::vector<std::string> hosts;
    for (const auto& host : route_->hosts) hosts.push_back(host.name);
    for (size_t source = 0; source < sources_.size(); ++source)
        view->paths.push_back(book_.effective(domains_, name_, hosts, source ? sources_[source].name : ""));
    view_ = std::move(view);
    return view_;
}

bool Site::take_connection(SourceId source, uint32_t limit) {
    auto& used = paths_[source].connections;
    uint32_t now = used.load(std::memory_order_relaxed);
    while (now < limit)
        if (used.compare_exchange_weak(now, now + 1, std::memory_order_relaxed)) return true;
    return false;
}

void Site::give_connection(SourceId source) {
    paths_[source].connections.fetch_sub(1, std::memory_order_relaxed);
}

Site& SiteTable::site(std::string_view name) {
    const SiteId id = names_.intern(name);
    std::scoped_lock lock(mutex_);
    if (sites_.size() <= id) sites_.resize(id + 1);
    if (!sites_[id]) sites_[id] = std::make_unique<Site>(id, std::string(name), book_, sources_);
    return *sites_[id];
}

Site& SiteTable::at(SiteId id) {
    std::scoped_lock lock(mutex_);
    return *sites_[id];
}

ConnectionLease ConnectionLease::take(Site& site, SourceId source, uint32_t limit, SocketBudget& sockets) {
    ConnectionLease lease;
    if (!sockets.take()) return lease;
    if (!site.take_connection(source, limit)) {
        sockets.give();
        return lease;
    }
    lease.site_ = &site;
    lease.source_ = source;
    lease.sockets_ = &sockets;
    return lease;
}

}  // namespace postrider
