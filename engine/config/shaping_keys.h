// The one table of shaping keys: its kind, its bounds, whose it is, and whether the engine enforces
// it. A key that is not enforced yet warns when it is KumoMTA's (an existing file must load) and is
// an error when it is ours. Whoever enforces a key flips its flag in the same commit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/shaping_config.h"

namespace postrider {

enum class KeyKind : uint8_t {
    count,
    rate,
    data_rate,
    duration,
    tls,
    pipelining,
    rate_counts,
    opaque,  // KumoMTA's, accepted as it is and not kept
};

enum class KeyOwner : uint8_t { kumomta, ours };

// Blocks a key may stand in.
enum class KeyPlace : uint8_t {
    anywhere,
    provider,        // [provider."x"] and its sources
    not_in_sources,  // counts over all sources, so a source cannot have its own
};

struct ShapingKey {
    std::string_view name;
    KeyKind kind;
    KeyOwner owner;
    KeyPlace place;
    bool enforced;
    int64_t least, most;  // of a count, or of a duration in ms
    void (*apply)(EffectiveShaping& to,
                  const ShapingSetting& setting);  // null: opaque or a provider's
    ShapingLine (*describe)(const EffectiveShaping& of, std::string_view name);
};

const std::vector<ShapingKey>& shaping_keys();
const ShapingKey* find_shaping_key(std::string_view name);

// A value written as text, as in `shape set DOMAIN key=value`; an error without the key's name.
Result<ShapingValue> parse_shaping_value(const ShapingKey& key, std::string_view text);

}  // namespace postrider
