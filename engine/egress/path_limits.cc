#include "engine/egress/path_limits.h"

#include <algorithm>

namespace postrider {

void RateLimit::set_rate(const std::optional<Rate>& rate, MonoNs now) {
    if (begun_ && rate == rate_) return;
    if (rate)
        set(rate->count, rate->period_s, rate->burst(), begun_ ? now : 0);
    else
        set_unlimited();
    rate_ = rate;
    begun_ = true;
}

ProviderPath& ProviderTable::path(const ProviderShaping& shaping, size_t source, uint64_t version, MonoNs now) {
    std::scoped_lock lock(mutex_);
    auto& entries = providers_[shaping.name];
    if (entries.empty()) entries.resize(sources_);
    auto& entry = entries[source];
    if (!entry) entry = std::make_unique<Entry>();
    if (version >= entry->version) {
        entry->version = version;
        entry->limits.connections.set(shaping.connection_limit.value);
        entry->limits.message_rate.set_rate(shaping.max_message_rate.value, now);
    }
    return entry->limits;
}

const ProviderPath* ProviderTable::find(std::string_view name, size_t source) const {
    std::scoped_lock lock(mutex_);
    const auto it = providers_.find(name);
    return it == providers_.end() || !it->second[source] ? nullptr : &it->second[source]->limits;
}

std::pair<RateLimit*, MonoNs> PathView::binding(MonoNs now) const {
    std::pair<RateLimit*, MonoNs> last{nullptr, 0};
    const auto ask = [&](RateLimit* limit) {
        if (const MonoNs at = limit->ready_at(now); at > last.second) last = {limit, at};
    };
    for (RateLimit* limit : message_rates) ask(limit);
    if (data_rate) ask(data_rate);
    return last;
}

bool PathView::own_binds(MonoNs now) const {
    const auto binds = [&](const RateLimit* limit) { return limit != site_rate && limit->ready_at(now) != 0; };
    return std::ranges::any_of(message_rates, binds) || (data_rate && binds(data_rate));
}

bool PathView::acquire(MonoNs now, uint64_t octets) const {
    size_t taken = 0;
    while (taken < message_rates.size() && message_rates[taken]->take(now)) ++taken;
    if (taken == message_rates.size() && (!data_rate || data_rate->take(now, octets))) return true;
    while (taken > 0) message_rates[--taken]->give_back();
    return false;
}

void PathView::give_back(uint64_t octets) const {
    for (RateLimit* limit : message_rates) limit->give_back();
    if (data_rate) data_rate->give_back(octets);
}

bool PathView::acquire_recipient(MonoNs now) const {
    if (shaping.message_rate_counts.value == RateCounts::messages) return true;
    size_t taken = 0;
    while (taken < message_rates.size() && message_rates[taken]->take(now)) ++taken;
    if (taken == message_rates.size()) return true;
    while (taken > 0) message_rates[--taken]->give_back();
    return false;
}

void PathView::give_back_recipient() const {
    if (shaping.message_rate_counts.value == RateCounts::messages) return;
    for (RateLimit* limit : message_rates) limit->give_back();
}

void PathView::correct(uint64_t acquired, uint64_t octets) const {
    if (!data_rate) return;
    if (octets > acquired)
        data_rate->charge(octets - acquired);
    else
        data_rate->give_back(acquired - octets);
}

uint64_t PathView::available_within(MonoNs now, DurationMs ms) const {
    uint64_t least = UINT64_MAX;
    for (const RateLimit* limit : message_rates)
        least = std::min(least, limit->available(now) + limit->within(ms * kNsPerMs));
    if (data_rate && data_rate->ready_at(now + ms * kNsPerMs) != 0) least = 0;
    return least;
}

uint32_t PathView::most_connections() const {
    uint32_t least = CountLimit::kNone;
    for (const CountLimit* slot : slots) least = std::min(least, slot->limit());
    return least;
}

ConnectionLease ConnectionLease::take(const PathView& path) {
    ConnectionLease lease;
    for (CountLimit* slot : path.slots) {
        if (slot->take()) {
            lease.slots_.push_back(slot);
            continue;
        }
        for (CountLimit* taken : lease.slots_) taken->give();
        lease.slots_.clear();
        return lease;
    }
    return lease;
}

ConnectionLease::~ConnectionLease() {
    for (CountLimit* slot : slots_) slot->give();
    if (leaves_) leaves_->has_left();
}

void ConnectionLease::adopt(const PathView& path) {
    if (slots_ == path.slots) return;
    const auto among = [](const std::vector<CountLimit*>& slots, CountLimit* slot) {
        return std::ranges::find(slots, slot) != slots.end();
    };
    for (CountLimit* slot : path.slots)
        if (!among(slots_, slot)) slot->take_anyway();
    for (CountLimit* slot : slots_)
        if (!among(path.slots, slot)) slot->give();
    if (leaves_ && !among(path.slots, leaves_)) std::exchange(leaves_, nullptr)->has_left();
    slots_ = path.slots;
}

bool ConnectionLease::over() {
    if (leaves_) return true;
    const auto full = std::ranges::find_if(slots_, [](CountLimit* slot) { return slot->must_leave(); });
    if (full != slots_.end()) leaves_ = *full;
    return leaves_ != nullptr;
}

}  // namespace postrider
