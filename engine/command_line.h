// What the commands have in common: where the configuration is, and how its problems are told.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/config/config.h"

namespace postrider {

// `given`, or ./postrider.toml, or /etc/postrider/postrider.toml. Empty: none of them is there, which was told on stderr.
std::string config_path(const std::string& given);

// Loads it and prints every problem to stderr; empty when there are errors.
std::optional<Config> load_or_explain(const std::string& given);

// For a command that asks a running engine: only errors of [server], which says where it listens, are in the way; the other
// errors of the main file are printed. An operator whose files are broken must still get answers.
std::optional<Config> load_to_ask(const std::string& given);

// For CLI11's check(): the value of an unset shell variable must not mean "everything" or "for ever".
std::string not_empty(const std::string& value);

// "1 recipient", "2 recipients".
std::string counted(uint64_t count, std::string_view one);

// "2026-11-26 05:03:11 +0000", of seconds since 1970.
std::string local_time(int64_t seconds);

}  // namespace postrider
