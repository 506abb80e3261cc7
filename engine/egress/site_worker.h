// What one shard does for one site and pool of sources: windows in rotation on one side, pooled connections on the other.
//
//   attach(window) -> rotation -> a connection that is free pulls the next message -> settled -> ...
//
// The rotation (rotation.h) gives each domain its turns, by recipients, and urgent mail all of them; while the site's home has
// urgent mail, the shards that help it rest or have a part of it.
//
// Connection count follows the need (connection_window.h): it starts at one and grows while the mail that waits would keep
// the connections there are busy for long, the receiver keeps its pace and the shard has time to spare; a failed connection
// halves it; never above the shard's share of the path's limit. An idle connection waits idle_timeout for more and is retired
// when the peer speaks or closes.
//
// Limits (path_limits.h, site_limits.cc): a message takes its events before it is pulled, so nothing is pulled that may not go. When they are
// used up, connections rest, and the worker sleeps on the timer wheel until the limit that binds grants again; connections
// are opened only for what the limits let through while they would be of use. Of a limit at which others wait too the worker
// takes its share (limit_share.h).
//
// The sources of the pool take turns by their weights (pool_turns.h); a rate that binds one, or a host that refuses it, leaves
// the others their pace: whatever the window says, a source without a connection gets one when those that have some all wait
// for their rates.
//
// A message that is larger than the host at the other end takes (SIZE) is set apart for a connection to another host of the
// site (site_large_mail.cc); it bounces when no host of the site takes it.
//
// A site none of whose hosts can be reached is parked: one recipient tells it in the log (the probe), the others keep
// their attempts; after a wait by the retry schedule the next probe goes out (FAULTS 89). Openings that fail together are one
// failure. Where DNS says that no host has an address, all mail bounces at once (FAULTS 81).
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/egress/connection_window.h"
#include "engine/egress/egress_owner.h"
#include "engine/egress/limit_share.h"
#include "engine/egress/pool_turns.h"
#include "engine/egress/rotation.h"

namespace postrider {

class PooledConnection;

// Who pulls, and what its host takes; 0 where it does not say.
struct Taker {
    PooledConnection* connection = nullptr;  // null: the probe that tells why the site is parked
    uint32_t rcpt_max = 0;
    uint64_t size_limit = 0;
};

class SiteWorker {
  public:
    SiteWorker(EgressContext& context, Site& site, const EgressPool& pool, bool home);
    ~SiteWorker();

    Site& site() const { return site_; }
    const EgressPool& pool() const { return pool_; }
    // The window comes with a reference. `expires_ms`: when the domain's binding must be renewed.
    void attach(ReadyWindow& window, int64_t expires_ms);
    // Wakes or opens connections for the mail that waits.
    void pump();
    // Once in a while: the same, and lets go of windows that others have emptied.
    void tick();
    // The context's list: what is open to such an address ends, as where a limit was lowered.
    void prohibited_changed();
    // No new transaction; connections end after theirs.
    void drain();
    void end_park() { parked_until_ms_ = 0; }
    bool unused() const { return rotation_.empty() && connections_.empty() && large_.empty(); }

    size_t windows() const { return rotation_.size(); }
    size_t connections() const { return connections_.size(); }
    size_t connecting() const { return connecting_; }
    uint64_t opened() const { return opened_; }
    // Recipients pulled and not yet settled.
    uint64_t carried() const { return carried_; }

  private:
    friend class PooledConnection;

    Task<void> run(PooledConnection& pooled);
    Task<bool> open(PooledConnection& pooled);
    Task<std::optional<SessionFailure>> open_session(PooledConnection& pooled, std::unique_ptr<Connection> connection,
                                                     const Candidate& candidate, bool tls);
    enum class Turn : uint8_t { opens, taken_over, shares_failure, gives_up };
    Task<bool> open_at(PooledConnection& pooled, AddressPool::Address& address, const std::vector<Candidate>& list);
    Task<Turn> wait_turn(PooledConnection& pooled, const Candidate& best);
    bool take_over(PooledConnection& pooled, const Candidate& candidate);
    Task<bool> may_dial(PooledConnection& pooled);
    Task<bool> dial_candidates(PooledConnection& pooled, const std::vector<Candidate>& candidates);
    Task<void> serve(PooledConnection& pooled);
    void could_not_open(PooledConnection& pooled, const SessionFailure& failure);
    Task<void> bounce_all(PooledConnection& pooled, Outcome outcome);
    void park_site(PooledConnection& pooled, const SessionFailure& failure);
    [[gnu::noinline]] int64_t begin_park(PooledConnection& pooled, const std::string& why);
    void park_windows(int64_t wait_s);  // and what is set apart
    void rest_after_fruitless(PooledConnection& pooled);
    void leave_rotation(size_t index, bool abandon);
    // The site's home has urgent mail, and this shard has none of it.
    bool gives_way() const { return !home_ && rotation_.urgent() == 0 && site_.urgent(pool_.id) > 0; }
    void take_part(bool part);
    void tell_urgent() {
        if (home_) site_.set_urgent(pool_.id, static_cast<uint32_t>(rotation_.urgent()));
    }
    bool no_mail() const { return draining_ || (rotation_.empty() && large_.empty()); }

    // Messages set apart (site_large_mail.cc).
    bool set_apart(QueuedMessage& message, const Taker& taker);
    QueuedMessage* large_for(const Taker& taker);
    bool some_host_may_take(const QueuedMessage& message);
    void does_not_fit(const Taker& taker);
    bool open_for_large();
    void leave_out_small(const PooledConnection& pooled, std::vector<Candidate>& list);
    void drop_held_large();
    void settle_large(uint64_t at_least, Outcome outcome, const AttemptPlace& place);
    void put_back(QueuedMessage& message);
    void put_large_back();

    // What holds now: the view is looked at again when its version has moved.
    const SiteView& view();
    // Kept by who uses a path across calls that look at the view: another thread may move it at any time.
    std::shared_ptr<const SiteView> kept_view() {
        (void)view();
        return view_;
    }
    // By member of the pool.
    const PathView& path(size_t member) { return view().paths[turns_.source(member)]; }
    const EgressSource& source(size_t member) const { return context_.sources[turns_.source(member)]; }
    uint32_t allowed_at_most();
    bool one_too_many();
    uint64_t waiting() const;
    uint64_t wake_resting(uint64_t mail);
    void open_more(uint64_t mail);
    bool open_one(size_t member);
    bool open_next();
    uint64_t granted(size_t member);
    uint64_t granted_soon(size_t member);
    bool open_ones_are_limited();
    void open_for_wanting();
    PooledConnection& add_connection(ConnectionLease lease, size_t member);
    std::span<const size_t> opening_order();
    void wait_for_limits();
    void stop_waiting_for_limits();
    void shed();
    bool worthwhile(uint64_t mail) const {
        return connection_window_.worthwhile(mail, connections_.size(), context_.sockets.used());
    }
    void taken_one();
    QueuedMessage* pull(size_t member, const Taker& taker);
    bool own_limit_binds(size_t member, const PathView& path, MonoNs now_ns) const;
    QueuedMessage* pull_within_limits(size_t member, const Taker& taker);
    QueuedMessage* next_message(const PathView& path, const Taker& taker);
    bool fill(QueuedMessage& message, RecordId first, ReadyWindow& window, const PathView& path, uint32_t rcpt_max);
    // Answers its octets in the envelope; 0: it was settled instead.
    size_t add_recipient(QueuedMessage& message, RecordId id);
    void give_back(QueuedMessage& message);
    void settle_untried(QueuedMessage& message, const Outcome& outcome, const AttemptPlace& place);
    void settle_all(QueuedMessage& message, const AttemptPlace& place);
    std::unique_ptr<QueuedMessage> spare();

    EgressContext& context_;
    Site& site_;
    const EgressPool& pool_;
    const bool home_;
    bool takes_part_ = false;  // in sharing the site's limits
    std::shared_ptr<const SiteView> view_;
    uint64_t binding_version_ = 0;
    Rotation rotation_;
    std::vector<std::unique_ptr<PooledConnection>> connections_;
    std::vector<PooledConnection*> idle_;  // the most recent last
    std::vector<std::unique_ptr<QueuedMessage>> spares_;
    std::vector<QueuedMessage*> large_;    // set apart
    size_t connecting_ = 0;
    size_t live_ = 0;  // with an open session
    ConnectionWindow connection_window_;
    int64_t no_opening_before_ms_ = 0;
    int64_t no_loading_before_ms_ = 0;  // FAULTS 95: no descriptor for a message's file
    uint32_t fruitless_ = 0;            // sessions in a row that ended badly and took nothing
    int64_t parked_until_ms_ = 0;
    std::string parked_why_;
    int64_t invited_ms_ = 0;
    PoolTurns turns_;
    std::vector<size_t> opening_order_;
    std::vector<PooledConnection*> waking_order_;
    // Limits: this worker sleeps until the one that binds grants again.
    struct LimitTimer final : Timer {
        explicit LimitTimer(SiteWorker& w) : worker(w) {}
        void on_timer() override { worker.pump(); }
        SiteWorker& worker;
    };
    LimitTimer limit_timer_{*this};
    std::vector<LimitShare> shares_;   // by member: of the limit that bound last
    uint64_t octets_expected_ = 4096;  // of the next message: what the last one had
    std::vector<uint64_t> grants_;   // by member, while pumping
    bool draining_ = false;
    uint64_t opened_ = 0;
    uint64_t carried_ = 0;
    RecipientText text_;
    std::string ascii_;  // an address with an internationalised domain, as it goes out
};

}  // namespace postrider
