// The names that producers gave to the claimed files: needed for a line of the log and for bad/, hence kept on disk. They lie
// in blocks, written to a scratch file when they are full, so that one block is in memory however many files there are. The
// scratch file has no name and is no record: after a crash the names come from the journal.
//
// Failure policy: a block that cannot be written (disk full) stays in memory. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/files.h"

namespace postrider {

class NameStore {
  public:
    static constexpr uint32_t kRefBits = 30;

    // Before the first name. Without it all blocks stay in memory.
    void spill_to(FileDescriptor scratch) { scratch_ = std::move(scratch); }

    // At most 255 octets. 0: no room (4 GiB of names), the name is not kept.
    uint32_t add(std::string_view name);
    std::string name(uint32_t ref) const;
    void remove(uint32_t ref);

    // Octets resident.
    uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  private:
    static constexpr size_t kUnit = 4;  // a name begins at a multiple of it
    static constexpr size_t kBlock = size_t{64} << 10;
    static constexpr uint32_t kUnits = kBlock / kUnit;
    static constexpr uint32_t kBlocks = (1u << kRefBits) / kUnits;
    struct Block {
        std::unique_ptr<char[]> memory;  // none: in the scratch file
        uint32_t live = 0;               // names in it
    };

    bool next_block();
    void drop_memory(Block& block);

    FileDescriptor scratch_;
    mutable std::mutex mutex_;
    std::vector<Block> blocks_;
    std::vector<uint32_t> free_;     // blocks without names
    uint32_t current_ = UINT32_MAX;  // the block that is being filled, and its units in use
    uint32_t used_ = 0;
    std::atomic<uint64_t> bytes_{0};
};

}  // namespace postrider
