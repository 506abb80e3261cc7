// Whose turn it is among the sources of a pool, for one site and shard: messages in proportion to the weights, as far as each
// source can have its part. Stride scheduling (Waldspurger and Weihl, 1995): a message moves its source on by a stride that is
// the shorter the greater its weight, and who has come least far is next.
//
// One that is ahead rests while another that is behind takes messages, unless a rate of its own binds that other. So the weights
// hold, also at a rate that all share, and nobody waits for a source that takes nothing, or may take no more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/core/time.h"
#include "engine/egress/egress_pool.h"

namespace postrider {

class PoolTurns {
  public:
    static constexpr uint64_t kAhead = 8;         // messages of its own that a source may be ahead of another
    static constexpr uint64_t kOwed = 1'000;      // that one is given for the time when it took nothing, at most
    static constexpr DurationMs kTakesMs = 250;   // what it took, or was refused, within so long tells what it does
    static constexpr DurationMs kRefusedMs = 1'000;  // rest after a refusal, doubled with each in a row,
    static constexpr uint32_t kDoublings = 6;        // so many times
    static constexpr uint32_t kRefusalsOfSources = 4;  // in a row: then the host refuses everybody

    explicit PoolTurns(std::span<const PoolMember> members) {
        for (const PoolMember& member : members) {
            const uint32_t weight = std::max(1u, member.weight);
            turns_.push_back({member.source, kOne / weight, weight});
            weights_ += weight;
            longest_ = std::max(longest_, turns_.back().stride);
        }
    }
    size_t size() const { return turns_.size(); }
    bool alone() const { return turns_.size() == 1; }
    SourceId source(size_t member) const { return turns_[member].source; }
    // The member's part of what all share, where each would have `mean` if all had the same weight.
    uint32_t part_of(uint32_t mean, size_t member) const {
        return static_cast<uint32_t>(uint64_t{mean} * size() * turns_[member].weight / weights_);
    }

    void took(size_t member, int64_t now_ms) {
        Turn& turn = turns_[member];
        turn.at = standing(member) + turn.stride;
        turn.took_ms = now_ms;
        furthest_ = std::max(furthest_, turn.at);
    }
    // A rate that the others do not share did not let it take one.
    void limited(size_t member, int64_t now_ms) { turns_[member].limited_ms = now_ms; }
    // It has had its part, and another source that takes messages, and may take more, has not.
    bool ahead(size_t member, int64_t now_ms) const {
        const Turn& turn = turns_[member];
        return std::ranges::any_of(turns_, [&](const Turn& other) {
            return other.at + kAhead * turn.stride < turn.at && now_ms - other.took_ms < kTakesMs &&
                   now_ms - other.limited_ms >= kTakesMs;
        });
    }
    // It has no connection, and another is far ahead of it.
    bool wanting(size_t member, int64_t now_ms) const {
        const Turn& turn = turns_[member];
        return turn.open == 0 && turn.not_before_ms <= now_ms && standing(member) + kAhead * longest_ < furthest_;
    }

    uint32_t open(size_t member) const { return turns_[member].open; }
    void opening(size_t member) { ++turns_[member].open; }
    void ended(size_t member) { --turns_[member].open; }
    void opened(size_t member) {
        turns_[member].refusals = 0;
        refusals_ = 0;
    }
    // No session could be had from this source: others are tried before it. False: it is not the source, or there is no other.
    bool refused(size_t member, int64_t now_ms) {
        Turn& turn = turns_[member];
        turn.not_before_ms = now_ms + (kRefusedMs << std::min(turn.refusals++, kDoublings));
        const auto may = [&](const Turn& other) { return other.not_before_ms <= now_ms; };
        if (++refusals_ < kRefusalsOfSources && std::ranges::any_of(turns_, may)) return true;
        for (Turn& each : turns_) each.not_before_ms = 0;
        refusals_ = 0;
        return false;
    }
    bool may_open(size_t member, int64_t now_ms) const { return turns_[member].not_before_ms <= now_ms; }

    // How far it has come, in strides: less goes first.
    uint64_t standing(size_t member) const {
        const Turn& turn = turns_[member];
        const uint64_t owed = kOwed * turn.stride;
        return std::max(turn.at, furthest_ > owed ? furthest_ - owed : 0);
    }
    // The same for the next connection: those that are open will take messages soon.
    uint64_t standing_with_open(size_t member) const {
        return standing(member) + turns_[member].open * kAhead * turns_[member].stride;
    }

  private:
    static constexpr uint64_t kOne = uint64_t{1} << 20;
    struct Turn {
        SourceId source;
        uint64_t stride;
        uint32_t weight;
        uint64_t at = 0;
        int64_t took_ms = -kTakesMs, limited_ms = -kTakesMs;
        int64_t not_before_ms = 0;
        uint32_t open = 0;
        uint32_t refusals = 0;
    };
    std::vector<Turn> turns_;
    uint64_t furthest_ = 0, longest_ = 0, weights_ = 0;
    uint32_t refusals_ = 0;
};

}  // namespace postrider
