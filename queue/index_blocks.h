// Entries of spool indexes by blocks: the messages that a shard sends next mostly lie near those it has just sent, so one
// read brings the entries of a hundred. One per shard.
//
// A block may lie in any of the four places of its set; the one that was looked at longest ago makes room. Where a shard's
// intake is far ahead, its sites send from many blocks at once: 256 of them, 4 MiB, serve 100,000 messages of 1,000 domains
// with a read for each fifth to seventh, where 64 without sets read for every other message.
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
    static constexpr size_t kWays = 4;  // of a set
    static constexpr size_t kSets = 64;

    // Octets of the index `fd` of the file from `offset`: kEntry of them, fewer at its end, perhaps more. The view is good
    // until the next call.
    Result<std::string_view> at(int fd, FileId file, uint64_t offset);

  private:
    static constexpr double kWorthwhile = 3;  // entries of a block
    static constexpr uint32_t kTrial = 32;

    struct Block {
        FileId file = 0;  // 0: none
        uint64_t number = 0;
        uint32_t uses = 0;
        uint64_t looked_at = 0;
        std::string octets;
        bool holds(FileId its, uint64_t its_number) const { return file == its && number == its_number; }
    };
    Block& place_of(FileId file, uint64_t number);

    std::array<Block, kWays * kSets> blocks_;
    uint64_t looks_ = 0;
    double uses_ = 2 * kWorthwhile;  // of a block until it was replaced, moving mean
    uint32_t misses_ = 0;
    std::string entry_;
};

}  // namespace postrider
