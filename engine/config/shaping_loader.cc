// Reads one shaping file over the rules of the earlier ones. A value that is refused is reported
// and left out; the rest of the file is read on, so that every problem is told at once.
#include <fmt/format.h>

#include <algorithm>

#include "engine/config/shaping_automation.h"
#include "engine/config/shaping_keys.h"
#include "engine/config/shaping_values.h"
#include "engine/config/toml_reader.h"
#include "engine/core/address.h"
#include "engine/core/limits.h"

namespace postrider {
namespace {

enum class BlockKind : uint8_t { fallback, domain, provider };

// Tables of toml++ are sorted by name; what merges has to merge in the file's order.
std::vector<std::pair<const toml::key*, const toml::node*>> in_file_order(
    const toml::table& table) {
    std::vector<std::pair<const toml::key*, const toml::node*>> out;
    for (auto&& [key, node] : table) out.emplace_back(&key, &node);
    std::ranges::sort(out, [](const auto& a, const auto& b) {
        const Place x = place_of(a.first->source()), y = place_of(b.first->source());
        return std::pair(x.line, x.column) < std::pair(y.line, y.column);
    });
    return out;
}

// Keys of a block that are no values, and where they may stand.
struct BlockWord {
    std::string_view name, where;
};

constexpr BlockWord kBlockWords[] = {
    {"sources", "in any block"},
    {"automation", "in any block"},
    {"replace_base", "in any block"},
    {"mx_rollup", "in domain blocks, such as [\"example.com\"]"},
    {"match", "in [provider.\"name\"]"},
};

const BlockWord* find_block_word(std::string_view name) {
    const auto* const found = std::ranges::find(kBlockWords, name, &BlockWord::name);
    return found == std::end(kBlockWords) ? nullptr : found;
}

std::vector<std::string_view> all_key_names(bool with_block_words) {
    std::vector<std::string_view> names;
    for (const ShapingKey& key : shaping_keys()) names.push_back(key.name);
    if (with_block_words)
        for (const BlockWord& word : kBlockWords) names.push_back(word.name);
    return names;
}

// A host's or a domain's name, or for a suffix the end of one, in the form that it is compared with: A-labels in lower
// case, no final dot. A suffix may begin with a dot, or within a label. Empty for what no name is or ends in.
std::string compared_name(std::string_view text, bool is_suffix) {
    const std::string_view dot = is_suffix && text.starts_with('.') ? "." : "";
    const auto name = domain_to_ascii(text.substr(dot.size()));
    if (!name || name->size() > limits::kDomain) return {};
    char before = '.';
    for (const char c : *name) {
        const bool in_label = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!in_label && (c != '.' || before == '.')) return {};
        before = c;
    }
    return before == '.' ? std::string() : std::string(dot) + *name;
}

struct MatchKind {
    std::string_view name;
    ProviderMatch::Kind kind;
    std::string_view allowed;
};

constexpr MatchKind kMatchKinds[] = {
    {"MXSuffix", ProviderMatch::Kind::mx_suffix, "the end of a host name, such as \".example.com\""},
    {"DomainSuffix", ProviderMatch::Kind::domain_suffix, "the end of a domain, such as \".example\""},
    {"HostName", ProviderMatch::Kind::host_name, "a host name, such as \"mx.example.com\""},
};

}  // namespace

class ShapingLoader {
  public:
    ShapingLoader(ShapingRules& rules, ProblemList& problems)
        : rules_(rules), problems_(problems) {}

    void load(const toml::table& file) {
        for (const auto& [key, node] : in_file_order(file)) {
            const std::string name(key->str());
            const auto* table = node->as_table();
            if (table == nullptr) {
                misplaced(*key, *node);
            } else if (name == "provider") {
                load_providers(*table);
            } else if (name == "default") {
                if (!rules_.default_) rules_.default_ = new_block(*key, name, "[\"default\"]");
                load_block(*key, *table, *rules_.default_, BlockKind::fallback, "[\"default\"]");
            } else {
                load_domain(*key, name, *table);
            }
        }
    }

  private:
    ShapingBlock new_block(const toml::key& key, std::string name, const std::string& title) {
        return {.name = std::move(name),
                .from = origin(key, title),
                .settings = {},
                .sources = {},
                .automation = {},
                .matches = {},
                .mx_rollup = true,
                .site = {}};
    }

    Origin origin(const toml::key& key, const std::string& title) const {
        return {problems_.file(), place_of(key.source()).line, title};
    }

    void misplaced(const toml::key& key, const toml::node& node) {
        problems_.error(place_of(key.source()),
                        fmt::format("{}: is {} outside a block, allowed: blocks such as "
                                    "[\"default\"], [\"example.com\"], [provider.\"name\"]",
                                    toml_key(key.str()), kind_of(node)));
    }

    void load_domain(const toml::key& key, const std::string& written, const toml::table& table) {
        const std::string title = "[\"" + written + "\"]";
        // What no address can have behind its @ would be a block that never counts.
        if (!parse_mailbox("x@" + written)) {
            problems_.error(place_of(key.source()),
                            title + ": is no domain, allowed: a domain in quotes, such as [\"example.com\"]; a block for "
                                    "many is [provider.\"name\"] with a match");
            return;
        }
        const auto name = domain_to_ascii(written);
        if (!name) {
            problems_.error(place_of(key.source()),
                            title + ": " + name.error().text + ", allowed: a domain in quotes");
            return;
        }
        const auto [first, fresh_here] = of_this_file_.try_emplace(*name, origin(key, title));
        if (!fresh_here)
            problems_.warning(place_of(key.source()),
                              title + ": is the domain of " + first->second.to_string() + ", so the two are one block");
        if (name->find('.') == std::string::npos && !is_address_literal(*name)) {
            problems_.warning(place_of(key.source()),
                              title +
                                  ": is a domain of one label; a domain with a dot needs "
                                  "quotes, such as [\"" +
                                  written + ".com\"]");
        }
        auto [it, fresh] = rules_.domain_index_.try_emplace(*name, rules_.domains_.size());
        if (fresh) rules_.domains_.push_back(new_block(key, *name, title));
        load_block(key, table, rules_.domains_[it->second], BlockKind::domain, title);
    }

    void load_providers(const toml::table& table) {
        for (const auto& [key, node] : in_file_order(table)) {
            const std::string name(key->str());
            const std::string title = "[provider.\"" + name + "\"]";
            const auto* block = node->as_table();
            if (block == nullptr) {
                misplaced(*key, *node);
                continue;
            }
            auto [it, fresh] = rules_.provider_index_.try_emplace(name, rules_.providers_.size());
            if (fresh) rules_.providers_.push_back(new_block(*key, name, title));
            load_block(*key, *block, rules_.providers_[it->second], BlockKind::provider, title);
        }
    }

    void load_block(const toml::key& own_key, const toml::table& table, ShapingBlock& block, BlockKind kind,
                    const std::string& title) {
        if (const auto* node = table.get("replace_base")) replace_base(*node, block, origin(own_key, title));
        for (const auto& [key, node] : in_file_order(table)) {
            const std::string_view name = key->str();
            const Place at = place_of(key->source());
            if (name == "replace_base") continue;
            if (name == "mx_rollup" && kind != BlockKind::provider) {
                load_rollup(*node, block, kind, title);
            } else if (name == "match" && kind == BlockKind::provider) {
                load_matches(*node, block, title);
            } else if (name == "sources") {
                load_sources(*node, block, kind, title);
            } else if (name == "automation") {
                load_automation(*node, block, title);
            } else if (!find_shaping_key(name) && !find_block_word(name) && node->is_table()) {
                problems_.error(at, fmt::format("{}.{}: unknown block, allowed: sources; a domain "
                                                "needs quotes, such as [\"{}.{}\"]",
                                                title, toml_key(name), block.name, name));
            } else {
                load_value(*key, *node, block.settings, kind, false, title);
            }
        }
    }

    void replace_base(const toml::node& node, ShapingBlock& block, Origin here) {
        const auto* flag = node.as_boolean();
        if (flag == nullptr) return wrong_kind(node, here.block + ".replace_base", "true or false");
        if (!flag->get()) return;
        block.from = std::move(here);  // what is told of the block lies here: of what was before nothing is left
        block.settings.clear();
        block.sources.clear();
        block.automation.clear();
        block.matches.clear();
        block.mx_rollup = true;
    }

    void load_rollup(const toml::node& node, ShapingBlock& block, BlockKind kind,
                     const std::string& title) {
        const auto* flag = node.as_boolean();
        if (flag == nullptr) return wrong_kind(node, title + ".mx_rollup", "true or false");
        block.mx_rollup = flag->get();
        if (kind == BlockKind::fallback) {
            problems_.warning(place_of(node.source()),
                              title +
                                  ".mx_rollup: means nothing in the "
                                  "default block, allowed: in domain blocks");
        }
    }

    void wrong_kind(const toml::node& node, const std::string& path, std::string_view allowed) {
        problems_.error(place_of(node.source()),
                        fmt::format("{}: is {}, allowed: {}", path, kind_of(node), allowed));
    }

    // Answers true when the key may stand there and its value is wanted.
    bool accepted(const ShapingKey& key, Place at, BlockKind kind, bool in_source,
                  const std::string& path) {
        if (key.place == KeyPlace::provider && kind != BlockKind::provider) {
            problems_.error(at, path + ": is out of place, allowed: in [provider.\"name\"]");
            return false;
        }
        if (key.place == KeyPlace::not_in_sources && in_source) {
            problems_.error(at, path + ": counts over all sources, allowed: outside sources");
            return false;
        }
        if (key.enforced) return true;
        if (key.owner == KeyOwner::kumomta) {
            problems_.warning(at, path + ": is not enforced yet");
        } else {
            problems_.error(at, path + ": is not enforced yet, allowed: once a later version does");
        }
        return key.kind != KeyKind::opaque;
    }

    void load_value(const toml::key& key, const toml::node& node, ShapingSettings& settings,
                    BlockKind kind, bool in_source, const std::string& title) {
        const std::string path = title + '.' + toml_key(key.str());
        const Place at = place_of(key.source());
        const ShapingKey* known = find_shaping_key(key.str());
        if (const auto* word = find_block_word(key.str())) {
            problems_.error(at, fmt::format("{}: is out of place, allowed: {}{}", path, word->where,
                                            in_source ? ", outside sources" : ""));
            return;
        }
        if (known == nullptr) {
            problems_.error(at, unknown_key(path, key.str(), all_key_names(!in_source)));
            return;
        }
        if (!accepted(*known, at, kind, in_source, path)) return;
        const auto value = shaping_value_of(*known, node);
        if (!value) {
            problems_.error(place_of(node.source()), path + ": " + value.error().text);
            return;
        }
        if (known->name == "data_dot_timeout") warn_if_short(*value, at, path);
        settings.insert_or_assign(std::string(known->name),
                                  ShapingSetting{*value, origin(key, title)});
    }

    void warn_if_short(const ShapingValue& value, Place at, const std::string& path) {
        constexpr DurationMs kLeastMs = 600'000;  // RFC 5321 4.5.3.2.6
        if (std::get<DurationMs>(value) >= kLeastMs) return;
        problems_.warning(at, path +
                                  ": is under the 10m of RFC 5321 4.5.3.2.6; a receiver that "
                                  "takes longer will get the message twice");
    }

    void load_sources(const toml::node& node, ShapingBlock& block, BlockKind kind,
                      const std::string& title) {
        const auto* sources = node.as_table();
        if (sources == nullptr) return wrong_kind(node, title + ".sources", "blocks of sources");
        const std::string inner = title.substr(0, title.size() - 1) + ".sources.";
        for (const auto& [name, value] : in_file_order(*sources)) {
            const std::string source_title = inner + '"' + std::string(name->str()) + "\"]";
            const auto* table = value->as_table();
            if (table == nullptr) {
                wrong_kind(*value, title + ".sources." + toml_key(name->str()), "a block");
                continue;
            }
            ShapingSettings& settings = block.sources[std::string(name->str())];
            for (const auto& [key, each] : in_file_order(*table)) {
                load_value(*key, *each, settings, kind, true, source_title);
            }
        }
    }

    void load_matches(const toml::node& node, ShapingBlock& block, const std::string& title) {
        constexpr std::string_view kAllowed =
            "a list such as [{MXSuffix=\".example.com\"}, {DomainSuffix=\".example\"}, "
            "{HostName=\"mx.example.com\"}]";
        const std::string path = title + ".match";
        const auto* list = node.as_array();
        if (list == nullptr) return wrong_kind(node, path, kAllowed);
        for (const auto& element : *list) {
            const auto* table = element.as_table();
            if (table == nullptr || table->size() != 1) {
                problems_.error(
                    place_of(element.source()),
                    fmt::format("{}: an element is not one rule, allowed: {}", path, kAllowed));
                continue;
            }
            const auto kind = table->begin()->first.str();
            const auto* text = table->begin()->second.as_string();
            const auto* const found = std::ranges::find(kMatchKinds, kind, &MatchKind::name);
            if (found == std::end(kMatchKinds) || text == nullptr || text->get().empty()) {
                problems_.error(place_of(element.source()),
                                fmt::format("{}: \"{}\" is no rule with a text, allowed: {}", path,
                                            kind, kAllowed));
                continue;
            }
            std::string name = compared_name(text->get(), found->kind != ProviderMatch::Kind::host_name);
            if (name.empty()) {
                problems_.error(place_of(text->source()), fmt::format("{}: {} \"{}\" can match nothing, allowed: {}", path,
                                                                      kind, text->get(), found->allowed));
                continue;
            }
            block.matches.push_back({found->kind, std::move(name)});
        }
    }

    void load_automation(const toml::node& node, ShapingBlock& block, const std::string& title) {
        const std::string path = title + ".automation";
        const auto* list = node.as_array();
        if (list == nullptr) return wrong_kind(node, path, "blocks named [[...automation]]");
        for (const auto& element : *list) {
            const auto* table = element.as_table();
            if (table == nullptr) {
                wrong_kind(element, path, "blocks named [[...automation]]");
                continue;
            }
            const Place at = place_of(table->source());
            auto rule = read_automation(*table, path, problems_);
            rule.from = {problems_.file(), at.line, title};
            block.automation.push_back(std::move(rule));
        }
        problems_.warning(place_of(node.source()), path + ": is not enforced yet");
    }

    ShapingRules& rules_;
    ProblemList& problems_;
    std::map<std::string, Origin> of_this_file_;  // its domain blocks
};

void load_shaping_file(const std::string& path, ShapingRules& rules,
                       std::vector<ConfigProblem>& problems) {
    ProblemList list(path, problems);
    if (const auto file = read_toml(list)) ShapingLoader(rules, list).load(*file);
}

}  // namespace postrider
