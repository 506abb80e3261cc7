// A shard: everything one core owns, and the knots between the rooms. One thread, one ring, one c-ares channel, one timer
// wheel, its connections, its journal and log buffers, its counters.
//
// Where things go
//   intake -> publish() -> home shard of the domain: backlog -> announce() -> dispatcher -> home shard of the site:
//   site worker -> session -> settle(): log line, then journal result, in one commit -> durable: the file's hold ends
//   deferred records -> home shard of the domain: backlog
//
// Shards share only what SharedState holds. Everything else moves by mail.
//
// Failure policy: a failed write or sync of journal or log stops the engine (exit 4); nothing is sent that cannot be
// recorded. What one message, file, host or connection does wrong stays with it.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "dns/ares_resolver.h"
#include "engine/config/config.h"
#include "engine/core/time_line.h"
#include "engine/egress/dispatcher.h"
#include "engine/log/delivery_log.h"
#include "engine/metrics.h"
#include "engine/net/session_cache.h"
#include "queue/backlog.h"
#include "queue/intake.h"
#include "queue/journal/journal.h"
#include "queue/journal/recovery.h"
#include "queue/queue_name.h"
#include "queue/set_aside.h"

namespace postrider {

// What [limits] memory counts, in octets.
struct MemoryUse {
    uint64_t records = 0, files = 0, names = 0, connections = 0;
    uint64_t sum() const { return records + files + names + connections; }
};

// Made before the shards, ended after them.
struct SharedState {
    SharedState(Config c, size_t shard_count, std::vector<EgressSource> egress_sources);

    MemoryUse memory() const;
    // False: the intake waits until the queue is smaller.
    bool has_room() const;
    std::string_view domain_name(DomainId domain) const { return domain_of(domains.name(domain)); }
    // Empty: the default.
    std::string_view pool_name(DomainId domain) const { return pool_of(domains.name(domain)); }

    const Config config;
    const size_t shards;
    const std::vector<EgressSource> sources;
    const EgressPools pools;
    RetrySchedule schedule;
    ContentRules content_rules;
    MailExchange exchange;
    RecordArena arena;
    FileTable files;
    NameTable domains, labels;
    ShapingBook shaping;
    CountLimit sockets;  // [limits] connections: open sockets of all shards together
    SiteTable sites;
    SessionCache tls_sessions;
    std::unique_ptr<TlsContext> tls, verified_tls;
    std::unique_ptr<SpoolDirectory> spool;
    std::shared_ptr<RecoveredState> recovered;  // what is in active/ at the start, until the shards are made
    std::vector<OldSegment> old_segments;  // of earlier runs; shard 0 takes them over
    std::vector<ShardMetrics> metrics;
    TimeLine time_line;
    Tracer tracer;
    std::atomic<size_t> drained{0};   // shards that have ended their sessions
    std::atomic<bool> failed{false};  // journal or log: nothing new is started
    std::atomic<uint64_t> memory_limit;         // [limits] memory, as last read
    std::shared_ptr<const HoldTable> holds;     // with which the shards begin; null: nothing is held
    std::atomic<int64_t> latest_claim_s{0};     // a cancel is stamped no earlier
    std::atomic<size_t> short_of_space{0};  // shards that found no space for journal or log (decision 0018)
    std::atomic<bool> unrecorded{false};    // a shutdown left results that found no space: the journal has failed
};

// What one shard holds and has counted, while all stand still (engine.cc: check_ledger).
struct LedgerCount {
    uint64_t accepted = 0, finals = 0;
    uint64_t backlog = 0;   // ready, deferred, parked, and in the windows of its domains
    uint64_t sessions = 0;  // pulled, not settled
    uint64_t posted = 0, received = 0;  // by mail between shards: the difference, over all, is under way
};

class Shard final : public BacklogOwner, public IntakeOwner, public EgressOwner, public DispatcherOwner {
  public:
    // On the thread that will run it.
    static Result<std::unique_ptr<Shard>> make(ShardId id, SharedState& shared);
    ~Shard() override;

    // Runs until stop() and the drain are done, or for ever. False: connections were left behind at the deadline; the
    // shard must not be destroyed.
    bool run();

    // From any thread.
    void stop();
    void stop_at_once();
    void reopen_log();
    // Runs `call` on the shard's thread; false when the shard has ended. One that it does not come to is dropped.
    bool call(std::function<void(Shard&)> call);

    // Live changes of [retry] and [smtp] prohibited_hosts.
    void reconfigure(const RetrySchedule& schedule, const std::vector<AddressBlock>& prohibited);
    // From this call on nothing new of what is held is sent; the walk of the backlog follows. Null: nothing is held.
    void set_holds(std::shared_ptr<const HoldTable> holds);

    // What the domain's mail was last refused with here, at most a few thousand domains are kept; null: nothing is known.
    struct LastReply {
        int64_t at_s = 0;
        uint16_t code = 0;
        std::string enhanced;  // "4.7.1", or empty
        std::string text;
        std::string host;      // empty: it failed before there was one
        bool said = false;     // by the host; else our own words for what failed
    };
    const LastReply* last_reply(DomainId domain) const {
        const auto found = last_replies_.find(domain);
        return found == last_replies_.end() ? nullptr : &found->second;
    }
    // Of a record that waits here, for `why`: read from its file.
    std::string recipient_address(const Record& record);
    // The domain's mail servers, for explain.
    using RouteAnswer = std::shared_ptr<std::promise<std::shared_ptr<const MailRoute>>>;
    void look_up(const std::string& domain, RouteAnswer answer) { spawn(gate_, answer_route(domain, std::move(answer))); }

    ShardId number() const { return reactor_->shard(); }
    ShardMetrics& metrics() { return metrics_; }
    Backlog& backlog() { return *backlog_; }
    Dispatcher& dispatcher() { return *dispatcher_; }
    LedgerCount ledger_count() const;
    SharedState& shared() { return shared_; }

    // BacklogOwner
    void announce(ReadyWindow& window) override;
    void expire(RecordId id) override { shared_.arena.append(aged_, id); }
    void cancel(RecordId id) override { shared_.arena.append(doomed_, id); }
    HoldTable::Verdict judge_site(const HoldTable& holds, SiteId site) override;
    void try_now(SiteId site) override;
    // IntakeOwner
    bool has_room() override;
    int64_t claim_time_s(int64_t submitted_ns) override;
    int64_t expires_s(int64_t created_s) override { return shared_.time_line.wall_s(created_s) + schedule_.max_age_s; }
    void publish(RecordChain chain) override;
    void claimed(const SpoolFile& file, bool journalled) override;
    void refused_recipient(const RefusedRecipient& refused) override;
    void refused_message(const SpoolFile& file, const RefusedMessage& refused, const std::string& bad_name) override;
    void refused_file(FileId id, const std::string& name, uint64_t size, const std::string& why) override;
    void refusals_told(FileId file) override;
    void publishing_done(FileSlot slot) override;
    void set_aside(std::vector<FileDescriptor> written) override { aside_->add(std::move(written)); }
    bool may_set_aside() override { return !aside_->many(); }
    void trouble(const Error& error) override;
    // EgressOwner
    void settle(QueuedMessage& message, size_t index, const AttemptPlace& place) override;
    bool may_send() override;
    void before_dot(QueuedMessage& message) override;
    void put_back(RecordId id) override;
    void settle_unsent(RecordId id, const Outcome& outcome, bool counts) override;
    void connection_opened(bool tls) override;
    void local_fault(const std::string& text) override;
    void put_off(RecordId id, const Outcome& outcome) override;
    bool expired(RecordId id) override;
    bool take_held(RecordId id, Site* site) override;
    bool suspended(Site& site) override;
    void refill(DomainId domain) override;
    void park(DomainId domain, int64_t until_s, const std::string& why) override;
    void invite(Site& site, ReadyWindow& window, int64_t expires_ms) override;
    int64_t retry_wait_s(uint32_t attempts) override;
    // DispatcherOwner
    void send_window(Site& site, ReadyWindow& window, int64_t expires_ms) override;
    std::string_view domain_name(DomainId domain) override { return shared_.domain_name(domain); }
    std::string_view pool_name(DomainId domain) override { return shared_.pool_name(domain); }
    const EgressPool* pool(DomainId domain) override { return shared_.pools.find(shared_.pool_name(domain)); }

  private:
    enum MailKind : uint16_t { kAccept = 1, kPutBack, kRefill, kPark, kWindow, kForget, kTryNow };

    Shard(ShardId id, SharedState& shared, std::unique_ptr<Reactor> reactor);
    Result<void> build();
    void register_mail();
    void on_durable(std::span<const Release> releases);
    void file_settled(FileSlot slot);
    void forget(FileSlot slot, FileId id);
    bool settle_doomed();
    bool settle_cancelled(RecordId id);
    bool settle_aged(RecordId id);
    void run_calls();
    void count();
    void count_connections();
    void look_for_space();
    bool log_unsent(RecordId id, const Outcome& outcome, LogType type);
    void defer(RecordId id);
    void choose_queue(Record& record, const Envelope& envelope, const Outcome& outcome, const AttemptPlace& place);
    bool drain();
    void end_calls();
    ShardId home(DomainId domain) const { return static_cast<ShardId>(domain % shared_.shards); }
    ShardId home(const Site& site) const { return static_cast<ShardId>(site.id() % shared_.shards); }
    void to_home(RecordChain chain, DomainId domain);
    // By the spool's time-line, as are all stamps; the log has them by the wall clock.
    int64_t now_s() const { return reactor_->steady_us() / kUsPerSecond; }
    // The whole second at or after `wait_s` from now: never early.
    uint32_t due_after(int64_t wait_s) const {
        return static_cast<uint32_t>((reactor_->steady_us() + wait_s * kUsPerSecond + kUsPerSecond - 1) / kUsPerSecond);
    }

    // Log and journal of one settled recipient.
    struct Settled {
        RecordId id = 0;
        const LoadedMessage* message = nullptr;
        std::string_view recipient;
        const Outcome* outcome = nullptr;
        LogType type = LogType::delivery;
        RecordKind kind = RecordKind::delivered;
        uint32_t due_s = 0;
        const AttemptPlace* place = nullptr;
    };
    void log(const Settled& settled);
    Task<void> answer_route(std::string domain, RouteAnswer answer);
    void remember_reply(DomainId domain, const Outcome& outcome, std::string_view host);
    bool give_up(RecordId id, const Outcome& outcome, LogType type, RecordKind kind);
    void finish(RecordId id, RecordKind kind, uint16_t attempt);

    SharedState& shared_;
    std::unique_ptr<Reactor> reactor_;
    ShardMetrics& metrics_;
    BufferPool buffers_;
    RecordSupply supply_;
    HostHealth health_;
    AddressPool addresses_;
    MessageReader reader_;
    std::unique_ptr<AresResolver> resolver_;
    std::unique_ptr<DeliveryLog> log_;
    std::unique_ptr<Journal> journal_;
    std::unique_ptr<SetAside> aside_;
    std::set<std::string> told_faults_;
    std::unique_ptr<GroupCommit> commit_;
    RetrySchedule schedule_;
    AddressBlocks prohibited_;
    std::unique_ptr<Backlog> backlog_;
    std::unique_ptr<EgressContext> context_;
    std::unique_ptr<Dispatcher> dispatcher_;
    std::unique_ptr<Intake> intake_;
    std::shared_ptr<const HoldTable> holds_;
    std::unordered_map<DomainId, LastReply> last_replies_;
    RecordChain doomed_, aged_;    // cancelled, past max_age: to be logged and settled, a slice each turn
    int64_t settle_again_ms_ = 0;  // of some the address could not be read
    Gate gate_;
    LoadedMessage scratch_;
    RecipientText scratch_recipient_;
    std::atomic<int> stopping_{0};  // 1: drain, 2: at once
    std::atomic<bool> reopen_{false};
    std::mutex calls_mutex_;
    std::vector<std::function<void(Shard&)>> calls_;
    std::atomic<bool> has_calls_{false};
    bool ended_ = false;  // under calls_mutex_
    int64_t counted_ms_ = 0;
    int64_t connections_counted_ms_ = 0;
    int64_t space_looked_ms_ = 0;
    bool short_of_space_ = false;
    uint64_t posted_ = 0, received_ = 0;  // recipients by mail, for the ledger
};

}  // namespace postrider
