// Time in plain integers with the unit in the name. Monotonic values come from CLOCK_BOOTTIME (a suspended
// machine ages its mail), wall values from CLOCK_REALTIME. Reading either is engine/io's business
// (io/clock.h): the simulation replaces it there.
#pragma once

#include <cstdint>

namespace postrider {

using MonoNs = int64_t;    // nanoseconds of CLOCK_BOOTTIME
using WallUs = int64_t;    // microseconds since 1970-01-01T00:00:00Z
using DurationMs = int64_t;

inline constexpr int64_t kNsPerMs = 1'000'000;
inline constexpr int64_t kNsPerSecond = 1'000'000'000;
inline constexpr int64_t kUsPerSecond = 1'000'000;
inline constexpr int64_t kMsPerSecond = 1'000;

}  // namespace postrider
