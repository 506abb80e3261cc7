// Group commit: one sync makes everything durable that gathered since the last. One per shard.
//
// States:  gathering -> committing -> gathering ...   gathering <-> holding   and from any, once and for good, -> failed
//
//   gathering   records collect in the participants' buffers, releases in a queue. A commit begins when there is
//               something to make durable and `commit_ms` have passed since the last one began (so the first after a
//               pause begins at once), or when `commit_at` releases wait. With nothing to do no timer is armed.
//   committing  the participants in their order: each writes what it had gathered when the commit began, and its descriptors
//               are synced through the ring before the next one writes. So no result is in the journal's file before the
//               line that tells of it is durable: a sync of the log that fails (FAULTS 94), or a power cut, can take lines
//               away, and the kernel may write the journal's pages nevertheless. What gathers meanwhile waits for the next
//               commit. When the last sync has ended, the releases that waited when it began are handed out, in order.
//   holding     a write found no space (decision 0018). Nothing is lost: a participant keeps what it could not write, and the
//               commit begins again every 100 ms; nothing is released meanwhile, and the owner starts nothing new (on_hold).
//   failed      a write or a sync has failed. Nothing is tried again: a second fsync reports success for data that is
//               gone (FAULTS 94). on_failure is called once, nothing is released any more; the engine ends (exit 4).
//
// Before a turn's sends are submitted (Reactor::before_submit) what is urgent is written, whatever the state: after kill -9
// every dot that was handed to the kernel has its intent in the file. If that write fails, on_failure is called before the
// submission: a handler that ends the process there sends nothing that is not recorded.
//
// The log writes its lines as they come: one that is durable early contradicts nothing. The results that wait are what a slow
// disk makes grow; the owner begins no transactions while they are many (Journal::many_gathered).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/core/result.h"
#include "engine/io/reactor.h"

namespace postrider {

class CommitParticipant {
  public:
    virtual ~CommitParticipant() = default;
    // Something is gathered or written that no finished sync covers.
    virtual bool dirty() const = 0;
    // Something must be written before this turn's sends,
    virtual bool urgent() const { return false; }
    // by this. No error is forgiven.
    virtual Result<void> write_urgent() { return {}; }
    // A commit begins: what is gathered now is its part of it.
    virtual void before_commit() {}
    // What those before it in the order have written is durable. Writes its part and names the descriptors whose sync covers
    // it, in order. They stay open until end_commit(). An error for want of space leaves what is not written gathered.
    virtual Result<void> begin_commit(std::vector<int>& to_sync) = 0;
    // Folders whose names the commit must make durable besides.
    virtual void folders_to_sync(std::vector<int>&) {}
    // What it gives begin_commit() to sync are new files and folders: their names too.
    virtual bool syncs_names() const { return false; }
    // All of the commit is durable.
    virtual Result<void> end_commit() = 0;
};

// What waits for a commit: small and plain; what the numbers mean is the caller's.
struct Release {
    uint64_t a = 0;
    uint32_t b = 0;
    uint32_t kind = 0;
    bool operator==(const Release&) const = default;
};

class GroupCommit final : private Operation, private Timer {
  public:
    struct Options {
        DurationMs commit_ms = 10;
        size_t commit_at = 16'384;
    };
    using OnDurable = std::function<void(std::span<const Release>)>;
    using OnFailure = std::function<void(const Error&)>;
    using OnHold = std::function<void(const Error& why, bool holding)>;
    static constexpr DurationMs kTryAgainMs = 100;

    // Participants in the order of their writes and syncs: the delivery log, then the journal. All of them and this
    // outlive the reactor's last turn.
    GroupCommit(Reactor& reactor, const Options& options, std::vector<CommitParticipant*> in_order);
    ~GroupCommit() override;

    // Set before the first turn. Both may append to the participants and call when_durable().
    void on_durable(OnDurable handler) { on_durable_ = std::move(handler); }
    void on_failure(OnFailure handler) { on_failure_ = std::move(handler); }
    // Holding begins and ends.
    void on_hold(OnHold handler) { on_hold_ = std::move(handler); }

    // Hands `release` out when all that was appended before this call is durable.
    void when_durable(const Release& release) { waiting_.push_back(release); }

    // The next commit begins in this turn, or as soon as the one in flight has ended: for a drain.
    void hurry() { hurry_ = true; }
    // A live change of `[journal] commit`.
    void set_commit_ms(DurationMs commit_ms) { options_.commit_ms = commit_ms; }

    // Nothing gathered, nothing in flight, nobody waits.
    bool idle() const;
    bool failed() const { return failed_; }
    bool holding() const { return holding_; }
    // No sync is with the kernel. After a failure too, this is not destroyed before.
    bool settled() const { return !in_flight_; }
    uint64_t commits() const { return commits_; }
    // From the begin of the last commit to its end.
    int64_t last_commit_ns() const { return last_commit_ns_; }

  private:
    void complete(int result, bool more, std::span<const char> buffer) override;
    void on_timer() override {}  // wakes the turn; before_submit() decides
    void before_submit();
    void write_urgent();
    void begin();
    void go_on();
    bool next_stage();
    void hold(const Error& why);
    void end();
    void fail_for_good(const Error& error);
    bool any_dirty() const;

    Reactor& reactor_;
    Options options_;
    std::vector<CommitParticipant*> participants_;
    OnDurable on_durable_;
    OnFailure on_failure_;
    OnHold on_hold_;
    std::vector<Release> waiting_, committing_;
    std::vector<int> to_sync_;  // of the stage that the commit is in
    size_t next_sync_ = 0;
    size_t stage_ = 0;          // participants that have begun; then the folders
    bool synced_any_ = false;
    int64_t try_again_ms_ = 0;
    int64_t begun_ms_ = INT64_MIN / 2;
    MonoNs begun_ns_ = 0;
    int64_t last_commit_ns_ = 0;
    uint64_t commits_ = 0;
    bool in_flight_ = false;
    bool hurry_ = false;
    bool holding_ = false;
    bool failed_ = false;
};

}  // namespace postrider
