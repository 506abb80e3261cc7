#include "engine/admin_handlers.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_queue.h"
#include "engine/admin_request.h"
#include "engine/admin_trace.h"
#include "engine/explain.h"
#include "engine/reload.h"
#include "engine/status.h"

namespace postrider {
namespace {

using httplib::Request;
using httplib::Response;
using nlohmann::json;

constexpr size_t kListedAtMost = 10'000, kListed = 50;

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

// Whether this engine has seen mail of the selection: a name that is misspelt has none.
bool has_seen(SharedState& shared, const Selection& selection) {
    switch (selection.scope) {
        case HoldScope::domain:
            for (size_t i = 0; i < shared.pools.size(); ++i) {
                std::string queue = selection.name;
                append_pool(queue, shared.pools[static_cast<PoolId>(i)].name);
                if (shared.domains.knows(queue)) return true;
            }
            return false;
        case HoldScope::site: return shared.sites.find(selection.name) != nullptr;
        case HoldScope::campaign:
        case HoldScope::tenant: return shared.labels.knows(selection.name);
        default: return true;
    }
}

void queue_order(const AdminServer& server, Engine& engine, std::string_view action, const Request& request,
                 Response& response) {
    const MonoNs began_ns = read_mono_clock();
    auto order = order_of(server, request);
    if (!order) return refuse(response, order.error());
    // What was held may be resumed though its provider is not in the files any more.
    if (const auto& of = order->selection; of && of->scope == HoldScope::provider && action != "resume" &&
                                           !engine.shared().shaping.names_provider(of->name))
        return refuse(response, fmt::format("--provider {}: no block in the shaping files names it", of->name));
    const bool seen = !order->selection || action == "resume" || has_seen(engine.shared(), *order->selection);
    if (auto done = obey(engine.control(), action, *order); !done) return refuse(response, done.error());
    json told = {{"action", action}, {"who", order->said.who}};
    if (order->selection) told.update({{"scope", name_of(order->selection->scope)}, {"name", order->selection->name}});
    if (action == "suspend" && order->for_s) told["until"] = order->said.at_s + order->for_s;
    if (!seen)
        told["note"] = fmt::format("no mail of {} {} was seen since this engine started; is the name right?",
                                   name_of(order->selection->scope), order->selection->name);
    told["took_ms"] = static_cast<double>(read_mono_clock() - began_ns) / static_cast<double>(kNsPerMs);
    answer(response, told);
}

void queue_list(Engine& engine, const Request& request, Response& response) {
    const auto limit = number_of(request, "limit", kListed, 1, kListedAtMost);
    if (!limit) return refuse(response, limit.error());
    for (const auto scope : kHoldScopes) {
        const std::string name(scope);
        if (!request.has_param(name.c_str())) continue;
        auto selection = selection_of(scope, request.get_param_value(name.c_str()));
        if (!selection) return refuse(response, selection.error());
        return answer(response, queue_json(engine, &*selection, *limit));
    }
    answer(response, queue_json(engine, nullptr, *limit));
}

json shapes_json(const ShapingBook& book, std::string_view domain) {
    json list = json::array();
    for (const auto& each : book.overrides()) {
        if (!domain.empty() && each.domain != domain) continue;
        json entry = {{"domain", each.domain}, {"key", each.key}, {"value", each.value}, {"who", each.who},
                      {"set", each.set_s}, {"reason", each.why}};
        if (each.expires_s) entry["until"] = each.expires_s;
        list.push_back(std::move(entry));
    }
    return {{"overrides", list}};
}

// What who set it may not expect. The domain's site is learnt here: what is set holds for the mail of its neighbours there
// when the command returns, not when its own mail comes or the dispatcher has looked.
json notes_of(Engine& engine, const std::string& domain) {
    json notes = json::array();
    const auto domains = engine.shared().shaping.rollup_domains();
    if (std::ranges::find(domains, domain) != domains.end())
        for (auto& trouble : engine.learn_sites({domain})) notes.push_back(std::move(trouble));
    return notes;
}

// A name that is meant for something else must not be set as a domain that nobody has.
Result<void> check_shape_name(std::string_view asked, const std::string& name) {
    constexpr std::string_view kProvider = "provider.", kSources = ".sources.";
    if (asked.find(kSources) != std::string_view::npos)
        return fail(fmt::format("{}: live limits are per domain, provider or default, not per source; what differs by source "
                                "belongs into a shaping file (then `postrider reload`)",
                                asked));
    if (asked.starts_with(kProvider) && !asked.ends_with('.') && !name.ends_with('"'))
        return fail(fmt::format("{}: no block in the shaping files names a provider {}; a domain of this name is written with a "
                                "final dot, {}.",
                                asked, asked.substr(kProvider.size()), asked));
    return {};
}

Result<json> shape_order(const AdminServer& server, Engine& engine, bool set, const Request& request) {
    auto body = Body::of(request);
    if (!body) return std::unexpected(body.error());
    auto said = said_by(server, request, *body);
    if (!said) return std::unexpected(said.error());
    auto domain = body->text("domain");
    auto for_s = body->seconds("for_s");
    auto settings = body->list("settings");
    if (!domain) return std::unexpected(domain.error());
    if (!for_s) return std::unexpected(for_s.error());
    if (!settings) return std::unexpected(settings.error());
    auto name = shape_name_of(engine.shared().shaping, *domain);
    if (!name) return std::unexpected(name.error());
    if (set)
        if (auto good = check_shape_name(*domain, *name); !good) return std::unexpected(good.error());
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const json& setting : *settings) {
        auto key = Body::text(setting, "key"), value = Body::text(setting, "value");
        if (!key || !value) return std::unexpected((key ? value : key).error());
        pairs.emplace_back(std::move(*key), std::move(*value));
    }
    Control& control = engine.control();
    auto done = set ? control.set_shape(*name, pairs, *for_s, *said) : control.unset_shape(*name, pairs, *said);
    if (!done) return std::unexpected(done.error());
    json told = shapes_json(engine.shared().shaping, {});
    told["domain"] = *name;
    told["notes"] = set ? notes_of(engine, *name) : json::array();
    return told;
}

void show_shapes(Engine& engine, const Request& request, Response& response) {
    std::string domain;
    if (request.has_param("domain")) {
        auto name = shape_name_of(engine.shared().shaping, request.get_param_value("domain"));
        if (!name) return refuse(response, name.error());
        domain = std::move(*name);
    }
    answer(response, shapes_json(engine.shared().shaping, domain));
}

// Of a query: the domain it names, checked.
Result<std::string> domain_of(const Request& request) {
    auto selection = selection_of("domain", request.get_param_value("domain"));
    if (!selection) return std::unexpected(selection.error());
    return selection->name;
}

void explain(Engine& engine, const Request& request, Response& response) {
    auto domain = domain_of(request);
    if (!domain) return refuse(response, domain.error());
    auto told = explain_json(engine, *domain);
    if (!told) return refuse(response, told.error());
    answer(response, *told);
}

void why(Engine& engine, const Request& request, Response& response) {
    if (request.has_param("id")) {
        const auto id = message_id_of(request.get_param_value("id"));
        if (!id) return refuse(response, "an id is the 32 hexadecimal digits of \"id\" in the delivery log");
        return answer(response, why_message(engine, *id));
    }
    if (request.has_param("campaign")) {
        auto selection = selection_of("campaign", request.get_param_value("campaign"));
        if (!selection) return refuse(response, selection.error());
        return answer(response, why_campaign(engine, selection->name));
    }
    auto domain = domain_of(request);
    if (!domain) return refuse(response, domain.error());
    answer(response, why_domain(engine, *domain));
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
    server.Get("/shape", [&engine](const Request& request, Response& response) { show_shapes(engine, request, response); });
    for (const bool set : {true, false}) {
        server.Post(set ? "/shape/set" : "/shape/unset", [&server, &engine, set](const Request& request, Response& response) {
            auto told = shape_order(server, engine, set, request);
            if (!told) return refuse(response, told.error());
            answer(response, *told);
        });
    }
    server.Get("/explain", [&engine](const Request& request, Response& response) { explain(engine, request, response); });
    server.Get("/why", [&engine](const Request& request, Response& response) { why(engine, request, response); });
    serve_trace(server, engine);
    server.Post("/reload", [&engine](const Request& request, Response& response) {
        if (auto body = Body::of(request); !body) return refuse(response, body.error());
        const Reloaded reloaded = reload(engine);
        if (!reloaded.done) return refuse(response, reloaded.told);
        answer(response, {{"told", reloaded.told}});
    });
}

}  // namespace postrider
