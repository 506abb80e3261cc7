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

void Site::join(const EgressPool& pool) {
    participants_.fetch_add(1, std::memory_order_relaxed);
    for (const PoolMember& member : pool.members) paths_[member.source].participants.fetch_add(1, std::memory_order_relaxed);
}

void Site::part(const EgressPool& pool) {
    participants_.fetch_sub(1, std::memory_order_relaxed);
    for (const PoolMember& member : pool.members) paths_[member.source].participants.fetch_sub(1, std::memory_order_relaxed);
}

std::shared_ptr<const MailRoute> Site::route() const {
    std::scoped_lock lock(mutex_);
    return route_;
}

std::shared_ptr<const SiteView> Site::view(MonoNs now) {
    std::scoped_lock lock(mutex_);
    // Read before what it stands for: a change meanwhile is seen as another version.
    const uint64_t shaping_version = context_.book.version();
    const uint64_t version = shaping_version + bindings_.load(std::memory_order_relaxed);
    if (view_ && view_->version == version) return view_;
    auto view = std::make_shared<SiteView>();
    view->version = version;
    view->route = route_;
    std::vector<std::string> hosts;
    for (const auto& host : route_->hosts) hosts.push_back(host.name);
    view->paths.resize(paths_.size());
    for (SourceId source = 0; source < paths_.size(); ++source) {
        PathView& path = view->paths[source];
        path.shaping = context_.book.effective(domains_, name_, hosts, source ? context_.sources[source].name : "");
        set_limits(source, path, shaping_version, now);
    }
    view_ = std::move(view);
    return view_;
}

// Broad to narrow (DESIGN 2.3).
void Site::set_limits(SourceId source, PathView& path, uint64_t version, MonoNs now) {
    const EffectiveShaping& shaping = path.shaping;
    Path& own = paths_[source];
    own.connections.set(shaping.connection_limit.value);
    own.connection_rate.set_rate(shaping.max_connection_rate.value, now);
    own.message_rate.set_rate(shaping.max_message_rate.value, now);
    own.data_rate.set_rate(shaping.max_data_rate.value, now);
    connections_.set(shaping.site_connection_limit.value);
    message_rate_.set_rate(shaping.site_max_message_rate.value, now);
    const auto add_rate = [&](RateLimit& limit) {
        if (limit.limited()) path.message_rates.push_back(&limit);
    };
    path.slots.push_back(&context_.sockets);
    for (const ProviderShaping& each : shaping.providers) {
        ProviderPath& provider = context_.providers.path(each, source, version, now);
        path.slots.push_back(&provider.connections);
        add_rate(provider.message_rate);
    }
    path.slots.push_back(&connections_);
    path.slots.push_back(&own.connections);
    add_rate(message_rate_);
    if (message_rate_.limited()) path.site_rate = &message_rate_;
    add_rate(own.message_rate);
    if (own.connection_rate.limited()) path.connection_rate = &own.connection_rate;
    if (own.data_rate.limited()) path.data_rate = &own.data_rate;
}

Site& SiteTable::site(std::string_view name) {
    const SiteId id = names_.intern(name);
    std::scoped_lock lock(mutex_);
    if (sites_.size() <= id) sites_.resize(id + 1);
    if (!sites_[id]) sites_[id] = std::make_unique<Site>(id, std::string(name), context_);
    return *sites_[id];
}

Site& SiteTable::at(SiteId id) {
    std::scoped_lock lock(mutex_);
    return *sites_[id];
}

Site* SiteTable::find(std::string_view name) {
    std::scoped_lock lock(mutex_);
    for (const auto& site : sites_)
        if (site && site->name() == name) return site.get();
    return nullptr;
}

}  // namespace postrider
