// What is wrong with a configuration file, said so that it can be mended: where, which key, what is
// allowed. All problems of a file are collected; the caller prints them and chooses the exit code.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace postrider {

enum class Severity : uint8_t { warning, error };

struct ConfigProblem {
    std::string file;
    uint32_t line = 0;  // from 1; 0: the whole file
    uint32_t column = 0;
    std::string text;  // "key: what is wrong, what is allowed", one line
    Severity severity = Severity::error;

    // "file:line:column: text"; a warning says so after the place.
    std::string to_string() const;
};

bool has_errors(const std::vector<ConfigProblem>& problems);

// The name in `known` that `name` was probably meant to be; empty when none is near (edit distance
// over a third).
std::string_view nearest_name(std::string_view name, const std::vector<std::string_view>& known);

}  // namespace postrider
