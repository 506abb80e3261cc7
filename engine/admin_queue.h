// The queue's part of what the admin socket answers.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace postrider {

nlohmann::json hold_json(const Hold& hold);

// The domains with the most mail, at most `limit`, and what is held. `selection`: only what it selects.
nlohmann::json queue_json(Engine& engine, const Selection* selection, size_t limit);

}  // namespace postrider
