// The commands' side of the admin socket (admin_transport.h).
#pragma once

#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider {

// GET or POST (with a body); the body of a 200 answer. The error says what to do when no engine answers (code ENOTCONN), or
// what the engine says (code EINVAL when the request was wrong).
Result<std::string> admin_get(const std::string& address, const std::string& path);
Result<std::string> admin_post(const std::string& address, const std::string& path, const std::string& body);

// A name as the value of a query.
std::string query_value(const std::string& text);

}  // namespace postrider
