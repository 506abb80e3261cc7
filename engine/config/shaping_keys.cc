#include "engine/config/shaping_keys.h"

#include <fmt/format.h>

#include <algorithm>

namespace postrider {
namespace {

constexpr int64_t kMostCount = 1'000'000, kDayMs = 86'400'000;

template <class Member>
struct ValueOf;
template <class T>
struct ValueOf<Setting<T> EffectiveShaping::*> {
    using type = T;
};
template <class T>
struct ValueOf<Setting<std::optional<T>> EffectiveShaping::*> {
    using type = T;
};

// The alternative of ShapingValue that holds a T.
template <class T>
T stored(const ShapingValue& value) {
    if constexpr (std::is_same_v<T, uint32_t>) {
        return static_cast<uint32_t>(std::get<uint64_t>(value));  // bounded by kMostCount
    } else {
        return std::get<T>(value);
    }
}

template <auto kMember>
void apply(EffectiveShaping& to, const ShapingSetting& setting) {
    using T = typename ValueOf<decltype(kMember)>::type;
    (to.*kMember).value = stored<T>(setting.value);
    (to.*kMember).from = setting.from;
}

template <class T>
std::string text_of(const T& value) {
    if constexpr (std::is_same_v<T, Rate>) {
        auto text = format_rate(value);
        if (!value.max_burst) text += fmt::format(" (max_burst {})", value.burst());
        return text;
    } else if constexpr (std::is_same_v<T, DurationMs>) {
        return format_duration(value);
    } else if constexpr (std::is_same_v<T, uint32_t>) {
        return std::to_string(value);
    } else {
        return std::string(to_string(value));
    }
}

template <class T>
std::string text_of(const std::optional<T>& value) {
    return value ? text_of(*value) : "no limit";
}

template <auto kMember>
ShapingLine describe(const EffectiveShaping& of, std::string_view name) {
    return {std::string(name), text_of((of.*kMember).value), (of.*kMember).from.to_string()};
}

using enum KeyKind;
using enum KeyPlace;
using E = EffectiveShaping;
constexpr auto kKumo = KeyOwner::kumomta;
constexpr auto kOurs = KeyOwner::ours;
constexpr bool kEnforced = true, kNotYet = false;

template <auto kMember>
constexpr ShapingKey key(std::string_view name, KeyKind kind, KeyOwner owner, KeyPlace place,
                         bool enforced, int64_t least = 0, int64_t most = 0) {
    return {name, kind, owner, place, enforced, least, most, apply<kMember>, describe<kMember>};
}

template <auto kMember>
constexpr ShapingKey timeout(std::string_view name) {
    return key<kMember>(name, duration, kKumo, anywhere, kEnforced, 1, kDayMs);
}

constexpr ShapingKey foreign(std::string_view name) {
    return {name, opaque, kKumo, anywhere, kNotYet, 0, 0, nullptr, nullptr};
}

std::vector<ShapingKey> make_keys() {
    std::vector<ShapingKey> keys = {
        // clang-format off
        key<&E::connection_limit>("connection_limit", count, kKumo, anywhere, kEnforced, 1, kMostCount),
        key<&E::max_connection_rate>("max_connection_rate", rate, kKumo, anywhere, kEnforced),
        key<&E::max_message_rate>("max_message_rate", rate, kKumo, anywhere, kEnforced),
        key<&E::max_data_rate>("max_data_rate", data_rate, kOurs, anywhere, kEnforced),
        key<&E::site_connection_limit>("site_connection_limit", count, kOurs, not_in_sources, kEnforced, 1, kMostCount),
        key<&E::site_max_message_rate>("site_max_message_rate", rate, kOurs, not_in_sources, kEnforced),
        key<&E::message_rate_counts>("message_rate_counts", rate_counts, kOurs, anywhere, kEnforced),
        key<&E::max_deliveries_per_connection>("max_deliveries_per_connection", count, kKumo, anywhere, kEnforced, 1, kMostCount),
        key<&E::max_recipients_per_batch>("max_recipients_per_batch", count, kKumo, anywhere, kEnforced, 1, kMostCount),
        key<&E::enable_tls>("enable_tls", tls, kKumo, anywhere, kEnforced),
        key<&E::pipelining>("pipelining", KeyKind::pipelining, kOurs, anywhere, kEnforced),
        key<&E::pipeline_depth>("pipeline_depth", count, kOurs, anywhere, kEnforced, 1, 64),
        timeout<&E::connect_timeout>("connect_timeout"),
        timeout<&E::banner_timeout>("banner_timeout"),
        timeout<&E::ehlo_timeout>("ehlo_timeout"),
        timeout<&E::starttls_timeout>("starttls_timeout"),
        timeout<&E::mail_from_timeout>("mail_from_timeout"),
        timeout<&E::rcpt_to_timeout>("rcpt_to_timeout"),
        timeout<&E::data_timeout>("data_timeout"),
        timeout<&E::data_dot_timeout>("data_dot_timeout"),
        timeout<&E::rset_timeout>("rset_timeout"),
        timeout<&E::idle_timeout>("idle_timeout"),
        {"provider_connection_limit", count, kKumo, provider, kEnforced, 1, kMostCount, nullptr, nullptr},
        {"provider_max_message_rate", rate, kKumo, provider, kEnforced, 0, 0, nullptr, nullptr},
        // clang-format on
    };
    // The rest of KumoMTA's egress path: docs.kumomta.com/reference/kumo/make_egress_path.
    for (const std::string_view name : {"additional_connection_limits",
                                        "additional_message_rate_throttles",
                                        "additional_source_selection_rates",
                                        "aggressive_connection_opening",
                                        "allow_smtp_auth_plain_without_tls",
                                        "auth_timeout",
                                        "consecutive_connection_failures_before_delay",
                                        "dispatcher_wakeup_strategy",
                                        "ehlo_domain",
                                        "enable_dane",
                                        "enable_mta_sts",
                                        "enable_pipelining",
                                        "enable_rset",
                                        "ignore_8bit_checks",
                                        "low_memory_reduction_policy",
                                        "maintainer_wakeup_strategy",
                                        "max_ready",
                                        "no_memory_reduction_policy",
                                        "openssl_cipher_list",
                                        "openssl_cipher_suites",
                                        "openssl_options",
                                        "opportunistic_tls_reconnect_on_failed_handshake",
                                        "prohibited_hosts",
                                        "provider_name",
                                        "provider_source_selection_rate",
                                        "reconnect_strategy",
                                        "refresh_interval",
                                        "refresh_strategy",
                                        "remember_broken_tls",
                                        "rustls_cipher_suites",
                                        "skip_hosts",
                                        "smtp_auth_plain_password",
                                        "smtp_auth_plain_username",
                                        "smtp_port",
                                        "source_selection_rate",
                                        "suspended",
                                        "system_shutdown_timeout",
                                        "tls_certificate",
                                        "tls_prefer_openssl",
                                        "tls_private_key",
                                        "try_next_host_on_transport_error",
                                        "use_lmtp"}) {
        keys.push_back(foreign(name));
    }
    return keys;
}

}  // namespace

const std::vector<ShapingKey>& shaping_keys() {
    static const std::vector<ShapingKey> kKeys = make_keys();
    return kKeys;
}

const ShapingKey* find_shaping_key(std::string_view name) {
    const auto it = std::ranges::find(shaping_keys(), name, &ShapingKey::name);
    return it == shaping_keys().end() ? nullptr : &*it;
}

std::vector<ShapingLine> EffectiveShaping::describe() const {
    std::vector<ShapingLine> lines;
    for (const ShapingKey& each : shaping_keys()) {
        if (each.describe != nullptr) lines.push_back(each.describe(*this, each.name));
    }
    for (const ProviderShaping& each : providers) {
        const auto name = " of " + each.name;
        lines.push_back({"provider_connection_limit" + name, text_of(each.connection_limit.value),
                         each.connection_limit.from.to_string()});
        lines.push_back({"provider_max_message_rate" + name, text_of(each.max_message_rate.value),
                         each.max_message_rate.from.to_string()});
    }
    return lines;
}

}  // namespace postrider
