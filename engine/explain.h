// Why mail goes as fast as it goes: every limit of a domain with its origin and its use, and what mail waits for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/engine.h"

namespace postrider {

// Of a running engine; asks DNS for the domain's mail servers (from its cache where it can). Call from a thread that is no
// shard's.
Result<nlohmann::json> explain_json(Engine& engine, const std::string& domain);
// From the files alone: without DNS, so a provider that matches by MX is not seen.
nlohmann::json explain_files(const Config& config, const std::string& domain);
std::string explain_text(const nlohmann::json& answer);

// What the mail of a domain waits for: when it is tried next, what binds, what was last said to it.
nlohmann::json why_domain(Engine& engine, const std::string& domain);
// Of a campaign: its domains with the most mail, each with its why.
nlohmann::json why_campaign(Engine& engine, const std::string& campaign);
// Of a message, by the id of the delivery log: its recipients that wait, and the why of their domains. Looks at every record
// that waits, in slices.
nlohmann::json why_message(Engine& engine, MessageId message);
std::string why_text(const nlohmann::json& answer);

}  // namespace postrider
