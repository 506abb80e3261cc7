// What the routes of the admin socket have in common: bodies checked member by member, answers, refusals.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/admin_transport.h"
#include "engine/control_file.h"

namespace postrider {

inline constexpr int64_t kLongestAskedS = 366 * 86'400;

void answer(httplib::Response& response, const nlohmann::json& value);
void refuse(httplib::Response& response, std::string_view why, int status = 400);
// Local trouble is not the request's fault.
void refuse(httplib::Response& response, const Error& error);

// A number of the query from `least` to `most`; `absent` when it is not there.
Result<uint64_t> number_of(const httplib::Request& request, const char* name, uint64_t absent, uint64_t least, uint64_t most);

// The body of a POST: members by name, each checked.
class Body {
  public:
    static Result<Body> of(const httplib::Request& request);
    // Empty when it is absent.
    Result<std::string> text(const char* name) const { return text(json_, name); }
    static Result<std::string> text(const nlohmann::json& object, const char* name);
    Result<int64_t> seconds(const char* name) const;
    // An error when it is absent.
    Result<uint64_t> number(const char* name) const;
    bool has(const char* name) const { return json_.contains(name); }
    // Empty when it is absent; an error when it is no list.
    Result<nlohmann::json> list(const char* name) const;

  private:
    nlohmann::json json_;
};

// Who asks, and why by the member "reason".
Result<Said> said_by(const AdminServer& server, const httplib::Request& request, const Body& body);

}  // namespace postrider
