#include "engine/admin_handlers.h"

#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_queue.h"
#include "engine/status.h"
#include "queue/formats/envelope_fields.h"

namespace postrider {
namespace {

using httplib::Request;
using httplib::Response;
using nlohmann::json;

constexpr size_t kListedAtMost = 10'000, kListed = 50;
constexpr int64_t kLongestS = 366 * 86'400;

void answer(Response& response, const json& value) {
    response.set_content(value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", "application/json");
}

void refuse(Response& response, std::string_view why, int status = 400) {
    response.status = status;
    response.set_content(std::string(why), "text/plain");
}

// Local trouble is not the request's fault.
void refuse(Response& response, const Error& error) { refuse(response, error.text, error.code ? 503 : 400); }

// The body of a POST: members by name, each checked.
class Body {
  public:
    static Result<Body> of(const Request& request) {
        // A page in a browser can send neither without asking us first.
        if (request.has_header("Origin") || request.get_header_value("Content-Type") != "application/json")
            return fail("the body must be application/json");
        Body body;
        body.json_ = json::parse(request.body, nullptr, false);
        if (!body.json_.is_object()) return fail("the body is no JSON object");
        return body;
    }
    Result<std::string> text(const char* name) const {
        const auto found = json_.find(name);
        if (found == json_.end()) return std::string();
        const auto* value = found->get_ptr<const std::string*>();
        if (!value) return fail(fmt::format("\"{}\" is no text", name));
        return *value;
    }
    Result<int64_t> seconds(const char* name) const {
        const auto found = json_.find(name);
        if (found == json_.end()) return 0;
        if (!found->is_number_integer() || *found < 0 || *found > kLongestS)
            return fail(fmt::format("\"{}\" is no number of seconds from 0 to {}", name, kLongestS));
        return found->get<int64_t>();
    }
    bool has(const char* name) const { return json_.contains(name); }

  private:
    json json_;
};

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

struct QueueOrder {
    std::optional<Selection> selection;
    int64_t for_s = 0;
    Said said;
};

Result<QueueOrder> order_of(const AdminServer& server, const Request& request) {
    auto body = Body::of(request);
    if (!body) return std::unexpected(body.error());
    QueueOrder order;
    auto said = said_by(server, request, *body);
    if (!said) return std::unexpected(said.error());
    order.said = std::move(*said);
    auto for_s = body->seconds("for_s");
    if (!for_s) return std::unexpected(for_s.error());
    order.for_s = *for_s;
    if (!body->has("scope")) return order;
    auto scope = body->text("scope"), name = body->text("name");
    if (!scope || !name) return std::unexpected((scope ? name : scope).error());
    auto selection = selection_of(*scope, *name);
    if (!selection) return std::unexpected(selection.error());
    order.selection = std::move(*selection);
    return order;
}

Result<void> obey(Control& control, std::string_view action, const QueueOrder& order) {
    if (action == "flush") return control.flush(order.selection ? &*order.selection : nullptr, order.said);
    if (!order.selection) return fail("say of what: a domain, site, provider, campaign or tenant");
    if (action == "suspend") return control.suspend(*order.selection, order.for_s, order.said);
    if (action == "resume") return control.resume(*order.selection, order.said);
    return control.cancel(*order.selection, order.said);
}

void queue_order(const AdminServer& server, Engine& engine, std::string_view action, const Request& request,
                 Response& response) {
    const MonoNs began_ns = read_mono_clock();
    auto order = order_of(server, request);
    if (!order) return refuse(response, order.error());
    if (auto done = obey(engine.control(), action, *order); !done) return refuse(response, done.error());
    json told = {{"action", action}, {"who", order->said.who}};
    if (order->selection) told.update({{"scope", name_of(order->selection->scope)}, {"name", order->selection->name}});
    if (action == "suspend" && order->for_s) told["until"] = order->said.at_s + order->for_s;
    told["took_ms"] = static_cast<double>(read_mono_clock() - began_ns) / static_cast<double>(kNsPerMs);
    answer(response, told);
}

void queue_list(Engine& engine, const Request& request, Response& response) {
    size_t limit = kListed;
    if (request.has_param("limit")) {
        const std::string text = request.get_param_value("limit");
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
        if (error != std::errc() || end != text.data() + text.size() || limit == 0 || limit > kListedAtMost)
            return refuse(response, fmt::format("limit: allowed: 1 to {}", kListedAtMost));
    }
    for (const auto scope : kHoldScopes) {
        const std::string name(scope);
        if (!request.has_param(name.c_str())) continue;
        auto selection = selection_of(scope, request.get_param_value(name.c_str()));
        if (!selection) return refuse(response, selection.error());
        return answer(response, queue_json(engine, &*selection, limit));
    }
    answer(response, queue_json(engine, nullptr, limit));
}

}  // namespace

void serve_admin(AdminServer& server, Engine& engine, int64_t started_s) {
    server.Get("/status", [&engine, started_s](const Request&, Response& response) {
        answer(response, status_json(engine, started_s));
    });
    server.Get("/queue", [&engine](const Request& request, Response& response) { queue_list(engine, request, response); });
    for (const char* action : {"suspend", "resume", "cancel", "flush"}) {
        server.Post(std::string("/queue/") + action, [&server, &engine, action](const Request& request, Response& response) {
            queue_order(server, engine, action, request, response);
        });
    }
}

}  // namespace postrider
