// The shaping in force: the rules of the files, and over them what an operator has set while the engine runs. Shared by all
// shards; lives as long as the engine.
//
// * Every change counts version() up by one. Who keeps what effective() answered asks version(), one load of an atomic, and
//   asks again when it has moved: the sites do so at each pull and at each tick of their workers (site.h), so a change
//   reaches every shard with its next turn.
// * An override of a domain wins over all blocks, for every source, at the domain's site: as a block of that domain would,
//   it speaks for all domains with the same mail servers, unless the domain's block says mx_rollup = false. An override of
//   "default" or of `provider."name"` stands in place of that block's own value. The later of two wins, key by key.
// * Which site a domain with a block or an override has is told by set_site() and kept over replace_rules(), so that a
//   reload leaves no moment without limits.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/shaping_config.h"
#include "engine/core/result.h"

namespace postrider {

struct ShapingOverride {
    std::string domain;     // A-labels in lower case; or "default", or `provider."name"`
    std::string key;        // of shaping_keys.h
    std::string value;      // as it stands after `key=`
    int64_t expires_s = 0;  // seconds since 1970; 0: until it is unset
    std::string who, why;
    int64_t set_s = 0;      // seconds since 1970

    bool operator==(const ShapingOverride&) const = default;
    bool same_place(const ShapingOverride& other) const { return domain == other.domain && key == other.key; }
};

// Of a value, in octets: what is set is kept in a file that is read with bounds (control_file.h).
inline constexpr size_t kOverrideValue = 256;

class ShapingBook {
  public:
    explicit ShapingBook(ShapingRules rules);

    // Refused: a key that is unknown, not enforced or not for such a block, a value out of its bounds or too long to be kept, a
    // provider that no file names.
    Result<void> check(const ShapingOverride& override) const;
    // All that is set, each checked before: one change, however many differ from what was set. Whoever looks meanwhile sees
    // the old ones or the new ones.
    void replace_overrides(std::vector<ShapingOverride> overrides);
    // Adds one, or replaces that of the same domain and key.
    Result<void> set(ShapingOverride override);
    // Ends what has expired, and answers it; once a second or so.
    std::vector<ShapingOverride> expire(int64_t now_s);
    // In the order in which they were set.
    std::vector<ShapingOverride> overrides() const;

    // Another reading of the files; the overrides stay. An override of a provider that is gone is kept without effect.
    void replace_rules(ShapingRules rules);
    ShapingRules rules() const;

    uint64_t version() const { return version_.load(std::memory_order_acquire); }
    // Counts replace_rules() and what else may move domains between sites: every domain must be bound anew.
    uint64_t binding_version() const { return binding_version_.load(std::memory_order_acquire); }

    // As ShapingRules::effective. `domains`: those of the site that speak for it (speaks_for_site).
    EffectiveShaping effective(std::span<const std::string> domains, std::string_view site,
                               std::span<const std::string> mx_hosts, std::string_view source) const;
    EffectiveShaping effective(std::string_view domain, std::string_view site, std::span<const std::string> mx_hosts,
                               std::string_view source) const {
        const std::string one(domain);
        return effective(std::span(&one, 1), site, mx_hosts, source);
    }

    // The site of a domain with these mail servers (MailRoute::site): theirs, or its own when its block says mx_rollup = false.
    std::string site_of(std::string_view domain, const std::string& of_hosts) const;
    // The domain itself, not only its mail servers, matters to effective(): it has a block, an override, or a provider that
    // matches by DomainSuffix.
    bool speaks_for_site(std::string_view domain) const;
    // A block of the shaping files names the provider.
    bool names_provider(std::string_view name) const;
    // That, or something was set for it when one did.
    bool knows_provider(std::string_view name) const;
    // Domains whose site must be known for the limits to hold at it: with a block that rolls up, or an override.
    std::vector<std::string> rollup_domains() const;
    // Where the domain's mail servers are now. Answers a warning, once, when another block is bound to the site already.
    std::optional<ConfigProblem> set_site(std::string_view domain, std::string_view site);
    // Those of rollup_domains() whose site was never told.
    std::vector<std::string> domains_without_site() const;
    // False from the start until the sites of rollup_domains() have been looked up: until then no domain may be bound.
    bool sites_known() const { return sites_known_.load(std::memory_order_acquire); }
    void set_sites_known() { sites_known_.store(true, std::memory_order_release); }
    // What is set at the start counts among them: before the first domain is bound.
    void await_sites() { sites_known_ = domains_without_site().empty(); }

  private:
    struct Entry {
        ShapingOverride given;
        ShapingSetting setting;
    };
    void rebuild();
    void changed() { version_.fetch_add(1, std::memory_order_release); }
    bool known(std::string_view domain) const;

    mutable std::mutex mutex_;
    ShapingRules from_files_;
    ShapingRules rules_;            // with the overrides of default and providers in them
    std::vector<Entry> overrides_;  // in the order in which they were set
    std::map<std::string, std::string, std::less<>> sites_;  // by domain
    std::atomic<uint64_t> version_{1};
    std::atomic<uint64_t> binding_version_{1};
    std::atomic<bool> sites_known_;
};

}  // namespace postrider
