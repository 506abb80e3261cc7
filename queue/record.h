// A queued recipient, and the arena in which they live.
//
// A record is owned by exactly one of: the intake that made it, the backlog of its domain's home shard, a ready window,
// the sending shard. Ownership moves through mailboxes and ready windows, whose release and acquire order the fields.
// No address text is kept: it is read with the body.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/core/check.h"
#include "engine/core/ids.h"
#include "queue/message.h"

namespace postrider {

struct Record {
    RecordId link = 0;       // next in the list of whoever owns it
    FileSlot file = 0;       // FileTable
    uint32_t place = 0;      // the message in its file: SpoolIndex position, 0 for a file without index
    uint32_t recipient = 0;  // the recipient in its message
    DomainId domain = 0;
    LabelId campaign = 0;
    LabelId tenant = 0;
    uint32_t due_s = 0;      // seconds since 1970; 0: at once
    uint16_t attempts = 0;   // made so far
    Priority priority = Priority::normal;
    bool possible_duplicate = false;  // an earlier attempt may have been delivered

    bool same_message(const Record& other) const {
        return file == other.file && place == other.place;
    }
};
static_assert(sizeof(Record) <= 40, "promise 5: at most 64 bytes for each queued recipient");

// A list of records linked by id, with its length. Plain value: whoever holds it owns the records.
struct RecordChain {
    RecordId head = 0;
    RecordId tail = 0;
    uint32_t count = 0;
    bool empty() const { return head == 0; }
};

// Chunks of records, shared by all shards; an id stays valid and its memory in place until the arena ends.
// Thread-safe where it says so; a record itself is its owner's.
class RecordArena {
  public:
    static constexpr uint32_t kChunkBits = 14;
    static constexpr uint32_t kChunk = 1u << kChunkBits;
    static constexpr uint32_t kMaxChunks = 1u << (31 - kChunkBits);
    static constexpr uint32_t kChain = 1024;  // free records handed out at once

    RecordArena();
    ~RecordArena();
    RecordArena(const RecordArena&) = delete;
    RecordArena& operator=(const RecordArena&) = delete;

    Record& operator[](RecordId id) {
        Record* chunk = chunks_[id >> kChunkBits].load(std::memory_order_acquire);
        return chunk[id & (kChunk - 1)];
    }

    // Thread-safe. A chain of free records, at least one; about kChain of them.
    RecordChain take_free();
    // Thread-safe.
    void give_free(RecordChain chain);

    // Octets resident for records, free ones too: memory that was needed once is used again, not given back.
    uint64_t bytes() const {
        return uint64_t{used_chunks_.load(std::memory_order_relaxed)} * kChunk * sizeof(Record);
    }
    // Records handed out, with those that the shards keep ready.
    uint64_t in_use() const { return in_use_.load(std::memory_order_relaxed); }

    // Appends `id` to `chain`; the caller owns both.
    void append(RecordChain& chain, RecordId id) {
        (*this)[id].link = 0;
        if (chain.empty())
            chain.head = id;
        else
            (*this)[chain.tail].link = id;
        chain.tail = id;
        ++chain.count;
    }
    void append(RecordChain& chain, const RecordChain& more) {
        if (more.empty()) return;
        if (chain.empty())
            chain = more;
        else {
            (*this)[chain.tail].link = more.head;
            chain.tail = more.tail;
            chain.count += more.count;
        }
    }
    void prepend(RecordChain& chain, RecordId id) {
        (*this)[id].link = chain.head;
        chain.head = id;
        if (!chain.tail) chain.tail = id;
        ++chain.count;
    }
    RecordId pop(RecordChain& chain) {
        const RecordId id = chain.head;
        chain.head = (*this)[id].link;
        if (!chain.head) chain.tail = 0;
        --chain.count;
        return id;
    }

  private:
    void add_chunk();  // under the mutex

    std::unique_ptr<std::atomic<Record*>[]> chunks_;
    std::atomic<uint32_t> used_chunks_{0};
    std::atomic<uint64_t> in_use_{0};
    std::mutex mutex_;
    std::vector<RecordChain> free_;
};

// A shard's own supply of free records: the arena's mutex is taken once in a thousand records.
class RecordSupply {
  public:
    static constexpr uint32_t kMost = 2 * RecordArena::kChain;

    explicit RecordSupply(RecordArena& arena) : arena_(arena) {}
    ~RecordSupply() {
        if (!free_.empty()) arena_.give_free(free_);
    }
    RecordId take() {
        if (free_.empty()) free_ = arena_.take_free();
        const RecordId id = arena_.pop(free_);
        arena_[id] = Record{};
        return id;
    }
    void give(RecordId id) {
        if (free_.count >= kMost) arena_.give_free(std::exchange(free_, {}));
        arena_.prepend(free_, id);
    }

  private:
    RecordArena& arena_;
    RecordChain free_;
};

}  // namespace postrider
