#include "engine/config/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>

namespace postrider {
namespace {

struct Unit {
    std::string_view name;
    uint64_t factor;
};

constexpr uint64_t kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;
constexpr uint64_t kLongestMs = 3650 * kDay;

constexpr auto kDurationUnits = std::to_array<Unit>({
    {"ms", 1},
    {"msec", 1},
    {"millis", 1},
    {"s", kSecond},
    {"sec", kSecond},
    {"secs", kSecond},
    {"second", kSecond},
    {"seconds", kSecond},
    {"m", kMinute},
    {"min", kMinute},
    {"mins", kMinute},
    {"minute", kMinute},
    {"minutes", kMinute},
    {"h", kHour},
    {"hr", kHour},
    {"hrs", kHour},
    {"hour", kHour},
    {"hours", kHour},
    {"d", kDay},
    {"day", kDay},
    {"days", kDay},
    {"w", 7 * kDay},
    {"week", 7 * kDay},
    {"weeks", 7 * kDay},
});

constexpr auto kSizeUnits = std::to_array<Unit>({
    {"", 1},
    {"B", 1},
    {"KiB", 1ULL << 10},
    {"MiB", 1ULL << 20},
    {"GiB", 1ULL << 30},
    {"TiB", 1ULL << 40},
    {"KB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
});

constexpr auto kPeriods = std::to_array<Unit>({
    {"s", 1},
    {"sec", 1},
    {"second", 1},
    {"m", 60},
    {"min", 60},
    {"minute", 60},
    {"h", 3'600},
    {"hr", 3'600},
    {"hour", 3'600},
    {"d", 86'400},
    {"day", 86'400},
});

template <size_t N>
const Unit* find_unit(const std::array<Unit, N>& units, std::string_view name) {
    const auto it = std::ranges::find(units, name, &Unit::name);
    return it == units.end() ? nullptr : &*it;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

template <class Accept>
std::string_view take_while(std::string_view& text, Accept accept) {
    const auto end = std::ranges::find_if_not(text, accept);
    const auto taken = text.substr(0, static_cast<size_t>(end - text.begin()));
    text.remove_prefix(taken.size());
    return taken;
}

// Digits with `,` and `_` between them; nothing else. Empty on no digits or on overflow.
std::optional<uint64_t> number(std::string_view text) {
    if (text.empty() || !is_digit(text.front()) || !is_digit(text.back())) return std::nullopt;
    uint64_t value = 0;
    for (const char c : text) {
        if (c == ',' || c == '_') continue;
        if (!is_digit(c)) return std::nullopt;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) {
            return std::nullopt;
        }
    }
    return value;
}

// What is in the file may be long or not printable: an error must stay one short line.
std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text.substr(0, 60)) {
        const auto octet = static_cast<unsigned char>(c);
        if (octet < 0x20 || octet == 0x7f) {
            out += fmt::format("\\x{:02x}", octet);
        } else {
            out += c;
        }
    }
    return out + (text.size() > 60 ? "...\"" : "\"");
}

void strip_local(std::string_view& text) {
    // KumoMTA's mark for "not shared over Redis": all our limits are of one machine.
    if (text.starts_with("local:")) text.remove_prefix(6);
}

Result<uint64_t> size_of(std::string_view text) {
    std::string_view rest = trim(text);
    const auto digits =
        take_while(rest, [](char c) { return is_digit(c) || c == ',' || c == '_'; });
    const auto value = number(digits);
    const Unit* unit = find_unit(kSizeUnits, trim(rest));
    uint64_t octets = 0;
    if (!value || unit == nullptr || __builtin_mul_overflow(*value, unit->factor, &octets) ||
        octets > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return fail("not a size");
    }
    return octets;
}

// The common frame of both kinds of rate: [local:]AMOUNT/[N]PERIOD[,max_burst=AMOUNT].
template <class Amount>
std::optional<Rate> rate_of(std::string_view text, Amount amount) {
    strip_local(text);
    Rate rate;
    if (const auto at = text.find(",max_burst="); at != std::string_view::npos) {
        const auto burst = amount(text.substr(at + 11));
        if (!burst || *burst == 0) return std::nullopt;
        rate.max_burst = *burst;
        text = text.substr(0, at);
    }
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    const auto count = amount(trim(text.substr(0, slash)));
    std::string_view period = trim(text.substr(slash + 1));
    const auto digits = take_while(period, is_digit);
    const auto scale = digits.empty() ? 1 : number(digits);
    const Unit* unit = find_unit(kPeriods, trim(period));
    if (!count || *count == 0 || !scale || unit == nullptr) return std::nullopt;
    constexpr uint64_t kLongestPeriodS = 366 * 86'400;
    if (*scale == 0 || *scale > kLongestPeriodS / unit->factor) return std::nullopt;
    rate.count = *count;
    rate.period_s = static_cast<uint32_t>(*scale * unit->factor);
    return rate;
}

}  // namespace

uint64_t Rate::burst() const {
    if (max_burst) return *max_burst;
    return std::max<uint64_t>(1, count / (10ULL * period_s));
}

Result<DurationMs> parse_duration(std::string_view text) {
    const auto wrong = [&] {
        return fail("not a duration: " + quoted(text) +
                    ", allowed: a number and a unit (ms, s, m, h, d, w), also joined, such as "
                    "\"10s\", \"4d12h\", \"90 minutes\", at most 3650d");
    };
    std::string_view rest = trim(text);
    if (rest.empty()) return wrong();
    uint64_t total = 0;
    while (!rest.empty()) {
        const auto value = number(take_while(rest, is_digit));
        rest = trim(rest);
        const Unit* unit = find_unit(kDurationUnits, take_while(rest, is_letter));
        rest = trim(rest);
        uint64_t part = 0;
        if (!value || unit == nullptr || __builtin_mul_overflow(*value, unit->factor, &part) ||
            __builtin_add_overflow(total, part, &total) || total > kLongestMs) {
            return wrong();
        }
    }
    return static_cast<DurationMs>(total);
}

Result<uint64_t> parse_size(std::string_view text) {
    if (auto size = size_of(text)) return size;
    return fail("not a size: " + quoted(text) +
                ", allowed: octets, or a number and a unit (KiB, MiB, GiB, TiB, KB, MB, GB, TB), "
                "such as \"1GiB\"");
}

Result<uint64_t> parse_count(std::string_view text) {
    std::string_view rest = trim(text);
    strip_local(rest);
    if (const auto value = number(rest)) return *value;
    return fail("not a number: " + quoted(text) + ", allowed: digits, such as 32 or \"1,000\"");
}

Result<Rate> parse_rate(std::string_view text) {
    if (auto rate = rate_of(trim(text), number)) return *rate;
    return fail("not a rate: " + quoted(text) +
                ", allowed: a number of at least 1, a slash and s, min, h or d, such as "
                "\"500/s\", \"1,000/hr\", \"100/min,max_burst=10\"");
}

Result<Rate> parse_data_rate(std::string_view text) {
    const auto octets = [](std::string_view amount) -> std::optional<uint64_t> {
        const auto size = size_of(amount);
        return size ? std::optional(*size) : std::nullopt;
    };
    if (auto rate = rate_of(trim(text), octets)) return *rate;
    return fail("not a data rate: " + quoted(text) +
                ", allowed: a size of at least 1, a slash and s, min, h or d, such as "
                "\"10MiB/s\", \"1GiB/h,max_burst=64MiB\"");
}

std::string format_duration(DurationMs duration) {
    if (duration <= 0) return "0s";
    std::string out;
    auto left = static_cast<uint64_t>(duration);
    for (const Unit unit : {Unit{"d", kDay}, Unit{"h", kHour}, Unit{"m", kMinute},
                            Unit{"s", kSecond}, Unit{"ms", 1}}) {
        if (left >= unit.factor) out += fmt::format("{}{}", left / unit.factor, unit.name);
        left %= unit.factor;
    }
    return out;
}

std::string format_rate(const Rate& rate) {
    std::string period;
    for (const Unit unit : {Unit{"d", 86'400}, Unit{"h", 3'600}, Unit{"min", 60}, Unit{"s", 1}}) {
        if (rate.period_s % unit.factor != 0) continue;
        const auto scale = rate.period_s / unit.factor;
        period = scale == 1 ? std::string(unit.name) : fmt::format("{}{}", scale, unit.name);
        break;
    }
    auto out = fmt::format("{}/{}", rate.count, period);
    if (rate.max_burst) out += fmt::format(",max_burst={}", *rate.max_burst);
    return out;
}

}  // namespace postrider
