// Hierarchical timer wheel (Varghese, Lauck 1987): four levels of 256 slots, one tick a millisecond, so arming and
// disarming are O(1) and a timer moves down at most three times. One per shard. A timer fires at or after its
// deadline, never before; deadlines past 49 days wait at the horizon and are armed again by the wheel.
#pragma once

#include <array>
#include <cstdint>

#include "engine/core/intrusive_list.h"
#include "engine/core/time.h"

namespace postrider {

struct TimerTag;

class Timer : public ListNode<TimerTag> {
  public:
    virtual ~Timer() = default;
    virtual void on_timer() = 0;
    bool armed() const { return linked(); }
    int64_t deadline_ms() const { return deadline_ms_; }

  private:
    friend class TimerWheel;
    int64_t deadline_ms_ = 0;
};

class TimerWheel {
  public:
    static constexpr int kLevels = 4;
    static constexpr int kSlots = 256;
    static constexpr int64_t kNever = INT64_MAX;

    explicit TimerWheel(int64_t now_ms) : now_ms_(now_ms) {}

    // Arms, or moves an armed timer. A deadline that has passed fires at the next advance.
    void arm(Timer& timer, int64_t deadline_ms);
    void disarm(Timer& timer) { timer.unlink(); }

    // Fires everything due at `now_ms`. Timers may arm and disarm others, or themselves, from on_timer().
    void advance(int64_t now_ms);

    // When advance() must be called next at the latest; kNever when nothing is armed. May be early, never late.
    int64_t next_ms() const { return hint_ms_; }

  private:
    using Slot = IntrusiveList<Timer, TimerTag>;
    void place(Timer& timer);
    void cascade(int level);
    void fire(Slot& slot);
    int64_t scan() const;

    std::array<std::array<Slot, kSlots>, kLevels> slots_;
    int64_t now_ms_;
    int64_t hint_ms_ = kNever;  // no slot before it is occupied; it may itself be empty by now
};

}  // namespace postrider
