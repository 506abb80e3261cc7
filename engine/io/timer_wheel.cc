#include "engine/io/timer_wheel.h"

#include <algorithm>

namespace postrider {
namespace {
constexpr int kBits = 8;
constexpr int64_t kMask = TimerWheel::kSlots - 1;
constexpr int64_t kHorizonMs = (int64_t{1} << (kBits * TimerWheel::kLevels)) - 1;
}  // namespace

void TimerWheel::arm(Timer& timer, int64_t deadline_ms) {
    timer.unlink();
    timer.deadline_ms_ = deadline_ms;
    place(timer);
}

// The level is the highest byte in which the deadline differs from now: its slot is reached exactly when the
// lower bytes roll over, and is then spread over the levels below.
void TimerWheel::place(Timer& timer) {
    const int64_t at = std::clamp(timer.deadline_ms_, now_ms_ + 1, now_ms_ + kHorizonMs);
    int level = 0;
    while (level < kLevels - 1 && (at >> (kBits * (level + 1))) != (now_ms_ >> (kBits * (level + 1))))
        ++level;
    const int64_t slot = at >> (kBits * level);
    slots_[level][slot & kMask].push_back(timer);
    hint_ms_ = std::min(hint_ms_, slot << (kBits * level));
}

void TimerWheel::cascade(int level) {
    Slot moving;
    moving.splice_back(slots_[level][(now_ms_ >> (kBits * level)) & kMask]);
    while (!moving.empty()) {
        Timer& timer = moving.pop_front();
        if (timer.deadline_ms_ <= now_ms_)
            slots_[0][now_ms_ & kMask].push_back(timer);  // fires in this tick
        else
            place(timer);
    }
}

void TimerWheel::fire(Slot& slot) {
    Slot due;
    due.splice_back(slot);
    while (!due.empty()) {
        Timer& timer = due.pop_front();
        if (timer.deadline_ms_ > now_ms_)
            place(timer);  // waited at the horizon
        else
            timer.on_timer();
    }
}

void TimerWheel::advance(int64_t now_ms) {
    while (hint_ms_ <= now_ms) {
        now_ms_ = std::max(now_ms_, hint_ms_);
        for (int level = kLevels - 1; level > 0; --level)
            if ((now_ms_ & ((int64_t{1} << (kBits * level)) - 1)) == 0) cascade(level);
        fire(slots_[0][now_ms_ & kMask]);
        hint_ms_ = scan();
    }
    now_ms_ = std::max(now_ms_, now_ms);
}

int64_t TimerWheel::scan() const {
    for (int level = 0; level < kLevels; ++level) {
        const int64_t base = now_ms_ >> (kBits * level);
        // The rest of this turn of the level; at the top level the wheel wraps.
        const int64_t last = level == kLevels - 1 ? base + kSlots - 1 : base | kMask;
        for (int64_t slot = base + 1; slot <= last; ++slot)
            if (!slots_[level][slot & kMask].empty()) return slot << (kBits * level);
    }
    return kNever;
}

}  // namespace postrider
