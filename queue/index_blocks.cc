#include "queue/index_blocks.h"

#include <algorithm>
#include <span>

#include "engine/core/hash.h"
#include "engine/io/files.h"

namespace postrider {
namespace {

Result<void> read(int fd, std::string& into, size_t size, uint64_t offset) {
    into.resize(size);
    auto got = files::read_at(fd, into.data(), size, offset);
    if (!got) return std::unexpected(got.error());
    into.resize(*got);
    return {};
}

}  // namespace

// Where the block is, or else would be.
IndexBlocks::Block& IndexBlocks::place_of(FileId file, uint64_t number) {
    const auto set = std::span(blocks_).subspan(mix64(file, number) % kSets * kWays, kWays);
    const auto held = std::ranges::find_if(set, [&](const Block& block) { return block.holds(file, number); });
    return held != set.end() ? *held : *std::ranges::min_element(set, {}, &Block::looked_at);
}

Result<std::string_view> IndexBlocks::at(int fd, FileId file, uint64_t offset) {
    const uint64_t number = offset / kBlock;
    Block& block = place_of(file, number);
    if (!block.holds(file, number)) {
        if (uses_ < kWorthwhile && ++misses_ % kTrial != 0) {
            if (auto got = read(fd, entry_, kEntry, offset); !got) return std::unexpected(got.error());
            return std::string_view(entry_);
        }
        if (block.file != 0) uses_ = 0.9 * uses_ + 0.1 * block.uses;
        block.file = 0;
        // An entry that begins in the block ends in it.
        if (auto got = read(fd, block.octets, kBlock + kEntry, number * kBlock); !got)
            return std::unexpected(got.error());
        block.file = file;
        block.number = number;
        block.uses = 0;
    }
    ++block.uses;
    block.looked_at = ++looks_;
    const std::string_view octets(block.octets);
    return octets.substr(std::min<size_t>(offset - number * kBlock, octets.size()));
}

}  // namespace postrider
