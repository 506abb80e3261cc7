#include "engine/config/shaping_lint.h"

#include <algorithm>
#include <optional>
#include <set>

#include <fmt/format.h>

namespace postrider {
namespace {

class Lint {
  public:
    Lint(const ShapingRules& rules, const std::vector<std::string>& sources) : rules_(rules), sources_(sources) {}

    std::vector<ConfigProblem> run() {
        if (rules_.default_block()) look(*rules_.default_block());
        for (const ShapingBlock& provider : rules_.providers()) {
            look_at_matches(provider);
            look(provider);
        }
        for (const ShapingBlock& domain : rules_.domains()) look(domain);
        return std::move(problems_);
    }

  private:
    using OfSource = decltype(ShapingBlock::sources)::value_type;  // a [[source]]'s name, and what the block says of it

    void warn(const Origin& at, std::string text) {
        problems_.push_back({at.file, at.line, 1, at.block + ": " + std::move(text), Severity::warning});
    }

    void look(const ShapingBlock& block) {
        look_at_sources(block);
        look_at_shadows(block);
        contradictions(block, nullptr);
        for (const OfSource& source : block.sources) contradictions(block, &source);
    }

    // ---- rules that can never match

    void look_at_matches(const ShapingBlock& provider) {
        if (provider.matches.empty()) warn(provider.from, "has no match, so it never counts");
        for (const ShapingBlock& earlier : rules_.providers()) {
            if (&earlier == &provider) break;
            for (const ProviderMatch& match : provider.matches)
                for (const ProviderMatch& other : earlier.matches) both_match(provider, match, earlier, other);
        }
        for (const ProviderMatch& match : provider.matches)
            if (match.kind == ProviderMatch::Kind::host_name && match.name.find('.') == std::string::npos)
                warn(provider.from, fmt::format("HostName \"{}\" has no dot, so no mail server has that name", match.name));
    }

    // Whatever `narrow` matches, `wide` matches too.
    static bool covers(const ProviderMatch& wide, const ProviderMatch& narrow) {
        using enum ProviderMatch::Kind;
        if (wide.kind == host_name) return narrow.kind == host_name && narrow.name == wide.name;
        return (narrow.kind == domain_suffix) == (wide.kind == domain_suffix) && narrow.name.ends_with(wide.name);
    }

    void both_match(const ShapingBlock& provider, const ProviderMatch& match, const ShapingBlock& earlier,
                    const ProviderMatch& other) {
        const std::string there = earlier.from.to_string();
        if (match.kind == other.kind && match.name == other.name)
            warn(provider.from, fmt::format("matches \"{}\" as {} does; the limits of both bind", match.name, there));
        else if (covers(other, match))
            warn(provider.from, fmt::format("\"{}\" is covered by \"{}\" of {}; the limits of both bind", match.name,
                                            other.name, there));
        else if (covers(match, other))
            warn(provider.from, fmt::format("\"{}\" covers \"{}\" of {}; the limits of both bind there, and of other values "
                                            "those of this block", match.name, other.name, there));
    }

    void look_at_sources(const ShapingBlock& block) {
        for (const auto& [name, settings] : block.sources) {
            if (std::ranges::find(sources_, name) != sources_.end()) continue;
            if (name == kUnspecifiedSource && sources_.empty()) continue;
            const Origin& at = settings.empty() ? block.from : settings.begin()->second.from;
            warn(at, fmt::format("no [[source]] is named \"{}\", so this never counts", name));
        }
    }

    // ---- shadowed: each source has a value of its own, so the block's never counts

    void look_at_shadows(const ShapingBlock& block) {
        for (const auto& [key, setting] : block.settings)
            if (shadowed(block, key)) warn(setting.from, key + ": is shadowed, every [[source]] has its own here");
    }
    bool shadowed(const ShapingBlock& block, std::string_view key) const {
        const auto has = [&](const std::string& source) { return in_source(block, source, key) != nullptr; };
        return !sources_.empty() && std::ranges::all_of(sources_, has);
    }
    static const ShapingSetting* in_source(const ShapingBlock& block, std::string_view source, std::string_view key) {
        const auto settings = block.sources.find(source);
        if (settings == block.sources.end()) return nullptr;
        const auto found = settings->second.find(key);
        return found == settings->second.end() ? nullptr : &found->second;
    }

    // ---- contradictions

    // The narrowest value there is: of the source, the block, the default block. Of no source: null where each has its own.
    const ShapingSetting* find(const ShapingBlock& block, const OfSource* source, std::string_view key) const {
        const auto& fallback = rules_.default_block();
        for (const ShapingBlock* at : {&block, fallback ? &*fallback : nullptr}) {
            if (!at) continue;
            if (const auto* setting = source ? in_source(*at, source->first, key) : nullptr) return setting;
            const auto found = at->settings.find(key);
            if (found != at->settings.end()) return source || !shadowed(*at, key) ? &found->second : nullptr;
        }
        return nullptr;
    }
    // Said once, where the block itself has a part in it.
    bool own(const ShapingBlock& block, const OfSource* source, std::string_view key) const {
        return source ? source->second.contains(key) : block.settings.contains(key);
    }

    void narrower(const ShapingBlock& block, const OfSource* source, std::string_view broad, std::string_view narrow) {
        if (!own(block, source, broad) && !own(block, source, narrow)) return;
        const auto *wide = find(block, source, broad), *tight = find(block, source, narrow);
        if (!wide || !tight) return;
        const auto amount = [](const ShapingSetting& setting) {
            if (const auto* count = std::get_if<uint64_t>(&setting.value)) return static_cast<double>(*count);
            return per_second(std::get<Rate>(setting.value));
        };
        if (amount(*wide) >= amount(*tight)) return;
        const ShapingSetting& here = own(block, source, narrow) ? *tight : *wide;
        warn(here.from, fmt::format("{} ({}:{}) is more than {} ({}:{}) allows, so it is never reached", narrow,
                                    tight->from.file, tight->from.line, broad, wide->from.file, wide->from.line));
    }

    static double per_second(const Rate& rate) {
        return static_cast<double>(rate.count) / rate.period_s;
    }

    // pipeline_depth is of BDAT, which only "message" sends.
    void look_at_depth(const ShapingBlock& block, const OfSource* source) {
        if (!own(block, source, "pipeline_depth") && !own(block, source, "pipelining")) return;
        const auto here = [&](std::string_view key) -> const ShapingSetting* {
            const auto& settings = own(block, source, key) && source ? source->second : block.settings;
            const auto found = settings.find(key);
            return found == settings.end() ? nullptr : &found->second;
        };
        const auto *depth = here("pipeline_depth"), *pipelining = here("pipelining");
        if (!depth || !pipelining || std::get<uint64_t>(depth->value) <= 1) return;
        const auto how = std::get<Pipelining>(pipelining->value);
        if (how == Pipelining::message) return;
        warn(depth->from, fmt::format("pipeline_depth needs pipelining = \"message\", which is \"{}\" ({}:{}), so it does "
                                      "not count", to_string(how), pipelining->from.file, pipelining->from.line));
    }

    void contradictions(const ShapingBlock& block, const OfSource* source) {
        look_at_depth(block, source);
        narrower(block, source, "provider_connection_limit", "connection_limit");
        narrower(block, source, "site_connection_limit", "connection_limit");
        narrower(block, source, "provider_max_message_rate", "max_message_rate");
        narrower(block, source, "site_max_message_rate", "max_message_rate");
        look_at_what_connections_carry(block, source);
    }

    void look_at_what_connections_carry(const ShapingBlock& block, const OfSource* source) {
        const char* keys[] = {"max_message_rate", "max_connection_rate", "max_deliveries_per_connection"};
        const ShapingSetting* found[3];
        bool any_own = false;
        for (size_t i = 0; i < 3; ++i) {
            found[i] = find(block, source, keys[i]);
            if (!found[i]) return;
            any_own |= own(block, source, keys[i]);
        }
        if (!any_own) return;
        const uint64_t recipients = counted_in_a_delivery(block, source);
        const double most = per_second(std::get<Rate>(found[1]->value)) *
                            static_cast<double>(std::get<uint64_t>(found[2]->value)) * static_cast<double>(recipients);
        if (most >= per_second(std::get<Rate>(found[0]->value))) return;
        for (size_t i = 0; i < 3; ++i) {
            if (!own(block, source, keys[i])) continue;
            return warn(found[i]->from,
                        fmt::format("max_message_rate ({}:{}) is never reached: {} new connections with {} deliveries {}each "
                                    "carry {:.3g}/s", found[0]->from.file, found[0]->from.line,
                                    format_rate(std::get<Rate>(found[1]->value)), std::get<uint64_t>(found[2]->value),
                                    recipients > 1 ? fmt::format("of {} recipients ", recipients) : "", most));
        }
    }

    // What a delivery takes of a message rate, at most.
    uint64_t counted_in_a_delivery(const ShapingBlock& block, const OfSource* source) const {
        const auto* counts = find(block, source, "message_rate_counts");
        if (!counts || std::get<RateCounts>(counts->value) != RateCounts::recipients) return 1;
        const auto* batch = find(block, source, "max_recipients_per_batch");
        return batch ? std::get<uint64_t>(batch->value) : EffectiveShaping().max_recipients_per_batch.value;
    }

    const ShapingRules& rules_;
    const std::vector<std::string>& sources_;
    std::vector<ConfigProblem> problems_;
};

}  // namespace

std::vector<ConfigProblem> lint_shaping(const ShapingRules& rules, const std::vector<std::string>& sources) {
    return Lint(rules, sources).run();
}

}  // namespace postrider
