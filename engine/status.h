// What the engine tells of itself: the JSON of the admin socket, and its form for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/engine.h"

namespace postrider {

// Asks every shard; call from a thread that is none.
nlohmann::json status_json(Engine& engine, int64_t started_s);
std::string status_text(const nlohmann::json& status);

}  // namespace postrider
