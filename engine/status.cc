#include "engine/status.h"

#include "engine/admin_queue.h"
#include "engine/command_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace postrider {
namespace {

using nlohmann::json;

constexpr size_t kSitesTold = 20;

struct SiteLine {
    uint64_t connections = 0, connecting = 0, opened = 0;
};

}  // namespace

json status_json(Engine& engine, int64_t started_s) {
    std::mutex mutex;
    std::map<std::string, SiteLine> sites;
    json parked = json::array();
    engine.on_each_shard([&](Shard& shard) {
        std::scoped_lock lock(mutex);
        shard.dispatcher().for_each_worker([&](const SiteWorker& worker) {
            SiteLine& line = sites[worker.site().name()];
            line.connections += worker.connections();
            line.connecting += worker.connecting();
            line.opened += worker.opened();
        });
        shard.backlog().for_each_domain([&](const Backlog::DomainCounts& domain) {
            if (!domain.parked_until_s || parked.size() >= kSitesTold) return;
            parked.push_back({{"domain", shard.domain_name(domain.domain)}, {"until", shard.shared().time_line.wall_s(domain.parked_until_s)},
                              {"ready", domain.ready}, {"why", domain.why}});
            if (const auto pool = shard.pool_name(domain.domain); !pool.empty()) parked.back()["pool"] = pool;
        });
    });
    const Totals totals = engine.totals();
    json status;
    status["pid"] = getpid();
    status["started"] = started_s;
    status["shards"] = engine.shards();
    status["recipients"] = {{"accepted", totals.accepted}, {"delivered", totals.delivered},
                            {"bounced", totals.bounced},   {"expired", totals.expired},
                            {"cancelled", totals.cancelled}, {"pending", totals.pending()},
                            {"waiting", totals.waiting}};
    status["attempts"] = {{"deferred", totals.deferred_attempts}, {"possible_duplicates", totals.possible_duplicates}};
    status["spool"] = {{"files", totals.files}, {"messages", totals.messages}, {"refused", totals.refused},
                       {"refused_recipients", totals.refused_recipients},
                       {"intake_idle", totals.intake_idle}, {"left_behind", totals.left_behind}};
    status["connections"] = {{"open", totals.connections}, {"opened", totals.connections_opened},
                             {"tls", totals.connections_tls}};
    const Ledger ledger = engine.ledger();
    status["ledger"] = {{"checks", ledger.checks}, {"breaches", ledger.breaches}, {"accepted", ledger.accepted},
                        {"final", ledger.finals},  {"pending", ledger.counted},   {"missing", ledger.missing()}};
    status["short_of_space"] = engine.shared().short_of_space.load() > 0;
    const MemoryUse memory = engine.shared().memory();
    status["memory"] = {{"limit", engine.shared().memory_limit.load()}, {"records", memory.records}, {"files", memory.files},
                        {"names", memory.names}, {"connections", memory.connections}};
    status["dns_queries"] = totals.dns_queries;
    std::vector<std::pair<std::string, SiteLine>> busiest(sites.begin(), sites.end());
    std::ranges::sort(busiest, [](const auto& a, const auto& b) { return a.second.connections > b.second.connections; });
    json told = json::array();
    for (const auto& [name, line] : busiest) {
        if (told.size() == kSitesTold) break;
        told.push_back({{"site", name}, {"connections", line.connections}, {"connecting", line.connecting},
                        {"opened", line.opened}});
    }
    status["sites"] = told;
    status["holds"] = json::array();
    for (const Hold& hold : engine.control().holds()) status["holds"].push_back(hold_json(hold));
    status["parked"] = parked;
    return status;
}

std::string status_text(const json& status) {
    const auto count = [&](const char* part, const char* what) { return status[part][what].get<uint64_t>(); };
    std::string text = fmt::format("postrider, process {}, {}\n", status["pid"].get<int>(), counted(status["shards"].get<uint64_t>(), "shard"));
    text += fmt::format("recipients   {} accepted, {} delivered, {} bounced, {} expired, {} cancelled, {} pending ({} for a time)\n",
                        count("recipients", "accepted"), count("recipients", "delivered"), count("recipients", "bounced"),
                        count("recipients", "expired"), count("recipients", "cancelled"), count("recipients", "pending"),
                        count("recipients", "waiting") == 1 ? "1 waits" : fmt::format("{} wait", count("recipients", "waiting")));
    text += fmt::format("attempts     {} deferred, {}\n", count("attempts", "deferred"),
                        counted(count("attempts", "possible_duplicates"), "possible duplicate"));
    text += fmt::format("spool        {}, {} taken in, {} refused; {} refused\n", counted(count("spool", "files"), "file"),
                        counted(count("spool", "messages"), "message"), count("spool", "refused"),
                        counted(count("spool", "refused_recipients"), "address"));
    text += fmt::format("connections  {} open, {} opened, {} of them with TLS\n", count("connections", "open"),
                        count("connections", "opened"), count("connections", "tls"));
    if (status["spool"]["left_behind"].get<bool>())
        text += "spool        something in new/ cannot be taken in; the engine's messages tell what\n";
    if (status["short_of_space"].get<bool>()) text += "disk         no space for journal or log: nothing new is taken in\n";
    if (const auto breaches = status["ledger"]["breaches"].get<uint64_t>(); breaches > 0)
        text += fmt::format("LEDGER       BREACH in {} of {}: {} missing\n", breaches,
                            counted(status["ledger"]["checks"].get<uint64_t>(), "check"), status["ledger"]["missing"].get<int64_t>());
    for (const auto& site : status["sites"])
        text += fmt::format("site         {}: {}, {} opened\n", site["site"].get<std::string>(),
                            counted(site["connections"].get<uint64_t>(), "connection"), site["opened"].get<uint64_t>());
    for (const auto& domain : status["parked"])
        text += fmt::format("parked       {}: {} ready, {}\n", domain["domain"].get<std::string>(),
                            domain["ready"].get<uint64_t>(), domain["why"].get<std::string>());
    return text;
}

}  // namespace postrider
