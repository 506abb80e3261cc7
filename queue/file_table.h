// The claimed files that still have recipients to settle, shared by all shards: 24 octets a file. A slot is made by the shard
// that takes the file in, read by every shard that sends from it, and given back by the one that settles its last recipient.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "engine/core/check.h"
#include "engine/core/hash.h"
#include "engine/core/ids.h"
#include "queue/journal/name_store.h"
#include "queue/spool_directory.h"

namespace postrider {

// A claimed file in full, as intake and reader hold it for a while.
struct SpoolFile {
    FileId id = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    uint64_t inode = 0;
    int64_t created_s = 0;  // the claim: max_age counts from here
    SpoolForm form = SpoolForm::eml;
    bool indexed = false;   // an index lies beside it
    std::string name;       // the producer's

    // Tells whether what lies in active/ is what was claimed (FAULTS 51).
    uint32_t stamp() const {
        return static_cast<uint32_t>(mix64(mix64(size, inode), static_cast<uint64_t>(mtime_ns)));
    }
};

// What the table keeps of it.
struct FileEntry {
    FileId id = 0;
    // Recipients not settled durably, plus one while the intake still publishes. Of a free entry: the next free one.
    std::atomic<uint32_t> pending{0};
    uint32_t created_s = 0;
    uint32_t stamp = 0;
    uint32_t name : NameStore::kRefBits = 0;
    uint32_t batch : 1 = 0;
    uint32_t indexed : 1 = 0;
};
static_assert(sizeof(FileEntry) == 24, "promise 5: with its record and its place in the journal, a file of one recipient");

class FileTable {
  public:
    static constexpr uint32_t kChunk = 4096;
    static constexpr uint32_t kMaxChunks = 1u << 14;

    FileTable() : chunks_(new std::atomic<FileEntry*>[kMaxChunks]) {
        for (uint32_t i = 0; i < kMaxChunks; ++i) chunks_[i].store(nullptr, std::memory_order_relaxed);
    }
    ~FileTable() {
        for (uint32_t i = 0; i < kMaxChunks; ++i) delete[] chunks_[i].load(std::memory_order_relaxed);
    }
    FileTable(const FileTable&) = delete;
    FileTable& operator=(const FileTable&) = delete;

    // Before the first file.
    void spill_names_to(FileDescriptor scratch) { names_.spill_to(std::move(scratch)); }

    // Thread-safe. One is pending: the caller's own hold.
    FileSlot add(const SpoolFile& file) {
        const uint32_t name = names_.add(file.name);
        std::scoped_lock lock(mutex_);
        FileSlot slot = free_;
        if (slot != 0) {
            free_ = at(slot).pending.load(std::memory_order_relaxed);
        } else {
            slot = next_++;
            POSTRIDER_CHECK(slot / kChunk < kMaxChunks, "64 million open spool files");
            auto& chunk = chunks_[slot / kChunk];
            if (!chunk.load(std::memory_order_relaxed)) {
                chunk.store(new FileEntry[kChunk], std::memory_order_release);
                bytes_.fetch_add(kChunk * sizeof(FileEntry), std::memory_order_relaxed);
            }
        }
        FileEntry& entry = at(slot);
        entry.id = file.id;
        entry.pending.store(1, std::memory_order_relaxed);
        entry.created_s = static_cast<uint32_t>(file.created_s);
        entry.stamp = file.stamp();
        entry.name = name;
        entry.batch = file.form == SpoolForm::batch;
        entry.indexed = file.indexed;
        return slot;
    }
    // Thread-safe. Nobody may hold a record of the file any more.
    void remove(FileSlot slot) {
        names_.remove(at(slot).name);
        std::scoped_lock lock(mutex_);
        FileEntry& entry = at(slot);
        entry.id = 0;
        entry.pending.store(free_, std::memory_order_relaxed);
        free_ = slot;
    }
    // Valid while one of the file's recipients is pending.
    FileEntry& operator[](FileSlot slot) { return at(slot); }
    std::string name(FileSlot slot) const { return names_.name(at(slot).name); }
    // Octets resident.
    uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed) + names_.bytes(); }

  private:
    FileEntry& at(FileSlot slot) const {
        return chunks_[slot / kChunk].load(std::memory_order_acquire)[slot % kChunk];
    }
    std::unique_ptr<std::atomic<FileEntry*>[]> chunks_;
    NameStore names_;
    std::mutex mutex_;
    FileSlot free_ = 0;  // the first of the free ones
    FileSlot next_ = 1;
    std::atomic<uint64_t> bytes_{0};
};

}  // namespace postrider
