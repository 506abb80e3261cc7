#include "engine/admin_trace.h"

#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_request.h"
#include "engine/smtp/trace.h"

namespace postrider {
namespace {

using httplib::Request;
using httplib::Response;
using nlohmann::json;

constexpr std::chrono::milliseconds kPatience(1'000);  // then an empty answer

std::string event_time(WallUs at_us) {
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(static_cast<std::time_t>(at_us / kUsPerSecond)),
                       at_us % kUsPerSecond);
}

// As "session_id" in the delivery log.
std::string session_id(const TraceLine& line) {
    const uint64_t high = line.session_high, low = line.session_low;
    return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xFFFF, high & 0xFFFF, low >> 48,
                       low & 0xFFFF'FFFF'FFFF);
}

json told(const TraceLine& line) {
    json told = {{"event_time", event_time(line.at_us)}, {"kind", name_of(line.kind)}, {"text", line.text}};
    told["session_id"] = line.session_high | line.session_low ? json(session_id(line)) : json();
    told["peer_address"] = line.host.empty() ? json() : json{{"name", line.host}, {"addr", line.address}};
    return told;
}

void begin(Engine& engine, const Request& request, Response& response) {
    auto body = Body::of(request);
    if (!body) return refuse(response, body.error());
    auto name = body->text("domain");
    if (!name) return refuse(response, name.error());
    auto selection = selection_of("domain", *name);
    if (!selection) return refuse(response, selection.error());
    const std::string& domain = selection->name;
    const auto route = engine.route(domain);
    if (!route || route->kind != MailRoute::Kind::hosts)
        return refuse(response, fmt::format("{}: its mail servers are not known: {}", domain,
                                            route ? route->why : "DNS has not answered yet"));
    SharedState& shared = engine.shared();
    const auto listener = shared.tracer.listen(shared.shaping.site_of(domain, route->site));
    if (!listener) return refuse(response, fmt::format("{} traces are under way, and no more may be: end one", Tracer::kListenersMost));
    std::vector<std::string> hosts;
    for (const auto& host : route->hosts) hosts.push_back(host.name);
    answer(response, {{"id", listener->id()}, {"domain", domain}, {"site", listener->site()}, {"hosts", hosts}});
}

void take(Engine& engine, const Request& request, Response& response) {
    const auto id = number_of(request, "id", 0, 1, UINT64_MAX);
    if (!id) return refuse(response, id.error());
    const auto listener = engine.shared().tracer.find(*id);
    if (!listener) return refuse(response, fmt::format("the trace has ended: nobody has asked for its lines for {} s", Tracer::kUnheard.count()));
    const auto taken = listener->take(kPatience);
    json lines = json::array();
    for (const TraceLine& line : taken.lines) lines.push_back(told(line));
    answer(response, {{"lines", std::move(lines)}, {"lost", taken.lost}});
}

}  // namespace

void serve_trace(AdminServer& server, Engine& engine) {
    server.Post("/trace", [&engine](const Request& request, Response& response) { begin(engine, request, response); });
    server.Get("/trace", [&engine](const Request& request, Response& response) { take(engine, request, response); });
    server.Post("/trace/end", [&engine](const Request& request, Response& response) {
        auto body = Body::of(request);
        if (!body) return refuse(response, body.error());
        auto id = body->number("id");
        if (!id) return refuse(response, id.error());
        engine.shared().tracer.end(*id);
        answer(response, json::object());
    });
}

}  // namespace postrider
