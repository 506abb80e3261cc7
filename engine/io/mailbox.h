// Mail between shards: a single-producer ring for each ordered pair, and a doorbell for a sleeper.
//
// Wake-up protocol. A shard about to wait stores asleep = true and then looks at its mailboxes again; a sender pushes
// and then looks at asleep. Both orders are sequentially consistent, so either the sleeper sees the mail or the
// sender sees the sleeper; the sender that turns asleep off rings the doorbell (IORING_OP_MSG_RING), once.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "engine/core/ids.h"
#include "engine/core/limits.h"
#include "engine/core/spsc_ring.h"

namespace postrider {

class Ring;

// What a kind's numbers mean is known to the room that registered it (Reactor::on_mail).
struct Mail {
    uint16_t kind = 0;
    uint16_t spare = 0;
    uint32_t a = 0;
    uint64_t b = 0;
    uint64_t c = 0;
};

// Made once for all shards; each Reactor holds a reference.
class MailExchange {
  public:
    explicit MailExchange(size_t shards);

    size_t shards() const { return shards_; }

    // Sender's side, from shard `from`'s thread. Never fails: what does not fit waits with the sender.
    // `ring` is the sender's own, for the doorbell.
    void post(ShardId from, ShardId to, const Mail& mail, Ring& ring);
    // Sender's side, once a turn: moves what waited. True when nothing is left waiting.
    bool flush(ShardId from, Ring& ring);

    // Receiver's side.
    bool take(ShardId to, Mail& mail);
    // Announces that `shard` is about to sleep; false when mail has come meanwhile and it must not.
    bool fall_asleep(ShardId shard);
    void wake_up(ShardId shard) { inboxes_[shard].asleep.store(false, std::memory_order_relaxed); }

    // A shard's ring, for doorbells; set before any shard posts, cleared after all have stopped.
    void set_ring(ShardId shard, const Ring* ring) { inboxes_[shard].ring = ring; }

  private:
    struct alignas(64) Inbox {
        std::atomic<bool> asleep{false};
        const Ring* ring = nullptr;
        size_t next_sender = 0;
        std::vector<std::unique_ptr<SpscRing<Mail>>> from;
    };
    struct Outbox {
        std::vector<std::deque<Mail>> waiting;  // by receiver; empty in the ordinary case
        size_t total = 0;
    };

    void ring_doorbell(Inbox& inbox, Ring& own);

    size_t shards_;
    std::vector<Inbox> inboxes_;
    std::vector<Outbox> outboxes_;
};

}  // namespace postrider
