// What a shard counts, for the progress line, the admin socket and the end of `--until-empty`. Written by its shard, read
// by any thread; single counters are exact, sums over shards are a moment's view.
#pragma once

#include <atomic>
#include <cstdint>

namespace postrider {

class Counter {
  public:
    void add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
    void set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
    uint64_t get() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<uint64_t> value_{0};  // one writer
};

struct alignas(64) ShardMetrics {
    // Recipients: accepted = delivered + bounced + expired + cancelled + pending.
    Counter accepted, delivered, bounced, expired, cancelled;
    Counter attempts_deferred;    // transient failures: attempts, not recipients
    Counter possible_duplicates;  // ambiguous ends
    Counter octets;               // of delivered content
    Counter refused;              // files and messages set aside
    Counter refused_recipients;
    Counter files, messages;      // taken in
    Counter waiting;              // deferred or parked: they wait for a time
    Counter next_due_s;           // when the first of them is due; 0: none
    Counter connections, connecting, connections_opened, connections_tls;
    Counter resolving, dns_queries;
    Counter turns, commits, commit_us, journal_octets;
    Counter intake_idle;          // 1: nothing to take in, nothing being read
    Counter left_behind;          // 1: something in new/ cannot be taken
    Counter commit_idle;          // 1: everything is durable

    uint64_t final_recipients() const {
        return delivered.get() + bounced.get() + expired.get() + cancelled.get();
    }
};

}  // namespace postrider
