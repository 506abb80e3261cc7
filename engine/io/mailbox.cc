#include "engine/io/mailbox.h"

#include "engine/io/ring.h"

namespace postrider {

MailExchange::MailExchange(size_t shards) : shards_(shards), inboxes_(shards), outboxes_(shards) {
    for (auto& inbox : inboxes_)
        for (size_t i = 0; i < shards; ++i)
            inbox.from.push_back(std::make_unique<SpscRing<Mail>>(limits::kMailboxSlots));
    for (auto& outbox : outboxes_) outbox.waiting.resize(shards);
}

void MailExchange::ring_doorbell(Inbox& inbox, Ring& own) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (inbox.asleep.load(std::memory_order_relaxed) &&
        inbox.asleep.exchange(false, std::memory_order_seq_cst) && inbox.ring)
        own.wake(*inbox.ring);
}

void MailExchange::post(ShardId from, ShardId to, const Mail& mail, Ring& ring) {
    Outbox& outbox = outboxes_[from];
    Inbox& inbox = inboxes_[to];
    if (!outbox.waiting[to].empty() || !inbox.from[from]->push(mail)) {
        outbox.waiting[to].push_back(mail);  // order is kept: nothing overtakes what waits
        ++outbox.total;
        return;
    }
    ring_doorbell(inbox, ring);
}

bool MailExchange::flush(ShardId from, Ring& ring) {
    Outbox& outbox = outboxes_[from];
    if (outbox.total == 0) return true;
    for (size_t to = 0; to < shards_; ++to) {
        auto& waiting = outbox.waiting[to];
        bool moved = false;
        while (!waiting.empty() && inboxes_[to].from[from]->push(waiting.front())) {
            waiting.pop_front();
            --outbox.total;
            moved = true;
        }
        if (moved) ring_doorbell(inboxes_[to], ring);
    }
    return outbox.total == 0;
}

bool MailExchange::take(ShardId to, Mail& mail) {
    Inbox& inbox = inboxes_[to];
    for (size_t tried = 0; tried < shards_; ++tried) {
        if (inbox.from[inbox.next_sender]->pop(mail)) return true;
        inbox.next_sender = (inbox.next_sender + 1) % shards_;
    }
    return false;
}

bool MailExchange::fall_asleep(ShardId shard) {
    Inbox& inbox = inboxes_[shard];
    inbox.asleep.store(true, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (const auto& from : inbox.from) {
        if (!from->empty()) {
            inbox.asleep.store(false, std::memory_order_relaxed);
            return false;
        }
    }
    return true;
}

}  // namespace postrider
