#include "engine/engine.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>

#include <fmt/format.h>

#include "engine/io/crash_points.h"

namespace postrider {
namespace {

Result<std::vector<EgressSource>> make_sources(const Config& config) {
    std::vector<EgressSource> sources;
    sources.push_back({"unspecified", std::nullopt, config.server.hostname});
    for (const auto& source : config.sources) {
        auto address = SocketAddress::parse(source.address, 0);
        if (!address) return fail(fmt::format("[[source]] {}: {}", source.name, address.error().text));
        sources.push_back({source.name, *address, source.hostname});
    }
    return sources;
}

}  // namespace

// Every connection is a descriptor, and the file it sends from may be another. What shards keep open beside (files and their
// indexes, message_reader.h) and the spool's folders come on top. Where so many are not allowed connections go first: files that
// cannot be opened wait. Answers how many connections fit.
Result<uint32_t> raise_descriptor_limit(uint32_t connections, size_t shards) {
    constexpr rlim_t kOthers = 1024, kFolders = 512, kOfAShard = 384;
    static_assert(kOfAShard > 2 * MessageReader::kOpenFiles);
    rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return fail_errno("getrlimit");
    const rlim_t wanted = 2 * rlim_t{connections} + kFolders + shards * kOfAShard;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = std::min(wanted, limit.rlim_max);
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return fail_errno("setrlimit");
    }
    if (limit.rlim_cur >= std::min(wanted, connections + kOthers)) return connections;
    if (limit.rlim_cur < 2 * kOthers)
        return fail(fmt::format("only {} file descriptors are allowed to this process; raise them with ulimit -n",
                                limit.rlim_cur));
    const auto fit = static_cast<uint32_t>(limit.rlim_cur - kOthers);
    if (fit < connections / 2)
        std::fprintf(stderr, "postrider: %u of [limits] connections = %u fit into the %llu file descriptors allowed; raise "
                     "them with ulimit -n\n", fit, connections, static_cast<unsigned long long>(limit.rlim_cur));
    return fit;
}

namespace {

size_t cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return std::max(1, CPU_COUNT(&set));
}

// The n-th of the cores this process may use; with more shards than cores they share.
void pin_to_core(size_t number) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    size_t left = number % static_cast<size_t>(std::max(1, CPU_COUNT(&allowed)));
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        if (left-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        return;
    }
}

// What the runs before this one have left: the files in active/, and what the journals know of them. Of other files no
// record matters, and a segment that speaks of no other may go.
Result<void> recover(SharedState& shared, RecoveryReport& report) {
    auto scratch = shared.spool->open_scratch();
    if (!scratch) return std::unexpected(scratch.error());
    auto state = std::make_shared<RecoveredState>(std::move(*scratch));
    if (auto listed = shared.spool->scan_active([&](FileId id) { if (id) state->add(id); }); !listed) return listed;
    state->listed();
    if (auto read = recover_journals(shared.spool->journal(), *state, report); !read)
        return fail("journal: " + read.error().text, EBADMSG);
    state->finish(shared.shards);
    POSTRIDER_CRASH_POINT("recovery.merged");
    shared.old_segments = state->take_segments();
    shared.recovered = std::move(state);
    return {};
}

// All shards stand still between their turns until each has counted. One that does not come within kPatience, because its
// turn is long or it has ended, frees the others, and the count is void.
class Census {
  public:
    static constexpr auto kPatience = std::chrono::milliseconds(5);

    explicit Census(size_t shards) : shards_(shards) {}

    void attend(const Shard& shard) {
        const auto until = std::chrono::steady_clock::now() + kPatience;
        size_t here = arrived_.fetch_add(1, std::memory_order_acq_rel) + 1;
        while (here < shards_) {
            std::this_thread::yield();
            here = arrived_.load(std::memory_order_acquire);
            if (here < shards_ && std::chrono::steady_clock::now() > until)
                if (arrived_.compare_exchange_strong(here, here | kVoid)) return;
        }
        if (here & kVoid) return;
        const LedgerCount count = shard.ledger_count();
        {
            std::scoped_lock lock(mutex_);
            sum_.accepted += count.accepted;
            sum_.finals += count.finals;
            sum_.backlog += count.backlog;
            sum_.sessions += count.sessions;
            sum_.posted += count.posted;
            sum_.received += count.received;
        }
        counted_.fetch_add(1, std::memory_order_acq_rel);
        while (counted_.load(std::memory_order_acquire) < shards_) std::this_thread::yield();
    }
    bool complete() const { return counted_.load(std::memory_order_acquire) == shards_; }
    const LedgerCount& sum() const { return sum_; }

  private:
    static constexpr size_t kVoid = size_t{1} << 62;
    const size_t shards_;
    std::atomic<size_t> arrived_{0}, counted_{0};
    std::mutex mutex_;
    LedgerCount sum_;
};

// Shards with connections in flight when the shutdown timeout passed, and what they refer to: the kernel may still write into
// them, so they last as long as the process, which is about to end.
struct LeftBehind {
    std::unique_ptr<SharedState> shared;
    std::vector<std::unique_ptr<Shard>> shards;
};

void leave_behind(LeftBehind rest) {
    static std::mutex mutex;
    static auto* kept = new std::vector<LeftBehind>;
    std::scoped_lock lock(mutex);
    kept->push_back(std::move(rest));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(Config config) {
    std::unique_ptr<Engine> engine(new Engine);
    auto sources = make_sources(config);
    if (!sources) return std::unexpected(sources.error());
    const size_t count = config.server.shards ? config.server.shards : cores();
    auto fit = raise_descriptor_limit(config.limits.connections, count);
    if (!fit) return std::unexpected(fit.error());
    config.limits.connections = *fit;
    engine->shared_ = std::make_unique<SharedState>(std::move(config), count, std::move(*sources));
    SharedState& shared = *engine->shared_;
    auto tls = TlsContext::make(TlsLevel::opportunistic, shared.tls_sessions);
    if (!tls) return std::unexpected(tls.error());
    shared.tls = std::move(*tls);
    if (auto verified = TlsContext::make(TlsLevel::verified, shared.tls_sessions))
        shared.verified_tls = std::move(*verified);
    else
        std::fprintf(stderr, "postrider: mail to hosts with enable_tls = \"Required\" will wait: %s\n",
                     verified.error().text.c_str());
    auto spool = SpoolDirectory::open(shared.config.server.spool);
    if (!spool) return std::unexpected(spool.error());
    shared.spool = std::move(*spool);
    auto scratch = shared.spool->open_scratch();
    if (!scratch) return std::unexpected(scratch.error());
    shared.files.spill_names_to(std::move(*scratch));
    if (auto recovered = recover(shared, engine->report_); !recovered) return std::unexpected(recovered.error());
    auto control = Control::open(*engine, shared);
    if (!control) return std::unexpected(control.error());
    engine->control_ = std::move(*control);
    if (auto mended = DeliveryLog::mend(shared.config.server.log); !mended) return std::unexpected(mended.error());
    if (auto started = engine->start_shards(); !started) return std::unexpected(started.error());
    return engine;
}

Result<void> Engine::start_shards() {
    SharedState& shared = *shared_;
    std::vector<std::future<Result<Shard*>>> made;
    ended_.resize(shared.shards);
    for (size_t i = 0; i < shared.shards; ++i) {
        std::promise<Result<Shard*>> promise;
        made.push_back(promise.get_future());
        ++running_;
        threads_.emplace_back([this, &shared, i, ready = std::move(promise)]() mutable {
            pin_to_core(i);
            auto shard = Shard::make(static_cast<ShardId>(i), shared);
            if (!shard) {
                ready.set_value(std::unexpected(shard.error()));
                --running_;
                return;
            }
            ready.set_value(shard->get());
            if (!(*shard)->run()) clean_ = false;
            ended_[i] = std::move(*shard);
            --running_;
        });
    }
    Result<void> outcome;
    for (auto& future : made) {
        auto shard = future.get();
        if (shard)
            shards_.push_back(*shard);
        else
            outcome = std::unexpected(shard.error());
    }
    shared.recovered.reset();  // the shards hold it until they have published what it tells of
    if (outcome) return outcome;
    shared.drained += shared.shards - shards_.size();
    stop_at_once();
    join();
    return outcome;
}

Engine::~Engine() {
    if (!threads_.empty()) {
        stop_at_once();
        join();
    }
    if (!clean_) leave_behind({std::move(shared_), std::move(ended_)});
}

void Engine::stop() {
    std::scoped_lock lock(shards_mutex_);
    for (Shard* shard : shards_) shard->stop();
}

void Engine::stop_at_once() {
    std::scoped_lock lock(shards_mutex_);
    for (Shard* shard : shards_) shard->stop_at_once();
}

void Engine::reopen_log() {
    std::scoped_lock lock(shards_mutex_);
    for (Shard* shard : shards_) shard->reopen_log();
}

bool Engine::join() {
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    std::scoped_lock lock(shards_mutex_);
    shards_.clear();
    if (clean_) ended_.clear();
    return clean_;
}

void Engine::on_each_shard(const std::function<void(Shard&)>& call) {
    std::vector<std::future<void>> done;
    {
        std::scoped_lock lock(shards_mutex_);
        for (Shard* shard : shards_) {
            auto promise = std::make_shared<std::promise<void>>();
            done.push_back(promise->get_future());
            shard->call([&call, promise](Shard& here) {
                call(here);
                promise->set_value();
            });
        }
    }
    // A shard that ends meanwhile drops the call, and with it the promise: that ends the wait too.
    for (auto& future : done) future.wait();
}

// ---- DNS, for people and their orders

namespace {

constexpr auto kLookUpPatience = std::chrono::seconds(30), kOrderPatience = std::chrono::seconds(5);
using Deadline = std::chrono::steady_clock::time_point;

// Null: it was not answered until then, or the shard has ended and with it the promise.
std::shared_ptr<const MailRoute> answer_of(std::future<std::shared_ptr<const MailRoute>>& answer, Deadline until) {
    if (answer.wait_until(until) != std::future_status::ready) return nullptr;
    try {
        return answer.get();
    } catch (const std::future_error&) {
        return nullptr;
    }
}

}  // namespace

// All at once, each where its mail has asked already.
std::vector<std::future<Engine::Route>> Engine::look_up(const std::vector<std::string>& domains) {
    std::vector<Shard::RouteAnswer> promises;
    std::vector<std::future<Route>> answers;
    std::vector<size_t> homes;
    for (const std::string& domain : domains) {
        answers.push_back(promises.emplace_back(std::make_shared<std::promise<Route>>())->get_future());
        homes.push_back(shared_->domains.intern(domain) % shared_->shards);
    }
    on_each_shard([&](Shard& shard) {
        for (size_t i = 0; i < domains.size(); ++i)
            if (homes[i] == shard.number()) shard.look_up(domains[i], promises[i]);
    });
    return answers;
}

std::shared_ptr<const MailRoute> Engine::route(const std::string& domain) {
    auto answers = look_up({domain});
    return answer_of(answers.front(), std::chrono::steady_clock::now() + kLookUpPatience);
}

std::vector<std::string> Engine::learn_sites(const std::vector<std::string>& domains) {
    std::vector<std::string> not_told;
    auto answers = look_up(domains);
    const Deadline until = std::chrono::steady_clock::now() + kOrderPatience;
    for (size_t i = 0; i < domains.size(); ++i) {
        const Route route = answer_of(answers[i], until);
        if (!route || route->kind != MailRoute::Kind::hosts) {
            not_told.push_back(fmt::format("{}: its mail servers are not known: {}", domains[i],
                                           route ? route->why : "DNS has not answered yet"));
            continue;
        }
        if (const auto warning = shared_->shaping.set_site(domains[i], route->site))
            std::fprintf(stderr, "postrider: %s\n", warning->to_string().c_str());
    }
    return not_told;
}

void Engine::check_ledger() {
    size_t alive;
    {
        std::scoped_lock lock(shards_mutex_);
        alive = shards_.size();
    }
    if (alive != shared_->shards || shared_->drained.load() > 0) return;
    Census census(alive);
    on_each_shard([&](Shard& shard) { census.attend(shard); });
    if (!census.complete()) return;
    const LedgerCount& sum = census.sum();
    std::scoped_lock lock(ledger_mutex_);
    const int64_t before = ledger_.checks > 0 ? ledger_.missing() : 0;
    ++ledger_.checks;
    ledger_.accepted = sum.accepted;
    ledger_.finals = sum.finals;
    ledger_.counted = sum.backlog + sum.sessions + sum.posted - sum.received;
    const int64_t missing = ledger_.missing();
    if (missing == 0) return;
    ++ledger_.breaches;
    if (missing == before) return;  // told already
    std::fprintf(stderr, "postrider: LEDGER BREACH: %llu recipients accepted, %llu final, %llu pending by count (%llu in the "
                 "backlog and its windows, %llu in sessions, %llu between shards): %lld are %s. This is a defect of the engine; "
                 "the spool and the journal hold them all: stop it and start it again\n",
                 static_cast<unsigned long long>(sum.accepted), static_cast<unsigned long long>(sum.finals),
                 static_cast<unsigned long long>(ledger_.counted), static_cast<unsigned long long>(sum.backlog),
                 static_cast<unsigned long long>(sum.sessions), static_cast<unsigned long long>(sum.posted - sum.received),
                 static_cast<long long>(std::abs(missing)), missing > 0 ? "missing" : "counted twice");
    std::fflush(stderr);
}

Ledger Engine::ledger() const {
    std::scoped_lock lock(ledger_mutex_);
    return ledger_;
}

Totals Engine::totals() const {
    Totals t;
    // Finals first, accepted last: pending is never too small.
    for (const auto& m : shared_->metrics) {
        t.delivered += m.delivered.get();
        t.bounced += m.bounced.get();
        t.expired += m.expired.get();
        t.cancelled += m.cancelled.get();
        t.waiting += m.waiting.get();
    }
    for (const auto& m : shared_->metrics) {
        t.deferred_attempts += m.attempts_deferred.get();
        t.possible_duplicates += m.possible_duplicates.get();
        t.refused += m.refused.get();
        t.refused_recipients += m.refused_recipients.get();
        t.files += m.files.get();
        t.messages += m.messages.get();
        t.octets += m.octets.get();
        t.connections += m.connections.get();
        t.connections_opened += m.connections_opened.get();
        t.connections_tls += m.connections_tls.get();
        t.dns_queries += m.dns_queries.get();
        const uint64_t due_s = m.next_due_s.get();
        if (due_s && (!t.next_due_s || due_s < t.next_due_s)) t.next_due_s = due_s;
        t.intake_idle &= m.intake_idle.get() != 0;
        t.left_behind |= m.left_behind.get() != 0;
        t.commit_idle &= m.commit_idle.get() != 0;
        t.accepted += m.accepted.get();
    }
    return t;
}

}  // namespace postrider
