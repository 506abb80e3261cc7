// shaping.toml: how fast and in which way each destination may be sent to. The schema is KumoMTA's,
// with keys of ours besides (shaping_keys.cc has the one table of them).
//
// Blocks are kept merged by name: a later file's value replaces an earlier one's, key by key;
// `replace_base` drops what earlier files said in that block. ShapingRules is pure: it resolves
// nothing. A domain block with mx_rollup (the default) speaks for its whole site, so the engine
// looks the MX of rollup_domains() up and tells the answer by set_site(); until then such a block
// speaks for its own domain only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/config/problem.h"
#include "engine/config/units.h"

namespace postrider {

enum class TlsPolicy : uint8_t {
    Opportunistic,  // TLS if offered; the certificate is not judged unless a policy demands it
    OpportunisticInsecure,  // the same, said explicitly
    Required,               // TLS with a certificate that names the host, or the message waits
    RequiredInsecure,       // TLS with any certificate, or the message waits
    Disabled,               // never TLS
};

enum class Pipelining : uint8_t { message, group, none };

// What the message rates of a path count.
enum class RateCounts : uint8_t {
    messages,    // transactions: MAIL to the final dot, however many recipients
    recipients,  // each recipient of a transaction
};

std::string_view to_string(TlsPolicy policy);
std::string_view to_string(Pipelining pipelining);
std::string_view to_string(RateCounts counts);

// Where a value comes from. An empty file means the engine's own default.
struct Origin {
    std::string file;
    uint32_t line = 0;
    std::string block;  // `["gmail.com"]`, `[provider."google"]`, `["gmail.com".sources."ip-1"]`
    std::string command = {};  // set while the engine runs: by which command, whom, and when

    std::string to_string() const;  // "shaping.toml:12 [provider."google"]", "built-in default"
    bool operator==(const Origin&) const = default;
};

template <class T>
struct Setting {
    T value{};
    Origin from;
};

// The limits that all sites of one provider share, per egress source.
struct ProviderShaping {
    std::string name;
    Setting<std::optional<uint32_t>> connection_limit;
    Setting<std::optional<Rate>> max_message_rate;
};

// One line of `explain`.
struct ShapingLine {
    std::string key, value, from;
};

// Every value for one path (source x site), and where it comes from. An optional without value: no
// limit.
struct EffectiveShaping {
    // Per egress source, as in KumoMTA.
    Setting<uint32_t> connection_limit{32, {}};
    Setting<std::optional<Rate>> max_connection_rate, max_message_rate;
    Setting<std::optional<Rate>> max_data_rate;  // octets
    std::vector<ProviderShaping> providers;      // every provider that matches; all of them bind

    // Over all sources.
    Setting<std::optional<uint32_t>> site_connection_limit;
    Setting<std::optional<Rate>> site_max_message_rate;

    Setting<RateCounts> message_rate_counts{RateCounts::messages, {}};  // of all message rates

    Setting<uint32_t> max_deliveries_per_connection{1024, {}};
    Setting<uint32_t> max_recipients_per_batch{100, {}};

    Setting<TlsPolicy> enable_tls{TlsPolicy::Opportunistic, {}};
    Setting<Pipelining> pipelining{Pipelining::message, {}};
    Setting<uint32_t> pipeline_depth{1, {}};  // transactions in flight with CHUNKING

    // RFC 5321 4.5.3.2 gives the least a client should wait for each reply.
    Setting<DurationMs> connect_timeout{30'000, {}};
    Setting<DurationMs> banner_timeout{300'000, {}};
    Setting<DurationMs> ehlo_timeout{300'000, {}};
    Setting<DurationMs> starttls_timeout{120'000, {}};
    Setting<DurationMs> mail_from_timeout{300'000, {}};
    Setting<DurationMs> rcpt_to_timeout{300'000, {}};
    Setting<DurationMs> data_timeout{120'000, {}};
    Setting<DurationMs> data_dot_timeout{600'000, {}};
    Setting<DurationMs> rset_timeout{20'000, {}};
    Setting<DurationMs> idle_timeout{30'000, {}};

    // Every key in the table's order, provider limits last.
    std::vector<ShapingLine> describe() const;
};

using ShapingValue = std::variant<uint64_t, DurationMs, Rate, TlsPolicy, Pipelining, RateCounts>;

struct ShapingSetting {
    ShapingValue value;
    Origin from;
};

using ShapingSettings = std::map<std::string, ShapingSetting, std::less<>>;  // by key

struct SetConfigAction {
    std::string name, value;  // value as TOML text
};

// KumoMTA's automation: what to do when a reply matches. Kept as written; the patterns are not
// compiled here.
struct AutomationRule {
    std::vector<std::string> regex;
    std::vector<std::string> action;          // "Suspend", "SetConfig", ...
    std::vector<SetConfigAction> set_config;  // of each SetConfig, SetDomainConfig, in order
    std::optional<Rate> threshold;            // none: at the first match
    DurationMs duration_ms = 0;
    bool match_internal = false;
    Origin from;
};

struct ProviderMatch {
    enum class Kind : uint8_t { mx_suffix, domain_suffix, host_name } kind;
    std::string name;  // A-labels in lower case, no final dot
};

struct ShapingBlock {
    std::string
        name;     // "default", a domain, a provider's name; domains in lower case without final dot
    Origin from;  // its first appearance, or the last replace_base
    ShapingSettings settings;
    std::map<std::string, ShapingSettings, std::less<>> sources;
    std::vector<AutomationRule> automation;
    std::vector<ProviderMatch> matches;  // providers only
    bool mx_rollup = true;               // domains only
    std::string site;                    // domains only: set by set_site()
};

// What KumoMTA calls the kernel's choice of an address, in `sources` blocks too.
inline constexpr std::string_view kUnspecifiedSource = "unspecified";

class ShapingRules {
  public:
    // `domain` and `mx_hosts` as A-labels in lower case without final dot; `source_name` empty: the
    // kernel's choice, kUnspecifiedSource.
    EffectiveShaping effective(std::string_view domain, std::string_view site_name,
                               std::span<const std::string> mx_hosts,
                               std::string_view source_name) const;
    // The same for a site with several domains whose names matter: a provider that matches one of
    // them by DomainSuffix binds the site.
    EffectiveShaping effective(std::span<const std::string> domains, std::string_view site_name,
                               std::span<const std::string> mx_hosts,
                               std::string_view source_name) const;

    // Domain blocks that speak for their site, in file order.
    std::vector<std::string> rollup_domains() const;

    // Binds a domain block to its site. Answers a warning when another block is bound to it
    // already: they merge in file order.
    std::optional<ConfigProblem> set_site(std::string_view domain, std::string_view site_name);

    // False for a domain whose block says mx_rollup = false: its limits are its own, not its
    // site's.
    bool rolls_up(std::string_view domain) const;

    bool has_domain(std::string_view domain) const { return domain_index_.contains(domain); }
    // A provider matches the domain by its name.
    bool suffix_matches(std::string_view domain) const;

    // In place of the block's own value, and of its sources'.
    void override_default(std::string_view key, const ShapingSetting& setting);
    void override_provider(std::string_view name, std::string_view key, const ShapingSetting& setting);

    const std::optional<ShapingBlock>& default_block() const { return default_; }
    const std::vector<ShapingBlock>& domains() const { return domains_; }
    const std::vector<ShapingBlock>& providers() const { return providers_; }

  private:
    friend class ShapingLoader;
    std::optional<ShapingBlock> default_;
    std::vector<ShapingBlock> domains_, providers_;  // in order of first appearance
    std::map<std::string, size_t, std::less<>> domain_index_, provider_index_;
};

// Reads one file over `rules`; call it in order, later files win. Values that are refused do not
// enter `rules`.
void load_shaping_file(const std::string& path, ShapingRules& rules,
                       std::vector<ConfigProblem>& problems);

}  // namespace postrider
