// The limits of a site worker (path_limits.h): what they grant is pulled, wakes connections at rest and opens further ones; what
// they do not, is waited for. Each member of the pool has its own: a path, and its share where others wait too.
#include <algorithm>

#include "engine/egress/pooled_connection.h"

namespace postrider {

// A shard's share of the connections; rounded up, as the leases count for all shards together anyway.
uint32_t SiteWorker::allowed_at_most() {
    const auto part = [](uint64_t limit, uint64_t among) { return (limit + among - 1) / among; };
    uint64_t share = 0;
    for (size_t member = 0; member < turns_.size(); ++member)
        share += part(path(member).most_connections(), site_.participants(turns_.source(member)));
    if (const auto& over_all = path(0).shaping.site_connection_limit.value)
        share = std::min(share, part(*over_all, site_.participants()));
    return static_cast<uint32_t>(std::clamp<uint64_t>(share, 1, UINT32_MAX));
}

// More than the share, those that are about to end apart.
bool SiteWorker::one_too_many() {
    const size_t open = live_ + connecting_, allowed = allowed_at_most();
    if (open <= allowed) return false;
    const auto ending = std::ranges::count_if(connections_, [](const auto& each) { return each->retiring; });
    return open > allowed + static_cast<size_t>(ending);
}

// A limit that the source does not share with the pool's others. At the site's rate it has its turn as they have.
bool SiteWorker::own_limit_binds(size_t member, const PathView& path, MonoNs now_ns) const {
    const LimitShare& share = shares_[member];
    return path.own_binds(now_ns) || (share.limit() != path.site_rate && share.ready_at(now_ns) != 0);
}

QueuedMessage* SiteWorker::pull_within_limits(size_t member, const Taker& taker) {
    const auto kept = kept_view();
    const PathView& path = kept->paths[turns_.source(member)];
    if (!path.paced()) return next_message(path, taker);
    const MonoNs now_ns = context_.reactor.now_ns();
    LimitShare& share = shares_[member];
    const uint64_t octets = octets_expected_;
    if (share.ready_at(now_ns) != 0 || !path.acquire(now_ns, octets)) {
        if (own_limit_binds(member, path, now_ns)) turns_.limited(member, context_.reactor.now_ms());
        return nullptr;
    }
    QueuedMessage* message = next_message(path, taker);
    if (!message) {
        path.give_back(octets);
        return nullptr;
    }
    octets_expected_ = message->content.wire_size;
    path.correct(octets, octets_expected_);
    const bool by_octets = share.limit() == path.data_rate;
    if (share.limit()) share.took(now_ns, by_octets ? octets_expected_ : path.events(message->transaction.size()));
    return message;
}

// Messages that the member's path and its share let go now.
uint64_t SiteWorker::granted(size_t member) {
    const PathView& path = this->path(member);
    const MonoNs now_ns = context_.reactor.now_ns();
    return path.paced() ? std::min(path.available(now_ns), shares_[member].room(now_ns)) : UINT64_MAX;
}

// Connections at rest go on, as many as there is mail that their paths may send now. Answers how much mail is left.
uint64_t SiteWorker::wake_resting(uint64_t mail) {
    const int64_t now_ms = context_.reactor.now_ms();
    grants_.clear();
    for (size_t member = 0; member < turns_.size(); ++member) grants_.push_back(granted(member));
    // The most recent first; of several sources the one first whose turn it is.
    waking_order_.assign(idle_.rbegin(), idle_.rend());
    if (!turns_.alone())
        std::ranges::sort(waking_order_, {}, [&](const PooledConnection* each) { return turns_.standing(each->member); });
    for (PooledConnection* pooled : waking_order_) {
        if (mail == 0) break;
        uint64_t& grants = grants_[pooled->member];
        if (grants == 0 || turns_.ahead(pooled->member, now_ms)) continue;
        --grants;
        --mail;
        pooled->stop_resting();
        pooled->wake.notify();
    }
    return mail;
}

// The same while a further connection would be opened.
uint64_t SiteWorker::granted_soon(size_t member) {
    const PathView& path = this->path(member);
    if (!path.paced()) return UINT64_MAX;
    return path.available_within(context_.reactor.now_ns(), static_cast<DurationMs>(ConnectionWindow::kWorthwhileMs));
}

// Further connections, for what the limits let through while they would be of use.
void SiteWorker::open_more(uint64_t mail) {
    uint64_t let_through = 0;
    for (size_t member = 0; member < turns_.size() && let_through < mail; ++member)
        let_through += std::min(mail, granted_soon(member));
    mail = std::min(mail, let_through);
    const auto most = std::min(connection_window_.size(), allowed_at_most());
    while (mail > connecting_ && connections_.size() < most && (connections_.empty() || worthwhile(mail)))
        if (!open_next()) return;
}

// From the source whose turn it is, of those that may. False: none may.
bool SiteWorker::open_next() {
    return std::ranges::any_of(opening_order(), [&](size_t member) { return grants_[member] > 0 && open_one(member); });
}

// The sources with connections wait for their rates, and more mail waits than they may take soon.
bool SiteWorker::open_ones_are_limited() {
    if (turns_.alone() || connections_.empty()) return false;
    for (size_t member = 0; member < turns_.size(); ++member)
        if (turns_.open(member) > 0 && granted(member) > 0) return false;
    const uint64_t mail = waiting();
    uint64_t soon = 0;
    for (size_t member = 0; member < turns_.size() && soon < mail; ++member)
        if (turns_.open(member) > 0) soon += std::min(mail, granted_soon(member));
    return soon < mail;
}

// A source without a connection has its turn, while those of others are there and go on, or none of those may: one for it.
void SiteWorker::open_for_wanting() {
    const int64_t now_ms = context_.reactor.now_ms();
    const bool instead = open_ones_are_limited();
    const auto may_go = [&](size_t member) {
        return turns_.open(member) == 0 && !turns_.ahead(member, now_ms) && granted(member) > 0;
    };
    for (size_t member = 0; member < turns_.size(); ++member) {
        if (!turns_.wanting(member, now_ms) && !(instead && may_go(member))) continue;
        if (now_ms < no_opening_before_ms_ || connections_.size() >= allowed_at_most()) return;
        if (open_one(member)) return;
    }
}

// Mail waits that the limits do not let go yet: until the first path grants again, and this worker its share.
void SiteWorker::wait_for_limits() {
    MonoNs first = INT64_MAX;
    const MonoNs now_ns = context_.reactor.now_ns();
    for (size_t member = 0; member < turns_.size(); ++member) {
        const PathView& path = this->path(member);
        auto [limit, at] = path.binding(now_ns);
        if (limit) {
            const uint32_t weight = LimitShare::kWhole / site_.participants(turns_.source(member));
            shares_[member].contend(*limit, limit == path.site_rate ? turns_.part_of(weight, member) : weight, now_ns);
        } else if (path.connection_rate && connections_.empty()) {
            at = path.connection_rate->ready_at(now_ns);
            if (at != 0) turns_.limited(member, context_.reactor.now_ms());
        }
        at = std::max(at, shares_[member].ready_at(now_ns));
        if (own_limit_binds(member, path, now_ns)) turns_.limited(member, context_.reactor.now_ms());
        if (at != 0) first = std::min(first, at);
    }
    if (first != INT64_MAX) context_.reactor.arm(limit_timer_, (first + kNsPerMs - 1) / kNsPerMs);
}

void SiteWorker::stop_waiting_for_limits() {
    limit_timer_.unlink();
    for (LimitShare& share : shares_) share.leave();
}

// A limit was lowered, TLS is demanded, an address was prohibited: what rests in spite of it closes at once; what is busy ends
// after its transaction (PooledConnection::next).
void SiteWorker::shed() {
    for (size_t i = idle_.size(); i-- > 0;) {
        PooledConnection* pooled = idle_[i];
        if (!pooled->retiring && !pooled->lease.over() && pooled->secure_enough(pooled->shaping().enable_tls.value, pooled->host))
            continue;
        pooled->retiring = true;
        pooled->stop_resting();
        pooled->wake.notify();
    }
}

void SiteWorker::prohibited_changed() {
    for (auto& pooled : connections_)
        pooled->retiring |= pooled->session && any_contains(context_.prohibited, pooled->connection->peer().octets());
    if (!connections_.empty()) shed();
}

}  // namespace postrider
