#include "engine/admin_request.h"

#include <charconv>

#include <fmt/format.h>

#include "queue/formats/envelope_fields.h"
#include "engine/io/clock.h"

namespace postrider {

using httplib::Request;
using httplib::Response;
using nlohmann::json;

void answer(Response& response, const json& value) {
    response.set_content(value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", "application/json");
}

void refuse(Response& response, std::string_view why, int status) {
    response.status = status;
    response.set_content(std::string(why), "text/plain");
}

void refuse(Response& response, const Error& error) { refuse(response, error.text, error.code ? 503 : 400); }

Result<uint64_t> number_of(const Request& request, const char* name, uint64_t absent, uint64_t least, uint64_t most) {
    if (!request.has_param(name)) return absent;
    const std::string text = request.get_param_value(name);
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < least || number > most)
        return fail(fmt::format("{}: allowed: {} to {}", name, least, most));
    return number;
}

Result<Body> Body::of(const Request& request) {
    // A page in a browser can send neither without asking us first.
    if (request.has_header("Origin") || request.get_header_value("Content-Type") != "application/json")
        return fail("the body must be application/json");
    Body body;
    body.json_ = json::parse(request.body, nullptr, false);
    if (!body.json_.is_object()) return fail("the body is no JSON object");
    return body;
}

Result<std::string> Body::text(const json& object, const char* name) {
    if (!object.is_object()) return fail("no JSON object where one must be");
    const auto found = object.find(name);
    if (found == object.end()) return std::string();
    const auto* value = found->get_ptr<const std::string*>();
    if (!value) return fail(fmt::format("\"{}\" is no text", name));
    return *value;
}

Result<int64_t> Body::seconds(const char* name) const {
    const auto found = json_.find(name);
    if (found == json_.end()) return 0;
    if (!found->is_number_integer() || *found < 0 || *found > kLongestAskedS)
        return fail(fmt::format("\"{}\" is no number of seconds from 0 to {}", name, kLongestAskedS));
    return found->get<int64_t>();
}

Result<uint64_t> Body::number(const char* name) const {
    const auto found = json_.find(name);
    if (found == json_.end() || !found->is_number_unsigned()) return fail(fmt::format("\"{}\" is no number", name));
    return found->get<uint64_t>();
}

Result<json> Body::list(const char* name) const {
    const auto found = json_.find(name);
    if (found == json_.end()) return json::array();
    if (!found->is_array()) return fail(fmt::format("\"{}\" is no list", name));
    return *found;
}

Result<Said> said_by(const AdminServer& server, const Request& request, const Body& body) {
    Said said{read_wall_clock() / kUsPerSecond, server.peer(request), {}};
    auto reason = body.text("reason");
    if (!reason) return std::unexpected(reason.error());
    if (!reason->empty())
        if (auto good = check_label(*reason); !good)
            return fail("the reason must be one line of text without controls, at most 255 octets");
    said.reason = std::move(*reason);
    return said;
}

}  // namespace postrider
