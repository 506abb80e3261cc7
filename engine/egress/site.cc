#include "engine/egress/site.h"

namespace postrider {

void Site::bind(std::shared_ptr<const MailRoute> route, std::shared_ptr<const EffectiveShaping> shaping) {
    std::scoped_lock lock(mutex_);
    route_ = std::move(route);
    shaping_ = std::move(shaping);
}

std::shared_ptr<const MailRoute> Site::route() const {
    std::scoped_lock lock(mutex_);
    return route_;
}

std::shared_ptr<const EffectiveShaping> Site::shaping() const {
    std::scoped_lock lock(mutex_);
    return shaping_;
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
    if (!sites_[id]) sites_[id] = std::make_unique<Site>(id, std::string(name), sources_);
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
