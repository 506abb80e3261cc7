// Which blocks speak for a path, in which order. As in KumoMTA: default, providers, providers'
// sources, domain blocks of the site, the domain's own block, their sources; the later wins, key by
// key.
#include "engine/config/shaping_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/config/shaping_keys.h"

namespace postrider {
namespace {

bool host_matches(const ProviderMatch& match, std::string_view host) {
    return match.kind == ProviderMatch::Kind::mx_suffix
               ? host.ends_with(match.name)
               : match.kind == ProviderMatch::Kind::host_name && host == match.name;
}

bool matches_by_name(const ShapingBlock& provider, std::string_view domain) {
    return std::ranges::any_of(provider.matches, [&](const ProviderMatch& match) {
        return match.kind == ProviderMatch::Kind::domain_suffix && domain.ends_with(match.name);
    });
}

// Every MX host has to match: a domain that blends two providers belongs to neither.
bool provider_matches(const ShapingBlock& provider, std::span<const std::string> domains,
                      std::span<const std::string> mx_hosts) {
    for (const std::string& domain : domains) {
        if (matches_by_name(provider, domain)) return true;
    }
    return !mx_hosts.empty() && std::ranges::all_of(mx_hosts, [&](const std::string& host) {
        return std::ranges::any_of(provider.matches, [&](const ProviderMatch& match) {
            return host_matches(match, host);
        });
    });
}

void apply_settings(const ShapingSettings& settings, EffectiveShaping& to) {
    for (const auto& [name, setting] : settings) {
        const ShapingKey* key = find_shaping_key(name);
        if (key->apply != nullptr) key->apply(to, setting);
    }
}

void apply_source(const ShapingBlock& block, std::string_view source, EffectiveShaping& to) {
    if (const auto it = block.sources.find(source); it != block.sources.end()) {
        apply_settings(it->second, to);
    }
}

void take_provider_limits(const ShapingSettings& settings, ProviderShaping& to) {
    if (const auto it = settings.find("provider_connection_limit"); it != settings.end()) {
        to.connection_limit.value = static_cast<uint32_t>(std::get<uint64_t>(it->second.value));
        to.connection_limit.from = it->second.from;
    }
    if (const auto it = settings.find("provider_max_message_rate"); it != settings.end()) {
        to.max_message_rate.value = std::get<Rate>(it->second.value);
        to.max_message_rate.from = it->second.from;
    }
}

ProviderShaping provider_limits(const ShapingBlock& provider, std::string_view source) {
    ProviderShaping limits{.name = provider.name, .connection_limit = {}, .max_message_rate = {}};
    take_provider_limits(provider.settings, limits);
    if (const auto it = provider.sources.find(source); it != provider.sources.end()) {
        take_provider_limits(it->second, limits);
    }
    return limits;
}

void override_block(ShapingBlock& block, std::string_view key, const ShapingSetting& setting) {
    block.settings.insert_or_assign(std::string(key), setting);
    for (auto& [name, settings] : block.sources) {
        if (const auto it = settings.find(key); it != settings.end()) settings.erase(it);
    }
}

}  // namespace

std::string_view to_string(TlsPolicy policy) {
    switch (policy) {
        case TlsPolicy::Opportunistic:
            return "Opportunistic";
        case TlsPolicy::OpportunisticInsecure:
            return "OpportunisticInsecure";
        case TlsPolicy::Required:
            return "Required";
        case TlsPolicy::RequiredInsecure:
            return "RequiredInsecure";
        case TlsPolicy::Disabled:
            return "Disabled";
    }
    return "";
}

std::string_view to_string(Pipelining pipelining) {
    switch (pipelining) {
        case Pipelining::message:
            return "message";
        case Pipelining::group:
            return "group";
        case Pipelining::none:
            return "none";
    }
    return "";
}

std::string_view to_string(RateCounts counts) {
    return counts == RateCounts::messages ? "messages" : "recipients";
}

std::string Origin::to_string() const {
    if (!command.empty()) return command;
    if (file.empty()) return "built-in default";
    return fmt::format("{}:{} {}", file, line, block);
}

EffectiveShaping ShapingRules::effective(std::string_view domain, std::string_view site_name,
                                         std::span<const std::string> mx_hosts,
                                         std::string_view source_name) const {
    const std::string one(domain);
    return effective(std::span(&one, 1), site_name, mx_hosts, source_name);
}

EffectiveShaping ShapingRules::effective(std::span<const std::string> domains,
                                         std::string_view site_name,
                                         std::span<const std::string> mx_hosts,
                                         std::string_view source_name) const {
    if (source_name.empty()) source_name = kUnspecifiedSource;
    EffectiveShaping out;
    if (default_) {
        apply_settings(default_->settings, out);
        apply_source(*default_, source_name, out);
    }

    std::vector<const ShapingBlock*> matching;
    for (const ShapingBlock& provider : providers_) {
        if (!provider_matches(provider, domains, mx_hosts)) continue;
        matching.push_back(&provider);
        apply_settings(provider.settings, out);
        out.providers.push_back(provider_limits(provider, source_name));
    }
    for (const ShapingBlock* provider : matching) apply_source(*provider, source_name, out);

    std::vector<const ShapingBlock*> blocks;
    for (const ShapingBlock& block : domains_) {
        const bool of_site = !block.site.empty() && block.site == site_name;
        const bool unbound_own =
            block.site.empty() && std::ranges::find(domains, block.name) != domains.end();
        if (block.mx_rollup && (of_site || unbound_own)) blocks.push_back(&block);
    }
    for (const std::string& domain : domains) {
        const auto it = domain_index_.find(domain);
        if (it == domain_index_.end() || domains_[it->second].mx_rollup) continue;
        blocks.push_back(&domains_[it->second]);
    }
    for (const ShapingBlock* block : blocks) apply_settings(block->settings, out);
    for (const ShapingBlock* block : blocks) apply_source(*block, source_name, out);
    return out;
}

std::vector<std::string> ShapingRules::rollup_domains() const {
    std::vector<std::string> names;
    for (const ShapingBlock& block : domains_) {
        if (block.mx_rollup) names.push_back(block.name);
    }
    return names;
}

std::optional<ConfigProblem> ShapingRules::set_site(std::string_view domain,
                                                    std::string_view site_name) {
    const auto it = domain_index_.find(domain);
    if (it == domain_index_.end()) return std::nullopt;
    ShapingBlock& block = domains_[it->second];
    block.site = site_name;
    if (site_name.empty()) return std::nullopt;
    for (const ShapingBlock& other : domains_) {
        if (&other == &block || !other.mx_rollup || other.site != site_name) continue;
        return ConfigProblem{
            block.from.file, block.from.line, 1,
            fmt::format("{}: has the same mail servers as {}, so the two blocks are merged in file "
                        "order; set mx_rollup = false in one to keep it apart",
                        block.from.block, other.from.to_string()),
            Severity::warning};
    }
    return std::nullopt;
}

bool ShapingRules::rolls_up(std::string_view domain) const {
    const auto it = domain_index_.find(domain);
    return it == domain_index_.end() || domains_[it->second].mx_rollup;
}

bool ShapingRules::suffix_matches(std::string_view domain) const {
    return std::ranges::any_of(providers_, [&](const ShapingBlock& provider) {
        return matches_by_name(provider, domain);
    });
}

void ShapingRules::override_default(std::string_view key, const ShapingSetting& setting) {
    if (!default_) default_.emplace().name = "default";
    override_block(*default_, key, setting);
}

void ShapingRules::override_provider(std::string_view name, std::string_view key,
                                     const ShapingSetting& setting) {
    const auto it = provider_index_.find(name);
    if (it != provider_index_.end()) override_block(providers_[it->second], key, setting);
}

}  // namespace postrider
