// Messages that the host at the other end does not take for their size, while another host of the site may (RFC 1870 6.1,
// FAULTS 47): set apart until a connection to a host that takes them pulls them, one opened for them if need be. What the
// hosts say is remembered (host_memory.h): each is asked once.
#include <algorithm>

#include "engine/egress/pooled_connection.h"

namespace postrider {
namespace {

constexpr size_t kSetApartMost = 16;

}  // namespace

bool SiteWorker::some_host_may_take(const QueuedMessage& message) {
    return std::ranges::any_of(view().route->hosts, [&](const MxHost& host) {
        return !context_.hosts.too_large(host.name, message.content.wire_size, context_.reactor.now_ms());
    });
}

// What the taker's host said is known from now on.
void SiteWorker::does_not_fit(const Taker& taker) {
    context_.hosts.takes_at_most(taker.connection->host, taker.size_limit, context_.reactor.now_ms());
    taker.connection->for_octets = 0;
}

// False: no host of the site is known that may take it. Else the taker has lost it, and perhaps retires to make room.
bool SiteWorker::set_apart(QueuedMessage& message, const Taker& taker) {
    does_not_fit(taker);
    if (!some_host_may_take(message)) return false;
    large_.push_back(&message);
    if (large_.size() > kSetApartMost) {
        put_back(*large_.back());
        large_.pop_back();
        taker.connection->retiring = true;
    } else if (!open_for_large()) {
        taker.connection->retiring = true;
    }
    return true;
}

// What was cancelled or suspended meanwhile goes home. Its recipients are of one domain, campaign and file: what holds for one
// holds for all.
void SiteWorker::drop_held_large() {
    if (!context_.holds) return;
    std::erase_if(large_, [&](QueuedMessage* message) {
        const Transaction& transaction = message->transaction;
        if (!context_.owner.take_held(transaction.record(0), &site_)) return false;
        for (size_t i = 1; i < transaction.size(); ++i) (void)context_.owner.take_held(transaction.record(i), &site_);
        carried_ -= transaction.size();
        give_back(*message);
        return true;
    });
}

// One that the taker's host takes, or that no host takes any more: the transaction refuses it.
QueuedMessage* SiteWorker::large_for(const Taker& taker) {
    drop_held_large();
    const auto fits = [&](const QueuedMessage* message) {
        return taker.size_limit == 0 || message->content.wire_size <= taker.size_limit;
    };
    if (taker.connection && taker.connection->for_octets && !large_.empty() && std::ranges::none_of(large_, fits)) {
        does_not_fit(taker);
        if (!open_for_large()) taker.connection->retiring = true;
    }
    const auto found = std::ranges::find_if(large_, [&](const QueuedMessage* message) {
        return fits(message) || !some_host_may_take(*message);
    });
    if (found == large_.end()) return nullptr;
    QueuedMessage* message = *found;
    large_.erase(found);
    return message;
}

// One connection at a time, within the limits. False: the limits leave no room for it.
bool SiteWorker::open_for_large() {
    for (auto& pooled : connections_) {
        if (pooled->for_octets == 0) continue;
        if (pooled->resting) {
            pooled->stop_resting();
            pooled->wake.notify();
        }
        return true;
    }
    if (context_.reactor.now_ms() < no_opening_before_ms_) return true;
    const auto octets = [](const QueuedMessage* message) { return message->content.wire_size; };
    for (const size_t member : opening_order()) {
        if (!turns_.may_open(member, context_.reactor.now_ms())) continue;
        auto lease = ConnectionLease::take(path(member));
        if (!lease) continue;
        add_connection(std::move(lease), member).for_octets = octets(*std::ranges::max_element(large_, {}, octets));
        return true;
    }
    if (!idle_.empty()) {  // its lease is free in a moment
        PooledConnection* pooled = idle_.back();
        pooled->retiring = true;
        pooled->stop_resting();
        pooled->wake.notify();
    }
    return false;
}

// Where the connection need not be opened: at hosts that take no message of its size. With none left the messages wait
// for another attempt: a host that is missing now may be there then.
void SiteWorker::leave_out_small(const PooledConnection& pooled, std::vector<Candidate>& list) {
    std::erase_if(list, [&](const Candidate& candidate) {
        return context_.hosts.too_large(candidate.host, pooled.for_octets, context_.reactor.now_ms());
    });
    if (!list.empty()) return;
    settle_large(pooled.for_octets, outcome_of(Trouble::size_exceeded, Phase::connect, ""), pooled.place());
}

// What has `at_least` so many octets, as the connection that was to be opened for it failed: another attempt, whatever the
// host said, for it has not seen the message.
void SiteWorker::settle_large(uint64_t at_least, Outcome outcome, const AttemptPlace& place) {
    if (outcome.kind == OutcomeKind::bounced) outcome.kind = OutcomeKind::transient;
    for (size_t at = large_.size(); at-- > 0;) {
        QueuedMessage* message = large_[at];
        if (message->content.wire_size < at_least) continue;
        large_.erase(large_.begin() + static_cast<std::ptrdiff_t>(at));
        settle_untried(*message, outcome, place);
    }
}

// Untouched, to its home.
void SiteWorker::put_back(QueuedMessage& message) {
    for (size_t i = 0; i < message.transaction.size(); ++i) context_.owner.put_back(message.transaction.record(i));
    carried_ -= message.transaction.size();
    give_back(message);
}

void SiteWorker::put_large_back() {
    for (QueuedMessage* message : std::exchange(large_, {})) put_back(*message);
}

}  // namespace postrider
