// Reading the configuration again while the engine runs: SIGHUP and `postrider reload`.
//
// What changes live: the shaping files, [retry], [limits], [smtp] prohibited_hosts. What cannot is compared and named in one
// line, so that nobody believes it in force. A file with an error changes nothing.
#pragma once

#include <string>

#include "engine/engine.h"

namespace postrider {

struct Reloaded {
    bool done = false;
    std::string told;  // each problem a line, then what was done
};

Reloaded reload(Engine& engine);

}  // namespace postrider
