// The ready window: the lock-free queue of a domain and a priority class. One producer, the domain's home shard, keeps it
// filled with records that may be sent now; any shard pulls from it, which is how one hot domain uses every core.
//
// Cells carry a sequence number (Vyukov's bounded queue): a cell is free for position p when its sequence is p, filled
// when it is p + 1. Consumers claim a position by compare-and-swap on head_; the release store of the sequence hands the
// record's fields over with it. A cell also carries a tag of the record's message, so that a consumer can take the
// following recipients of a message it already holds without touching records it does not own. Tags are hashes: after a
// take the caller compares the records themselves.
//
// Rotation protocol: a site worker serves a window while it is in rotation, and holds a reference for that time. The home
// shard calls announce() after it has pushed: the first one since the window left the rotation gets true, has taken the
// reference for the worker, and sends it the window. A worker that finds the window empty calls leave(). The home shard may
// free a window that is empty and unreferenced: only it can make a reference from nothing.
//
// Refill protocol: a consumer that leaves the window half empty or less calls wants_refill(); the first one to do so
// since the last refill gets true and tells the home shard.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "engine/core/hash.h"
#include "queue/record.h"

namespace postrider {

class ReadyWindow {
  public:
    static constexpr uint32_t kCells = 64;

    explicit ReadyWindow(DomainId domain, Priority priority = Priority::normal) : domain_(domain), priority_(priority) {
        for (uint32_t i = 0; i < kCells; ++i) cells_[i].sequence.store(i, std::memory_order_relaxed);
    }

    DomainId domain() const { return domain_; }
    Priority priority() const { return priority_; }

    static uint32_t message_tag(const Record& record) {
        return static_cast<uint32_t>(mix64(record.file, record.place));
    }

    // Producer only. False: full.
    bool push(RecordId id, uint32_t tag) {
        Cell& cell = cells_[tail_ % kCells];
        if (cell.sequence.load(std::memory_order_acquire) != tail_) return false;
        cell.id.store(id, std::memory_order_relaxed);
        cell.tag.store(tag, std::memory_order_relaxed);
        cell.sequence.store(tail_ + 1, std::memory_order_release);
        ++tail_;
        published_.store(tail_, std::memory_order_seq_cst);  // against leave()
        return true;
    }

    // Any shard. 0: empty.
    RecordId pull() { return take(false, 0); }
    // Any shard. The next record if its message has this tag, else 0.
    RecordId pull_same(uint32_t tag) { return take(true, tag); }

    // Any shard; a moment's view.
    uint32_t size() const {
        const uint32_t head = head_.load(std::memory_order_relaxed);
        const uint32_t tail = published_.load(std::memory_order_acquire);
        return tail - head <= kCells ? tail - head : 0;
    }
    bool empty() const { return size() == 0; }

    // Home shard, after a push: true when the window must be sent to its site's worker, reference included.
    bool announce() {
        if (in_rotation_.exchange(true, std::memory_order_seq_cst)) return false;
        references_.fetch_add(1, std::memory_order_relaxed);
        return true;
    }
    // The site's worker, when it found the window empty: true when it has left and the pointer must be forgotten; false
    // when mail has come meanwhile and it stays.
    bool leave() {
        // push() then announce() on one side, this store then this load on the other, all sequentially consistent: one of
        // the two sees the other.
        in_rotation_.store(false, std::memory_order_seq_cst);
        const bool holds_mail = published_.load(std::memory_order_seq_cst) != head_.load(std::memory_order_relaxed);
        if (holds_mail && !in_rotation_.exchange(true, std::memory_order_seq_cst)) return false;
        drop_reference();
        return true;
    }
    // The site's worker, for a site that is parked: the mail stays in the window.
    void abandon() {
        in_rotation_.store(false, std::memory_order_seq_cst);
        drop_reference();
    }
    // Another shard joins in: whoever holds a reference may make one more.
    void add_reference() { references_.fetch_add(1, std::memory_order_relaxed); }
    void drop_reference() { references_.fetch_sub(1, std::memory_order_release); }
    bool referenced() const { return references_.load(std::memory_order_acquire) != 0; }

    // Home shard: how many more ready records wait behind the window; a moment's view for the consumers.
    void set_behind(uint64_t records) {
        behind_.store(static_cast<uint32_t>(records < UINT32_MAX ? records : UINT32_MAX), std::memory_order_relaxed);
    }
    uint64_t waiting() const { return uint64_t{size()} + behind_.load(std::memory_order_relaxed); }

    // Consumer: true for the one who must tell the home shard.
    bool wants_refill() {
        return size() <= kCells / 2 && !asked_.load(std::memory_order_relaxed) &&
               !asked_.exchange(true, std::memory_order_acq_rel);
    }
    // Producer, before it refills: later wants ask again.
    void refilling() { asked_.store(false, std::memory_order_release); }

  private:
    struct Cell {
        std::atomic<uint32_t> sequence;
        std::atomic<RecordId> id;
        std::atomic<uint32_t> tag;
    };

    RecordId take(bool only_tag, uint32_t tag) {
        uint32_t head = head_.load(std::memory_order_relaxed);
        for (;;) {
            Cell& cell = cells_[head % kCells];
            const uint32_t sequence = cell.sequence.load(std::memory_order_acquire);
            const auto ahead = static_cast<int32_t>(sequence - (head + 1));
            if (ahead < 0) return 0;  // not filled yet
            if (ahead > 0) {          // another consumer was here
                head = head_.load(std::memory_order_relaxed);
                continue;
            }
            if (only_tag && cell.tag.load(std::memory_order_relaxed) != tag) {
                const uint32_t again = head_.load(std::memory_order_relaxed);
                if (again == head) return 0;
                head = again;
                continue;
            }
            const RecordId id = cell.id.load(std::memory_order_relaxed);
            if (head_.compare_exchange_weak(head, head + 1, std::memory_order_relaxed)) {
                cell.sequence.store(head + kCells, std::memory_order_release);
                return id;
            }
        }
    }

    alignas(64) std::atomic<uint32_t> head_{0};
    alignas(64) uint32_t tail_ = 0;  // the producer's
    std::atomic<uint32_t> published_{0};
    std::atomic<uint32_t> behind_{0};
    std::atomic<bool> asked_{false};
    std::atomic<bool> in_rotation_{false};
    std::atomic<uint32_t> references_{0};
    const DomainId domain_;
    const Priority priority_;
    alignas(64) std::array<Cell, kCells> cells_;
};

}  // namespace postrider
