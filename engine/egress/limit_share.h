// A worker's share of a rate at which others wait too: sites of one provider, shards of one site. Without it who wakes first,
// or has more connections at rest, takes all there is, and the others find nothing each time they look.
//
// Who was refused contends, with a weight. While others do, a worker takes at the pace of its part of the rate, and at once no
// more than its part of the burst: a limit of its own, in one word that nobody shares. What others leave is not lost: a bucket
// that is three quarters full, or has had room for a while where it holds one event, is anybody's. The limit itself is asked
// after that as ever, so nothing here can let too much through.
#pragma once

#include <algorithm>
#include <utility>

#include "engine/egress/path_limits.h"

namespace postrider {

class LimitShare {
  public:
    static constexpr uint32_t kWhole = 1024;  // the weight of a site; its shards divide it
    static constexpr MonoNs kKeptNs = 200 * kNsPerMs;

    LimitShare() = default;
    LimitShare(LimitShare&& other) noexcept
        : limit_(std::exchange(other.limit_, nullptr)), weight_(other.weight_), mine_(other.mine_),
          refused_at_(other.refused_at_) {}
    LimitShare& operator=(LimitShare&&) = delete;
    ~LimitShare() { leave(); }

    RateLimit* limit() const { return limit_; }

    // `limit` has refused an event, or is about to.
    void contend(RateLimit& limit, uint32_t weight, MonoNs now) {
        refused_at_ = now;
        if (limit_ == &limit && weight_ == weight) return;
        if (limit_ != &limit) mine_ = 0;
        leave();
        limit_ = &limit;
        weight_ = std::max(1u, weight);
        limit.contending.fetch_add(weight_, std::memory_order_relaxed);
    }
    void leave() {
        if (RateLimit* limit = std::exchange(limit_, nullptr)) limit->contending.fetch_sub(weight_, std::memory_order_relaxed);
    }
    // Once in a while, by who does not sleep for the limit.
    void leave_if_content(MonoNs now) {
        if (limit_ && now - refused_at_ > kKeptNs) leave();
    }

    // 0: as far as others are concerned the next event may be taken; else when to ask again.
    MonoNs ready_at(MonoNs now) const {
        if (alone()) return 0;
        const MonoNs own = mine_ - limit_->burst_time();
        const MonoNs at = std::min(own, left_at());
        return at <= now ? 0 : at;
    }
    // So many events, as far as others are concerned.
    uint64_t room(MonoNs now) const {
        if (alone()) return UINT64_MAX;
        const MonoNs own = mine_ - limit_->burst_time();
        if (own <= now) return 1 + static_cast<uint64_t>((now - std::max(own, now - limit_->burst_time())) / step());
        return left_at() <= now ? 1 : 0;
    }
    void took(MonoNs now, uint64_t events) {
        if (alone()) return;
        const MonoNs cost = step() * static_cast<MonoNs>(std::min<uint64_t>(events, kMostEvents));
        // What was taken beyond its part, because others were late, is owed for one turn only.
        mine_ = std::min(std::max(mine_, now) + cost, now + limit_->burst_time() + cost);
    }

  private:
    static constexpr uint64_t kMostEvents = 1u << 20;
    static constexpr MonoNs kLeftLeastNs = kNsPerMs, kLeftMostNs = 20 * kNsPerMs;

    bool alone() const { return !limit_ || limit_->contending.load(std::memory_order_relaxed) <= weight_; }
    // Time for one event at its part of the rate.
    MonoNs step() const {
        const auto all = std::max(weight_, limit_->contending.load(std::memory_order_relaxed));
        return std::max<MonoNs>(1, limit_->interval()) * all / weight_;
    }
    // Since when, or from when on, what is in the bucket is anybody's.
    MonoNs left_at() const {
        return limit_->room_since() + std::max(limit_->burst_time() / 4 * 3, std::clamp(limit_->interval() / 8, kLeftLeastNs, kLeftMostNs));
    }

    RateLimit* limit_ = nullptr;
    uint32_t weight_ = kWhole;
    MonoNs mine_ = 0;  // when its part of the rate is used up again if it takes nothing more
    MonoNs refused_at_ = 0;
};

}  // namespace postrider
