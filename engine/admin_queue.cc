#include "engine/admin_queue.h"

#include <algorithm>
#include <atomic>
#include <mutex>

namespace postrider {
namespace {

using nlohmann::json;

constexpr size_t kDomainsInSlice = 2'000;  // of a shard's turn

struct DomainLine {
    Backlog::DomainCounts counts;
    uint64_t mail() const { return counts.ready + counts.deferred + counts.held; }
};

// The longest queues of all shards, and the sum of the rest.
class Longest {
  public:
    explicit Longest(size_t most) : most_(most) {}
    void add(const Backlog::DomainCounts& counts) {
        std::scoped_lock lock(mutex_);
        ++domains_;
        ready_ += counts.ready;
        deferred_ += counts.deferred;
        held_ += counts.held;
        lines_.push_back({counts});
        std::ranges::push_heap(lines_, std::greater<>(), &DomainLine::mail);
        if (lines_.size() <= most_) return;
        std::ranges::pop_heap(lines_, std::greater<>(), &DomainLine::mail);
        lines_.pop_back();
    }
    std::vector<DomainLine>& sorted() {
        std::ranges::sort(lines_, std::greater<>(), &DomainLine::mail);
        return lines_;
    }
    json sums() const {
        return {{"domains", domains_}, {"ready", ready_}, {"deferred", deferred_}, {"suspended", held_}};
    }

  private:
    const size_t most_;
    std::mutex mutex_;
    std::vector<DomainLine> lines_;
    uint64_t domains_ = 0, ready_ = 0, deferred_ = 0, held_ = 0;
};

// Whether the domain is among what is asked for; campaigns and tenants are counted by the backlog itself.
bool selected(Shard& shard, const Selection* selection, const HoldTable* of, const Backlog::DomainCounts& counts) {
    if (!selection) return true;
    switch (selection->scope) {
        case HoldScope::domain: return of->of(counts.domain, 0, 0).suspended;
        case HoldScope::site:
        case HoldScope::provider: return counts.site && shard.judge_site(*of, counts.site).suspended;
        default: return true;
    }
}

json said_json(const Said& said) { return {{"at", said.at_s}, {"who", said.who}, {"reason", said.reason}}; }

}  // namespace

json hold_json(const Hold& hold) {
    json entry = {{"scope", name_of(hold.scope)}, {"name", hold.name}, {"suspended", hold.suspended}};
    if (hold.suspended) {
        entry["suspended_by"] = said_json(hold.suspended_by);
        if (hold.until_s) entry["until"] = hold.until_s;
    }
    if (hold.cancelled_to_s) entry["cancelled_by"] = said_json(hold.cancelled_by);
    return entry;
}

void visit_queues(Engine& engine, const Backlog::Flow& of, const std::function<void(Shard&, const Backlog::DomainCounts&)>& visit) {
    std::vector<size_t> cursors(engine.shards(), 0);
    std::atomic<bool> more = true;
    while (more.exchange(false)) {
        engine.on_each_shard([&](Shard& shard) {
            if (shard.backlog().visit_domains(cursors[shard.number()], kDomainsInSlice, of,
                                              [&](const Backlog::DomainCounts& counts) { visit(shard, counts); }))
                more = true;
        });
    }
}

namespace {

// Of each shard, what of the flow is deferred.
std::vector<Backlog::DeferredCount> count_deferred(Engine& engine, const Backlog::Flow& of) {
    std::vector<Backlog::DeferredCount> counts(engine.shards(), Backlog::DeferredCount{.of = of});
    std::atomic<bool> more = of != Backlog::Flow{};
    while (more.exchange(false)) {
        engine.on_each_shard([&](Shard& shard) {
            if (shard.backlog().count_deferred(counts[shard.number()])) more = true;
        });
    }
    return counts;
}

}  // namespace

json queue_json(Engine& engine, const Selection* selection, size_t limit) {
    SharedState& shared = engine.shared();
    std::shared_ptr<const HoldTable> of;
    Backlog::Flow flow;
    if (selection) {
        Hold chosen{.scope = selection->scope, .name = selection->name, .suspended = true};
        of = std::make_shared<HoldTable>(std::vector{chosen}, shared.domains, shared.labels);
        if (selection->scope == HoldScope::campaign) flow.campaign = shared.labels.intern(selection->name);
        if (selection->scope == HoldScope::tenant) flow.tenant = shared.labels.intern(selection->name);
    }
    Longest longest(limit);
    auto deferred = count_deferred(engine, flow);
    visit_queues(engine, flow, [&](Shard& shard, Backlog::DomainCounts counts) {
        if (flow != Backlog::Flow{}) counts.deferred = deferred[shard.number()].counted[counts.domain];
        const bool empty = counts.ready + counts.deferred + counts.held == 0;
        if (!empty && selected(shard, selection, of.get(), counts)) longest.add(counts);
    });
    json answer = {{"holds", json::array()}, {"domains", json::array()}, {"sums", longest.sums()},
                   {"partly", std::ranges::any_of(deferred, &Backlog::DeferredCount::partly)}};
    for (const Hold& hold : engine.control().holds())
        if (!selection || (hold.scope == selection->scope && hold.name == selection->name))
            answer["holds"].push_back(hold_json(hold));
    for (const DomainLine& line : longest.sorted()) {
        const auto& counts = line.counts;
        json entry = {{"domain", shared.domain_name(counts.domain)}, {"ready", counts.ready},
                      {"deferred", counts.deferred}, {"suspended", counts.held}};
        if (const auto pool = shared.pool_name(counts.domain); !pool.empty()) entry["pool"] = pool;
        if (counts.site) entry["site"] = shared.sites.at(counts.site).name();
        if (counts.parked_until_s) entry.update({{"parked_until", shared.time_line.wall_s(counts.parked_until_s)}, {"why", counts.why}});
        answer["domains"].push_back(std::move(entry));
    }
    return answer;
}

}  // namespace postrider
