// What is allowed in the shaping files and cannot be meant: rules that never match, values that never count, limits that
// contradict each other. `postrider check` tells them as warnings, each with file and line.
#pragma once

#include <string>
#include <vector>

#include "engine/config/problem.h"
#include "engine/config/shaping_config.h"

namespace postrider {

// `sources`: the names of the configured [[source]] blocks.
std::vector<ConfigProblem> lint_shaping(const ShapingRules& rules, const std::vector<std::string>& sources);

}  // namespace postrider
