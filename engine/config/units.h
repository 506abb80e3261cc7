// The words an operator writes for time, size and rate, and back. Pure; every parser refuses what
// it cannot represent and says what is allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "engine/core/time.h"

namespace postrider {

// At most `count` events in `period_s`. Over any window W at most count * W / period_s + burst()
// pass.
struct Rate {
    uint64_t count = 0;  // messages, connections, or octets of a data rate
    uint32_t period_s = 1;
    std::optional<uint64_t> max_burst;

    // What the rate allows in 100 ms, at least 1, unless given: stricter than KumoMTA, whose
    // default is `count`.
    uint64_t burst() const;
    bool operator==(const Rate&) const = default;
};

// "10s", "5m", "4d12h", "1h 30m", "90 minutes", "100ms"; at most ten years.
Result<DurationMs> parse_duration(std::string_view text);

// Octets: "1GiB", "10KiB", "64MB", "4096".
Result<uint64_t> parse_size(std::string_view text);

// "32", "1,000", "1_000", prefix "local:".
Result<uint64_t> parse_count(std::string_view text);

// "500/s", "100/min", "1,000/hr", "1_000/h", "10/second", "1/d", "5/30s"; then ",max_burst=N";
// prefix "local:".
Result<Rate> parse_rate(std::string_view text);

// A rate in octets: "10MiB/s", "1GiB/h,max_burst=64MiB".
Result<Rate> parse_data_rate(std::string_view text);

std::string format_duration(DurationMs duration);  // "4d12h", "100ms", "0s"
std::string format_rate(const Rate& rate);         // "1000/h,max_burst=5"

}  // namespace postrider
