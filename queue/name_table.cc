#include "queue/name_table.h"

#include "engine/core/check.h"

namespace postrider {

NameTable::NameTable() : blocks_(new std::atomic<Block*>[kBlocks]) {
    for (uint32_t i = 0; i < kBlocks; ++i) blocks_[i].store(nullptr, std::memory_order_relaxed);
}

NameTable::~NameTable() {
    for (uint32_t i = 0; i < kBlocks; ++i) delete blocks_[i].load(std::memory_order_relaxed);
}

uint32_t NameTable::intern(std::string_view name) {
    if (name.empty()) return 0;
    Stripe& stripe = stripes_[hash64(name) >> 60];
    std::scoped_lock lock(stripe.mutex);
    auto found = stripe.ids.find(name);
    if (found != stripe.ids.end()) return found->second;
    const uint32_t id = next_.fetch_add(1, std::memory_order_relaxed);
    POSTRIDER_CHECK(id < kBlock * kBlocks, "64 million names");
    Block* block = blocks_[id / kBlock].load(std::memory_order_acquire);
    if (!block) {
        std::scoped_lock making(blocks_mutex_);
        block = blocks_[id / kBlock].load(std::memory_order_acquire);
        if (!block) {
            block = new Block{};
            blocks_[id / kBlock].store(block, std::memory_order_release);
        }
    }
    const auto [entry, added] = stripe.ids.emplace(std::string(name), id);
    (*block)[id % kBlock].store(&entry->first, std::memory_order_release);  // node keys stay in place
    bytes_.fetch_add(name.size() + kBytesBeside, std::memory_order_relaxed);
    return id;
}

bool NameTable::knows(std::string_view name) {
    Stripe& stripe = stripes_[hash64(name) >> 60];
    std::scoped_lock lock(stripe.mutex);
    return stripe.ids.contains(name);
}

std::string_view NameTable::name(uint32_t id) const {
    if (id == 0) return {};
    Block* block = blocks_[id / kBlock].load(std::memory_order_acquire);
    return *(*block)[id % kBlock].load(std::memory_order_acquire);
}

}  // namespace postrider
