#include "engine/explain.h"

#include <array>
#include <atomic>
#include <mutex>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/admin_queue.h"
#include "engine/command_line.h"
#include "engine/config/units.h"

namespace postrider {
namespace {

using nlohmann::json;

constexpr size_t kDomainsOfACampaign = 10;
constexpr size_t kRecipientsOfAMessage = 20;
constexpr size_t kDomainsOfAMessage = 5;
constexpr std::array<const char*, 4> kResting = {"ready", "deferred", "suspended", "parked"};  // Backlog::Resting

json lines_of(const EffectiveShaping& shaping) {
    json lines = json::array();
    for (const auto& line : shaping.describe())
        lines.push_back({{"key", line.key}, {"value", line.value}, {"from", line.from}});
    return lines;
}

json provider_names(const EffectiveShaping& shaping) {
    json names = json::array();
    for (const auto& provider : shaping.providers) names.push_back(provider.name);
    return names;
}

// The limits of a path that messages wait for, in the order of PathView: the broad ones first.
std::string name_of(const PathView& path, const RateLimit* limit) {
    if (limit == path.data_rate) return "max_data_rate";
    std::vector<std::string> names;
    for (const auto& provider : path.shaping.providers)
        if (provider.max_message_rate.value) names.push_back("provider_max_message_rate of " + provider.name);
    if (path.shaping.site_max_message_rate.value) names.emplace_back("site_max_message_rate");
    if (path.shaping.max_message_rate.value) names.emplace_back("max_message_rate");
    for (size_t i = 0; i < path.message_rates.size() && i < names.size(); ++i)
        if (path.message_rates[i] == limit) return names[i];
    return "a rate";
}

// The same of those that count connections, by their place in PathView.
std::string name_of(const PathView& path, const CountLimit* limit) {
    std::vector<std::string> names{"[limits] connections"};
    for (const auto& provider : path.shaping.providers) names.push_back("provider_connection_limit of " + provider.name);
    names.insert(names.end(), {"site_connection_limit", "connection_limit"});
    for (size_t i = 0; i < path.slots.size() && i < names.size(); ++i)
        if (path.slots[i] == limit) return names[i];
    return "a limit of connections";
}

void add_use(SharedState& shared, Site& site, size_t source, json& lines) {
    uint32_t all = 0;
    for (size_t i = 0; i < shared.sources.size(); ++i) all += site.connections(static_cast<SourceId>(i));
    for (json& line : lines) {
        const std::string key = line["key"];
        constexpr std::string_view kOfProvider = "provider_connection_limit of ";
        if (key == "connection_limit") line["in_use"] = site.connections(static_cast<SourceId>(source));
        if (key == "site_connection_limit") line["in_use"] = all;
        if (!key.starts_with(kOfProvider)) continue;
        const auto* provider = shared.sites.providers().find(key.substr(kOfProvider.size()), source);
        line["in_use"] = provider ? provider->connections.used() : 0;
    }
}

// What holds the site's mail back now, path by path; empty: nothing does.
json binding_of(SharedState& shared, Site& site, size_t source) {
    const MonoNs now = read_mono_clock();
    const auto view = site.view(now);
    const PathView& path = view->paths[source];
    if (const auto [limit, at] = path.binding(now); limit && at > now)
        return {{"limit", name_of(path, limit)}, {"next_in_ms", (at - now) / kNsPerMs}};
    for (const CountLimit* slots : path.slots)
        if (slots->used() >= slots->limit())
            return {{"limit", name_of(path, slots)}, {"in_use", slots->used()}, {"allowed", slots->limit()}};
    if (const MonoNs at = path.connection_rate ? path.connection_rate->ready_at(now) : 0; at > now)
        return {{"limit", "max_connection_rate"}, {"next_in_ms", (at - now) / kNsPerMs}};
    return nullptr;
}

// The names of the pools that the source is in.
json pools_of(SharedState& shared, size_t source) {
    json names = json::array();
    for (size_t i = 0; i < shared.pools.size(); ++i) {
        const EgressPool& pool = shared.pools[static_cast<PoolId>(i)];
        if (pool.name == shared.sources[source].name) continue;  // of itself
        if (std::ranges::find(pool.members, source, &PoolMember::source) != pool.members.end()) names.push_back(pool.name);
    }
    return names;
}

// The queues that hold mail of the domain: one for each pool that it names. The default pool's comes first, with mail or not.
std::vector<DomainId> queues_of(Engine& engine, const std::string& domain) {
    SharedState& shared = engine.shared();
    const DomainId first = shared.domains.intern(domain);
    std::mutex mutex;
    std::set<DomainId> others;
    visit_queues(engine, {}, [&](Shard&, const Backlog::DomainCounts& counts) {
        if (counts.domain == first || shared.domain_name(counts.domain) != domain) return;
        std::scoped_lock lock(mutex);
        others.insert(counts.domain);
    });
    std::vector<DomainId> queues{first};
    queues.insert(queues.end(), others.begin(), others.end());
    return queues;
}

template <class F>
void each_source(SharedState& shared, F&& visit) {
    for (size_t i = shared.sources.size() > 1 ? 1 : 0; i < shared.sources.size(); ++i) visit(i);
}

}  // namespace

Result<json> explain_json(Engine& engine, const std::string& domain) {
    SharedState& shared = engine.shared();
    const auto route = engine.route(domain);
    if (!route) return fail("the look-up of " + domain + " was not answered", ETIMEDOUT);
    json answer = {{"domain", domain}, {"engine", true}, {"sources", json::array()}, {"hosts", json::array()}};
    if (route->kind != MailRoute::Kind::hosts) answer["trouble"] = route->why;
    std::vector<std::string> hosts;
    for (const auto& host : route->hosts) hosts.push_back(host.name);
    answer["hosts"] = hosts;
    const std::string name = shared.shaping.site_of(domain, route->site);
    answer["site"] = name;
    Site* site = shared.sites.find(name);
    if (site && !site->route()) site = nullptr;  // about to be bound
    const auto view = site ? site->view(read_mono_clock()) : nullptr;
    each_source(shared, [&](size_t i) {
        const std::string source = i ? shared.sources[i].name : "";
        const EffectiveShaping shaping = view ? view->paths[i].shaping : shared.shaping.effective(domain, name, hosts, source);
        json lines = lines_of(shaping);
        json entry = {{"source", shared.sources[i].name}, {"pools", pools_of(shared, i)}, {"providers", provider_names(shaping)}};
        if (site) {
            add_use(shared, *site, i, lines);
            if (json binding = binding_of(shared, *site, i); !binding.is_null()) entry["binding"] = binding;
        }
        entry["limits"] = std::move(lines);
        answer["sources"].push_back(std::move(entry));
    });
    answer["connections"] = {{"in_use", shared.sockets.used()}, {"allowed", shared.sockets.limit()}};
    return answer;
}

json explain_files(const Config& config, const std::string& domain) {
    json answer = {{"domain", domain}, {"engine", false}, {"sources", json::array()}};
    std::vector<std::string> sources;
    for (const auto& source : config.sources) sources.push_back(source.name);
    if (sources.empty()) sources.emplace_back();
    for (const auto& source : sources) {
        const auto shaping = config.shaping.effective(domain, "", {}, source);
        answer["sources"].push_back({{"source", source.empty() ? "unspecified" : source},
                                     {"providers", provider_names(shaping)}, {"limits", lines_of(shaping)}});
    }
    return answer;
}

namespace {

// "max_message_rate, next in 1h2m3s", "connection_limit, 2 of 2 in use"; `of`: whose it is.
std::string binding_text(const json& binding, const std::string& of) {
    std::string text = binding["limit"].get<std::string>() + of;
    if (binding.contains("next_in_ms")) {
        const auto ms = binding["next_in_ms"].get<int64_t>();
        const int64_t told = ms < kMsPerSecond ? ms : (ms + kMsPerSecond - 1) / kMsPerSecond * kMsPerSecond;
        text += ", next in " + format_duration(told);
    }
    if (binding.contains("allowed"))
        text += fmt::format(", {} of {} in use", binding["in_use"].get<uint64_t>(), binding["allowed"].get<uint64_t>());
    return text;
}

}  // namespace

std::string explain_text(const json& answer) {
    std::string text = answer["domain"].get<std::string>() + "\n";
    if (answer["engine"].get<bool>()) {
        text += "  site       " + answer["site"].get<std::string>() + "\n";
        if (answer.contains("trouble")) text += "  trouble    " + answer["trouble"].get<std::string>() + "\n";
    } else {
        text += "  no engine answers: this is from the files alone, without DNS, what is set live, and use\n";
    }
    for (const auto& source : answer["sources"]) {
        text += "  source     " + source["source"].get<std::string>();
        if (source.contains("pools") && !source["pools"].empty())
            text += fmt::format(" (pools: {})", fmt::join(source["pools"].get<std::vector<std::string>>(), ", "));
        text += "\n";
        for (const auto& provider : source["providers"]) text += "  provider   " + provider.get<std::string>() + "\n";
        for (const auto& line : source["limits"]) {
            std::string value = line["value"].get<std::string>();
            if (line.contains("in_use")) value += fmt::format(" ({} in use)", line["in_use"].get<uint64_t>());
            text += fmt::format("    {:<34} {:<26} {}\n", line["key"].get<std::string>(), value, line["from"].get<std::string>());
        }
        if (source.contains("binding"))
            text += fmt::format("    binds now: {}\n", binding_text(source["binding"], ""));
    }
    return text;
}

// ---- why

namespace {

// Every suspension that holds mail of the queue; a campaign's or tenant's when some of its mail is held here.
void add_suspensions(Engine& engine, const std::string& domain, const std::string& site, const std::vector<Backlog::Flow>& held,
                     json& answer) {
    SharedState& shared = engine.shared();
    std::shared_ptr<const SiteView> view;
    if (Site* found = site.empty() ? nullptr : shared.sites.find(site); found && found->route())
        view = found->view(read_mono_clock());
    const auto concerns = [&](const Hold& hold) {
        switch (hold.scope) {
            case HoldScope::domain: return hold.name == domain;
            case HoldScope::site: return hold.name == site;
            case HoldScope::provider:
                return view && std::ranges::any_of(view->paths.front().shaping.providers,
                                                   [&](const ProviderShaping& provider) { return provider.name == hold.name; });
            case HoldScope::campaign:
                return std::ranges::any_of(held, [&](auto flow) { return shared.labels.name(flow.campaign) == hold.name; });
            case HoldScope::tenant:
                return std::ranges::any_of(held, [&](auto flow) { return shared.labels.name(flow.tenant) == hold.name; });
        }
        return false;
    };
    for (const Hold& hold : engine.control().holds())
        if (hold.suspended && concerns(hold)) answer["suspensions"].push_back(hold_json(hold));
}

// Of a queue: the domain's mail from one pool.
json why_queue(Engine& engine, const std::string& domain, DomainId id) {
    SharedState& shared = engine.shared();
    json answer = {{"domain", domain}, {"ready", 0}, {"deferred", 0}, {"suspended", 0}};
    const EgressPool* pool = shared.pools.find(shared.pool_name(id));
    if (const auto named = shared.pool_name(id); !named.empty()) answer["pool"] = named;
    std::mutex mutex;
    std::string site;
    int64_t last_s = 0;
    uint64_t connections = 0, connecting = 0;
    std::vector<Backlog::Flow> held;
    engine.on_each_shard([&](Shard& shard) {
        std::scoped_lock lock(mutex);
        if (const auto* reply = shard.last_reply(id); reply && reply->at_s > last_s) {
            last_s = reply->at_s;
            answer["last_reply"] = {{"at", reply->at_s}, {"code", reply->code}, {"enhanced", reply->enhanced},
                                    {"text", reply->text}, {"host", reply->host}, {"said", reply->said}};
        }
        const auto counts = shard.backlog().domain_counts(id);
        if (!counts) return;
        answer.update({{"ready", counts->ready}, {"deferred", counts->deferred}, {"suspended", counts->held}});
        if (counts->parked_until_s)
            answer.update({{"parked_until", shared.time_line.wall_s(counts->parked_until_s)}, {"why", counts->why}});
        if (const auto next = shard.backlog().next_due(id); next.due_s)
            answer.update({{"next_due", shared.time_line.wall_s(next.due_s)}, {"next_due_tried", next.tried}});
        if (counts->site) site = shared.sites.at(counts->site).name();
        held = shard.backlog().held_flows(id);
    });
    add_suspensions(engine, domain, site, held, answer);
    if (site.empty()) return answer;
    answer["site"] = site;
    engine.on_each_shard([&](Shard& shard) {
        std::scoped_lock lock(mutex);
        shard.dispatcher().for_each_worker([&](const SiteWorker& worker) {
            if (worker.site().name() != site || &worker.pool() != pool) return;
            connections += worker.connections();
            connecting += worker.connecting();
        });
    });
    answer["connections"] = connections;
    answer["connecting"] = connecting;
    if (Site* found = shared.sites.find(site); found && found->route() && pool)
        for (const PoolMember& member : pool->members) {
            json binding = binding_of(shared, *found, member.source);
            if (binding.is_null()) continue;
            binding["source"] = shared.sources[member.source].name;
            answer["binding"].push_back(std::move(binding));
        }
    return answer;
}

}  // namespace

json why_domain(Engine& engine, const std::string& domain) {
    const auto queues = queues_of(engine, domain);
    json answer = why_queue(engine, domain, queues.front());
    for (const DomainId id : std::span(queues).subspan(1)) answer["pools"].push_back(why_queue(engine, domain, id));
    return answer;
}

json why_campaign(Engine& engine, const std::string& campaign) {
    const Selection selection{HoldScope::campaign, campaign};
    json answer = {{"campaign", campaign}, {"domains", json::array()}};
    json queue = queue_json(engine, &selection, kDomainsOfACampaign);
    answer["sums"] = queue["sums"];
    answer["partly"] = queue["partly"];
    for (const auto& hold : queue["holds"]) answer[hold["suspended"].get<bool>() ? "suspension" : "cancel"] = hold;
    for (const auto& line : queue["domains"]) {
        const auto domain = line["domain"].get<std::string>();
        if (std::ranges::any_of(answer["domains"], [&](const json& each) { return each["domain"] == domain; })) continue;  // another pool's
        json why = why_domain(engine, domain);
        why["of_campaign"] = {{"ready", line["ready"]}, {"deferred", line["deferred"]}, {"suspended", line["suspended"]}};
        answer["domains"].push_back(std::move(why));
    }
    return answer;
}

json why_message(Engine& engine, MessageId message) {
    SharedState& shared = engine.shared();
    json answer = {{"id", fmt::format("{:016x}{:016x}", message.file, message.place)}, {"waiting", 0}, {"recipients", json::array()},
                   {"partly", false}, {"domains", json::array()}};
    struct Found {
        Backlog::Search search;
        uint64_t waiting = 0;
        std::vector<json> recipients;
        std::set<std::string> domains;
    };
    std::vector<Found> found(shared.shards, Found{.search = {.message = message}});  // each shard's own
    std::atomic<bool> more = true;
    while (more.exchange(false)) {
        engine.on_each_shard([&](Shard& shard) {
            Found& here = found[shard.number()];
            const bool goes_on = shard.backlog().search(here.search, [&](const Record& record, Backlog::Resting how) {
                if (++here.waiting > kRecipientsOfAMessage) return;
                json entry = {{"recipient", shard.recipient_address(record)}, {"state", kResting[static_cast<size_t>(how)]},
                              {"num_attempts", record.attempts}, {"possible_duplicate", record.possible_duplicate}};
                if (how == Backlog::Resting::deferred) entry["next_due"] = shared.time_line.wall_s(record.due_s);
                here.recipients.push_back(std::move(entry));
                here.domains.emplace(shared.domain_name(record.domain));
            });
            if (goes_on) more = true;
        });
    }
    uint64_t waiting = 0;
    std::set<std::string> domains;
    for (Found& here : found) {
        waiting += here.waiting;
        domains.merge(here.domains);
        if (here.search.partly) answer["partly"] = true;
        for (json& recipient : here.recipients)
            if (answer["recipients"].size() < kRecipientsOfAMessage) answer["recipients"].push_back(std::move(recipient));
    }
    answer["waiting"] = waiting;
    for (const auto& domain : domains)
        if (answer["domains"].size() < kDomainsOfAMessage) answer["domains"].push_back(why_domain(engine, domain));
    return answer;
}

namespace {

std::string suspension_text(const json& hold) {
    const auto& by = hold["suspended_by"];
    std::string text = fmt::format("suspended as {} {} by {}", hold["scope"].get<std::string>(), hold["name"].get<std::string>(),
                                   by["who"].get<std::string>());
    if (hold.contains("until")) text += " until " + local_time(hold["until"].get<int64_t>());
    if (const auto reason = by["reason"].get<std::string>(); !reason.empty()) text += ": " + reason;
    return text;
}

std::string queue_text(const json& answer) {
    std::string text = answer["domain"].get<std::string>();
    if (answer.contains("pool")) text += " from pool " + answer["pool"].get<std::string>();
    text += fmt::format(": {} ready, {} deferred, {} suspended\n", answer["ready"].get<uint64_t>(),
                        answer["deferred"].get<uint64_t>(), answer["suspended"].get<uint64_t>());
    if (answer.contains("site"))
        text += fmt::format("  site        {}, {}\n", answer["site"].get<std::string>(),
                            counted(answer["connections"].get<uint64_t>(), "connection"));
    if (answer.contains("suspensions"))
        for (const auto& hold : answer["suspensions"]) text += "  held        " + suspension_text(hold) + "\n";
    if (answer.contains("parked_until"))
        text += fmt::format("  parked      until {}: {}\n", local_time(answer["parked_until"].get<int64_t>()),
                            answer["why"].get<std::string>());
    if (answer.contains("next_due"))
        text += fmt::format("  {:<11} {}\n", answer.value("next_due_tried", true) ? "next retry" : "not before",
                            local_time(answer["next_due"].get<int64_t>()));
    if (answer.contains("binding"))
        for (const auto& binding : answer["binding"])
            text += fmt::format("  binds       {}\n",
                                binding_text(binding, " of source " + binding["source"].get<std::string>()));
    if (answer.contains("last_reply")) {
        const auto& reply = answer["last_reply"];
        const auto host = reply["host"].get<std::string>(), enhanced = reply["enhanced"].get<std::string>();
        text += fmt::format("  {:<11} {}{}{} {} ({}{}{})\n", reply["said"].get<bool>() ? "refused" : "failed", reply["code"].get<int>(),
                            enhanced.empty() ? "" : " ", enhanced, reply["text"].get<std::string>(), host, host.empty() ? "" : ", ",
                            local_time(reply["at"].get<int64_t>()));
    }
    return text;
}

std::string domain_text(const json& answer) {
    std::string text = queue_text(answer);
    if (answer.contains("pools"))
        for (const auto& each : answer["pools"]) text += queue_text(each);
    return text;
}

std::string message_text(const json& answer) {
    const auto waiting = answer["waiting"].get<uint64_t>();
    std::string text = fmt::format("message {}: {} {}\n", answer["id"].get<std::string>(), counted(waiting, "recipient"),
                                   waiting == 1 ? "waits" : "wait");
    if (answer["waiting"] == 0)
        text += "  none is queued: what is left of it is about to be sent or being sent, or all of it is final: look for the id "
                "in the delivery log\n";
    if (answer["partly"].get<bool>()) text += "  the queue of a domain was too long to be looked through: there may be more\n";
    for (const auto& each : answer["recipients"]) {
        text += fmt::format("  {}: {}, {} made", each["recipient"].get<std::string>(), each["state"].get<std::string>(),
                            counted(each["num_attempts"].get<uint64_t>(), "attempt"));
        if (each.contains("next_due"))
            text += (each["num_attempts"] == 0 ? ", not before " : ", next at ") + local_time(each["next_due"].get<int64_t>());
        text += each["possible_duplicate"].get<bool>() ? ", an earlier one may have arrived\n" : "\n";
    }
    for (const auto& domain : answer["domains"]) text += domain_text(domain);
    return text;
}

}  // namespace

std::string why_text(const json& answer) {
    if (answer.contains("id")) return message_text(answer);
    if (!answer.contains("campaign")) return domain_text(answer);
    const auto& sums = answer["sums"];
    std::string text = fmt::format("campaign {}: {} ready, {}{} deferred, {} suspended, in {}\n",
                                   answer["campaign"].get<std::string>(), sums["ready"].get<uint64_t>(),
                                   answer["partly"].get<bool>() ? "at least " : "", sums["deferred"].get<uint64_t>(),
                                   sums["suspended"].get<uint64_t>(), counted(sums["domains"].get<uint64_t>(), "domain"));
    if (sums["domains"] == 0)
        text += fmt::format("  none is queued: what is left of it is being sent, or among the next {} of its domain, which count for the "
                            "domain alone (`why DOMAIN` tells what they wait for), or all of it is final, or nothing had this name: "
                            "look for it in the delivery log\n", ReadyWindow::kCells);
    if (answer.contains("suspension")) text += "  held        " + suspension_text(answer["suspension"]) + "\n";
    for (const auto& domain : answer["domains"]) text += domain_text(domain);
    return text;
}

}  // namespace postrider
