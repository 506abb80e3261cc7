#include "queue/journal/group_commit.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>

#include "queue/journal/journal.h"
#include "support.h"

namespace postrider::testing {
namespace {

std::unique_ptr<Journal> open_journal(const TempDir& dir, Journal::Options options = {}) {
    auto journal = Journal::open(dir.fd(), 0, 1, std::move(options));
    EXPECT_TRUE(journal) << journal.error().text;
    return std::move(*journal);
}

// A participant that writes nothing and notes what it is asked.
class Witness final : public CommitParticipant {
  public:
    Witness(std::string name, std::vector<std::string>& story) : name_(std::move(name)), story_(story) {}
    bool dirty() const override { return wants; }
    bool urgent() const override { return is_urgent; }
    Result<void> write_urgent() override {
        story_.push_back(name_ + " writes urgent");
        return {};
    }
    Result<void> begin_commit(std::vector<int>& to_sync) override {
        story_.push_back(name_ + " begins");
        if (sync_fd >= 0) to_sync.push_back(sync_fd);
        wants = false;
        return {};
    }
    Result<void> end_commit() override {
        story_.push_back(name_ + " ends");
        return {};
    }
    bool wants = false, is_urgent = false;
    int sync_fd = -1;

  private:
    std::string name_;
    std::vector<std::string>& story_;
};

TEST(GroupCommit, ReleasesComeInOrderAfterAllParticipantsInTheirOrder) {
    TempDir dir;
    ShardLoop loop;
    std::vector<std::string> story;
    Witness log("log", story), journal("journal", story);
    GroupCommit commit(*loop, {}, {&log, &journal});
    std::vector<Release> released;
    commit.on_durable([&](std::span<const Release> releases) {
        story.push_back("released");
        released.insert(released.end(), releases.begin(), releases.end());
    });
    log.sync_fd = open((dir / "log").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    commit.when_durable({1, 2, 3});
    commit.when_durable({4, 5, 6});
    EXPECT_TRUE(released.empty());
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
    EXPECT_EQ(released, (std::vector<Release>{{1, 2, 3}, {4, 5, 6}}));
    EXPECT_EQ(story, (std::vector<std::string>{"log begins", "journal begins", "log ends", "journal ends", "released"}));
    close(log.sync_fd);
}

TEST(GroupCommit, WhatIsReleasedIsInTheFile) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {.commit_ms = 2}, {journal.get()});
    uint32_t next = 0, seen = 0;
    commit.on_durable([&](std::span<const Release> releases) {
        const size_t size = std::filesystem::file_size(dir / "0-1.log");
        for (const auto& release : releases) {
            EXPECT_EQ(release.b, seen++);
            EXPECT_LE(kSegmentHeaderSize + 32 * (release.b + 1), size);
        }
    });
    ASSERT_TRUE(loop.run_until([&] {
        for (int i = 0; i < 10 && next < 500; ++i) {
            journal->result({7, next, 0, 1, RecordKind::delivered, 1, 0});
            commit.when_durable({0, next++, 0});
        }
        return seen == 500;
    }));
    EXPECT_GT(commit.commits(), 1u);
    EXPECT_LT(commit.commits(), 500u);
}

TEST(GroupCommit, TheFirstAfterAPauseBeginsAtOnceTheNextByTimeOrByCount) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {.commit_ms = 1000, .commit_at = 3}, {journal.get()});
    size_t released = 0;
    commit.on_durable([&](std::span<const Release> releases) { released += releases.size(); });
    const int64_t start_ms = loop->now_ms();
    commit.when_durable({});
    ASSERT_TRUE(loop.run_until([&] { return released == 1; }));
    EXPECT_LT(loop->now_ms() - start_ms, 900);
    for (int i = 0; i < 3; ++i) commit.when_durable({});  // by count
    ASSERT_TRUE(loop.run_until([&] { return released == 4; }));
    EXPECT_LT(loop->now_ms() - start_ms, 1000);
    commit.when_durable({});  // by time, counted from the begin of the last
    ASSERT_TRUE(loop.run_until([&] { return released == 5; }));
    EXPECT_GE(loop->now_ms() - start_ms, 1000);
}

TEST(GroupCommit, ARecordWithoutAWaiterIsMadeDurableToo) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {}, {journal.get()});
    journal->intent({1, 2, 3, 4});
    EXPECT_FALSE(commit.idle());
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
    EXPECT_EQ(commit.commits(), 1u);
}

TEST(GroupCommit, WithNothingToDoNoTimerRuns) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {.commit_ms = 1}, {journal.get()});
    journal->result({1, 2, 3, 4, RecordKind::delivered, 1, 0});
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
    loop.turn(20);
    const uint64_t turns = loop->turns();
    const uint64_t commits = commit.commits();
    loop.turn(100);  // returns early only if something wakes it
    loop.turn(100);
    EXPECT_EQ(loop->turns(), turns + 2);
    EXPECT_EQ(commit.commits(), commits);
}

// Promise 2: the intent is in the file before the turn's sends are handed to the kernel.
TEST(GroupCommit, AnIntentIsWrittenBeforeTheTurnSubmits) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {.commit_ms = 60'000}, {journal.get()});
    commit.hurry();
    commit.when_durable({});
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));  // the next commit is a minute away
    size_t size_at_submission = 0;
    loop->before_submit([&] { size_at_submission = std::filesystem::file_size(dir / "0-1.log"); });
    loop.turn(0);
    const size_t before = size_at_submission;
    journal->result({1, 1, 1, 1, RecordKind::delivered, 1, 0});
    loop.turn(0);
    EXPECT_EQ(size_at_submission, before) << "a result alone waits for the commit";
    journal->intent({1, 2, 1, 1});
    loop.turn(0);
    EXPECT_EQ(size_at_submission, before + 24);
}

// A result that gathers while the log is synced has no durable line yet.
TEST(GroupCommit, OnlyWhatGatheredBeforeACommitIsWrittenByIt) {
    TempDir dir;
    auto journal = open_journal(dir);
    const auto size = [&] { return std::filesystem::file_size(dir / "0-1.log"); };
    const size_t before = size();
    journal->result({.file = 1, .attempt = 1, .kind = RecordKind::delivered});
    EXPECT_FALSE(journal->urgent());
    journal->intent({.file = 1, .attempt = 1});
    EXPECT_TRUE(journal->urgent());
    ASSERT_TRUE(journal->write_urgent());
    EXPECT_EQ(size(), before + 24);
    EXPECT_FALSE(journal->urgent());
    EXPECT_TRUE(journal->dirty());
    journal->before_commit();
    journal->result({.file = 2, .attempt = 1, .kind = RecordKind::delivered});  // for the next one
    std::vector<int> to_sync;
    ASSERT_TRUE(journal->begin_commit(to_sync));
    EXPECT_EQ(size(), before + 24 + 32);
}

TEST(GroupCommit, WhatIsUrgentIsWrittenDuringACommitToo) {
    TempDir dir;
    ShardLoop loop;
    std::vector<std::string> story;
    Witness journal("journal", story);
    GroupCommit commit(*loop, {.commit_ms = 1}, {&journal});
    journal.sync_fd = open((dir / "journal").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    journal.is_urgent = true;
    for (int i = 0; i < 200; ++i) {
        journal.wants = true;
        loop.turn(0);
    }
    journal.is_urgent = false;
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
    const auto begun = std::ranges::find(story, "journal begins");
    const auto ended = std::find(begun, story.end(), "journal ends");
    EXPECT_NE(std::find(begun, ended, "journal writes urgent"), ended);
    close(journal.sync_fd);
}

// FAULTS 94: a pipe cannot be synced, the kernel says so, and it is not asked again.
TEST(GroupCommit, AFailedSyncIsForGood) {
    ShardLoop loop;
    int pipe_ends[2];
    ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
    std::vector<std::string> story;
    Witness log("log", story), journal("journal", story);
    GroupCommit commit(*loop, {.commit_ms = 1}, {&log, &journal});
    size_t released = 0;
    std::vector<int> failures;
    commit.on_durable([&](std::span<const Release> releases) { released += releases.size(); });
    commit.on_failure([&](const Error& error) { failures.push_back(error.code); });
    log.sync_fd = pipe_ends[0];
    commit.when_durable({});
    ASSERT_TRUE(loop.run_until([&] { return commit.failed() && commit.settled(); }));
    log.sync_fd = -1;  // a second sync would succeed
    for (int i = 0; i < 5; ++i) {
        commit.when_durable({});
        log.wants = true;
        commit.hurry();
        loop.turn(2);
    }
    EXPECT_EQ(failures, std::vector<int>{EINVAL});
    EXPECT_EQ(released, 0u);
    // The journal has written nothing: the lines that its results go with are gone, and its own pages may survive.
    EXPECT_EQ(story, (std::vector<std::string>{"log begins"}));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

// FAULTS 93: the file may not grow past a limit; the write fails half done as on a full disk.
TEST(GroupCommit, AFailedWriteIsForGood) {
    TempDir dir;
    ShardLoop loop;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {.commit_ms = 1}, {journal.get()});
    size_t released = 0;
    std::vector<int> failures;
    commit.on_durable([&](std::span<const Release> releases) { released += releases.size(); });
    commit.on_failure([&](const Error& error) { failures.push_back(error.code); });
    rlimit old_limit;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
    const auto old_handler = signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{kSegmentHeaderSize + 100, old_limit.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (uint32_t i = 0; i < 10; ++i) journal->intent({1, i, 1, 1});
    commit.when_durable({});
    const bool failed = loop.run_until([&] { return commit.failed(); });
    setrlimit(RLIMIT_FSIZE, &old_limit);
    signal(SIGXFSZ, old_handler);
    ASSERT_TRUE(failed);
    for (int i = 0; i < 5; ++i) {
        journal->intent({1, 99, 1, 1});
        commit.when_durable({});
        loop.turn(2);
    }
    EXPECT_EQ(failures, std::vector<int>{EFBIG});
    EXPECT_EQ(released, 0u);
    EXPECT_EQ(std::filesystem::file_size(dir / "0-1.log"), kSegmentHeaderSize + 100)
        << "nothing is written behind the half record";
    RecoveryReport report;
    EXPECT_EQ(known_of(recover(dir, report), 1), 4u);
}

// A disk that is full: writes fail until there is space.
class Full final : public CommitParticipant {
  public:
    bool dirty() const override { return waiting > 0 || written > 0; }
    bool urgent() const override { return false; }
    Result<void> begin_commit(std::vector<int>&) override {
        if (full) return fail("no space", ENOSPC);
        written += std::exchange(waiting, 0);
        return {};
    }
    Result<void> end_commit() override {
        durable += std::exchange(written, 0);
        return {};
    }
    bool full = true;
    int waiting = 0, written = 0, durable = 0;
};

// The journal comes after a log whose lines are durable already: what waited for the commit waits for the next.
TEST(GroupCommit, ACommitHeldHalfWayReleasesInOrder) {
    TempDir dir;
    ShardLoop loop;
    std::vector<std::string> story;
    Witness log("log", story);
    Full journal;
    GroupCommit commit(*loop, {}, {&log, &journal});
    log.sync_fd = open((dir / "log").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    std::vector<uint64_t> released;
    commit.on_durable([&](std::span<const Release> releases) {
        for (const Release& release : releases) released.push_back(release.a);
    });
    journal.waiting = 1;
    commit.when_durable({1});
    ASSERT_TRUE(loop.run_until([&] { return commit.holding(); }));
    commit.when_durable({2});
    loop.turn(150);
    loop.turn(20);
    EXPECT_TRUE(released.empty());
    journal.full = false;
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
    EXPECT_EQ(released, (std::vector<uint64_t>{1, 2}));
    EXPECT_EQ(journal.durable, 1);
    close(log.sync_fd);
}

// FAULTS 93: nothing is released and nothing fails; intents of what is under way still reach the journal.
TEST(GroupCommit, AFullDiskHoldsTheCommitAndSpaceLetsItGo) {
    TempDir dir;
    ShardLoop loop;
    Full log;
    auto journal = open_journal(dir);
    GroupCommit commit(*loop, {}, {&log, journal.get()});
    std::vector<bool> holds;
    size_t released = 0;
    bool failed = false;
    commit.on_hold([&](const Error&, bool holding) { holds.push_back(holding); });
    commit.on_durable([&](std::span<const Release> releases) { released += releases.size(); });
    commit.on_failure([&](const Error&) { failed = true; });
    log.waiting = 1;
    journal->result({7, 1, 0, 1, RecordKind::delivered, 1, 0});
    journal->intent({8, 1, 0, 1});
    commit.when_durable({7});
    const int64_t end_ms = loop->now_ms() + 400;
    while (loop->now_ms() < end_ms) loop.turn(5);
    EXPECT_EQ(holds, std::vector<bool>{true}) << "told once, however often it is tried";
    EXPECT_TRUE(commit.holding());
    EXPECT_EQ(released, 0u);
    RecoveryReport report;
    const auto state = recover(dir, report);
    ASSERT_NE(state.find(8), nullptr) << "the intent is written";
    EXPECT_EQ(state.find(7), nullptr) << "a result never before its line";
    log.full = false;
    ASSERT_TRUE(loop.run_until([&] { return released == 1; }, 1'000));
    EXPECT_EQ(holds, (std::vector<bool>{true, false}));
    EXPECT_EQ(log.durable, 1);
    EXPECT_FALSE(failed);
    ASSERT_TRUE(loop.run_until([&] { return commit.idle(); }));
}

}  // namespace
}  // namespace postrider::testing
