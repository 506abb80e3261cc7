// What the sink counts and writes down, shared by its workers: counters, deliveries seen (duplicates), canaries,
// the log, stored contents. Each worker owns one Tally; what is common is in Ledger.
//
// Counters file (little-endian 64-bit words, mapped by the watcher): "PRSINK1\0", number of workers, words a worker,
// 0; then for each worker its words, in the order of `Counter`. A value of the sink is the sum over workers, but for
// `open` and `peak_open`, which are in the first worker's words alone.
//
// A log or store that cannot be written is counted in log_failures and makes the exit code 1: a checker must not
// trust what is missing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "tools/sink/smtp_machine.h"

namespace postrider::sink {

enum class Counter : uint8_t {
    connections, open, peak_open, messages, recipients, distinct, duplicates, untracked, canary_mismatches,
    refused_recipients, refused_messages, aborted, bytes, tls_connections, resumed_sessions, tls_messages,
    tls_failures, limited_connections, rules_applied, violations, dns_queries, log_failures, count
};
inline constexpr size_t kCounterWords = 32;  // a worker's words, whole cache lines
static_assert(static_cast<size_t>(Counter::count) <= kCounterWords);

// Deliveries seen: open addressing over 128-bit fingerprints, claimed by one compare-and-swap, no locks.
class SeenTable {
  public:
    enum class Answer : uint8_t { fresh, seen, full };
    explicit SeenTable(uint64_t entries);
    ~SeenTable();
    SeenTable(const SeenTable&) = delete;
    SeenTable& operator=(const SeenTable&) = delete;

    Answer insert(uint64_t high, uint64_t low);

  private:
    struct Slot {
        std::atomic<uint64_t> high, low;
    };
    Slot* slots_ = nullptr;
    uint64_t mask_ = 0;
};

// Common to the workers.
class Ledger {
  public:
    static Result<std::unique_ptr<Ledger>> open(const SinkOptions& options, unsigned workers);
    ~Ledger();
    Ledger(const Ledger&) = delete;
    Ledger& operator=(const Ledger&) = delete;

    std::atomic<uint64_t>* words(unsigned worker) { return words_ + 4 + worker * kCounterWords; }
    SinkCounters sum() const;
    SeenTable& seen() { return *seen_; }
    int log_fd() const { return log_fd_; }
    int store_fd() const { return store_fd_; }
    uint64_t next_connection() { return ++connection_; }
    void connection_opened();
    void connection_closed();
    // A delivery not seen before; wakes who waits for `expect`.
    void delivered_distinct();
    bool wait_expected(int64_t timeout_ms);

  private:
    Ledger() = default;
    unsigned workers_ = 0;
    uint64_t expect_ = 0;
    std::atomic<uint64_t>* words_ = nullptr;
    size_t mapped_ = 0;
    std::unique_ptr<SeenTable> seen_;
    int log_fd_ = -1, store_fd_ = -1;
    std::atomic<uint64_t> connection_{0}, open_{0}, distinct_{0};
    std::mutex mutex_;
    std::condition_variable reached_;
};

class Tally : public TransactionHandler {
  public:
    Tally(const SinkOptions& options, Ledger& ledger, unsigned worker);
    ~Tally() override;  // writes the log out

    void on_transaction(const SinkTransaction& transaction) override;
    void connection_event(std::string_view event, const SmtpMachine& machine, std::string_view why);
    void add(Counter counter, uint64_t amount);
    bool log_pending() const { return !log_.empty(); }
    void flush_log();

  private:
    void count_deliveries(const SinkTransaction& transaction);
    std::string store(const SinkTransaction& transaction);
    void log_transaction(const SinkTransaction& transaction, std::string_view file);
    void log_begin(std::string_view event, uint64_t connection, int64_t mono_us);
    void log_field(std::string_view name, std::string_view value);

    const SinkOptions& options_;
    Ledger& ledger_;
    std::atomic<uint64_t>* words_;
    unsigned worker_;
    uint64_t stored_ = 0;
    std::string log_, lowered_;
};

int64_t mono_us();

}  // namespace postrider::sink
