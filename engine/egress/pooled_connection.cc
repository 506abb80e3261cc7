#include "engine/egress/pooled_connection.h"

namespace postrider {

OutgoingMessage* PooledConnection::next(const Capabilities& capabilities) {
    const uint32_t most = shaping->max_deliveries_per_connection.value;
    if (worker.draining_ || deliveries >= most ||
        (capabilities.mail_max && deliveries >= capabilities.mail_max)) {  // RFC 9422 4
        retiring = true;
        return nullptr;
    }
    // Over the shard's share (a limit was lowered, another shard joined): end after this transaction.
    if (worker.live_ + worker.connecting_ > worker.allowed_at_most()) {
        retiring = true;
        return nullptr;
    }
    QueuedMessage* message = worker.pull();
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
    worker.served_in(std::max(0.001, static_cast<double>(now_ns - began_ns) / static_cast<double>(kNsPerMs)));
    began_ns = now_ns;
    bool requeued = false;
    for (size_t i = 0; i < queued.transaction.size(); ++i)
        requeued |= queued.transaction.outcome(i).kind == OutcomeKind::requeued;
    worker.settle_all(queued, place());
    if (requeued) return;
    worker.site_.served();
}

AttemptPlace PooledConnection::place() const {
    AttemptPlace place;
    place.site = worker.site_.name();
    place.host = host;
    place.address = address;
    place.source = worker.context_.sources[source].name;
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
}

}  // namespace postrider
