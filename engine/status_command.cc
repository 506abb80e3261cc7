// `postrider status`: what a running engine is doing.
#include <cstdio>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/status.h"

namespace postrider {

int run_status(int argc, char** argv) {
    CLI::App app("Asks a running engine what it is doing.", "postrider status");
    app.footer("Example:\n  postrider status --config postrider.toml\n  postrider status --json | jq .recipients\n\n"
               "Exit codes: 0 told, 1 failed, such as no engine that answers, 2 usage or configuration.");
    std::string path;
    bool as_json = false;
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    app.add_flag("--json", as_json, "The answer as JSON");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    auto config = load_to_ask(path);
    if (!config) return kExitUsage;
    auto answer = admin_get(config->server.admin, "/status");
    if (!answer) {
        std::fprintf(stderr, "postrider status: %s\n", answer.error().text.c_str());
        return kExitFailure;
    }
    if (as_json) {
        std::fputs(answer->c_str(), stdout);
        return 0;
    }
    const auto status = nlohmann::json::parse(*answer, nullptr, false);
    if (status.is_discarded()) {
        std::fprintf(stderr, "postrider status: the answer is not JSON; is something else listening there?\n");
        return kExitFailure;
    }
    std::fputs(status_text(status).c_str(), stdout);
    return 0;
}

}  // namespace postrider
