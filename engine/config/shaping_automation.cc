#include "engine/config/shaping_automation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "engine/config/shaping_values.h"

namespace postrider {
namespace {

constexpr auto kPlainActions = std::to_array<std::string_view>(
    {"Suspend", "SuspendTenant", "SuspendCampaign", "Bounce", "BounceTenant", "BounceCampaign"});

class AutomationReader {
  public:
    AutomationReader(const toml::table& table, const std::string& path, ProblemList& problems)
        : reader_(table, path, problems),
          problems_(problems),
          path_(path),
          at_(place_of(table.source())) {}

    AutomationRule read() {
        read_patterns();
        each_of("action", [&](const toml::node& node) { read_action(node); });
        read_trigger();
        read_duration();
        if (const auto* node = reader_.find("match_internal")) {
            if (const auto* flag = node->as_boolean()) {
                rule_.match_internal = flag->get();
            } else {
                reader_.wrong_kind(*node, "match_internal", "true or false");
            }
        }
        reader_.finish();
        return std::move(rule_);
    }

  private:
    // KumoMTA takes one value or a list of them.
    template <class Take>
    void each_of(std::string_view name, Take take) {
        const toml::node* node = reader_.find(name);
        if (node == nullptr) {
            problems_.error(at_, fmt::format("{}.{}: is missing", path_, name));
        } else if (const auto* list = node->as_array()) {
            for (const auto& element : *list) take(element);
        } else {
            take(*node);
        }
    }

    void read_patterns() {
        each_of("regex", [&](const toml::node& node) {
            if (const auto* text = node.as_string()) {
                rule_.regex.push_back(text->get());
            } else {
                reader_.wrong_kind(node, "regex", "a pattern in quotes or a list of them");
            }
        });
    }

    void wrong_action(const toml::node& node) {
        problems_.error(place_of(node.source()),
                        fmt::format("{}.action: is no action, allowed: \"{}\", "
                                    "{{SetConfig={{name=\"key\", value=...}}}} or SetDomainConfig",
                                    path_, fmt::join(kPlainActions, "\", \"")));
    }

    void read_action(const toml::node& node) {
        if (const auto* text = node.as_string()) {
            if (std::ranges::find(kPlainActions, text->get()) == kPlainActions.end()) {
                return wrong_action(node);
            }
            rule_.action.push_back(text->get());
            return;
        }
        const auto* table = node.as_table();
        if (table == nullptr || table->size() != 1) return wrong_action(node);
        const std::string kind(table->begin()->first.str());
        const auto* change = table->begin()->second.as_table();
        if ((kind != "SetConfig" && kind != "SetDomainConfig") || change == nullptr) {
            return wrong_action(node);
        }
        const auto* name = change->get_as<std::string>("name");
        const auto* value = change->get("value");
        if (name == nullptr || value == nullptr || change->size() != 2) return wrong_action(node);
        read_change(kind, name->get(), *value, place_of(name->source()));
    }

    void read_change(const std::string& kind, const std::string& name, const toml::node& value,
                     Place at) {
        const std::string path = path_ + '.' + kind + '.' + toml_key(name);
        const ShapingKey* key = find_shaping_key(name);
        if (key == nullptr) {
            std::vector<std::string_view> names;
            for (const ShapingKey& each : shaping_keys()) names.push_back(each.name);
            problems_.error(at, unknown_key(path, name, names));
            return;
        }
        if (key->kind != KeyKind::opaque) {
            if (const auto checked = shaping_value_of(*key, value); !checked) {
                problems_.error(place_of(value.source()), path + ": " + checked.error().text);
                return;
            }
        }
        std::ostringstream text;
        text << toml::node_view(value);
        rule_.action.push_back(kind);
        rule_.set_config.push_back({name, std::move(text).str()});
    }

    void read_trigger() {
        const toml::node* node = reader_.find("trigger");
        if (node == nullptr) return;
        if (const auto* text = node->as_string(); text && text->get() == "Immediate") return;
        const auto* table = node->as_table();
        const auto* threshold = table != nullptr && table->size() == 1
                                    ? table->get_as<std::string>("Threshold")
                                    : nullptr;
        if (threshold == nullptr) {
            problems_.error(place_of(node->source()),
                            path_ +
                                ".trigger: is no trigger, allowed: \"Immediate\", "
                                "{Threshold=\"2/hr\"}");
            return;
        }
        if (const auto rate = parse_rate(threshold->get())) {
            rule_.threshold = *rate;
        } else {
            problems_.error(place_of(threshold->source()),
                            path_ + ".trigger: " + rate.error().text);
        }
    }

    void read_duration() {
        constexpr DurationMs kLongestMs = 3650LL * 86'400'000;
        reader_.duration("duration", rule_.duration_ms, 1, kLongestMs);
        if (reader_.find("duration") == nullptr) {
            problems_.error(at_, path_ + ".duration: is missing");
        }
    }

    TableReader reader_;
    ProblemList& problems_;
    const std::string& path_;
    Place at_;
    AutomationRule rule_;
};

}  // namespace

AutomationRule read_automation(const toml::table& table, const std::string& path,
                               ProblemList& problems) {
    return AutomationReader(table, path, problems).read();
}

}  // namespace postrider
