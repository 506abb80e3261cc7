// Values of shaping keys out of TOML. Only the .cc files of this folder include this header.
#pragma once

#include "engine/config/shaping_keys.h"
#include "engine/config/toml_reader.h"

namespace postrider {

// The value of `key` in `node`, checked against its kind and bounds; an error without the key's
// name.
Result<ShapingValue> shaping_value_of(const ShapingKey& key, const toml::node& node);

}  // namespace postrider
