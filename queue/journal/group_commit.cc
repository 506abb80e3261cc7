#include "queue/journal/group_commit.h"

#include <cstring>
#include <utility>

#include "engine/io/crash_points.h"

namespace postrider {

GroupCommit::GroupCommit(Reactor& reactor, const Options& options,
                         std::vector<CommitParticipant*> in_order)
    : reactor_(reactor), options_(options), participants_(std::move(in_order)) {
    reactor_.before_submit([this] { before_submit(); });
}

GroupCommit::~GroupCommit() {
    POSTRIDER_CHECK(!in_flight_, "a commit in flight belongs to the ring");
}

bool GroupCommit::any_dirty() const {
    for (const auto* participant : participants_)
        if (participant->dirty()) return true;
    return false;
}

bool GroupCommit::idle() const { return !in_flight_ && waiting_.empty() && !any_dirty(); }

void GroupCommit::before_submit() {
    if (failed_) return;
    if (!in_flight_ && (!waiting_.empty() || any_dirty())) {
        const int64_t due_ms = holding_ ? try_again_ms_ : begun_ms_ + options_.commit_ms;
        const bool at_once = !holding_ && (hurry_ || waiting_.size() >= options_.commit_at);
        if (at_once || reactor_.now_ms() >= due_ms) {
            begin();
            return;
        }
        if (!armed()) reactor_.arm(*this, due_ms);
    }
    bool urgent = false;
    for (const auto* participant : participants_) urgent |= participant->urgent();
    if (!urgent) return;
    // The commit in flight syncs the log before the journal: a result written now could be durable without its line.
    if (holding_ || in_flight_)
        write_urgent();
    else
        write_all();
}

// In order: the log before the journal. False: the commit is held, or has failed.
bool GroupCommit::write_all() {
    for (auto* participant : participants_) {
        auto written = participant->write_gathered();
        if (written) continue;
        if (!is_no_space(written.error().code)) {
            fail_for_good(written.error());
            return false;
        }
        try_again_ms_ = reactor_.now_ms() + kTryAgainMs;
        if (!std::exchange(holding_, true) && on_hold_) on_hold_(written.error(), true);
        if (!armed()) reactor_.arm(*this, try_again_ms_);
        return write_urgent() && false;
    }
    if (std::exchange(holding_, false) && on_hold_) on_hold_({}, false);
    return true;
}

bool GroupCommit::write_urgent() {
    for (auto* participant : participants_) {
        if (auto written = participant->write_urgent(); !written) {
            fail_for_good(written.error());
            return false;
        }
    }
    return true;
}

void GroupCommit::begin() {
    POSTRIDER_CRASH_POINT("commit.begin");
    unlink();
    for (auto* participant : participants_) participant->before_commit();
    if (!write_all()) return;
    in_flight_ = true;
    hurry_ = false;
    begun_ms_ = reactor_.now_ms();
    begun_ns_ = reactor_.now_ns();
    committing_.swap(waiting_);
    to_sync_.clear();
    folders_.clear();
    next_sync_ = 0;
    for (auto* participant : participants_) {
        if (auto begun = participant->begin_commit(to_sync_); !begun) {
            in_flight_ = false;
            fail_for_good(begun.error());
            return;
        }
        participant->folders_to_sync(folders_);
    }
    if (to_sync_.empty() && folders_.empty())
        reactor_.defer([this] { end(); });  // nothing of it needs a sync (a log on a pipe)
    else
        sync_next();
}

void GroupCommit::sync_next() {
    POSTRIDER_CRASH_POINT("commit.sync.before");
    const size_t at = next_sync_++;
    // A folder's names are no data: fdatasync may leave them out.
    if (at < to_sync_.size())
        reactor_.ring().fdatasync(to_sync_[at], this);
    else
        reactor_.ring().fsync(folders_[at - to_sync_.size()], this);
}

void GroupCommit::complete(int result, bool, std::span<const char>) {
    if (failed_ || result < 0) {
        in_flight_ = false;
        if (!failed_)
            fail_for_good({-result, std::string("fdatasync of the journal or the delivery log: ") +
                                        std::strerror(-result)});
        return;
    }
    POSTRIDER_CRASH_POINT("commit.sync.after");
    if (next_sync_ < to_sync_.size() + folders_.size())
        sync_next();
    else
        end();
}

void GroupCommit::end() {
    in_flight_ = false;
    if (failed_) return;
    for (auto* participant : participants_) {
        if (auto ended = participant->end_commit(); !ended) {
            fail_for_good(ended.error());
            return;
        }
    }
    ++commits_;
    last_commit_ns_ = reactor_.now_ns() - begun_ns_;
    POSTRIDER_CRASH_POINT("commit.durable");
    if (!committing_.empty() && on_durable_) on_durable_(committing_);
    POSTRIDER_CRASH_POINT("commit.released");
    committing_.clear();
}

void GroupCommit::fail_for_good(const Error& error) {
    failed_ = true;
    unlink();
    if (on_failure_) on_failure_(error);
}

}  // namespace postrider
