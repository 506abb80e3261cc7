#include "engine/config/shaping_values.h"

#include <fmt/format.h>

#include <array>

namespace postrider {
namespace {

template <class Enum, size_t N>
Result<ShapingValue> one_of(std::string_view text, const std::array<Enum, N>& all) {
    std::string allowed;
    for (const Enum each : all) {
        if (text == to_string(each)) return each;
        allowed += (allowed.empty() ? "\"" : ", \"") + std::string(to_string(each)) + '"';
    }
    return fail(fmt::format("is \"{}\", allowed: {}", text, allowed));
}

template <class T>
Result<ShapingValue> wrapped(Result<T> value) {
    if (!value) return std::unexpected(value.error());
    return *value;
}

Result<ShapingValue> bounded_count(const ShapingKey& key, uint64_t count) {
    if (count < static_cast<uint64_t>(key.least) || count > static_cast<uint64_t>(key.most)) {
        return fail(
            fmt::format("is {}, allowed: an integer from {} to {}", count, key.least, key.most));
    }
    return count;
}

std::string_view allowed_kind(KeyKind kind) {
    switch (kind) {
        case KeyKind::count:
            return "an integer";
        case KeyKind::rate:
            return "a rate in quotes, such as \"500/s\"";
        case KeyKind::data_rate:
            return "a data rate in quotes, such as \"10MiB/s\"";
        case KeyKind::duration:
            return "a duration in quotes, such as \"30s\"";
        case KeyKind::tls:
            return "a policy in quotes, such as \"Opportunistic\"";
        case KeyKind::pipelining:
            return "\"message\", \"group\" or \"none\"";
        case KeyKind::rate_counts:
            return "\"messages\" or \"recipients\"";
        case KeyKind::opaque:
            break;
    }
    return "";
}

}  // namespace

Result<ShapingValue> parse_shaping_value(const ShapingKey& key, std::string_view text) {
    switch (key.kind) {
        case KeyKind::count: {
            const auto count = parse_count(text);
            if (!count) return std::unexpected(count.error());
            return bounded_count(key, *count);
        }
        case KeyKind::rate:
            return wrapped(parse_rate(text));
        case KeyKind::data_rate:
            return wrapped(parse_data_rate(text));
        case KeyKind::duration:
            return wrapped(bounded_duration(text, key.least, key.most));
        case KeyKind::tls:
            return one_of(text,
                          std::to_array({TlsPolicy::Opportunistic, TlsPolicy::OpportunisticInsecure,
                                         TlsPolicy::Required, TlsPolicy::RequiredInsecure,
                                         TlsPolicy::Disabled}));
        case KeyKind::pipelining:
            return one_of(
                text, std::to_array({Pipelining::message, Pipelining::group, Pipelining::none}));
        case KeyKind::rate_counts:
            return one_of(text, std::to_array({RateCounts::messages, RateCounts::recipients}));
        case KeyKind::opaque:
            break;
    }
    return fail("is KumoMTA's and not kept");
}

Result<ShapingValue> shaping_value_of(const ShapingKey& key, const toml::node& node) {
    if (const auto* text = node.as_string()) return parse_shaping_value(key, text->get());
    const auto* integer = node.as_integer();
    if (integer == nullptr || key.kind != KeyKind::count) {
        return fail(fmt::format("is {}, allowed: {}", kind_of(node), allowed_kind(key.kind)));
    }
    if (integer->get() < 0) {
        return fail(fmt::format("is {}, allowed: an integer from {} to {}", integer->get(),
                                key.least, key.most));
    }
    return bounded_count(key, static_cast<uint64_t>(integer->get()));
}

}  // namespace postrider
