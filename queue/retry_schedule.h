// When a deferred recipient is tried again: the operator's list of intervals, the last of which repeats, each with a
// jitter of +-10 % so that a list deferred together does not come back together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/core/time.h"
#include "engine/io/clock.h"

namespace postrider {

struct RetrySchedule {
    std::vector<DurationMs> retry_after_ms;
    int64_t max_age_s = 0;  // from the claim of the file

    bool operator==(const RetrySchedule&) const = default;

    // The wait after attempt number `attempts` (from 1) failed, in seconds, at least 1.
    int64_t wait_s(uint32_t attempts, Random& random) const {
        const size_t step = std::min<size_t>(attempts > 0 ? attempts - 1 : 0, retry_after_ms.size() - 1);
        const double jitter = 0.9 + 0.2 * random.unit();
        const double wait_ms = static_cast<double>(retry_after_ms[step]) * jitter;
        return std::max<int64_t>(1, static_cast<int64_t>((wait_ms + 999) / 1000));
    }
    // No wait is longer.
    int64_t longest_wait_s() const {
        const auto longest = std::ranges::max_element(retry_after_ms);
        return longest == retry_after_ms.end() ? INT32_MAX : *longest * 11 / 10 / kMsPerSecond + 1;
    }
    bool expired(int64_t created_s, int64_t now_s) const { return now_s - created_s >= max_age_s; }
};

}  // namespace postrider
