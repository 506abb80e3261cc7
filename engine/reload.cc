#include "engine/reload.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace postrider {
namespace {

bool same_sources(const Config& a, const Config& b) {
    return std::ranges::equal(a.sources, b.sources, [](const SourceConfig& x, const SourceConfig& y) {
        return x.name == y.name && x.address == y.address && x.hostname == y.hostname;
    });
}

bool same_pools(const Config& a, const Config& b) {
    return std::ranges::equal(a.pools, b.pools, [](const PoolConfig& x, const PoolConfig& y) {
        return x.name == y.name && std::ranges::equal(x.sources, y.sources, [](const auto& m, const auto& n) {
            return m.name == n.name && m.weight == n.weight;
        });
    });
}

// What differs and needs a restart.
std::vector<std::string> for_a_restart(const Config& now, const Config& wanted) {
    std::vector<std::string> names;
    const auto compare = [&](const char* name, const auto& a, const auto& b) {
        if (a != b) names.emplace_back(name);
    };
    compare("[server] hostname", now.server.hostname, wanted.server.hostname);
    compare("[server] spool", now.server.spool, wanted.server.spool);
    compare("[server] log", now.server.log, wanted.server.log);
    compare("[server] shards", now.server.shards, wanted.server.shards);
    compare("[server] admin", now.server.admin, wanted.server.admin);
    compare("[server] shutdown_timeout", now.server.shutdown_timeout_ms, wanted.server.shutdown_timeout_ms);
    compare("[dns] servers", now.dns.servers, wanted.dns.servers);
    compare("[smtp] port", now.smtp.port, wanted.smtp.port);
    compare("[journal] commit", now.journal.commit_ms, wanted.journal.commit_ms);
    compare("[content] long_lines", now.content.long_lines, wanted.content.long_lines);
    if (!same_sources(now, wanted)) names.emplace_back("[[source]]");
    if (!same_pools(now, wanted)) names.emplace_back("[[pool]]");
    return names;
}

}  // namespace

Reloaded reload(Engine& engine) {
    Reloaded result;
    const Config& now = engine.config();
    auto loaded = load_config(now.file);
    for (const auto& problem : loaded.problems) result.told += problem.to_string() + "\n";
    if (!loaded.ok()) {
        result.told += now.file + ": has errors, the configuration in force stays\n";
        return result;
    }
    Config& wanted = loaded.config;
    const auto restart = for_a_restart(now, wanted);
    if (!restart.empty())
        result.told += fmt::format("{}: needs a restart to change: {}\n", now.file, fmt::join(restart, ", "));
    SharedState& shared = engine.shared();
    RetrySchedule schedule{wanted.retry.retry_after_ms, wanted.retry.max_age_ms / kMsPerSecond};
    shared.memory_limit = wanted.limits.memory;
    if (auto fit = raise_descriptor_limit(wanted.limits.connections, shared.shards)) shared.sockets.set(*fit);
    engine.on_each_shard([&](Shard& shard) { shard.reconfigure(schedule, wanted.smtp.prohibited_hosts); });
    shared.shaping.replace_rules(std::move(wanted.shaping));
    engine.control().judge_again();  // at once: DNS may take its time, and what came to a suspended provider must not be sent
    (void)engine.learn_sites(shared.shaping.domains_without_site());
    result.told += now.file + ": read again; shaping, [retry], [limits] and prohibited_hosts are in force\n";
    result.done = true;
    return result;
}

}  // namespace postrider
