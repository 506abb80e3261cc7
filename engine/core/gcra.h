// A rate limit for any number of threads in one atomic word: the generic cell rate algorithm (ITU-T I.371, virtual
// scheduling). The word is the theoretical arrival time: when the bucket will be empty again if nothing more comes.
//
//   granted at `now` when  arrival - tolerance <= now   then  arrival = max(now, arrival) + cost
//
// with cost = period / count and tolerance = (burst - 1) * cost. So over any window W at most W / cost + burst events pass,
// and time that was not used is not saved beyond the burst. Costs are kept in 1/256 ns and rounded up: never more than the
// rate, and less than 0.3 % below it up to 1 GiB/s. Pure: the caller gives the time.
//
// A change of rate keeps the room that the bucket has left, in time or in events, whichever is less: ten changes a second do
// not add up to more than the rates allow in their times, and a slow rate's long wait ends when it is raised.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "engine/core/time.h"

namespace postrider {

class Gcra {
  public:
    // Nothing is limited.
    Gcra() = default;
    // At most `count` in `period_s`, `burst` at once; all at least 1.
    Gcra(uint64_t count, uint32_t period_s, uint64_t burst) { set(count, period_s, burst, 0); }

    bool limited() const { return cost_.load(std::memory_order_relaxed) != 0; }

    // 0: one would be granted now; else when.
    MonoNs ready_at(MonoNs now) const {
        if (!limited()) return 0;
        const MonoNs at = arrival_.load(std::memory_order_relaxed) - tolerance_.load(std::memory_order_relaxed);
        return at <= now ? 0 : at;
    }
    // `n` events at once, granted when one would be: what is more than the burst allows is paid back by waiting after it.
    bool take(MonoNs now, uint64_t n = 1) {
        const MonoNs cost = cost_of(n);
        if (cost == 0) return true;
        MonoNs arrival = arrival_.load(std::memory_order_relaxed);
        do {
            if (arrival - tolerance_.load(std::memory_order_relaxed) > now) return false;
        } while (!arrival_.compare_exchange_weak(arrival, std::max(now, arrival) + cost, std::memory_order_relaxed));
        return true;
    }
    // Taken and not used.
    void give_back(uint64_t n = 1) { arrival_.fetch_sub(cost_of(n), std::memory_order_relaxed); }
    // More than was taken.
    void charge(uint64_t n) { arrival_.fetch_add(cost_of(n), std::memory_order_relaxed); }

    // How many are granted by `now`, at most.
    uint64_t available(MonoNs now) const {
        const uint64_t cost = cost_.load(std::memory_order_relaxed);
        if (cost == 0) return UINT64_MAX;
        const MonoNs arrival = std::max(now, arrival_.load(std::memory_order_relaxed));
        const MonoNs room = now + tolerance_.load(std::memory_order_relaxed) - arrival;
        if (room < 0) return 0;
        return 1 + static_cast<uint64_t>(static_cast<unsigned __int128>(room) * kScale / cost);
    }

    // How many the rate alone allows in so long.
    uint64_t within(MonoNs ns) const {
        const uint64_t cost = cost_.load(std::memory_order_relaxed);
        return cost == 0 ? UINT64_MAX : static_cast<uint64_t>(static_cast<unsigned __int128>(ns) * kScale / cost);
    }

    // Time for one event at the rate alone, for the rest of the burst; when there was room for an event last.
    MonoNs interval() const { return cost_of(1); }
    MonoNs burst_time() const { return tolerance_.load(std::memory_order_relaxed); }
    MonoNs room_since() const { return arrival_.load(std::memory_order_relaxed) - burst_time(); }

    // One writer at a time. `now`: 0 when the limit begins with an empty bucket; else it begins full, as nobody knows what
    // was sent before.
    void set(uint64_t count, uint32_t period_s, uint64_t burst, MonoNs now) {
        const auto period = static_cast<unsigned __int128>(period_s) * kNsPerSecond * kScale;
        auto cost = static_cast<uint64_t>((period + count - 1) / count);
        // Whole nanoseconds where they cost nothing: sums of single events are exact then.
        if (cost >= 1'000 * kScale) cost = (cost + kScale - 1) / kScale * kScale;
        const MonoNs tolerance = scaled(burst - 1, cost), full = tolerance + scaled(1, cost);
        const uint64_t old_cost = cost_.exchange(cost, std::memory_order_relaxed);
        const MonoNs old_full = tolerance_.exchange(tolerance, std::memory_order_relaxed) + scaled(1, old_cost);
        if (now == 0) return;
        MonoNs arrival = arrival_.load(std::memory_order_relaxed), level = 0;
        do {
            // The room that is left, in time or in events, whichever is less; and so what is owed beyond the burst.
            const MonoNs room = old_full - std::max<MonoNs>(0, arrival - now);
            const MonoNs kept = old_cost == 0 ? 0 : std::min(std::abs(room), rescaled(std::abs(room), cost, old_cost));
            level = room < 0 ? full + kept : std::max<MonoNs>(0, full - kept);
        } while (!arrival_.compare_exchange_weak(arrival, now + level, std::memory_order_relaxed));
    }
    void set_unlimited() { cost_.store(0, std::memory_order_relaxed); }

  private:
    static constexpr uint64_t kScale = 256;
    static constexpr MonoNs kLongest = int64_t{10 * 366} * 86'400 * kNsPerSecond;

    static MonoNs rescaled(MonoNs ns, uint64_t cost, uint64_t old_cost) {
        const auto value = static_cast<unsigned __int128>(ns) * cost / old_cost;
        return static_cast<MonoNs>(std::min<unsigned __int128>(value, kLongest));
    }
    static MonoNs scaled(uint64_t n, uint64_t cost) {
        const auto whole = (static_cast<unsigned __int128>(n) * cost + kScale - 1) / kScale;
        return static_cast<MonoNs>(std::min<unsigned __int128>(whole, kLongest));
    }
    MonoNs cost_of(uint64_t n) const { return scaled(n, cost_.load(std::memory_order_relaxed)); }

    std::atomic<MonoNs> arrival_{0};
    std::atomic<uint64_t> cost_{0};  // of one event, in 1/256 ns; 0: unlimited
    std::atomic<MonoNs> tolerance_{0};
};

}  // namespace postrider
