// `postrider shape`: limits of a running engine, changed while it runs.
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/units.h"

namespace postrider {
namespace {

using nlohmann::json;

struct ShapeOptions {
    std::string config, action, domain, reason, for_text;
    std::vector<std::string> settings;
    bool as_json = false;
};

int tell_error(const Error& error) {
    std::fprintf(stderr, "postrider shape: %s\n", error.text.c_str());
    return error.code == EINVAL ? kExitUsage : kExitFailure;
}

int show(const Config& config, const ShapeOptions& options) {
    std::string path = "/shape";
    if (!options.domain.empty()) path += "?domain=" + query_value(options.domain);
    auto answer = admin_get(config.server.admin, path);
    if (!answer) return tell_error(answer.error());
    if (options.as_json) {
        std::fputs(answer->c_str(), stdout);
        return 0;
    }
    const json parsed = json::parse(*answer, nullptr, false);
    if (!parsed.is_object()) return tell_error({0, "the answer is not JSON; is something else listening there?"});
    if (parsed["overrides"].empty()) fmt::print("nothing is set; `postrider explain DOMAIN` tells what the files say\n");
    for (const auto& entry : parsed["overrides"]) {
        fmt::print("{} {}={}, by {} at {}", entry["domain"].get<std::string>(), entry["key"].get<std::string>(),
                   entry["value"].get<std::string>(), entry["who"].get<std::string>(),
                   local_time(entry["set"].get<int64_t>()));
        if (entry.contains("until")) fmt::print(", until {}", local_time(entry["until"].get<int64_t>()));
        if (const auto reason = entry["reason"].get<std::string>(); !reason.empty()) fmt::print(": {}", reason);
        fmt::print("\n");
    }
    return 0;
}

Result<json> request_of(const ShapeOptions& options) {
    json body = {{"domain", options.domain}, {"settings", json::array()}};
    for (const auto& setting : options.settings) {
        const size_t equals = setting.find('=');
        if (options.action == "set" && equals == std::string::npos)
            return fail(fmt::format("\"{}\" is no key=value", setting), EINVAL);
        const bool has_value = equals != std::string::npos && options.action == "set";
        body["settings"].push_back({{"key", setting.substr(0, equals)},
                                    {"value", has_value ? setting.substr(equals + 1) : std::string()}});
    }
    if (options.action == "set" && options.settings.empty()) return fail("say what to set, as key=value", EINVAL);
    if (!options.reason.empty()) body["reason"] = options.reason;
    if (options.for_text.empty()) return body;
    if (options.action != "set") return fail("--for goes with set", EINVAL);
    auto wait = parse_duration(options.for_text);
    if (!wait || *wait < kMsPerSecond) return fail("--for: a time of at least a second, such as 2h", EINVAL);
    body["for_s"] = *wait / kMsPerSecond;
    return body;
}

int change(const Config& config, const ShapeOptions& options) {
    if (options.domain.empty()) return tell_error({EINVAL, "say for which domain"});
    auto body = request_of(options);
    if (!body) return tell_error(body.error());
    auto answer = admin_post(config.server.admin, "/shape/" + options.action,
                             body->dump(-1, ' ', false, json::error_handler_t::replace));
    if (!answer) return tell_error(answer.error());
    if (options.as_json) {
        std::fputs(answer->c_str(), stdout);
        return 0;
    }
    const json told = json::parse(*answer, nullptr, false);
    if (!told.is_object()) return tell_error({0, "the answer is not JSON; is something else listening there?"});
    fmt::print("{}: {}\n", told["domain"].get<std::string>(), options.action == "set" ? "set, in force on all shards" : "unset");
    for (const auto& note : told["notes"]) std::fprintf(stderr, "postrider shape: %s\n", note.get<std::string>().c_str());
    return 0;
}

}  // namespace

int run_shape(int argc, char** argv) {
    CLI::App app("Shows and changes the limits of a running engine, over what the shaping files say.", "postrider shape");
    app.footer("Examples:\n"
               "  postrider shape show\n"
               "  postrider shape set example.com max_message_rate=100/min --for 2h --reason \"they complain\"\n"
               "  postrider shape set default connection_limit=10\n"
               "  postrider shape set provider.google provider_connection_limit=50\n"
               "  postrider shape unset example.com max_message_rate\n\n"
               "A change is in force at once and is kept over a restart. For a domain it wins over the files and speaks for all domains with\n"
               "the same mail servers; for default or a provider it takes the place of what the files say in that block: narrower\n"
               "blocks still win. A provider is one that a shaping file names.\n"
               "Exit codes: 0 done, 1 failed, such as no engine that answers, 2 usage or configuration.");
    ShapeOptions options;
    app.add_option("action", options.action, "show, set or unset")->required()->check(CLI::IsMember({"show", "set", "unset"}));
    app.add_option("domain", options.domain, "A recipient domain, or default, or provider.NAME")->check(not_empty);
    app.add_option("settings", options.settings, "set: key=value...; unset: key..., none: all of the domain");
    app.add_option("--for", options.for_text, "set: until this time has passed, such as 2h")->check(not_empty);
    app.add_option("--reason", options.reason, "Why; kept, and told in the log");
    app.add_flag("--json", options.as_json, "The answer as JSON");
    app.add_option("--config", options.config, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    auto config = load_to_ask(options.config);
    if (!config) return kExitUsage;
    return options.action == "show" ? show(*config, options) : change(*config, options);
}

int run_reload(int argc, char** argv) {
    CLI::App app("Tells a running engine to read its configuration and shaping files again.", "postrider reload");
    app.footer("Example:\n  postrider reload --config postrider.toml\n\n"
               "With an error in a file the old configuration stays, and each problem is told here.\n"
               "Exit codes: 0 done, 1 failed, such as no engine that answers, 2 usage or configuration.");
    std::string path;
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    auto config = load_to_ask(path);
    if (!config) return kExitUsage;
    auto answer = admin_post(config->server.admin, "/reload", "{}");
    if (!answer) {
        std::fprintf(stderr, "postrider reload: %s\n", answer.error().text.c_str());
        return answer.error().code == EINVAL ? kExitUsage : kExitFailure;
    }
    const json told = json::parse(*answer, nullptr, false);
    if (told.is_object() && told.contains("told")) std::fputs(told["told"].get<std::string>().c_str(), stdout);
    return 0;
}

}  // namespace postrider
