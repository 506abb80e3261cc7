// `postrider explain` and `postrider why`.
#include <cstdio>
#include <fmt/format.h>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/control.h"
#include "engine/explain.h"

namespace postrider {
namespace {

using nlohmann::json;

struct Asked {
    std::string config, what;
    bool as_json = false;
};

// As parse_arguments(), with the options that both have.
std::optional<int> parse(CLI::App& app, int argc, char** argv, Asked& asked) {
    app.add_flag("--json", asked.as_json, "The answer as JSON");
    app.add_option("--config", asked.config, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    return parse_arguments(app, argc, argv);
}

int tell_error(const char* command, const Error& error) {
    std::fprintf(stderr, "postrider %s: %s\n", command, error.text.c_str());
    return error.code == EINVAL ? kExitUsage : kExitFailure;
}

int tell(const char* command, const Asked& asked, const std::string& answer, std::string (*text)(const json&)) {
    if (asked.as_json) {
        std::fputs(answer.c_str(), stdout);
        return 0;
    }
    const json parsed = json::parse(answer, nullptr, false);
    if (!parsed.is_object()) return tell_error(command, {0, "the answer is not JSON; is something else listening there?"});
    std::fputs(text(parsed).c_str(), stdout);
    return 0;
}

}  // namespace

int run_explain(int argc, char** argv) {
    CLI::App app("Tells every limit that holds for a domain, where it comes from, and how far it is used.", "postrider explain");
    app.footer("Example:\n  postrider explain gmail.com\n\n"
               "Asks the running engine; without one it reads the files alone, and says so.\n"
               "Exit codes: 0 told, 1 failed, 2 usage or configuration.");
    Asked asked;
    app.add_option("domain", asked.what, "Recipient domain")->required()->check(not_empty);
    if (const auto code = parse(app, argc, argv, asked)) return *code;
    const auto domain = typed_domain(asked.what);
    if (!domain) return tell_error("explain", domain.error());
    const auto config = load_to_ask(asked.config);
    if (!config) return kExitUsage;
    auto answer = admin_get(config->server.admin, "/explain?domain=" + query_value(*domain));
    if (!answer && answer.error().code == ENOTCONN) {
        const auto files = load_or_explain(asked.config);
        if (!files) return kExitUsage;
        return tell("explain", asked, explain_files(*files, *domain).dump() + "\n", explain_text);
    }
    if (!answer) return tell_error("explain", answer.error());
    return tell("explain", asked, *answer, explain_text);
}

int run_why(int argc, char** argv) {
    CLI::App app("Tells what the mail of a domain or a campaign, or one message, waits for.", "postrider why");
    app.footer("Examples:\n  postrider why gmail.com\n  postrider why --campaign spring\n"
               "  postrider why 5f3a9c0e77d14b6200000000000000a1     by the id of the delivery log\n\n"
               "Exit codes: 0 told, 1 failed, such as no engine that answers, 2 usage or configuration.");
    Asked asked;
    bool campaign = false;
    app.add_option("what", asked.what, "A recipient domain, or the id of a message; another name without a dot is a campaign's")->required();
    app.add_flag("--campaign", campaign, "It is a campaign, whatever its name looks like");
    if (const auto code = parse(app, argc, argv, asked)) return *code;
    if (asked.what.empty()) return tell_error("why", {EINVAL, "the name is empty; give a domain, a campaign or the id of a message"});
    const char* key = "domain";
    if (campaign || (!asked.what.starts_with('[') && asked.what.find('.') == std::string::npos))
        key = !campaign && message_id_of(asked.what) ? "id" : "campaign";
    if (std::string_view(key) == "domain") {
        auto domain = typed_domain(asked.what);
        if (!domain) return tell_error("why", domain.error());
        asked.what = std::move(*domain);
    }
    const auto config = load_to_ask(asked.config);
    if (!config) return kExitUsage;
    auto answer = admin_get(config->server.admin, fmt::format("/why?{}={}", key, query_value(asked.what)));
    if (!answer) return tell_error("why", answer.error());
    return tell("why", asked, *answer, why_text);
}

}  // namespace postrider
