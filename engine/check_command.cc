// `postrider check`: the configuration, read as `run` would read it.
#include <cerrno>
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/shaping_lint.h"
#include "engine/net/socket_calls.h"

namespace postrider {
namespace {

bool is_here(const std::string& source_address) {
    const auto address = SocketAddress::parse(source_address, 0);
    if (!address) return true;
    const int fd = sockets::open(address->family(), *address);
    if (fd >= 0) sockets::close(fd);
    return fd != -EADDRNOTAVAIL;
}

// What is allowed and cannot be meant, or would do nothing on this machine.
std::vector<ConfigProblem> warnings_of(const Config& config) {
    std::vector<ConfigProblem> found;
    std::vector<std::string> sources;
    for (const auto& source : config.sources) {
        sources.push_back(source.name);
        if (is_here(source.address)) continue;  // it may come up later
        found.push_back({.file = config.file,
                         .text = fmt::format("[[source]] {}: {} is no address of this machine now: nothing can be sent from it",
                                             source.name, source.address),
                         .severity = Severity::warning});
    }
    for (auto& finding : lint_shaping(config.shaping, sources)) found.push_back(std::move(finding));
    return found;
}

nlohmann::json told(const ConfigProblem& problem) {
    nlohmann::json told = {{"file", problem.file}, {"line", nullptr}, {"column", nullptr}, {"text", problem.text},
                           {"severity", problem.severity == Severity::error ? "error" : "warning"}};
    if (problem.line > 0) told.update({{"line", problem.line}, {"column", problem.column}});
    return told;
}

}  // namespace

int run_check(int argc, char** argv) {
    CLI::App app("Reads the configuration and says what is wrong with it.", "postrider check");
    app.footer("Example:\n  postrider check --config postrider.toml\n  postrider check --json | jq -r '.problems[].text'\n\n"
               "Exit codes: 0 no errors, though perhaps warnings, 2 errors.");
    std::string path;
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    bool as_json = false;
    app.add_flag("--json", as_json, "The problems as JSON");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    path = config_path(path);
    if (path.empty()) return kExitUsage;
    auto loaded = load_config(path);
    auto& problems = loaded.problems;
    const bool ok = loaded.ok();
    if (ok)
        for (auto& warning : warnings_of(loaded.config)) problems.push_back(std::move(warning));
    if (as_json) {
        nlohmann::json answer = {{"file", path}, {"ok", ok}, {"problems", nlohmann::json::array()}};
        for (const auto& problem : problems) answer["problems"].push_back(told(problem));
        std::puts(answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
        return ok ? 0 : kExitUsage;
    }
    for (const auto& problem : problems) std::fprintf(stderr, "%s\n", problem.to_string().c_str());
    if (!ok) return kExitUsage;
    std::printf("%s: no errors\n", path.c_str());
    return 0;
}

}  // namespace postrider
