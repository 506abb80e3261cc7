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
    if (!free_.empty()) {
        RecordChain chain = free_.back();
        free_.pop_back();
        return chain;
    }
    const uint32_t number = used_chunks_.load(std::memory_order_relaxed);
    POSTRIDER_CHECK(number < kMaxChunks, "the intake waits long before two thousand million records");
    auto* chunk = new Record[kChunk];
    chunks_[number].store(chunk, std::memory_order_release);
    used_chunks_.store(number + 1, std::memory_order_relaxed);
    RecordChain chain;
    const RecordId base = number << kChunkBits;
    for (uint32_t i = number == 0 ? 1 : 0; i < kChunk; ++i) append(chain, base + i);  // 0 is no record
    return chain;
}

void RecordArena::give_free(RecordChain chain) {
    std::scoped_lock lock(mutex_);
    free_.push_back(chain);
}

}  // namespace postrider
