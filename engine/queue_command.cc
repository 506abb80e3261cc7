// `postrider queue`: what waits, and the operator's hand on it.
#include <array>
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/units.h"
#include "queue/holds.h"

namespace postrider {
namespace {

using nlohmann::json;

struct QueueOptions {
    std::string config, action, reason, for_text;
    std::array<std::string, std::size(kHoldScopes)> names;
    size_t limit = 50;
    bool as_json = false;
};

std::string by(const json& said) {
    std::string text = fmt::format("by {} at {}", said["who"].get<std::string>(), local_time(said["at"].get<int64_t>()));
    if (const auto reason = said["reason"].get<std::string>(); !reason.empty()) text += ": " + reason;
    return text;
}

std::string domain_and_pool(const json& line) {
    auto text = line["domain"].get<std::string>();
    if (line.contains("pool")) text += " from pool " + line["pool"].get<std::string>();
    return text;
}

void print_list(const json& answer) {
    for (const auto& hold : answer["holds"]) {
        const auto name = fmt::format("{} {}", hold["scope"].get<std::string>(), hold["name"].get<std::string>());
        if (hold["suspended"].get<bool>())
            fmt::print("suspended  {}{}, {}\n", name,
                       hold.contains("until") ? " until " + local_time(hold["until"].get<int64_t>()) : std::string(),
                       by(hold["suspended_by"]));
        if (hold.contains("cancelled_by")) fmt::print("cancelled  {}, {}\n", name, by(hold["cancelled_by"]));
    }
    const auto& sums = answer["sums"];
    fmt::print("{:>12} {:>12} {:>12}  {}\n", "ready", "deferred", "suspended", "domain");
    for (const auto& line : answer["domains"]) {
        fmt::print("{:>12} {:>12} {:>12}  {}", line["ready"].get<uint64_t>(), line["deferred"].get<uint64_t>(),
                   line["suspended"].get<uint64_t>(), domain_and_pool(line));
        if (line.contains("parked_until"))
            fmt::print("  parked until {}: {}", local_time(line["parked_until"].get<int64_t>()), line["why"].get<std::string>());
        fmt::print("\n");
    }
    fmt::print("{:>12} {:>12} {:>12}  of {}\n", sums["ready"].get<uint64_t>(), sums["deferred"].get<uint64_t>(),
               sums["suspended"].get<uint64_t>(), counted(sums["domains"].get<uint64_t>(), "queue"));
    if (answer["partly"].get<bool>()) fmt::print("too many retries fall due at once to be looked through: more is deferred\n");
}

int tell_error(const Error& error) {
    std::fprintf(stderr, "postrider queue: %s\n", error.text.c_str());
    return error.code == EINVAL ? kExitUsage : kExitFailure;
}

int list(const Config& config, const QueueOptions& options) {
    std::string path = fmt::format("/queue?limit={}", options.limit);
    for (size_t i = 0; i < options.names.size(); ++i)
        if (!options.names[i].empty())
            path += fmt::format("&{}={}", kHoldScopes[i], query_value(options.names[i]));
    auto answer = admin_get(config.server.admin, path);
    if (!answer) return tell_error(answer.error());
    if (options.as_json) {
        std::fputs(answer->c_str(), stdout);
        return 0;
    }
    const json parsed = json::parse(*answer, nullptr, false);
    if (!parsed.is_object()) return tell_error({0, "the answer is not JSON; is something else listening there?"});
    print_list(parsed);
    return 0;
}

int order(const Config& config, const QueueOptions& options) {
    json body = json::object();
    for (size_t i = 0; i < options.names.size(); ++i)
        if (!options.names[i].empty()) body.update({{"scope", kHoldScopes[i]}, {"name", options.names[i]}});
    if (!options.reason.empty()) body["reason"] = options.reason;
    if (!options.for_text.empty()) {
        auto wait = parse_duration(options.for_text);
        if (!wait || *wait < kMsPerSecond) return tell_error({EINVAL, "--for: a time of at least a second, such as 2h"});
        body["for_s"] = *wait / kMsPerSecond;
    }
    auto answer = admin_post(config.server.admin, "/queue/" + options.action,
                             body.dump(-1, ' ', false, json::error_handler_t::replace));
    if (!answer) return tell_error(answer.error());
    if (options.as_json) {
        std::fputs(answer->c_str(), stdout);
        return 0;
    }
    const json told = json::parse(*answer, nullptr, false);
    if (!told.is_object()) return tell_error({0, "the answer is not JSON; is something else listening there?"});
    const std::string of = told.contains("scope") ? fmt::format("{} {}", told["scope"].get<std::string>(),
                                                                told["name"].get<std::string>())
                                                  : "everything";
    const char* done = options.action == "suspend" ? "suspended" : options.action == "resume" ? "resumed"
                       : options.action == "cancel" ? "cancelled" : "flushed";
    fmt::print("{}: {}{} ({:.1f} ms)\n", of, done,
               told.contains("until") ? " until " + local_time(told["until"].get<int64_t>()) : std::string(),
               told["took_ms"].get<double>());
    if (told.contains("note")) std::fprintf(stderr, "postrider queue: %s\n", told["note"].get<std::string>().c_str());
    return 0;
}

}  // namespace

int run_queue(int argc, char** argv) {
    CLI::App app("Looks at what waits in a running engine, and suspends, resumes, cancels or flushes it.", "postrider queue");
    app.footer("Examples:\n"
               "  postrider queue list\n"
               "  postrider queue suspend --domain example.com --for 2h --reason \"their new filter\"\n"
               "  postrider queue resume --domain example.com\n"
               "  postrider queue cancel --campaign spring --reason \"wrong price\"\n"
               "  postrider queue flush --site mx1.example.net,mx2.example.net\n\n"
               "suspend  nothing of it is sent until it is resumed; it still expires\n"
               "cancel   what is in the spool of it now is never sent, and logged as AdminBounce\n"
               "flush    what waits for a retry is due now, and what is down is tried now\n\n"
               "Exit codes: 0 done, 1 failed, such as no engine that answers, 2 usage or configuration.");
    QueueOptions options;
    app.add_option("action", options.action, "list, suspend, resume, cancel or flush")
        ->required()
        ->check(CLI::IsMember({"list", "suspend", "resume", "cancel", "flush"}));
    const char* what[] = {"Recipient domain", "Site: its name as in the delivery log", "Provider of the shaping files",
                          "x-campaign", "x-tenant"};
    auto* selection = app.add_option_group("selection", "Of what; one of them");
    for (size_t i = 0; i < options.names.size(); ++i)
        selection->add_option("--" + std::string(kHoldScopes[i]), options.names[i], what[i])->check(not_empty);
    selection->require_option(0, 1);
    app.add_option("--for", options.for_text, "suspend: until this time has passed, such as 2h")->check(not_empty);
    app.add_option("--reason", options.reason, "Why; kept, and told in the log");
    app.add_option("--limit", options.limit, "list: so many domains, those with the most mail")->check(CLI::Range(1, 10'000));
    app.add_flag("--json", options.as_json, "The answer as JSON");
    app.add_option("--config", options.config, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    if (!options.for_text.empty() && options.action != "suspend") return tell_error({EINVAL, "--for goes with suspend"});
    auto config = load_to_ask(options.config);
    if (!config) return kExitUsage;
    return options.action == "list" ? list(*config, options) : order(*config, options);
}

}  // namespace postrider
