#include "queue/backlog.h"

#include <algorithm>

namespace postrider {
namespace {

// Deficit round robin with messages of like cost: so many records of a campaign before the next one's turn.
constexpr uint32_t kQuantum = 16;
// Due records moved in one go: a storm of them must not stall the connections of the shard.
constexpr uint32_t kDueAtOnce = 10'000;
constexpr DurationMs kSweepEveryMs = 1'000;
constexpr uint32_t kLookedAtForDue = 10'000;

}  // namespace

Backlog::Backlog(Reactor& reactor, RecordArena& arena, FileTable& file_table, const RetrySchedule& schedule,
                 BacklogOwner& owner)
    : reactor_(reactor), arena_(arena), files_(file_table), schedule_(schedule), owner_(owner) {}

Backlog::~Backlog() = default;

Backlog::Domain& Backlog::domain(DomainId id) {
    auto& entry = domains_[id];
    if (!entry) {
        entry = std::make_unique<Domain>(id);
        entry->version = holds_version_;
    }
    return *entry;
}

bool Backlog::expired(const Record& record) const {
    return schedule_.expired(files_[record.file].created_s, now_s());
}

void Backlog::accept(RecordChain chain) {
    Domain* touched = nullptr;
    while (!chain.empty()) {
        const RecordId id = arena_.pop(chain);
        const Record& record = arena_[id];
        Domain& home = touched && touched->id == record.domain ? *touched : domain(record.domain);
        if (touched && touched != &home) fill(*touched);
        touched = &home;
        if (record.due_s > now_s())
            add_deferred(home, id);
        else
            add_ready(home, id, false);
    }
    if (touched) fill(*touched);
    arm();
}

void Backlog::put_back(RecordId id) {
    Domain& home = domain(arena_[id].domain);
    add_ready(home, id, true);
    fill(home);
}

void Backlog::add_ready(Domain& home, RecordId id, bool front) {
    if (holds_ && set_aside(home, id)) return;
    const Record& record = arena_[id];
    RecordChain& chain = flow_of(home, record);
    if (front)
        arena_.prepend(chain, id);
    else
        arena_.append(chain, id);
    ++home.of(record.priority).ready;
    ++ready_;
    if (const int64_t created_s = files_[record.file].created_s; created_s < home.oldest_s) watch_age(home, created_s);
}

// The usual flow has one record, and goes into the window at once: its node is used again for the next one.
RecordChain& Backlog::flow_of(Domain& home, const Record& record) {
    Flows& flows = home.of(record.priority).flows;
    const Flow key{record.campaign, record.tenant};
    if (!spare_flow_ || flows.contains(key)) return flows[key];
    spare_flow_.key() = key;
    spare_flow_.mapped() = {};
    return flows.insert(std::move(spare_flow_)).position->second;
}

void Backlog::watch_age(Domain& home, int64_t created_s) {
    if (home.oldest_s != INT64_MAX) ages_.erase({home.age_due_s, home.id});
    home.oldest_s = created_s;
    if (created_s == INT64_MAX) return;
    home.age_due_s = created_s + schedule_.max_age_s;
    ages_.emplace(home.age_due_s, home.id);
}

void Backlog::add_deferred(Domain& home, RecordId id) {
    const Record& record = arena_[id];
    if (holds_ && judge(*holds_, home, {record.campaign, record.tenant}).dies(files_[record.file].created_s))
        return owner_.cancel(id);
    // A record does not rest past its age: it comes due then, to expire.
    int64_t last_s = files_[record.file].created_s + schedule_.max_age_s;
    // Nor longer than the schedule has any wait: who wrote the time down may have had another clock (FAULTS 96).
    if (record.attempts > 0) last_s = std::min(last_s, now_s() + schedule_.longest_wait_s());
    arena_.append(buckets_[std::min<int64_t>(record.due_s, std::max(last_s, now_s() + 1))], id);
    ++home.deferred;
    ++deferred_;
}

RecordId Backlog::next_ready(PriorityClass& klass) {
    auto flow = klass.flows.lower_bound(klass.turn);
    if (klass.left == 0 || flow == klass.flows.end() || flow->first != klass.turn) {
        if (klass.left == 0) flow = klass.flows.upper_bound(klass.turn);
        if (flow == klass.flows.end()) flow = klass.flows.begin();
        klass.turn = flow->first;
        klass.left = kQuantum;
    }
    const RecordId id = arena_.pop(flow->second);
    --klass.left;
    if (flow->second.empty()) {
        spare_flow_ = klass.flows.extract(flow);
        klass.left = 0;
    }
    --klass.ready;
    --ready_;
    return id;
}

void Backlog::refill(DomainId id) {
    auto found = domains_.find(id);
    if (found != domains_.end()) fill(*found->second);
}

void Backlog::fill(Domain& home) {
    if (home.version != holds_version_) look(home, false);
    if (home.parked_until_s) return;
    for (auto priority : {Priority::high, Priority::normal}) fill_window(home, priority);
    // Also when its mail has expired: nothing would come back for it.
    if (home.in_windows() == 0 && home.deferred == 0) make_idle(home);
}

void Backlog::fill_window(Domain& home, Priority priority) {
    PriorityClass& klass = home.of(priority);
    if (klass.ready > 0 && !klass.window) klass.window = std::make_unique<ReadyWindow>(home.id, priority);
    if (!klass.window) return;
    ReadyWindow& window = *klass.window;
    window.refilling();
    while (klass.ready > 0 && window.size() < ReadyWindow::kCells) {
        const RecordId id = next_ready(klass);
        if (!window.push(id, ReadyWindow::message_tag(arena_[id]))) {
            add_ready(home, id, true);  // a consumer has claimed the cell but not yet freed it
            break;
        }
    }
    window.set_behind(klass.ready);
    if (window.empty())
        make_idle(home);
    else if (window.announce())
        owner_.announce(window);
}

uint64_t Backlog::Domain::in_windows() const {
    uint64_t sum = 0;
    for (const auto& klass : classes)
        if (klass.window) sum += klass.window->size();
    return sum;
}

bool Backlog::Domain::windows_referenced() const {
    return std::ranges::any_of(classes, [](const auto& klass) { return klass.window && klass.window->referenced(); });
}

// What is in the windows, the first last; consumers may pull at the same time, and go on with the rest.
std::vector<RecordId> Backlog::pull_windows(Domain& home) {
    std::vector<RecordId> pulled;
    for (auto& klass : home.classes)
        while (const RecordId id = klass.window ? klass.window->pull() : 0) pulled.push_back(id);
    std::ranges::reverse(pulled);
    return pulled;
}

void Backlog::make_idle(Domain& home) {
    if (home.sweeping) return;
    home.sweeping = true;
    idle_.push_back(home.id);
    arm();
}

void Backlog::sweep() {
    // A consumer may empty a window between two looks at it: what becomes idle meanwhile is for the next sweep.
    for (const DomainId id : std::exchange(idle_, {})) {
        auto found = domains_.find(id);
        Domain& home = *found->second;
        home.sweeping = false;
        for (auto& klass : home.classes)
            if (klass.window && klass.ready == 0 && klass.window->empty() && !klass.window->referenced()) klass.window.reset();
        if (home.ready() > 0 || home.in_windows() > 0) {
            fill(home);
        } else if (home.windows_referenced()) {
            make_idle(home);
        } else if (home.deferred == 0 && home.held == 0 && !home.parked_until_s) {
            watch_age(home, INT64_MAX);
            domains_.erase(found);
        }
    }
}

void Backlog::park(DomainId id, int64_t until_s, std::string why) {
    Domain& home = domain(id);
    park_ends_.erase({home.parked_until_s, id});
    home.parked_until_s = std::max(until_s, now_s() + 1);
    home.why = std::move(why);
    parked_.insert(id);
    park_ends_.emplace(home.parked_until_s, id);
    arm();
}

void Backlog::unpark(DomainId id) {
    auto found = domains_.find(id);
    if (found == domains_.end() || !found->second->parked_until_s) return;
    Domain& home = *found->second;
    park_ends_.erase({home.parked_until_s, id});
    home.parked_until_s = 0;
    home.why.clear();
    parked_.erase(id);
    fill(home);
}

// The oldest of some domains may be past its age: they are looked through, with their windows, at most so many records in
// one go. What is not past it tells when to look again.
void Backlog::expire_due() {
    while (!ages_.empty() && ages_.begin()->first <= now_s()) {
        Domain& home = *domains_.at(ages_.begin()->second);
        watch_age(home, INT64_MAX);
        take_back(home);  // oldest in front, as they were
        const bool all = expire_old(home);
        fill(home);
        if (!all) break;  // the oldest of the rest is due still: it arms the next turn
    }
}

// False: there were more than can be settled in one go.
bool Backlog::expire_old(Domain& home) {
    uint32_t expired_now = 0;
    watch_age(home, INT64_MAX);
    for (auto& klass : home.classes) {
        for (auto flow = klass.flows.begin(); flow != klass.flows.end();) {
            RecordChain kept, chain = std::exchange(flow->second, {});
            while (!chain.empty()) {
                const RecordId id = arena_.pop(chain);
                if (expired_now < kDueAtOnce && expired(arena_[id])) {
                    --klass.ready;
                    --ready_;
                    ++expired_now;
                    owner_.expire(id);
                } else {
                    if (const int64_t created_s = files_[arena_[id].file].created_s; created_s < home.oldest_s)
                        watch_age(home, created_s);
                    arena_.append(kept, id);
                }
            }
            flow->second = kept;
            flow = kept.empty() ? klass.flows.erase(flow) : std::next(flow);
        }
    }
    return expired_now < kDueAtOnce;
}

uint64_t Backlog::held() const {
    uint64_t sum = ready_ + deferred_ + held_count_ + suspects_.count;
    for (const auto& [id, home] : domains_) sum += home->in_windows();
    return sum;
}

void Backlog::arm() {
    int64_t next_ms = TimerWheel::kNever;
    if (!idle_.empty()) next_ms = reactor_.now_ms() + kSweepEveryMs;
    int64_t due_s = buckets_.empty() ? INT64_MAX : buckets_.begin()->first;
    if (!park_ends_.empty()) due_s = std::min(due_s, park_ends_.begin()->first);
    if (!ages_.empty()) due_s = std::min(due_s, ages_.begin()->first);
    if (due_s != INT64_MAX) {
        const int64_t wait_ms = std::max<int64_t>(1, due_s * 1000 - reactor_.steady_us() / 1000);
        next_ms = std::min(next_ms, reactor_.now_ms() + wait_ms);
    }
    if (held_count_ > 0) next_ms = std::min(next_ms, std::max(next_ages_ms_, reactor_.now_ms() + 1));
    if (next_ms == TimerWheel::kNever) return;
    if (!armed() || next_ms < deadline_ms()) reactor_.arm(*this, next_ms);
}

void Backlog::on_timer() {
    uint32_t moved = 0;
    std::vector<Domain*> touched;
    while (!buckets_.empty() && buckets_.begin()->first <= now_s() && moved < kDueAtOnce) {
        RecordChain& bucket = buckets_.begin()->second;
        while (!bucket.empty() && moved++ < kDueAtOnce) {
            const RecordId id = arena_.pop(bucket);
            Domain& home = domain(arena_[id].domain);
            --home.deferred;
            --deferred_;
            touched.push_back(&home);
            if (expired(arena_[id])) {
                owner_.expire(id);
                continue;
            }
            arena_[id].due_s = 0;
            add_ready(home, id, false);
        }
        if (bucket.empty()) buckets_.erase(buckets_.begin());
    }
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (Domain* home : touched) fill(*home);
    while (!park_ends_.empty() && park_ends_.begin()->first <= now_s()) {
        const DomainId id = park_ends_.begin()->second;
        unpark(id);
    }
    expire_due();
    if (!idle_.empty()) sweep();
    if (held_count_ > 0 && reactor_.now_ms() >= next_ages_ms_) {
        walk_.ages = true;
        begin_walk();
    }
    arm();
}

Backlog::Counts Backlog::counts() const {
    Counts counts;
    counts.ready = ready_;
    counts.deferred = deferred_;
    for (const DomainId id : parked_) {
        const Domain& home = *domains_.at(id);
        counts.parked += home.ready() + home.in_windows();
    }
    if (!buckets_.empty()) counts.next_due_s = buckets_.begin()->first;
    if (!park_ends_.empty()) counts.next_due_s = std::min(counts.next_due_s, park_ends_.begin()->first);
    counts.held = held_count_;
    if (held_count_ > 0 && holds_) counts.next_due_s = std::min(counts.next_due_s, holds_->next_end_s());
    return counts;
}

Backlog::DomainCounts Backlog::counts_of(const Domain& home) const {
    return {home.id,   home.ready() + home.in_windows(), home.deferred, home.held, home.parked_until_s,
            home.why, home.site};
}

void Backlog::for_each_domain(const std::function<void(const DomainCounts&)>& visit) const {
    for (const auto& [id, home] : domains_) visit(counts_of(*home));
}

void Backlog::count_flows(const Domain& home, const Flow& of, DomainCounts& counts) const {
    counts.ready = counts.deferred = counts.held = 0;
    for (const auto& klass : home.classes)
        for (const auto& [flow, chain] : klass.flows)
            if (flow.among(of)) counts.ready += chain.count;
    for (auto entry = held_.lower_bound({home.id, Priority::normal, {}});
         entry != held_.end() && entry->first.domain == home.id; ++entry)
        if (entry->first.flow.among(of)) counts.held += entry->second.count;
}

std::vector<Backlog::Flow> Backlog::held_flows(DomainId domain) const {
    std::vector<Flow> flows;
    for (auto entry = held_.lower_bound({domain, Priority::normal, {}}); entry != held_.end() && entry->first.domain == domain; ++entry)
        flows.push_back(entry->first.flow);
    return flows;
}

bool Backlog::visit_domains(size_t& cursor, size_t most, const Flow& of,
                            const std::function<void(const DomainCounts&)>& visit) const {
    for (size_t visited = 0; cursor < domains_.bucket_count() && visited < most; ++cursor, ++visited) {
        for (auto entry = domains_.begin(cursor); entry != domains_.end(cursor); ++entry, ++visited) {
            DomainCounts counts = counts_of(*entry->second);
            if (of != Flow{}) count_flows(*entry->second, of, counts);
            visit(counts);
        }
    }
    return cursor < domains_.bucket_count();
}

Backlog::Due Backlog::next_due(DomainId id) {
    const auto found = domains_.find(id);
    if (found == domains_.end() || found->second->deferred == 0) return {};
    uint32_t looked = 0;
    for (const auto& [due_s, chain] : buckets_)
        for (RecordId record = chain.head; record; record = arena_[record].link) {
            if (arena_[record].domain == id) return {due_s, arena_[record].attempts > 0};
            if (++looked == kLookedAtForDue) return {};
        }
    return {};
}

std::optional<Backlog::DomainCounts> Backlog::domain_counts(DomainId id) const {
    const auto found = domains_.find(id);
    if (found == domains_.end()) return std::nullopt;
    return counts_of(*found->second);
}

}  // namespace postrider
