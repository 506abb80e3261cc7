// Hash and comparison for maps keyed by text that are asked with views, so that a look-up does not
// allocate.
#pragma once

#include <string_view>

#include "engine/core/hash.h"

namespace postrider {

struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return hash64(text); }
};

struct TextEqual {
    using is_transparent = void;
    bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};

}  // namespace postrider
