// The time-line of a spool: microseconds since 1970 by the wall clock, had nobody set it since the spool's first stamp. Claims,
// retries, cancels and suspensions are stamped in it, so that no step of the wall clock makes mail older, keeps it waiting or
// hides it from a cancel, in this run or over a restart (FAULTS 96; docs/decisions/0028-one-time-line.md).
//
// In a run it is counted on by the monotonic clock. From run to run it is the wall clock less an offset: by how much that
// clock was set, as the engines saw it, which the control file keeps (engine/control_file.h). What people read is wall time.
//
// begin() comes before the shards; one thread looks at the wall clock; the rest is any thread's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "engine/core/time.h"

namespace postrider {

class TimeLine {
  public:
    static constexpr int64_t kSetUs = 10 * kUsPerSecond;  // what differs less is no step: a clock that is being corrected

    // Where the line goes on. `newest_s`: the newest stamp that the spool knows; the line never begins below it. The wall clock
    // may have been set while no engine saw it, put right by hand for one: of both readings that are not too early the sooner is
    // taken, because mail that lives too long is the smaller harm. A little too early, as a clock set by hand may be, will do.
    void begin(WallUs wall_us, MonoNs mono_ns, int64_t offset_us, int64_t newest_s) {
        const auto [sooner, later] = std::minmax({wall_us, wall_us - offset_us});
        const WallUs newest_us = newest_s * kUsPerSecond;
        const bool too_early = sooner < newest_us - (later - sooner) / 8;
        const WallUs now_us = std::max(too_early ? later : sooner, newest_us);
        at_zero_us_ = now_us - mono_ns / 1000;
        know(wall_us - now_us);
    }

    // By how many seconds the wall clock was set since it was last known; 0: it was not.
    int64_t look(WallUs wall_us, MonoNs mono_ns) {
        const int64_t offset_us = wall_us - at_us(mono_ns);
        const int64_t set_by_us = offset_us - offset_us_.load(std::memory_order_relaxed);
        if (std::abs(set_by_us) < kSetUs) return 0;
        know(offset_us);
        return set_by_us / kUsPerSecond;
    }

    // When the monotonic clock was at zero.
    WallUs at_zero_us() const { return at_zero_us_; }
    WallUs at_us(MonoNs mono_ns) const { return at_zero_us_ + mono_ns / 1000; }
    int64_t at_s(MonoNs mono_ns) const { return at_us(mono_ns) / kUsPerSecond; }
    // The wall clock less the line, as last known.
    int64_t offset_us() const { return offset_us_.load(std::memory_order_relaxed); }
    // A stamp of the line as the wall clock tells it now.
    int64_t wall_s(int64_t line_s) const { return line_s + offset_s_.load(std::memory_order_relaxed); }

  private:
    void know(int64_t offset_us) {
        const int64_t half = offset_us < 0 ? -kUsPerSecond / 2 : kUsPerSecond / 2;
        offset_s_.store((offset_us + half) / kUsPerSecond, std::memory_order_relaxed);
        offset_us_.store(offset_us, std::memory_order_relaxed);
    }

    WallUs at_zero_us_ = 0;
    std::atomic<int64_t> offset_us_{0};
    std::atomic<int64_t> offset_s_{0};  // to the nearest
};

}  // namespace postrider
