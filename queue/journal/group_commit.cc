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
        const int64_t due_ms = begun_ms_ + options_.commit_ms;
        if (hurry_ || waiting_.size() >= options_.commit_at || reactor_.now_ms() >= due_ms) {
            begin();
            return;
        }
        if (!armed()) reactor_.arm(*this, due_ms);
    }
    bool urgent = false;
    for (const auto* participant : participants_) urgent |= participant->urgent();
    if (!urgent) return;
    for (auto* participant : participants_) {
        if (auto written = participant->write_gathered(); !written) {
            fail_for_good(written.error());
            return;
        }
    }
}

void GroupCommit::begin() {
    POSTRIDER_CRASH_POINT("commit.begin");
    unlink();
    in_flight_ = true;
    hurry_ = false;
    begun_ms_ = reactor_.now_ms();
    begun_ns_ = reactor_.now_ns();
    committing_.swap(waiting_);
    to_sync_.clear();
    next_sync_ = 0;
    for (auto* participant : participants_) {
        if (auto begun = participant->begin_commit(to_sync_); !begun) {
            in_flight_ = false;
            fail_for_good(begun.error());
            return;
        }
    }
    if (to_sync_.empty())
        reactor_.defer([this] { end(); });  // nothing of it needs a sync (a log on a pipe)
    else
        sync_next();
}

void GroupCommit::sync_next() {
    POSTRIDER_CRASH_POINT("commit.sync.before");
    reactor_.ring().fdatasync(to_sync_[next_sync_++], this);
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
    if (next_sync_ < to_sync_.size())
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
