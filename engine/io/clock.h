// The clock and the source of randomness of a process: part of the simulation seam (a simulator links its own
// clock.cc). Shards read the clock once a turn, through Reactor::now_ns().
#pragma once

#include <cstdint>

#include "engine/core/time.h"

namespace postrider {

MonoNs read_mono_clock();
WallUs read_wall_clock();

// 64 bits that an outsider cannot guess: seeds, session ids.
uint64_t random_seed();

// xoshiro256** (Blackman, Vigna): jitter, choice among equals. Not for secrets.
class Random {
  public:
    explicit Random(uint64_t seed);
    uint64_t next();
    // Uniform in [0, bound), bound > 0.
    uint32_t below(uint32_t bound) {
        return static_cast<uint32_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
    }
    // Uniform in [0, 1).
    double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  private:
    uint64_t state_[4];
};

}  // namespace postrider
