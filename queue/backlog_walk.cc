// The walk of the backlog after a change of what is held, or of the schedule, in slices of the shard's turn; flushes ride on it.
//
//   domains -> [buckets of deferred records] -> [what is held, by age] -> end
//
// A flow that is suspended moves aside whole, and back whole. Only records that a cancel since the last walk may concern
// become suspects: they leave their domain and are judged one by one as if they came in anew. So a suspension of millions
// costs a step for each domain, a cancel a step for each record of what is cancelled, and both none of it at once.
#include <algorithm>
#include <ranges>

#include "queue/backlog.h"

namespace postrider {
namespace {

constexpr uint32_t kJudgedAtOnce = 512;
constexpr size_t kDomainsAtOnce = 64;  // each may have a window to be emptied
constexpr size_t kChainsAtOnce = 1'024;

// What is held expires late by a sixty-fourth of max_age at most.
int64_t ages_every_ms(const RetrySchedule& schedule) {
    return std::clamp<int64_t>(schedule.max_age_s * 1000 / 64, 1'000, 3'600'000);
}

}  // namespace

HoldTable::Verdict Backlog::judge(const HoldTable& holds, const Domain& home, const Flow& flow) const {
    auto verdict = holds.of(home.id, flow.campaign, flow.tenant);
    if (home.site && holds.speaks_of_sites()) verdict.join(owner_.judge_site(holds, home.site));
    return verdict;
}

// A record that is about to be ready. True: it is held, or dies.
bool Backlog::set_aside(Domain& home, RecordId id) {
    const Record& record = arena_[id];
    const Flow flow{record.campaign, record.tenant};
    const auto verdict = judge(*holds_, home, flow);
    if (!verdict.any()) return false;
    if (verdict.dies(files_[record.file].created_s)) {
        owner_.cancel(id);
        return true;
    }
    if (!verdict.suspended) return false;
    if (expired(record)) {
        owner_.expire(id);
        return true;
    }
    arena_.append(held_[{home.id, record.priority, flow}], id);
    ++home.held;
    ++held_count_;
    return true;
}

void Backlog::set_holds(std::shared_ptr<const HoldTable> holds) {
    if (!holds && !holds_) return;
    holds_ = std::move(holds);
    ++holds_version_;
    if (held_count_ == 0) next_ages_ms_ = reactor_.now_ms() + ages_every_ms(schedule_);
    walk_.judging_to_s = holds_ ? holds_->cancelled_to_s() : 0;
    walk_.deferred |= walk_.judging_to_s > judged_to_s_;
    begin_walk();
}

void Backlog::flush(std::shared_ptr<const HoldTable> selection) {
    walk_.flushes.push_back(std::move(selection));
    walk_.deferred = true;
    begin_walk();
}

// What is ready is watched by another age, what is deferred goes to other buckets, what is held is judged by its age.
void Backlog::schedule_changed() {
    walk_.deferred = walk_.ages = true;
    begin_walk();
}

// From the beginning, also when one is under way: what it has done already costs little to find done.
void Backlog::begin_walk() {
    walk_.stage = Walk::Stage::domains;
    walk_.cursor = 0;
    walk_.hash_size = domains_.bucket_count();
    walk_.due_cursor_s = INT64_MIN;
    walk_.held_cursor = {};
}

bool Backlog::walk() {
    if (judge_suspects()) return true;
    switch (walk_.stage) {
        case Walk::Stage::idle: return false;
        case Walk::Stage::domains: walk_domains(); break;
        case Walk::Stage::buckets: walk_buckets(); break;
        case Walk::Stage::held: walk_held(); break;
    }
    return true;
}

void Backlog::walk_domains() {
    if (domains_.bucket_count() != walk_.hash_size) return begin_walk();
    std::vector<DomainId> some;  // filling a window makes no domain, but ends none either: ids are safer than iterators
    for (size_t looked = 0; walk_.cursor < walk_.hash_size && looked < kDomainsAtOnce; ++walk_.cursor, ++looked)
        for (auto entry = domains_.begin(walk_.cursor); entry != domains_.end(walk_.cursor); ++entry, ++looked)
            some.push_back(entry->first);
    for (const DomainId id : some) {
        Domain& home = domain(id);
        if (home.oldest_s != INT64_MAX && home.age_due_s != home.oldest_s + schedule_.max_age_s) watch_age(home, home.oldest_s);
        if (!walk_.flushes.empty()) flush_park(home);
        if (home.version != holds_version_) fill(home);
    }
    if (walk_.cursor < walk_.hash_size) return;
    walk_.stage = walk_.deferred ? Walk::Stage::buckets : Walk::Stage::held;
}

// The records of the buckets become suspects; they are judged when all buckets are done, and go back to buckets behind the
// cursor.
void Backlog::walk_buckets() {
    auto bucket = buckets_.upper_bound(walk_.due_cursor_s);
    for (size_t i = 0; i < kChainsAtOnce && bucket != buckets_.end(); ++i) {
        walk_.due_cursor_s = bucket->first;
        arena_.append(deferred_suspects_, bucket->second);
        bucket = buckets_.erase(bucket);
    }
    if (bucket == buckets_.end()) walk_.stage = Walk::Stage::held;
}

// By their age, what is held; then the walk is done.
void Backlog::walk_held() {
    auto entry = walk_.ages ? held_.upper_bound(walk_.held_cursor) : held_.end();
    for (size_t i = 0; i < kChainsAtOnce && entry != held_.end(); ++i) {
        walk_.held_cursor = entry->first;
        const RecordChain chain = entry->second;
        Domain& home = domain(entry->first.domain);
        home.held -= chain.count;
        held_count_ -= chain.count;
        arena_.append(suspects_, chain);
        entry = held_.erase(entry);
    }
    if (entry != held_.end()) return;
    judged_to_s_ = std::max(judged_to_s_, walk_.judging_to_s);
    if (walk_.ages) next_ages_ms_ = reactor_.now_ms() + ages_every_ms(schedule_);
    // Flushes are kept until the deferred suspects are judged.
    if (deferred_suspects_.empty()) walk_.flushes.clear();
    walk_.stage = Walk::Stage::idle;
    walk_.ages = walk_.deferred = false;
    arm();
}

// A slice of the suspects; false when there are none to be judged now.
bool Backlog::judge_suspects() {
    if (!suspects_.empty()) {
        RecordChain some;
        while (!suspects_.empty() && some.count < kJudgedAtOnce) arena_.append(some, arena_.pop(suspects_));
        accept(some);
        return true;
    }
    if (deferred_suspects_.empty() || walk_.stage == Walk::Stage::buckets) return false;
    RecordChain some;
    while (!deferred_suspects_.empty() && some.count < kJudgedAtOnce) {
        const RecordId id = arena_.pop(deferred_suspects_);
        Record& record = arena_[id];
        Domain& home = domain(record.domain);
        --home.deferred;
        --deferred_;
        if (record.attempts > 0 && flushed(home, {record.campaign, record.tenant})) record.due_s = 0;
        arena_.append(some, id);
    }
    accept(some);
    if (deferred_suspects_.empty() && walk_.stage == Walk::Stage::idle) walk_.flushes.clear();
    return true;
}

// By the holds as they are now. `all`: also by cancels that its records were judged by before, because its site is new.
void Backlog::look(Domain& home, bool all) {
    home.version = holds_version_;
    take_back(home);
    for (auto priority : {Priority::high, Priority::normal}) look_at_flows(home, priority, all);
    if (home.held > 0) look_at_held(home, all);
}

void Backlog::look_at_flows(Domain& home, Priority priority, bool all) {
    auto& flows = home.of(priority).flows;
    for (auto flow = flows.begin(); holds_ && flow != flows.end();) {
        const auto verdict = judge(*holds_, home, flow->first);
        const bool suspect = verdict.dies_to_s > (all ? 0 : judged_to_s_);
        if (!suspect && !verdict.suspended) {
            ++flow;
            continue;
        }
        const RecordChain chain = flow->second;
        if (suspect) {
            arena_.append(suspects_, chain);
        } else {
            arena_.append(held_[{home.id, priority, flow->first}], chain);
            home.held += chain.count;
            held_count_ += chain.count;
        }
        home.of(priority).ready -= chain.count;
        ready_ -= chain.count;
        flow = flows.erase(flow);
    }
}

void Backlog::look_at_held(Domain& home, bool all) {
    auto entry = held_.lower_bound({home.id, Priority::normal, {}});
    while (entry != held_.end() && entry->first.domain == home.id) {
        const auto verdict = holds_ ? judge(*holds_, home, entry->first.flow) : HoldTable::Verdict{};
        const bool suspect = verdict.dies_to_s > (all ? 0 : judged_to_s_);
        if (!suspect && verdict.suspended) {
            ++entry;
            continue;
        }
        const RecordChain chain = entry->second;
        home.held -= chain.count;
        held_count_ -= chain.count;
        if (suspect) {
            arena_.append(suspects_, chain);
        } else {
            PriorityClass& klass = home.of(entry->first.priority);
            arena_.append(klass.flows[entry->first.flow], chain);
            klass.ready += chain.count;
            ready_ += chain.count;
        }
        entry = held_.erase(entry);
    }
}

// What is in the windows comes back to the front of its flows.
void Backlog::take_back(Domain& home) {
    for (const RecordId id : pull_windows(home)) add_ready(home, id, true);
}

bool Backlog::bound(DomainId id, SiteId site) {
    const auto found = domains_.find(id);
    if (found == domains_.end()) return true;
    Domain& home = *found->second;
    if (std::exchange(home.site, site) == site || !holds_ || !holds_->speaks_of_sites()) return true;
    look(home, true);
    fill(home);
    return home.in_windows() > 0;
}

// ---- flushes

bool Backlog::flushed(const Domain& home, const Flow& flow) const {
    return std::ranges::any_of(walk_.flushes, [&](const auto& selection) {
        return !selection || judge(*selection, home, flow).suspended;
    });
}

void Backlog::flush_park(Domain& home) {
    if (!home.parked_until_s) return;
    take_back(home);
    bool wanted = flushed(home, {});
    for (const auto& klass : home.classes)
        for (const auto& [flow, chain] : klass.flows) wanted |= flushed(home, flow);
    if (!wanted) return;
    if (home.site) owner_.try_now(home.site);  // before its window comes there again
    unpark(home.id);
}

}  // namespace postrider
