#include "queue/record.h"

namespace postrider {

RecordArena::RecordArena() : chunks_(new std::atomic<Record*>[kMaxChunks]) {
    for (uint32_t i = 0; i < kMaxChunks; ++i) chunks_[i].store(nullptr, std::memory_order_relaxed);
}

RecordArena::~RecordArena() {
    for (uint32_t i = 0; i < used_chunks_.load(std::memory_order_relaxed); ++i)
        delete[] chunks_[i].load(std::memory_order_relaxed);
}

RecordChain RecordArena::take_free() {
    std::scoped_lock lock(mutex_);
    if (free_.empty()) add_chunk();
    const RecordChain chain = free_.back();
    free_.pop_back();
    in_use_.fetch_add(chain.count, std::memory_order_relaxed);
    return chain;
}

void RecordArena::add_chunk() {
    const uint32_t number = used_chunks_.load(std::memory_order_relaxed);
    POSTRIDER_CHECK(number < kMaxChunks, "the intake waits long before two thousand million records");
    auto* chunk = new Record[kChunk];
    chunks_[number].store(chunk, std::memory_order_release);
    used_chunks_.store(number + 1, std::memory_order_relaxed);
    const RecordId base = number << kChunkBits;
    for (uint32_t first = kChunk; first > 0;) {
        first -= kChain;
        RecordChain chain;
        for (uint32_t i = first; i < first + kChain; ++i)
            if (base + i != 0) append(chain, base + i);  // 0 is no record
        free_.push_back(chain);
    }
}

void RecordArena::give_free(RecordChain chain) {
    std::scoped_lock lock(mutex_);
    free_.push_back(chain);
    in_use_.fetch_sub(chain.count, std::memory_order_relaxed);
}

}  // namespace postrider
