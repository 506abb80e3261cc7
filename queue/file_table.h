// The claimed files that still have recipients to settle, shared by all shards. A slot is made by the shard that takes
// the file in, read by every shard that sends from it, and given back by the one that settles its last recipient.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/core/check.h"
#include "engine/core/ids.h"
#include "queue/spool_directory.h"

namespace postrider {

struct SpoolFile {
    FileId id = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    uint64_t inode = 0;
    int64_t created_s = 0;  // the claim: max_age counts from here
    SpoolForm form = SpoolForm::eml;
    bool indexed = false;   // an index lies beside it
    std::string name;       // the producer's
    // Recipients not settled durably, plus one while the intake still publishes.
    std::atomic<uint64_t> pending{0};
};

class FileTable {
  public:
    static constexpr uint32_t kChunk = 4096;
    static constexpr uint32_t kMaxChunks = 1u << 14;

    FileTable() : chunks_(new std::atomic<Chunk*>[kMaxChunks]) {
        for (uint32_t i = 0; i < kMaxChunks; ++i) chunks_[i].store(nullptr, std::memory_order_relaxed);
    }
    ~FileTable() {
        for (uint32_t i = 0; i < kMaxChunks; ++i) delete chunks_[i].load(std::memory_order_relaxed);
    }
    FileTable(const FileTable&) = delete;
    FileTable& operator=(const FileTable&) = delete;

    // Thread-safe.
    FileSlot add(std::unique_ptr<SpoolFile> file) {
        std::scoped_lock lock(mutex_);
        FileSlot slot;
        if (!free_.empty()) {
            slot = free_.back();
            free_.pop_back();
        } else {
            slot = next_++;
            POSTRIDER_CHECK(slot / kChunk < kMaxChunks, "64 million open spool files");
            auto& chunk = chunks_[slot / kChunk];
            if (!chunk.load(std::memory_order_relaxed))
                chunk.store(new Chunk(kChunk), std::memory_order_release);
        }
        at(slot) = std::move(file);
        ++live_;
        return slot;
    }
    // Thread-safe. Nobody may hold a record of the file any more.
    void remove(FileSlot slot) {
        std::scoped_lock lock(mutex_);
        at(slot).reset();
        free_.push_back(slot);
        --live_;
    }
    // Valid while one of the file's recipients is pending.
    SpoolFile& operator[](FileSlot slot) { return *at(slot); }
    uint64_t live() const { return live_.load(std::memory_order_relaxed); }

  private:
    using Chunk = std::vector<std::unique_ptr<SpoolFile>>;
    std::unique_ptr<SpoolFile>& at(FileSlot slot) {
        return (*chunks_[slot / kChunk].load(std::memory_order_acquire))[slot % kChunk];
    }
    std::unique_ptr<std::atomic<Chunk*>[]> chunks_;
    std::mutex mutex_;
    std::vector<FileSlot> free_;
    FileSlot next_ = 1;
    std::atomic<uint64_t> live_{0};
};

}  // namespace postrider
