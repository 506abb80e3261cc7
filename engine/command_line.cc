#include "engine/command_line.h"

#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace postrider {

std::string config_path(const std::string& given) {
    if (!given.empty()) return given;
    for (const char* path : {"./postrider.toml", "/etc/postrider/postrider.toml"})
        if (access(path, F_OK) == 0) return path;
    std::fputs("postrider: no configuration: there is neither ./postrider.toml nor /etc/postrider/postrider.toml; --config FILE names "
               "another\n", stderr);
    return {};
}

std::optional<Config> load_or_explain(const std::string& given) {
    const std::string path = config_path(given);
    if (path.empty()) return std::nullopt;
    auto loaded = load_config(path);
    for (const auto& problem : loaded.problems) std::fprintf(stderr, "%s\n", problem.to_string().c_str());
    if (!loaded.ok()) return std::nullopt;
    return std::move(loaded.config);
}

std::optional<Config> load_to_ask(const std::string& given) {
    const std::string path = config_path(given);
    if (path.empty()) return std::nullopt;
    auto loaded = load_config(path);
    std::erase_if(loaded.problems, [&](const ConfigProblem& problem) {
        return problem.file != path || problem.severity != Severity::error;
    });
    for (const auto& problem : loaded.problems) std::fprintf(stderr, "%s\n", problem.to_string().c_str());
    if (!loaded.server_is_good) return std::nullopt;
    if (!loaded.ok()) std::fprintf(stderr, "postrider: the engine at %s is asked all the same\n", loaded.config.server.admin.c_str());
    return std::move(loaded.config);
}

std::string not_empty(const std::string& value) { return value.empty() ? "is empty" : ""; }

std::string counted(uint64_t count, std::string_view one) {
    std::string text = std::to_string(count) + " ";
    text += one;
    if (count == 1) return text;
    // "queries", "addresses"
    if (text.ends_with('y')) return text.replace(text.size() - 1, 1, "ies");
    return text + (text.ends_with('s') ? "es" : "s");
}

std::string local_time(int64_t seconds) {
    const std::time_t time = seconds;
    std::tm parts{};
    localtime_r(&time, &parts);
    char text[64];
    return {text, std::strftime(text, sizeof text, "%F %T %z", &parts)};
}

}  // namespace postrider
