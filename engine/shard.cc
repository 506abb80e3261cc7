#include "engine/shard.h"

#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include "engine/core/check.h"
#include "engine/egress/pooled_connection.h"
#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr DurationMs kCountEveryMs = 10;
constexpr DurationMs kCountConnectionsEveryMs = 50;  // of every site
constexpr DurationMs kLongestWaitMs = 100;
constexpr DurationMs kLookForSpaceEveryMs = 500;
constexpr size_t kFaultsTold = 100;
// A connection with TLS, its session and its buffers: what the memory budget counts for each (docs/benchmarks.md).
constexpr uint64_t kConnectionBytes = 40 * 1024;
// The queue may always hold so many records, enough to keep connections at work: an intake that waited until they need less
// would wait for ever.
constexpr uint64_t kRecordsLeast = 16 * 1024;

HoldTable::Verdict judge(const HoldTable& holds, Site& site, MonoNs now) {
    auto verdict = holds.of_site(site.name());
    const auto view = site.view(now);
    for (const auto& provider : view->paths.front().shaping.providers) verdict.join(holds.of_provider(provider.name));
    return verdict;
}

}  // namespace

SharedState::SharedState(Config c, size_t shard_count, std::vector<EgressSource> egress_sources)
    : config(std::move(c)),
      shards(shard_count),
      sources(std::move(egress_sources)),
      pools(config),
      exchange(shard_count),
      shaping(config.shaping),
      sockets(config.limits.connections),
      sites(shaping, sources, pools, sockets),
      metrics(shard_count) {
    schedule.retry_after_ms = config.retry.retry_after_ms;
    schedule.max_age_s = config.retry.max_age_ms / kMsPerSecond;
    memory_limit = config.limits.memory;
    content_rules.long_lines_send = config.content.long_lines == LongLines::send;
}

MemoryUse SharedState::memory() const {
    MemoryUse use;
    use.records = arena.in_use() * sizeof(Record);
    use.files = files.bytes();
    use.names = domains.bytes() + labels.bytes();
    use.connections = sockets.used() * kConnectionBytes;
    return use;
}

bool SharedState::has_room() const {
    return arena.in_use() < kRecordsLeast + shards * RecordSupply::kMost || memory().sum() < memory_limit.load(std::memory_order_relaxed);
}

Shard::Shard(ShardId id, SharedState& shared, std::unique_ptr<Reactor> reactor)
    : shared_(shared),
      reactor_(std::move(reactor)),
      metrics_(shared.metrics[id]),
      supply_(shared.arena),
      reader_(*shared.spool, shared.files, shared.content_rules) {}

Shard::~Shard() = default;

Result<std::unique_ptr<Shard>> Shard::make(ShardId id, SharedState& shared) {
    auto reactor = Reactor::make(id, shared.exchange, {});
    if (!reactor) return std::unexpected(reactor.error());
    (*reactor)->set_steady(shared.time_line.at_zero_us());
    std::unique_ptr<Shard> shard(new Shard(id, shared, std::move(*reactor)));
    if (auto built = shard->build(); !built) return std::unexpected(built.error());
    return shard;
}

Result<void> Shard::build() {
    const Config& config = shared_.config;
    schedule_ = shared_.schedule;
    prohibited_ = config.smtp.prohibited_hosts;
    auto resolver = AresResolver::make(*reactor_, {.servers = config.dns.servers});
    if (!resolver) return std::unexpected(resolver.error());
    resolver_ = std::move(*resolver);
    auto delivery_log = DeliveryLog::open(config.server.log);
    if (!delivery_log) return std::unexpected(delivery_log.error());
    log_ = std::move(*delivery_log);
    Journal::Options options;
    options.removed_from = [this](std::vector<int>& folders) { shared_.spool->active_folders(folders); };
#ifdef POSTRIDER_CRASH_POINTS
    // Rotation and compaction within the seconds that a campaign has.
    if (const char* octets = std::getenv("POSTRIDER_SEGMENT_BYTES")) {
        options.segment_bytes = std::strtoull(octets, nullptr, 10);
        options.compact_above_bytes = 2 * options.segment_bytes;
    }
#endif
    auto journal = Journal::open(shared_.spool->journal(), reactor_->shard(),
                                 shared_.recovered->next_sequence(), std::move(options));
    if (!journal) return std::unexpected(journal.error());
    journal_ = std::move(*journal);
    aside_ = std::make_unique<SetAside>(shared_.spool->bad());
    if (reactor_->shard() == 0)
        for (auto& segment : shared_.old_segments) journal_->adopt(std::move(segment));
    commit_ = std::make_unique<GroupCommit>(*reactor_, GroupCommit::Options{.commit_ms = config.journal.commit_ms},
                                            std::vector<CommitParticipant*>{aside_.get(), log_.get(), journal_.get()});
    commit_->on_durable([this](std::span<const Release> releases) { on_durable(releases); });
    commit_->on_failure([this](const Error& error) {
        // Nothing more may be sent, not even what this turn has prepared: the process ends here (exit 4).
        std::fprintf(stderr, "postrider: journal or log cannot be written, stopping: %s\n", error.text.c_str());
        std::fflush(stderr);
        shared_.failed = true;
        std::_Exit(4);
    });
    commit_->on_hold([this](const Error&, bool) { look_for_space(); });
    backlog_ = std::make_unique<Backlog>(*reactor_, shared_.arena, shared_.files, schedule_, *this);
    context_ = std::make_unique<EgressContext>(
        EgressContext{*reactor_, *resolver_, health_, buffers_, *shared_.tls, shared_.verified_tls.get(), reader_, shared_.arena,
                      shared_.sockets, addresses_, shared_.sources, shared_.shaping, prohibited_, shared_.tracer, config.smtp.port, *this, gate_});
    dispatcher_ = std::make_unique<Dispatcher>(*context_, *this, shared_.sites, shared_.shaping, shared_.shards);
    intake_ = std::make_unique<Intake>(*reactor_, shared_.shards, *shared_.spool, shared_.files, shared_.arena,
                                       supply_, shared_.domains, shared_.labels, shared_.content_rules, *this);
    register_mail();
    reactor_->each_turn([this] { return intake_->slice(); });
    // What an order on millions leaves to do keeps every core busy for seconds: its answer, and the next order, go before it.
    reactor_->each_turn([this] {
        const bool walks = backlog_->walk(), settles = settle_doomed();
        if (walks || settles) reactor_->give_way();
        return walks || settles;
    });
    reactor_->each_turn([this] { return journal_->compact(reactor_->now_ns()); });
    set_holds(shared_.holds);
    return intake_->start(shared_.recovered);
}

void Shard::register_mail() {
    reactor_->on_mail(kAccept, [this](const Mail& mail) {
        received_ += mail.c;
        backlog_->accept({mail.a, static_cast<RecordId>(mail.b), static_cast<uint32_t>(mail.c)});
    });
    reactor_->on_mail(kPutBack, [this](const Mail& mail) {
        ++received_;
        backlog_->put_back(mail.a);
    });
    reactor_->on_mail(kRefill, [this](const Mail& mail) { backlog_->refill(mail.a); });
    reactor_->on_mail(kPark, [this](const Mail& mail) {
        std::unique_ptr<std::string> why(reinterpret_cast<std::string*>(mail.c));
        backlog_->park(mail.a, static_cast<int64_t>(mail.b), std::move(*why));
    });
    reactor_->on_mail(kWindow, [this](const Mail& mail) {
        dispatcher_->attach(shared_.sites.at(mail.a), *reinterpret_cast<ReadyWindow*>(mail.b),
                            static_cast<int64_t>(mail.c));
    });
    reactor_->on_mail(kTryNow, [this](const Mail& mail) { dispatcher_->end_park(mail.a); });
    reactor_->on_mail(kForget, [this](const Mail& mail) {
        reader_.forget_removed(mail.a, mail.b);
        journal_->forget(mail.b);
    });
}

// ---- running

bool Shard::run() {
    for (;;) {
        reactor_->turn(reactor_->now_ns() + kLongestWaitMs * kNsPerMs);
        if (has_calls_.load(std::memory_order_acquire)) run_calls();
        if (reopen_.exchange(false))
            if (auto reopened = log_->reopen(); !reopened) trouble(reopened.error());
        if (reactor_->now_ms() - counted_ms_ >= kCountEveryMs) count();
        if (!stopping_.load(std::memory_order_relaxed)) continue;
        const bool clean = drain();
        end_calls();
        return clean;
    }
}

// Sessions end after the transaction they are in; then everything is made durable. Other shards may still send mail for
// records homed here, so nobody leaves before all have drained.
bool Shard::drain() {
    intake_->stop();
    dispatcher_->drain();
    const int64_t until_ms = reactor_->now_ms() + shared_.config.server.shutdown_timeout_ms;
    auto in_time = [&] { return reactor_->now_ms() < until_ms && stopping_.load() < 2; };
    auto turn = [&] {
        reactor_->turn(reactor_->now_ns() + 5 * kNsPerMs);
        if (has_calls_.load(std::memory_order_acquire)) run_calls();
        if (reactor_->now_ms() != counted_ms_) count();
    };
    while ((!gate_.empty() || !intake_->idle_now()) && in_time()) turn();
    const bool clean = gate_.empty();
    ++shared_.drained;
    while (shared_.drained.load() < shared_.shards && in_time()) turn();
    turn();  // what the others posted before they had drained
    intake_->close();
    while (!intake_->closed()) turn();
    if (clean) {
        spawn(gate_, resolver_->stop());
        while (!gate_.empty()) turn();
    }
    while (!commit_->idle()) {
        commit_->hurry();
        turn();
        if (!commit_->holding() || in_time()) continue;
        shared_.unrecorded = true;  // the intents stand: who waited for a result is sent to again, flagged
        break;
    }
    count();
    count_connections();
    return clean;
}

void Shard::stop() {
    int running = 0;
    stopping_.compare_exchange_strong(running, 1);
    reactor_->ring().wake_from_outside();
}

void Shard::stop_at_once() {
    stopping_ = 2;
    reactor_->ring().wake_from_outside();
}

void Shard::reopen_log() {
    reopen_ = true;
    reactor_->ring().wake_from_outside();
}

bool Shard::call(std::function<void(Shard&)> call) {
    {
        std::scoped_lock lock(calls_mutex_);
        if (ended_) return false;
        calls_.push_back(std::move(call));
    }
    has_calls_.store(true, std::memory_order_release);
    reactor_->ring().wake_from_outside();
    return true;
}

void Shard::end_calls() {
    std::scoped_lock lock(calls_mutex_);
    ended_ = true;
    calls_.clear();
}

void Shard::run_calls() {
    std::vector<std::function<void(Shard&)>> calls;
    {
        std::scoped_lock lock(calls_mutex_);
        calls.swap(calls_);
        has_calls_.store(false, std::memory_order_release);
    }
    for (auto& each : calls) each(*this);
}

void Shard::count() {
    counted_ms_ = reactor_->now_ms();
    if (counted_ms_ - space_looked_ms_ >= kLookForSpaceEveryMs) look_for_space();
    dispatcher_->tick();
    if (counted_ms_ - connections_counted_ms_ >= kCountConnectionsEveryMs) count_connections();
    const auto counts = backlog_->counts();
    metrics_.waiting.set(counts.deferred + counts.parked + counts.held);
    metrics_.next_due_s.set(counts.next_due_s == INT64_MAX ? 0 : static_cast<uint64_t>(counts.next_due_s));
    metrics_.resolving.set(dispatcher_->resolving());
    metrics_.dns_queries.set(resolver_->counters().queries);
    metrics_.files.set(intake_->files());
    metrics_.messages.set(intake_->messages());
    metrics_.refused.set(intake_->refused());
    metrics_.turns.set(reactor_->turns());
    metrics_.commits.set(commit_->commits());
    metrics_.commit_us.set(static_cast<uint64_t>(commit_->last_commit_ns() / 1000));
    metrics_.journal_octets.set(journal_->octets());
    metrics_.commit_idle.set(commit_->idle());
    metrics_.intake_idle.set(intake_->idle());
    metrics_.left_behind.set(intake_->left_behind());
}

// Tells once that the disk is full, and once that it is not any more, whatever the number of shards.
void Shard::look_for_space() {
    space_looked_ms_ = reactor_->now_ms();
    journal_->look_for_space();
    log_->look_for_space();
    const bool low = journal_->space_low() || log_->space_low() || commit_->holding();
    if (low == short_of_space_) return;
    short_of_space_ = low;
    if (low ? shared_.short_of_space.fetch_add(1) != 0 : shared_.short_of_space.fetch_sub(1) != 1) return;
    const char* where = journal_->space_low() ? "for the journal" : "for the delivery log";
    if (low)
        std::fprintf(stderr, "postrider: no space %s: no new files are taken in until there is some again, and no new "
                     "transactions begin once the reserve is used\n", where);
    else
        std::fprintf(stderr, "postrider: there is space again, going on\n");
}

void Shard::count_connections() {
    connections_counted_ms_ = counted_ms_;
    size_t connections = 0, connecting = 0;
    dispatcher_->for_each_worker([&](const SiteWorker& worker) {
        connections += worker.connections();
        connecting += worker.connecting();
    });
    metrics_.connections.set(connections);
    metrics_.connecting.set(connecting);
}

LedgerCount Shard::ledger_count() const {
    LedgerCount count;
    count.accepted = metrics_.accepted.get();
    count.finals = metrics_.final_recipients();
    count.backlog = backlog_->held() + doomed_.count + aged_.count;
    dispatcher_->for_each_worker([&](const SiteWorker& worker) { count.sessions += worker.carried(); });
    count.posted = posted_;
    count.received = received_;
    return count;
}

// ---- records between shards

void Shard::to_home(RecordChain chain, DomainId domain) {
    if (chain.empty()) return;
    const ShardId to = home(domain);
    if (to == reactor_->shard())
        backlog_->accept(chain);
    else {
        posted_ += chain.count;
        reactor_->post(to, Mail{kAccept, 0, chain.head, chain.tail, chain.count});
    }
}

void Shard::publish(RecordChain chain) {
    metrics_.accepted.add(chain.count);
    // Runs of records of one home shard travel together.
    RecordChain run;
    DomainId domain = 0;
    while (!chain.empty()) {
        const RecordId id = shared_.arena.pop(chain);
        const DomainId next = shared_.arena[id].domain;
        if (!run.empty() && home(next) != home(domain)) to_home(std::exchange(run, {}), domain);
        domain = next;
        shared_.arena.append(run, id);
    }
    to_home(run, domain);
}

void Shard::put_back(RecordId id) {
    const ShardId to = home(shared_.arena[id].domain);
    if (to == reactor_->shard())
        backlog_->put_back(id);
    else {
        ++posted_;
        reactor_->post(to, Mail{kPutBack, 0, id, 0, 0});
    }
}

void Shard::refill(DomainId domain) {
    if (home(domain) == reactor_->shard())
        backlog_->refill(domain);
    else
        reactor_->post(home(domain), Mail{kRefill, 0, domain, 0, 0});
}

void Shard::park(DomainId domain, int64_t until_s, const std::string& why) {
    if (home(domain) == reactor_->shard()) return backlog_->park(domain, until_s, why);
    auto* text = new std::string(why);
    reactor_->post(home(domain),
                   Mail{kPark, 0, domain, static_cast<uint64_t>(until_s), reinterpret_cast<uint64_t>(text)});
}

void Shard::announce(ReadyWindow& window) {
    // Never from inside the backlog's own work.
    reactor_->defer([this, &window] { dispatcher_->announce(window); });
}

// On the home shard of the window's domain.
void Shard::send_window(Site& site, ReadyWindow& window, int64_t expires_ms) {
    if (!backlog_->bound(window.domain(), site.id())) return window.abandon();
    if (home(site) == reactor_->shard())
        dispatcher_->attach(site, window, expires_ms);
    else
        reactor_->post(home(site), Mail{kWindow, 0, site.id(), reinterpret_cast<uint64_t>(&window),
                                        static_cast<uint64_t>(expires_ms)});
}

void Shard::invite(Site& site, ReadyWindow& window, int64_t expires_ms) {
    for (ShardId to = 0; to < shared_.shards; ++to) {
        if (to == reactor_->shard()) continue;
        window.add_reference();
        reactor_->post(to, Mail{kWindow, 0, site.id(), reinterpret_cast<uint64_t>(&window),
                                static_cast<uint64_t>(expires_ms)});
    }
}

void Shard::reconfigure(const RetrySchedule& schedule, const std::vector<AddressBlock>& prohibited) {
    if (prohibited != prohibited_) {
        prohibited_ = prohibited;
        dispatcher_->for_each_worker([](SiteWorker& worker) { worker.prohibited_changed(); });
    }
    if (schedule == schedule_) return;
    schedule_ = schedule;
    backlog_->schedule_changed();
}

// ---- holds

void Shard::set_holds(std::shared_ptr<const HoldTable> holds) {
    holds_ = std::move(holds);
    context_->holds = holds_.get();
    backlog_->set_holds(holds_);
}

HoldTable::Verdict Shard::judge_site(const HoldTable& holds, SiteId site) {
    return judge(holds, shared_.sites.at(site), reactor_->now_ns());
}

void Shard::try_now(SiteId site) {
    const auto to = static_cast<ShardId>(site % shared_.shards);
    if (to == reactor_->shard()) return dispatcher_->end_park(site);
    reactor_->post(to, Mail{kTryNow, 0, site, 0, 0});
}

bool Shard::suspended(Site& site) {
    return holds_ && holds_->speaks_of_sites() && judge(*holds_, site, reactor_->now_ns()).suspended;
}

bool Shard::take_held(RecordId id, Site* site) {
    if (!holds_) return false;
    const Record& record = shared_.arena[id];
    auto verdict = holds_->of(record.domain, record.campaign, record.tenant);
    if (site && holds_->speaks_of_sites()) verdict.join(judge(*holds_, *site, reactor_->now_ns()));
    if (verdict.dies(shared_.files[record.file].created_s)) {
        cancel(id);
        return true;
    }
    if (verdict.suspended) put_back(id);
    return verdict.suspended;
}

int64_t Shard::retry_wait_s(uint32_t attempts) { return schedule_.wait_s(attempts, reactor_->random()); }

// ---- intake

bool Shard::has_room() {
    return !shared_.failed.load(std::memory_order_relaxed) && !journal_->space_low() && !log_->space_low() &&
           !commit_->holding() && shared_.has_room();
}

int64_t Shard::claim_time_s(int64_t submitted_ns) {
    return holds_ ? holds_->created_s(now_s(), submitted_ns) : now_s();
}

void Shard::claimed(const SpoolFile& file, bool journalled) {
    int64_t latest_s = shared_.latest_claim_s.load(std::memory_order_relaxed);
    while (file.created_s > latest_s &&
           !shared_.latest_claim_s.compare_exchange_weak(latest_s, file.created_s, std::memory_order_relaxed)) {
    }
    if (journalled) return;  // its segment stays for as long as it speaks of a file that is there
    journal_->claim({.file = file.id, .size = file.size, .mtime_ns = file.mtime_ns,
                     .created_s = static_cast<uint32_t>(file.created_s), .form = file.form, .name = file.name});
    POSTRIDER_CRASH_POINT("claim.journalled");
}

// Without it, as after a kill before the commit, the refusals are told again.
void Shard::refusals_told(FileId file) {
    journal_->result({.file = file, .place = kWholeFile, .recipient = kWholeFile, .kind = RecordKind::refusals_told,
                      .time_s = static_cast<uint32_t>(now_s())});
}

void Shard::publishing_done(FileSlot slot) {
    POSTRIDER_CRASH_POINT("publish.done");
    commit_->when_durable({.b = slot});
}

void Shard::connection_opened(bool tls) {
    metrics_.connections_opened.add();
    if (tls) metrics_.connections_tls.add();
}

void Shard::local_fault(const std::string& text) {
    if (told_faults_.size() >= kFaultsTold) told_faults_.clear();
    if (told_faults_.insert(text).second) trouble(Error{0, text + "; mail waits, and it is tried again every second"});
}

void Shard::trouble(const Error& error) {
    std::fprintf(stderr, "postrider: %s\n", error.text.c_str());
}

}  // namespace postrider
