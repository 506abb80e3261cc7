// KumoMTA's automation rules out of TOML. Only the .cc files of this folder include this header.
#pragma once

#include "engine/config/shaping_config.h"
#include "engine/config/toml_reader.h"

namespace postrider {

// One [[...automation]] block. What is wrong is reported and left out of the answer.
AutomationRule read_automation(const toml::table& table, const std::string& path,
                               ProblemList& problems);

}  // namespace postrider
