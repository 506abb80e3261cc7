// What egress asks of its shard: the way back of records and outcomes.
#pragma once

#include <coroutine>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dns/candidates.h"
#include "engine/egress/address_pool.h"
#include "engine/egress/host_memory.h"
#include "engine/egress/site.h"
#include "engine/smtp/session.h"
#include "queue/holds.h"
#include "queue/message_reader.h"
#include "queue/ready_window.h"

namespace postrider {

class QueuedMessage;

// The files of the contents that were read in a turn, looked at once each when all have been read.
class FileChecks {
  public:
    FileChecks(Reactor& reactor, MessageReader& reader) : reactor_(reactor), reader_(reader) {}
    void add(QueuedMessage& message, std::coroutine_handle<> reader) {
        if (waiting_.empty()) reactor_.defer([this] { run(); });
        waiting_.push_back({&message, reader});
    }

  private:
    struct Waiting {
        QueuedMessage* message;
        std::coroutine_handle<> reader;
    };
    void run();

    Reactor& reactor_;
    MessageReader& reader_;
    std::vector<Waiting> waiting_, running_;
    std::vector<std::pair<const OpenFile*, bool>> known_;
};

// A message on its way: its transaction, and what was loaded for it.
class QueuedMessage final : public OutgoingMessage {
  public:
    QueuedMessage(MessageReader& reader, FileChecks& checks) : reader_(reader), checks_(checks) {}
    Result<void> read(uint64_t offset, std::span<char> into) override { return reader_.read(loaded, offset, into); }
    bool unchanged() override {
        const auto known = std::exchange(checked_, {});
        return known ? *known : reader_.unchanged(loaded);
    }
    bool check_later(std::coroutine_handle<> reader) override {
        checks_.add(*this, reader);
        return true;
    }

    LoadedMessage loaded;
    LabelId campaign = 0, tenant = 0;

  private:
    friend class FileChecks;
    MessageReader& reader_;
    FileChecks& checks_;
    std::optional<bool> checked_;
};

// Where an attempt went, for the log. Views into what the caller holds during the call.
struct AttemptPlace {
    std::string_view site, host, address, source, source_address, tls_cipher, tls_version;
    uint64_t session_high = 0, session_low = 0;
};

class EgressOwner {
  public:
    virtual ~EgressOwner() = default;
    // Recipient `index` of the message is settled (transaction.outcome(index)): log it, journal it, pass the record on.
    virtual void settle(QueuedMessage& message, size_t index, const AttemptPlace& place) = 0;
    // False while what comes of a transaction could not be recorded (a full disk): none is begun.
    virtual bool may_send() = 0;
    // The dot is about to go: an intent for each accepted recipient.
    virtual void before_dot(QueuedMessage& message) = 0;
    // A record pulled from a window that was not tried.
    virtual void put_back(RecordId id) = 0;
    // A record that can be settled without a transaction: expired, or its domain takes no mail.
    virtual void settle_unsent(RecordId id, const Outcome& outcome, bool counts) = 0;
    // Only while the context says that something is held. True: the record is cancelled or suspended, and has been taken back.
    virtual bool take_held(RecordId id, Site* site) = 0;
    virtual bool suspended(Site& site) = 0;
    // A fault of this machine keeps connections from being opened; told once for each text.
    virtual void local_fault(const std::string& text) = 0;
    virtual void connection_opened(bool tls) = 0;
    // A local fault keeps this recipient's file from being read: it is told and tried again later, and no attempt counts.
    virtual void put_off(RecordId id, const Outcome& outcome) = 0;
    virtual bool expired(RecordId id) = 0;
    virtual void expire(RecordId id) = 0;
    // To the domain's home: the window wants more; nothing of the domain until then; bind the domain again.
    virtual void refill(DomainId domain) = 0;
    virtual void park(DomainId domain, int64_t until_s, const std::string& why) = 0;
    // To other shards: help with this window, which comes with a reference, until the domain's binding expires.
    virtual void invite(Site& site, ReadyWindow& window, int64_t expires_ms) = 0;
    // The wait before attempt `attempts` + 1, in seconds.
    virtual int64_t retry_wait_s(uint32_t attempts) = 0;
};

// What every site worker of a shard uses.
struct EgressContext {
    Reactor& reactor;
    Resolver& resolver;
    HostHealth& health;
    BufferPool& buffers;
    TlsContext& tls;
    TlsContext* verified_tls;  // null: the machine has no root certificates
    MessageReader& reader;
    RecordArena& arena;
    const CountLimit& sockets;  // [limits] connections
    AddressPool& addresses;
    const std::vector<EgressSource>& sources;
    const ShapingBook& shaping;
    const AddressBlocks& prohibited;
    Tracer& tracer;
    uint16_t port = 25;
    EgressOwner& owner;
    Gate& gate;
    const HoldTable* holds = nullptr;  // null: nothing is cancelled or suspended
    HostMemory hosts = {};
    FileChecks checks{reactor, reader};
};

}  // namespace postrider
