#include "engine/egress/pooled_connection.h"

#include <algorithm>

#include "engine/io/clock.h"

namespace postrider {

// Deferred: all that was ready in this turn has read. Whoever reads meanwhile is looked at in the next round.
void FileChecks::run() {
    running_.swap(waiting_);
    known_.clear();
    for (const Waiting& each : running_) {
        const OpenFile* file = each.message->loaded.open;
        auto found = std::ranges::find(known_, file, &std::pair<const OpenFile*, bool>::first);
        if (found == known_.end()) {
            known_.emplace_back(file, reader_.unchanged(each.message->loaded));
            found = known_.end() - 1;
        }
        each.message->checked_ = found->second;
    }
    for (const Waiting& each : running_)
        if (each.reader) each.reader.resume();
    running_.clear();
}

OutgoingMessage* PooledConnection::next(const Capabilities& capabilities) {
    const uint32_t most = shaping().max_deliveries_per_connection.value;
    if (worker.draining_ || deliveries >= most ||
        (capabilities.mail_max && deliveries >= capabilities.mail_max)) {  // RFC 9422 4
        retiring = true;
        return nullptr;
    }
    // Over the shard's share (a limit was lowered, another shard joined): end after this transaction.
    if (retiring || lease.over() || worker.one_too_many()) {
        retiring = true;
        return nullptr;
    }
    QueuedMessage* message = worker.pull(member, {this, capabilities.rcpt_max, capabilities.size_limit});
    if (!message) return nullptr;
    ++deliveries;
    if (began_ns == 0) began_ns = worker.context_.reactor.now_ns();
    return message;
}

void PooledConnection::before_dot(OutgoingMessage& message) {
    worker.context_.owner.before_dot(static_cast<QueuedMessage&>(message));
}

void PooledConnection::settled(OutgoingMessage& message) {
    auto& queued = static_cast<QueuedMessage&>(message);
    // The time between two ends on one connection, whether or not transactions overlap.
    const MonoNs now_ns = worker.context_.reactor.now_ns();
    worker.connection_window_.took(
        std::max(0.001, static_cast<double>(now_ns - began_ns) / static_cast<double>(kNsPerMs)),
        session->transactions() <= 1);
    began_ns = now_ns;
    bool requeued = false;
    for (size_t i = 0; i < queued.transaction.size(); ++i) {
        const Outcome& outcome = queued.transaction.outcome(i);
        requeued |= outcome.kind == OutcomeKind::requeued;
        fruitful |= outcome.kind == OutcomeKind::delivered || outcome.kind == OutcomeKind::bounced;
        refused_at_mail.clear();
        const bool ends = outcome.local || outcome.code == 421;
        if (ends && outcome.kind == OutcomeKind::transient && outcome.phase == Phase::mail) refused_at_mail = outcome.text;
    }
    worker.settle_all(queued, place());
    if (requeued || !refused_at_mail.empty()) return;
    worker.site_.served(worker.pool_.id);
}

void PooledConnection::hear_of_listeners(uint64_t version) {
    listeners_of_ = version;
    listeners_ = worker.context_.tracer.listeners(worker.site_.name());
}

void PooledConnection::tell(TraceKind kind, std::string_view lines) {
    if (!listening()) return;
    const WallUs now_us = read_wall_clock();
    for (const auto& listener : listeners_) listener->put({session_high, session_low, host, address}, kind, lines, now_us);
}

void wake_waiting(AddressPool::Address& address, size_t count) {
    for (; count > 0 && !address.waiting.empty(); --count) {
        PooledConnection* first = address.waiting.front();
        first->stop_waiting();
        first->wake.notify();
    }
}

void PooledConnection::rest() {
    resting = true;
    wake.clear();
    began_ns = 0;
    worker.idle_.push_back(this);
    at->resting.push_back(this);
    connection->on_idle_event([this] {
        stop_resting();
        wake.notify();
    });
    if (resting) wake_waiting(*at, 1);
}

void PooledConnection::stop_resting() {
    if (!std::exchange(resting, false)) return;
    std::erase(worker.idle_, this);
    std::erase(at->resting, this);
}

void PooledConnection::take_over_from(PooledConnection& other) {
    other.stop_resting();
    other.connection->on_idle_event({});
    other.taken = true;
    connection = std::move(other.connection);
    session = std::move(other.session);
    at = std::exchange(other.at, nullptr);
    deliveries = other.deliveries;
    session_high = other.session_high;
    session_low = other.session_low;
    verified_host = other.verified_host;
    tls_was_off = other.tls_was_off;
    reused = true;
    other.wake.notify();
}

void PooledConnection::wait_at(AddressPool::Address& where) {
    wake.clear();
    waits_at = &where;
    where.waiting.push_back(this);
}

void PooledConnection::stop_waiting() {
    if (!waits_at) return;
    std::erase(waits_at->waiting, this);
    waits_at = nullptr;
}

void PooledConnection::opened_at(AddressPool::Address& where) {
    at = &where;
    ++where.open;
    where.failure.reset();
    wake_waiting(where, 2);
}

void PooledConnection::closed() {
    if (!at) return;
    --at->open;
    wake_waiting(*std::exchange(at, nullptr), 1);
}

bool PooledConnection::secure_enough(TlsPolicy policy, std::string_view name) const {
    switch (policy) {
        case TlsPolicy::Disabled: return true;
        case TlsPolicy::Required: return connection->secured() && !verified_host.empty() && verified_host == name;
        case TlsPolicy::RequiredInsecure: return connection->secured();
        default: return !tls_was_off || connection->secured() || !session->capabilities().starttls;
    }
}

AttemptPlace PooledConnection::place() const {
    AttemptPlace place;
    place.site = worker.site_.name();
    place.host = host;
    place.address = address;
    place.source = source().name;
    place.source_address = source_address;
    if (connection) {
        place.tls_cipher = connection->tls_cipher();
        place.tls_version = connection->tls_version();
    }
    place.session_high = session_high;
    place.session_low = session_low;
    return place;
}

void PooledConnection::remember_place(const Candidate& candidate) {
    host = candidate.host;
    address = candidate.address.address_text();
    source_address = connection ? connection->local().text() : std::string();
    if (!connection) session_high = session_low = 0;  // of a host tried before
}

}  // namespace postrider
