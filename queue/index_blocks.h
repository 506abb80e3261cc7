// Entries of spool indexes by blocks: the messages that a shard sends next mostly lie near those it has just sent, so one
// read brings the entries of a hundred. One per shard.
//
// Where they do not (many files, or recipients in no order) blocks would be read for one entry each: how often a block was
// of use is counted, and while it is seldom, entries are read one by one, but for a trial now and then.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "engine/core/ids.h"
#include "engine/core/result.h"

namespace postrider {

class IndexBlocks {
  public:
    static constexpr size_t kEntry = 512;  // an entry with its texts, in the ordinary case
    static constexpr size_t kBlock = 16 << 10;
    static constexpr size_t kBlocks = 64;

    // Octets of the index `fd` of the file from `offset`: kEntry of them, fewer at its end, perhaps more. The view is good
    // until the next call.
    Result<std::string_view> at(int fd, FileId file, uint64_t offset);

  private:
    static constexpr double kWorthwhile = 3;  // entries of a block
    static constexpr uint32_t kTrial = 32;

    struct Block {
        FileId file = 0;  // 0: never filled
        uint64_t number = 0;
        uint32_t uses = 0;
        std::string octets;
    };
    std::array<Block, kBlocks> blocks_;
    double uses_ = 2 * kWorthwhile;  // of a block until it was replaced, moving mean
    uint32_t misses_ = 0;
    std::string entry_;
};

}  // namespace postrider
