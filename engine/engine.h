// The engine: spool lock, recovery, then one thread for each shard. Owns everything; the command line and the admin socket
// talk to it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/control.h"
#include "engine/shard.h"

namespace postrider {

// Sums over the shards, a moment's view.
struct Totals {
    uint64_t accepted = 0, delivered = 0, bounced = 0, expired = 0, cancelled = 0, deferred_attempts = 0;
    uint64_t possible_duplicates = 0, refused = 0, refused_recipients = 0, files = 0, messages = 0, octets = 0;
    uint64_t waiting = 0, connections = 0, connections_opened = 0, connections_tls = 0, dns_queries = 0;
    uint64_t next_due_s = 0;  // 0: nobody waits for a time
    bool intake_idle = true, commit_idle = true, left_behind = false;

    uint64_t finals() const { return delivered + bounced + expired + cancelled; }
    uint64_t pending() const { return accepted - finals(); }
};

// Promise 1 as a sum: accepted = final + pending, pending counted where the recipients lie (backlog, windows, sessions, mail
// between shards), with every shard standing still for the moment of the count.
struct Ledger {
    uint64_t checks = 0;       // that came to an end: shards that are busy for long are asked again later
    uint64_t breaches = 0;     // of them, how many did not agree
    uint64_t accepted = 0, finals = 0, counted = 0;  // of the last one
    int64_t missing() const { return static_cast<int64_t>(accepted - finals) - static_cast<int64_t>(counted); }
};

// Room for so many connections beside what else needs descriptors; answers how many fit.
Result<uint32_t> raise_descriptor_limit(uint32_t connections, size_t shards);

class Engine {
  public:
    // Takes the spool, reads the journals, starts the shards. Exit codes of the error: 3 when another engine holds the
    // spool (code EWOULDBLOCK), 4 when the journal is damaged (code EBADMSG), else 1.
    static Result<std::unique_ptr<Engine>> start(Config config);
    ~Engine();

    const Config& config() const { return shared_->config; }
    SharedState& shared() { return *shared_; }
    Control& control() { return *control_; }
    size_t shards() const { return shared_->shards; }
    Totals totals() const;
    const RecoveryReport& recovery() const { return report_; }
    // Counts, and tells on stderr when the sum does not agree. From a thread that is no shard's.
    void check_ledger();
    Ledger ledger() const;

    void stop();          // drain, at most shutdown_timeout
    void stop_at_once();  // a second SIGTERM
    void reopen_log();
    // Waits for the shards; true when every connection ended in order.
    bool join();
    bool running() const { return running_.load() > 0; }

    // Runs `call` on each shard's thread and waits for all.
    void on_each_shard(const std::function<void(Shard&)>& call);

    // The domain's mail servers as DNS tells them; null: it has not answered in time. From a thread that is no shard's.
    std::shared_ptr<const MailRoute> route(const std::string& domain);
    // Tells the shaping where the mail servers of the domains are, so that what is set for them holds at once for the mail of
    // other domains there. Waits for DNS, but not long. Answers, a line each, what could not be told: it is when DNS answers.
    std::vector<std::string> learn_sites(const std::vector<std::string>& domains);

  private:
    using Route = std::shared_ptr<const MailRoute>;
    std::vector<std::future<Route>> look_up(const std::vector<std::string>& domains);
    Engine() = default;
    Result<void> start_shards();

    std::unique_ptr<SharedState> shared_;
    std::unique_ptr<Control> control_;
    RecoveryReport report_;
    std::mutex shards_mutex_;     // the list: admin threads ask while join() ends it
    std::vector<Shard*> shards_;  // each is its thread's while it runs; valid until join()
    // By number, once their threads have ended: until the last one has, mail, windows and calls may still point at them.
    std::vector<std::unique_ptr<Shard>> ended_;
    std::vector<std::thread> threads_;
    std::atomic<size_t> running_{0};
    std::atomic<bool> clean_{true};
    mutable std::mutex ledger_mutex_;
    Ledger ledger_;
};

}  // namespace postrider
