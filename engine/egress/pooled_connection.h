// A connection of a site's pool with its session: the feed through which the session gets messages and hands them back, and
// the tap that tells its dialogue to who listens.
#pragma once

#include <memory>
#include <string>

#include "engine/egress/site_worker.h"
#include "engine/net/dial.h"

namespace postrider {

class PooledConnection final : public SessionFeed, public TraceTap {
  public:
    PooledConnection(SiteWorker& owner, ConnectionLease slot, size_t number)
        : worker(owner), lease(std::move(slot)), member(number), wake(owner.context_.reactor) {}

    OutgoingMessage* next(const Capabilities& capabilities) override;
    void before_dot(OutgoingMessage& message) override;
    void settled(OutgoingMessage& message) override;

    bool listening() override {
        const uint64_t version = worker.context_.tracer.version();
        if (version != listeners_of_) hear_of_listeners(version);
        return !listeners_.empty();
    }
    void tell(TraceKind kind, std::string_view lines) override;
    void note(std::string_view text) { tell(TraceKind::note, text); }  // asked listening() or not

    // At rest, until woken or taken over by another site.
    void rest();
    void stop_resting();
    void take_over_from(PooledConnection& other);
    // Waits for a connection at rest or the right to open one.
    void wait_at(AddressPool::Address& where);
    void stop_waiting();
    // The connection is open, or closed; whoever waits for that is woken.
    void opened_at(AddressPool::Address& where);
    void closed();

    // Of its path, as it holds now.
    const EffectiveShaping& shaping() const { return worker.path(member).shaping; }
    const EgressSource& source() const { return worker.source(member); }
    SourceId source_id() const { return worker.turns_.source(member); }
    // What `policy` demands of a connection to `name`; it may have changed since this one was opened, or another site takes it
    // over. One in clear is enough for TLS "where it is offered" when it was not, or has failed.
    bool secure_enough(TlsPolicy policy, std::string_view name) const;
    AttemptPlace place() const;
    void remember_place(const Candidate& candidate);

    SiteWorker& worker;
    ConnectionLease lease;
    const size_t member;  // of the pool: its source
    Event wake;
    std::unique_ptr<Connection> connection;
    std::unique_ptr<Session> session;
    std::string host, address, source_address;  // for the log
    uint64_t session_high = 0, session_low = 0;
    uint32_t deliveries = 0;
    MonoNs began_ns = 0;  // of the transaction at hand; 0: at rest
    DialAbort dial_abort;
    uint64_t for_octets = 0;  // opened for a message of so many, which other hosts do not take
    bool opening = false;   // its session is, nothing was sent of any message
    bool retiring = false;
    bool fruitful = false;  // a recipient was accepted or refused for good
    std::string refused_at_mail;  // what the host said to MAIL, or did, before it ended the session; empty: it did not
    std::string verified_host;  // under TLS with a certificate that names this host; empty: not known
    bool tls_was_off = false;  // in clear because its site wanted no TLS, whatever the host offers
    bool resting = false;
    bool reused = false;  // taken over from another site
    bool taken = false;   // another site has taken the connection over
    AddressPool::Address* at = nullptr;       // where the connection is open
    AddressPool::Address* waits_at = nullptr;

  private:
    void hear_of_listeners(uint64_t version);

    uint64_t listeners_of_ = 0;  // version of the tracer
    Tracer::Listeners listeners_;
};

// Lets so many of those who wait look again.
void wake_waiting(AddressPool::Address& address, size_t count);

}  // namespace postrider
