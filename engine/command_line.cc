#include "engine/command_line.h"

#include <unistd.h>

#include <cstdio>

namespace postrider {

std::string config_path(const std::string& given) {
    if (!given.empty()) return given;
    for (const char* path : {"./postrider.toml", "/etc/postrider/postrider.toml"})
        if (access(path, R_OK) == 0) return path;
    return "./postrider.toml";
}

std::optional<Config> load_or_explain(const std::string& given) {
    auto loaded = load_config(config_path(given));
    for (const auto& problem : loaded.problems) std::fprintf(stderr, "%s\n", problem.to_string().c_str());
    if (!loaded.ok()) return std::nullopt;
    return std::move(loaded.config);
}

}  // namespace postrider
