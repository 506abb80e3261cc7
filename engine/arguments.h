// The arguments of a command, by CLI11. What is wrong with them is told in one line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>

#include "engine/commands.h"

namespace postrider {

// Empty: go on. Else the exit code: 0 when --help was asked for, and printed; kExitUsage when the arguments are wrong.
inline std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
    try {
        app.parse(argc, argv);
        return std::nullopt;
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        const std::string command = app.get_name();
        std::fprintf(stderr, "%s: %s (`%s --help` tells more)\n", command.c_str(), error.what(), command.c_str());
        return kExitUsage;
    }
}

}  // namespace postrider
