// The backlog of a shard: every record of the domains whose home it is, ready ones by priority class and campaign,
// deferred ones in buckets of time. Plain and single-threaded; what other shards pull goes through ready windows.
//
//   accept, put_back, defer -> ready (by priority class, campaigns in turn) -> the class's window -> a sending shard
//                           -> deferred (due_s ahead) ------^ when due
//
// Each class of a domain has a window of its own: whoever serves a site takes what is urgent first, in whichever of its
// domains it lies, however much else is ready (egress/site_worker.h).
//
// A parked domain (its DNS fails, its site is down) keeps its records where they are and announces nothing; they count as
// waiting for a time. A record past max_age is handed to expire() when it comes due, by whoever pulls it, and wherever it
// rests here (parked, behind a limit) when the oldest of its domain has come of age.
//
// Holds (holds.h). What is cancelled or suspended never enters a window: every record that comes in is judged. What was there
// before is seen to by a walk in slices (backlog_walk.cc) that begins with each change, and for a domain at the latest when
// its window is filled: it empties the window, sets the flows (the records of one campaign and tenant in a domain) of what
// is suspended aside whole, and judges one by one what a new cancel may concern. What was in windows is judged by whoever
// pulls it, too (EgressOwner::take_held). Records set aside count as waiting for a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/io/reactor.h"
#include "queue/file_table.h"
#include "queue/holds.h"
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
    // The record is past max_age; the owner logs it and settles it in its own time.
    virtual void expire(RecordId id) = 0;
    // The record is cancelled; the owner settles it in its own time.
    virtual void cancel(RecordId id) = 0;
    // What `holds` says of a site and its providers.
    virtual HoldTable::Verdict judge_site(const HoldTable& holds, SiteId site) = 0;
    // Mail of the site was flushed: if the site is parked, its park ends.
    virtual void try_now(SiteId site) = 0;
};

class Backlog final : private Timer {
  public:
    struct Counts {
        uint64_t ready = 0;     // may be sent now; those in windows are not counted
        uint64_t deferred = 0;  // wait for their time
        uint64_t parked = 0;    // in parked domains, their windows included
        uint64_t held = 0;      // suspended
        int64_t next_due_s = INT64_MAX;  // the earliest deferred record or park's end
    };
    struct DomainCounts {
        DomainId domain = 0;
        uint64_t ready = 0, deferred = 0, held = 0;
        int64_t parked_until_s = 0;  // 0: not parked
        std::string why;             // of the park
        SiteId site = 0;             // 0: not known yet
    };
    // The records of one campaign and tenant: they take turns, and are held or not as one.
    struct Flow {
        LabelId campaign = 0, tenant = 0;
        auto operator<=>(const Flow&) const = default;
        // Among what `of` names: a label that is not named is any.
        bool among(const Flow& of) const {
            return (!of.campaign || campaign == of.campaign) && (!of.tenant || tenant == of.tenant);
        }
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

    // max_age or the waits are others now: what rests is watched by them. The walk follows.
    void schedule_changed();

    // What is in force from now on; null: nothing. The walk follows.
    void set_holds(std::shared_ptr<const HoldTable> holds);
    const HoldTable* holds() const { return holds_.get(); }
    // The domain's mail is about to go to this site. False: the site is held and the window was emptied.
    bool bound(DomainId domain, SiteId site);
    // Deferred mail of the selection (what the table suspends; null: everything) becomes due now, and parks of its domains
    // end. What was never tried waits for a time that its producer chose: it stays.
    void flush(std::shared_ptr<const HoldTable> selection);
    // A slice of the walk; true when there is more. For Reactor::each_turn.
    bool walk();

    Counts counts() const;
    // Every record held here, and those in the windows of the domains homed here: for the ledger, a walk over the domains.
    uint64_t held() const;
    void for_each_domain(const std::function<void(const DomainCounts&)>& visit) const;
    // The same a slice at a time: about `most` domains from `cursor` on (0 at first); false at the end. Domains that come
    // or go between two calls may be told twice or not at all. `of`: only what is ready or held of the flows of this
    // campaign, or tenant. What of them is in a window is about to be sent, and not told; what is deferred tells
    // count_deferred().
    bool visit_domains(size_t& cursor, size_t most, const Flow& of,
                       const std::function<void(const DomainCounts&)>& visit) const;
    // Deferred records of the flow in each domain, by a look at each record, in slices as search(); false at the end.
    struct DeferredCount;
    bool count_deferred(DeferredCount& count) const;
    // What waits here of one message: deferred, suspended, ready or in a parked domain, but for what is in windows. A slice at
    // a time from a fresh `search` on; false at the end. What moves meanwhile may be told twice or not at all.
    enum class Resting : uint8_t { ready, deferred, suspended, parked };
    using Visit = std::function<void(const Record&, Resting)>;
    struct Search;
    bool search(Search& search, const Visit& visit);
    // Of one domain; empty when nothing of it is here.
    std::optional<DomainCounts> domain_counts(DomainId domain) const;
    // Of what is suspended in the domain.
    std::vector<Flow> held_flows(DomainId domain) const;
    // When the first deferred record of the domain is due; 0: none is, or it is not among the first few thousand that are.
    // `tried`: it was, and waits for a retry, not for its x-not-before.
    struct Due {
        int64_t due_s = 0;
        bool tried = false;
    };
    Due next_due(DomainId domain);

  private:
    using Flows = std::map<Flow, RecordChain>;
    struct PriorityClass {
        Flows flows;                        // non-empty ones
        Flow turn;                          // whose turn it is
        uint32_t left = 0;                  // records of its quantum left
        uint64_t ready = 0;                 // records in the flows
        std::unique_ptr<ReadyWindow> window;
    };
    struct Domain {
        explicit Domain(DomainId i) : id(i) {}
        DomainId id;
        PriorityClass classes[2];  // normal, high
        uint64_t deferred = 0;
        uint64_t held = 0;      // in held_
        SiteId site = 0;        // as last bound
        uint32_t version = 0;   // of the holds by which its records were looked at
        bool sweeping = false;      // in idle_, to be looked at by sweep()
        int64_t parked_until_s = 0;
        int64_t oldest_s = INT64_MAX;  // no ready record's file was claimed earlier; it is in ages_
        int64_t age_due_s = 0;         // with this
        std::string why;

        PriorityClass& of(Priority priority) { return classes[static_cast<size_t>(priority)]; }
        uint64_t ready() const { return classes[0].ready + classes[1].ready; }
        uint64_t in_windows() const;
        bool windows_referenced() const;
    };

    // A flow that is suspended, or was when the walk last came by.
    struct HeldKey {
        DomainId domain;
        Priority priority;
        Flow flow;
        auto operator<=>(const HeldKey&) const = default;
    };
    void look_through(Search& search, const RecordChain& chain, Resting how, const Visit& visit);
    struct Walk {
        enum class Stage : uint8_t { idle, domains, buckets, held } stage = Stage::idle;
        size_t cursor = 0;          // of the domains
        size_t hash_size = 0;       // of domains_ when the walk began: when it grows, the walk begins anew
        int64_t due_cursor_s = 0;   // of buckets_
        HeldKey held_cursor;        // of held_
        bool ages = false;          // what is suspended is judged by its age
        bool deferred = false;      // the buckets are walked
        int64_t judging_to_s = 0;   // every cancel up to this stamp is dealt with when the walk ends
        std::vector<std::shared_ptr<const HoldTable>> flushes;  // null: everything
    };

    Domain& domain(DomainId id);
    DomainCounts counts_of(const Domain& home) const;
    void count_flows(const Domain& home, const Flow& of, DomainCounts& counts) const;
    // Of holds_, which must not be null.
    HoldTable::Verdict judge(const HoldTable& holds, const Domain& home, const Flow& flow) const;
    bool set_aside(Domain& home, RecordId id);
    void begin_walk();
    void look(Domain& home, bool all);
    void look_at_flows(Domain& home, Priority priority, bool all);
    void look_at_held(Domain& home, bool all);
    void take_back(Domain& home);
    void walk_domains();
    void walk_buckets();
    void walk_held();
    bool judge_suspects();
    bool flushed(const Domain& home, const Flow& flow) const;
    void flush_park(Domain& home);
    void add_ready(Domain& domain, RecordId id, bool front);
    RecordChain& flow_of(Domain& domain, const Record& record);
    void add_deferred(Domain& domain, RecordId id);
    RecordId next_ready(PriorityClass& klass);
    void fill(Domain& domain);
    void fill_window(Domain& domain, Priority priority);
    std::vector<RecordId> pull_windows(Domain& domain);
    void make_idle(Domain& domain);
    void sweep();
    void watch_age(Domain& domain, int64_t created_s);
    bool expire_old(Domain& domain);
    void expire_due();
    bool expired(const Record& record) const;
    int64_t now_s() const { return reactor_.steady_us() / kUsPerSecond; }
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
    std::set<std::pair<int64_t, DomainId>> ages_;  // when the oldest ready record of a domain may be past max_age
    std::vector<DomainId> idle_;                     // domains that may be forgotten, windows that may be freed
    uint64_t ready_ = 0, deferred_ = 0;
    Flows::node_type spare_flow_;
    std::shared_ptr<const HoldTable> holds_;
    uint32_t holds_version_ = 0;
    int64_t judged_to_s_ = 0;              // every record here was judged by the cancels up to this stamp
    std::map<HeldKey, RecordChain> held_;  // non-empty ones
    uint64_t held_count_ = 0;
    int64_t next_ages_ms_ = 0;             // when the ages of what is held are looked at next
    RecordChain suspects_;                 // of no domain for now: ready ones to be judged,
    RecordChain deferred_suspects_;        // and deferred ones, which their domains count still
    Walk walk_;
};

struct Backlog::DeferredCount {
    Flow of;
    std::unordered_map<DomainId, uint64_t> counted;
    int64_t due_cursor_s = 0;  // of the buckets
    bool partly = false;       // a chain was too long to be looked through
};

struct Backlog::Search {
    MessageId message;
    int64_t due_cursor_s = 0;   // of the buckets; INT64_MAX: done with them
    HeldKey held_cursor{};
    size_t cursor = 0;          // of the domains
    uint64_t looked_at = 0;     // records
    bool partly = false;        // a chain was too long to be looked through
};

}  // namespace postrider
