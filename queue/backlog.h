// The backlog of a shard: every record of the domains whose home it is, ready ones by priority class and campaign,
// deferred ones in buckets of time. Plain and single-threaded; what other shards pull goes through ready windows.
//
//   accept, put_back, defer -> ready (high before normal, campaigns in turn) -> window -> a sending shard
//                           -> deferred (due_s ahead) ------^ when due
//
// A parked domain (its DNS fails, its site is down or suspended) keeps its records where they are and announces nothing;
// they count as waiting for a time. A record past max_age is handed to expire() when it comes due, when its domain leaves
// the park, or by whoever pulls it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/io/reactor.h"
#include "queue/file_table.h"
#include "queue/ready_window.h"
#include "queue/record.h"
#include "queue/retry_schedule.h"

namespace postrider {

// What the backlog asks of its shard.
class BacklogOwner {
  public:
    virtual ~BacklogOwner() = default;
    // The window has mail and must reach the worker of the domain's site; it comes with a reference.
    virtual void announce(ReadyWindow& window) = 0;
    // The record is past max_age; the owner logs it and settles it.
    virtual void expire(RecordId id) = 0;
};

class Backlog final : private Timer {
  public:
    struct Counts {
        uint64_t ready = 0;     // may be sent now; those in windows are not counted
        uint64_t deferred = 0;  // wait for their time
        uint64_t parked = 0;    // in parked domains, their windows included
        int64_t next_due_s = INT64_MAX;  // the earliest deferred record or park's end
    };
    struct DomainCounts {
        DomainId domain = 0;
        uint64_t ready = 0, deferred = 0;
        int64_t parked_until_s = 0;  // 0: not parked
        std::string why;             // of the park
    };

    Backlog(Reactor& reactor, RecordArena& arena, FileTable& file_table, const RetrySchedule& schedule,
            BacklogOwner& owner);
    ~Backlog() override;

    // Takes records of domains homed here. Those with due_s ahead wait for it.
    void accept(RecordChain chain);
    // A record that was pulled and not tried: first in its class again.
    void put_back(RecordId id);
    // A consumer has asked for more.
    void refill(DomainId domain);

    // Until `until_s` (seconds since 1970) nothing of the domain is announced.
    void park(DomainId domain, int64_t until_s, std::string why);
    void unpark(DomainId domain);

    Counts counts() const;
    void for_each_domain(const std::function<void(const DomainCounts&)>& visit) const;

  private:
    struct PriorityClass {
        std::map<LabelId, RecordChain> campaigns;  // non-empty ones
        LabelId turn = 0;                          // whose turn it is
        uint32_t left = 0;                         // records of its quantum left
    };
    struct Domain {
        explicit Domain(DomainId i) : id(i) {}
        DomainId id;
        PriorityClass classes[2];  // normal, high
        uint64_t ready = 0;        // in the classes
        uint64_t deferred = 0;
        std::unique_ptr<ReadyWindow> window;
        bool sweeping = false;      // in idle_, to be looked at by sweep()
        int64_t parked_until_s = 0;
        std::string why;
    };

    Domain& domain(DomainId id);
    void add_ready(Domain& domain, RecordId id, bool front);
    void add_deferred(Domain& domain, RecordId id);
    RecordId next_ready(Domain& domain);
    void fill(Domain& domain);
    void make_idle(Domain& domain);
    void sweep();
    void expire_old(Domain& domain);
    bool expired(const Record& record) const;
    int64_t now_s() const { return reactor_.wall_us() / kUsPerSecond; }
    void arm();
    void on_timer() override;

    Reactor& reactor_;
    RecordArena& arena_;
    FileTable& files_;
    const RetrySchedule& schedule_;
    BacklogOwner& owner_;
    std::unordered_map<DomainId, std::unique_ptr<Domain>> domains_;
    std::map<int64_t, RecordChain> buckets_;         // by due second
    std::set<std::pair<int64_t, DomainId>> park_ends_;  // one of each parked domain
    std::unordered_set<DomainId> parked_;
    std::vector<DomainId> idle_;                     // domains that may be forgotten, windows that may be freed
    uint64_t ready_ = 0, deferred_ = 0;
};

}  // namespace postrider
