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
    write_urgent();
    if (failed_ || in_flight_ || (waiting_.empty() && !any_dirty())) return;
    const int64_t due_ms = holding_ ? try_again_ms_ : begun_ms_ + options_.commit_ms;
    const bool at_once = !holding_ && (hurry_ || waiting_.size() >= options_.commit_at);
    if (at_once || reactor_.now_ms() >= due_ms)
        begin();
    else if (!armed())
        reactor_.arm(*this, due_ms);
}

void GroupCommit::write_urgent() {
    for (auto* participant : participants_) {
        if (!participant->urgent()) continue;
        if (auto written = participant->write_urgent(); !written) return fail_for_good(written.error());
    }
}

void GroupCommit::begin() {
    POSTRIDER_CRASH_POINT("commit.begin");
    unlink();
    for (auto* participant : participants_) participant->before_commit();
    in_flight_ = true;
    hurry_ = false;
    begun_ms_ = reactor_.now_ms();
    begun_ns_ = reactor_.now_ns();
    committing_.swap(waiting_);
    to_sync_.clear();
    next_sync_ = stage_ = 0;
    synced_any_ = false;
    go_on();
}

// The next sync, or the end.
void GroupCommit::go_on() {
    while (next_sync_ == to_sync_.size()) {
        if (next_stage()) continue;
        if (failed_ || !in_flight_) return;
        if (synced_any_) return end();
        reactor_.defer([this] { end(); });  // nothing of it needs a sync (a log on a pipe)
        return;
    }
    POSTRIDER_CRASH_POINT("commit.sync.before");
    synced_any_ = true;
    const int fd = to_sync_[next_sync_++];
    // Names are no data: fdatasync may leave them out.
    if (stage_ > participants_.size() || participants_[stage_ - 1]->syncs_names())
        reactor_.ring().fsync(fd, this);
    else
        reactor_.ring().fdatasync(fd, this);
}

// False: there is none, or the commit is held, or has failed.
bool GroupCommit::next_stage() {
    to_sync_.clear();
    next_sync_ = 0;
    if (stage_ > participants_.size()) return false;
    if (stage_++ < participants_.size()) {
        auto begun = participants_[stage_ - 1]->begin_commit(to_sync_);
        if (begun) return true;
        in_flight_ = false;
        if (is_no_space(begun.error().code))
            hold(begun.error());
        else
            fail_for_good(begun.error());
        return false;
    }
    if (std::exchange(holding_, false) && on_hold_) on_hold_({}, false);
    for (auto* participant : participants_) participant->folders_to_sync(to_sync_);
    return true;
}

void GroupCommit::hold(const Error& why) {
    waiting_.insert(waiting_.begin(), committing_.begin(), committing_.end());
    committing_.clear();
    try_again_ms_ = reactor_.now_ms() + kTryAgainMs;
    if (!std::exchange(holding_, true) && on_hold_) on_hold_(why, true);
    if (!armed()) reactor_.arm(*this, try_again_ms_);
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
    go_on();
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
