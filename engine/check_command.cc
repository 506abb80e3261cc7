// `postrider check`: the configuration, read as `run` would read it.
#include <cerrno>
#include <cstdio>

#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/shaping_lint.h"
#include "engine/net/socket_calls.h"

namespace postrider {
namespace {

// An address may come up later: a warning.
void look_for_source(const SourceConfig& source, const std::string& file) {
    const auto address = SocketAddress::parse(source.address, 0);
    if (!address) return;
    const int fd = sockets::open(address->family(), *address);
    if (fd >= 0)
        sockets::close(fd);
    else if (fd == -EADDRNOTAVAIL)
        std::fprintf(stderr, "%s: warning: [[source]] %s: %s is no address of this machine now: nothing can be sent from it\n",
                     file.c_str(), source.name.c_str(), source.address.c_str());
}

}  // namespace

int run_check(int argc, char** argv) {
    CLI::App app("Reads the configuration and says what is wrong with it.", "postrider check");
    app.footer("Example:\n  postrider check --config postrider.toml\n\n"
               "Exit codes: 0 no errors, though perhaps warnings, 2 errors.");
    std::string path;
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    const auto config = load_or_explain(path);
    if (!config) return kExitUsage;
    std::vector<std::string> sources;
    for (const auto& source : config->sources) {
        sources.push_back(source.name);
        look_for_source(source, config->file);
    }
    for (const auto& finding : lint_shaping(config->shaping, sources))
        std::fprintf(stderr, "%s\n", finding.to_string().c_str());
    std::printf("%s: no errors\n", config_path(path).c_str());
    return 0;
}

}  // namespace postrider
