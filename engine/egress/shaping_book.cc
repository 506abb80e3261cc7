#include "engine/egress/shaping_book.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/config/shaping_keys.h"

namespace postrider {
namespace {

constexpr std::string_view kDefault = "default", kProvider = "provider.\"";

// `provider."name"` -> name; empty: it is none.
std::string_view provider_of(std::string_view domain) {
    if (!domain.starts_with(kProvider) || !domain.ends_with('"') || domain.size() <= kProvider.size() + 1) return {};
    return domain.substr(kProvider.size(), domain.size() - kProvider.size() - 1);
}

std::string command_of(const ShapingOverride& set) {
    auto text = fmt::format("shape set {} {}={} by {} at {:%FT%TZ}", set.domain, set.key, set.value,
                            set.who.empty() ? "?" : set.who, fmt::gmtime(static_cast<std::time_t>(set.set_s)));
    if (set.expires_s) text += fmt::format(" until {:%FT%TZ}", fmt::gmtime(static_cast<std::time_t>(set.expires_s)));
    if (!set.why.empty()) text += " (" + set.why + ")";
    return text;
}

}  // namespace

ShapingBook::ShapingBook(ShapingRules rules)
    : from_files_(std::move(rules)), rules_(from_files_), sites_known_(from_files_.rollup_domains().empty()) {}

bool ShapingBook::names_provider(std::string_view name) const {
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(from_files_.providers(), [&](const ShapingBlock& block) { return block.name == name; });
}

bool ShapingBook::knows_provider(std::string_view name) const {
    if (names_provider(name)) return true;
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(overrides_, [&](const Entry& entry) { return provider_of(entry.given.domain) == name; });
}

Result<void> ShapingBook::check(const ShapingOverride& override) const {
    const ShapingKey* key = find_shaping_key(override.key);
    if (!key) return fail(override.key + ": no such key; see docs/configuration.md");
    if (!key->enforced) return fail(override.key + ": is not enforced yet, so it cannot be set");
    const auto provider = provider_of(override.domain);
    if (key->place == KeyPlace::provider && provider.empty())
        return fail(fmt::format("{}: counts for a provider, and {} is none that the shaping files name; it is set as "
                                "`shape set provider.NAME {}=...`", override.key, override.domain, override.key));
    if (!provider.empty() && !names_provider(provider))
        return fail(fmt::format("provider \"{}\": no block in the shaping files names it", provider));
    if (override.value.size() > kOverrideValue)
        return fail(fmt::format("{}: the value is longer than {} octets", override.key, kOverrideValue));
    auto value = parse_shaping_value(*key, override.value);
    if (!value) return fail(override.key + ": " + value.error().text);
    return {};
}

void ShapingBook::replace_overrides(std::vector<ShapingOverride> overrides) {
    std::vector<Entry> entries;
    for (ShapingOverride& each : overrides) {
        const ShapingKey* key = find_shaping_key(each.key);
        auto value = parse_shaping_value(*key, each.value);
        Origin from{.file = {}, .line = 0, .block = {}, .command = command_of(each)};
        entries.push_back({std::move(each), {*value, std::move(from)}});
    }
    std::scoped_lock lock(mutex_);
    overrides_ = std::move(entries);
    rebuild();
}

Result<void> ShapingBook::set(ShapingOverride override) {
    if (auto good = check(override); !good) return good;
    auto all = overrides();
    std::erase_if(all, [&](const ShapingOverride& each) { return each.same_place(override); });
    all.push_back(std::move(override));
    replace_overrides(std::move(all));
    return {};
}

std::vector<ShapingOverride> ShapingBook::expire(int64_t now_s) {
    std::scoped_lock lock(mutex_);
    std::vector<ShapingOverride> ended;
    std::erase_if(overrides_, [&](const Entry& entry) {
        const bool ends = entry.given.expires_s != 0 && entry.given.expires_s <= now_s;
        if (ends) ended.push_back(entry.given);
        return ends;
    });
    if (!ended.empty()) rebuild();
    return ended;
}

std::vector<ShapingOverride> ShapingBook::overrides() const {
    std::scoped_lock lock(mutex_);
    std::vector<ShapingOverride> list;
    for (const Entry& entry : overrides_) list.push_back(entry.given);
    return list;
}

void ShapingBook::replace_rules(ShapingRules rules) {
    std::scoped_lock lock(mutex_);
    from_files_ = std::move(rules);
    for (const auto& [domain, site] : sites_) (void)from_files_.set_site(domain, site);
    binding_version_.fetch_add(1, std::memory_order_release);
    rebuild();
}

ShapingRules ShapingBook::rules() const {
    std::scoped_lock lock(mutex_);
    return from_files_;
}

// Under the lock. Overrides of blocks become part of them; those of domains are applied last, by effective().
void ShapingBook::rebuild() {
    rules_ = from_files_;
    for (const Entry& entry : overrides_) {
        if (entry.given.domain == kDefault)
            rules_.override_default(entry.given.key, entry.setting);
        else if (const auto provider = provider_of(entry.given.domain); !provider.empty())
            rules_.override_provider(provider, entry.given.key, entry.setting);
    }
    changed();
}

EffectiveShaping ShapingBook::effective(std::span<const std::string> domains, std::string_view site,
                                        std::span<const std::string> mx_hosts, std::string_view source) const {
    std::scoped_lock lock(mutex_);
    EffectiveShaping out = rules_.effective(domains, site, mx_hosts, source);
    for (const Entry& entry : overrides_) {
        const std::string& domain = entry.given.domain;
        const auto its_site = sites_.find(domain);
        const bool at_site = its_site != sites_.end() && its_site->second == site && rules_.rolls_up(domain);
        if (!at_site && std::ranges::find(domains, domain) == domains.end()) continue;
        const ShapingKey* key = find_shaping_key(entry.given.key);
        if (key->apply) key->apply(out, entry.setting);
    }
    return out;
}

std::string ShapingBook::site_of(std::string_view domain, const std::string& of_hosts) const {
    std::scoped_lock lock(mutex_);
    return rules_.rolls_up(domain) ? of_hosts : std::string(domain) + "/" + of_hosts;
}

bool ShapingBook::known(std::string_view domain) const {
    return rules_.has_domain(domain) ||
           std::ranges::any_of(overrides_, [&](const Entry& entry) { return entry.given.domain == domain; });
}

bool ShapingBook::speaks_for_site(std::string_view domain) const {
    std::scoped_lock lock(mutex_);
    return known(domain) || rules_.suffix_matches(domain);
}

std::vector<std::string> ShapingBook::rollup_domains() const {
    std::scoped_lock lock(mutex_);
    auto names = rules_.rollup_domains();
    std::set<std::string_view> told;  // a domain has an override for each key; there may be thousands, and shards wait for the lock
    for (const Entry& entry : overrides_) {
        const std::string& domain = entry.given.domain;
        if (domain != kDefault && provider_of(domain).empty() && !rules_.has_domain(domain) && told.insert(domain).second)
            names.push_back(domain);
    }
    return names;
}

std::vector<std::string> ShapingBook::domains_without_site() const {
    auto names = rollup_domains();
    std::scoped_lock lock(mutex_);
    std::erase_if(names, [&](const std::string& domain) { return sites_.contains(domain); });
    return names;
}

std::optional<ConfigProblem> ShapingBook::set_site(std::string_view domain, std::string_view site) {
    std::scoped_lock lock(mutex_);
    if (!known(domain)) return std::nullopt;
    if (const auto it = sites_.find(domain); it != sites_.end() && it->second == site) return std::nullopt;
    sites_.insert_or_assign(std::string(domain), std::string(site));
    auto warning = from_files_.set_site(domain, site);
    rebuild();
    return warning;
}

}  // namespace postrider
