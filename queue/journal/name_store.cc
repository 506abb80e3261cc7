#include "queue/journal/name_store.h"

#include <cstring>

#include "engine/core/check.h"

namespace postrider {

// A name: its length in an octet, then its octets. The very first unit is left free: ref 0 is no name.
uint32_t NameStore::add(std::string_view name) {
    if (name.empty()) return 0;
    POSTRIDER_CHECK(name.size() <= 255, "no file's name is longer");
    const auto units = static_cast<uint32_t>((name.size() + kUnit) / kUnit);
    std::scoped_lock lock(mutex_);
    if ((current_ == UINT32_MAX || used_ + units > kUnits) && !next_block()) return 0;
    Block& block = blocks_[current_];
    char* at = block.memory.get() + size_t{used_} * kUnit;
    *at = static_cast<char>(name.size());
    std::memcpy(at + 1, name.data(), name.size());
    ++block.live;
    const uint32_t ref = current_ * kUnits + used_;
    used_ += units;
    return ref;
}

// The full block goes to the scratch file, an empty one takes its place.
bool NameStore::next_block() {
    if (free_.empty() && blocks_.size() == kBlocks) return false;
    if (current_ != UINT32_MAX) {
        Block& full = blocks_[current_];
        if (full.live == 0) {
            drop_memory(full);
            free_.push_back(current_);
        } else if (scratch_ && files::write_at(scratch_.get(), full.memory.get(), kBlock, uint64_t{current_} * kBlock)) {
            drop_memory(full);
        }
    }
    if (free_.empty()) {
        free_.push_back(static_cast<uint32_t>(blocks_.size()));
        blocks_.emplace_back();
        bytes_.fetch_add(sizeof(Block), std::memory_order_relaxed);
    }
    current_ = free_.back();
    free_.pop_back();
    blocks_[current_].memory = std::make_unique<char[]>(kBlock);
    bytes_.fetch_add(kBlock, std::memory_order_relaxed);
    used_ = current_ == 0 ? 1 : 0;
    return true;
}

void NameStore::drop_memory(Block& block) {
    if (!block.memory) return;
    block.memory.reset();
    bytes_.fetch_sub(kBlock, std::memory_order_relaxed);
}

std::string NameStore::name(uint32_t ref) const {
    if (ref == 0) return {};
    {
        std::scoped_lock lock(mutex_);
        if (const Block& block = blocks_[ref / kUnits]; block.memory) {
            const char* at = block.memory.get() + size_t{ref % kUnits} * kUnit;
            return {at + 1, static_cast<uint8_t>(*at)};
        }
    }
    // The block does not change while a name in it is wanted: the file needs no lock.
    char octets[256];
    auto got = files::read_at(scratch_.get(), octets, sizeof octets, uint64_t{ref} * kUnit);
    if (!got || *got == 0 || *got <= static_cast<uint8_t>(octets[0])) return {};
    return {octets + 1, static_cast<uint8_t>(octets[0])};
}

void NameStore::remove(uint32_t ref) {
    if (ref == 0) return;
    std::scoped_lock lock(mutex_);
    const uint32_t number = ref / kUnits;
    Block& block = blocks_[number];
    POSTRIDER_CHECK(block.live > 0, "a name is removed once");
    if (--block.live > 0 || number == current_) return;
    drop_memory(block);
    free_.push_back(number);
}

}  // namespace postrider
