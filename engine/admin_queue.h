// The queue's part of what the admin socket answers.
#pragma once

#include <functional>

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace postrider {

nlohmann::json hold_json(const Hold& hold);

// Every queue of every shard, a slice of a shard's turn at a time; `visit` is called by all shards at once. `of` as in
// Backlog::visit_domains.
void visit_queues(Engine& engine, const Backlog::Flow& of, const std::function<void(Shard&, const Backlog::DomainCounts&)>& visit);

// The domains with the most mail, at most `limit`, and what is held. `selection`: only what it selects.
nlohmann::json queue_json(Engine& engine, const Selection* selection, size_t limit);

}  // namespace postrider
