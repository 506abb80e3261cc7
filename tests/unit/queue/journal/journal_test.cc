#include "queue/journal/journal.h"

#include <sys/wait.h>

#include <csignal>
#include <set>

#include "support.h"

namespace postrider::testing {
namespace {

struct Fixture {
    explicit Fixture(Journal::Options options, uint64_t sequence = 1) {
        auto made = Journal::open(dir.fd(), 0, sequence, std::move(options));
        EXPECT_TRUE(made) << made.error().text;
        journal = std::move(*made);
        commit = std::make_unique<GroupCommit>(*loop, GroupCommit::Options{.commit_ms = 0},
                                               std::vector<CommitParticipant*>{journal.get()});
        commit->on_failure([](const Error& error) { ADD_FAILURE() << error.text; });
        loop->each_turn([this] { return journal->compact(loop->now_ns()); });
    }
    void settle() {
        commit->hurry();
        ASSERT_TRUE(loop.run_until([&] { return commit->idle() && !journal->compacting(); }));
    }
    // Everything that happens to a file of one recipient.
    void life(FileId file, bool to_the_end) {
        journal->claim({file, 1, 1, 1'700'000'000, SpoolForm::eml, "file.eml"});
        journal->intent({file, 1, 0, 1});
        if (!to_the_end) return;
        journal->result({file, 1, 0, 1, RecordKind::delivered, 1'700'000'001, 0});
    }

    TempDir dir;
    ShardLoop loop;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<GroupCommit> commit;
};

constexpr Journal::Options small_segments() {
    Journal::Options options;
    options.segment_bytes = 16 << 10;
    return options;
}

TEST(Journal, RecoveryFindsWhatWasRecordedOverManySegments) {
    Fixture f(small_segments());
    for (FileId file = 1; file <= 1000; ++file) {
        f.life(file, file % 10 != 0);
        if (file % 20 == 0) f.settle();
    }
    EXPECT_GT(f.journal->segments(), 5u);
    RecoveryReport report;
    const auto state = recover(f.dir, report);
    EXPECT_EQ(report.damaged_stretches + report.torn_stretches, 0u);
    size_t files = 0;
    state.for_each([&](const RecoveredFile& file) {
        ++files;
        EXPECT_EQ(state.name(file), "file.eml");
        ASSERT_EQ(state.recipients(file).size(), 1u);
        const auto& recipient = state.recipients(file)[0];
        EXPECT_TRUE(file.id % 10 == 0 ? recipient.ambiguous() : recipient.final());
    });
    EXPECT_EQ(files, 1000u);
}

// Results that gather while a commit is in flight belong to the next, which may write to another segment.
TEST(Journal, WhatGathersDuringARotationIsInTheNewSegment) {
    TempDir dir;
    auto journal = std::move(*Journal::open(dir.fd(), 0, 1, small_segments()));
    std::vector<int> to_sync;
    const auto begin = [&](uint32_t results) {
        for (uint32_t i = 0; i < results; ++i) journal->result({7, i, 0, 1, RecordKind::delivered, 1, 0});
        journal->before_commit();
        journal->result({8, results, 0, 1, RecordKind::deferred, 1, 2});
        journal->compact(0);
        ASSERT_TRUE(journal->begin_commit(to_sync));
        ASSERT_TRUE(journal->end_commit());
    };
    begin(300);  // the next segment is made
    begin(200);  // and this one rotated
    ASSERT_EQ(journal->segments(), 2u);
    RecoveryReport report;
    EXPECT_EQ(known_of(recover(dir, report), 8), 1u) << "that of the first";
    journal->before_commit();
    ASSERT_TRUE(journal->begin_commit(to_sync));
    const auto state = recover(dir, report);
    EXPECT_EQ(report.damaged_stretches + report.torn_stretches, 0u);
    EXPECT_EQ(known_of(state, 7), 300u);
    EXPECT_EQ(known_of(state, 8), 2u);
}

TEST(Journal, ASegmentGoesWhenItsLastFileHasGone) {
    Fixture f(small_segments());
    for (FileId file = 1; file <= 1000; ++file) {
        f.life(file, true);
        if (file % 20 == 0) f.settle();
    }
    const size_t most = f.journal->segments();
    for (FileId file = 1; file <= 1000; ++file)
        if (file != 500) f.journal->forget(file);
    EXPECT_LT(f.journal->segments(), most);
    const size_t left = f.journal->segments();
    EXPECT_LE(left, 3u) << "the one or two that speak of file 500, and the newest";
    f.journal->forget(500);
    EXPECT_EQ(f.journal->segments(), 1u);
    EXPECT_LE(f.dir.files(), 2u) << "the newest, and the one made ahead";
}

TEST(Journal, FilesThatGoBeforeTheirSegmentIsFullLeaveNothingBehind) {
    Fixture f(small_segments());
    for (FileId file = 1; file <= 2000; ++file) {
        f.life(file, true);
        if (file % 20 == 0) f.settle();
        if (file > 50) f.journal->forget(file - 50);
    }
    f.settle();
    EXPECT_LE(f.journal->segments(), 3u);
    EXPECT_LE(f.dir.files(), 4u);
}

TEST(Journal, CompactionCopiesWhatIsLiveAndDropsTheOldest) {
    auto options = small_segments();
    options.compact_above_bytes = 64 << 10;
    options.compact_slice_bytes = 4 << 10;
    Fixture f(options);
    // One file in a hundred stays: every segment is kept alive by a few of them.
    for (FileId file = 1; file <= 4000; ++file) {
        f.life(file, file % 100 != 0);
        if (file % 20 == 0) f.settle();
        if (file > 20 && (file - 20) % 100 != 0) f.journal->forget(file - 20);
    }
    for (FileId file = 3981; file < 4000; ++file) f.journal->forget(file);
    f.journal->claim({100, 1, 1, 1'700'000'000, SpoolForm::eml, "file.eml"});
    f.settle();
    EXPECT_LE(f.journal->octets(), (64u << 10) + 2 * (16u << 10)) << f.journal->last_trouble().text;
    EXPECT_EQ(f.journal->last_trouble().text, "");
    RecoveryReport report;
    const auto state = recover(f.dir, report);
    EXPECT_EQ(report.damaged_stretches + report.torn_stretches, 0u);
    for (FileId file = 100; file <= 4000; file += 100) {
        const auto* found = state.find(file);
        ASSERT_TRUE(found && found->claimed) << file;
        ASSERT_EQ(state.recipients(*found).size(), 1u);
        EXPECT_TRUE(state.recipients(*found)[0].ambiguous());
    }
}

TEST(Journal, ASegmentThatCannotBeReadWholeIsNotDropped) {
    auto options = small_segments();
    options.compact_above_bytes = 24 << 10;
    Fixture f(options);
    f.journal->claim({7, 1, 1, 1, SpoolForm::eml, "kept.eml"});
    f.settle();
    std::string octets = read_file(f.dir / "0-1.log");
    octets[kSegmentHeaderSize + 20] ^= 1;
    write_file(f.dir / "0-1.log", octets);
    for (FileId file = 100; file < 1500; ++file) {
        f.life(file, true);
        if (file % 20 == 0) f.settle();
        f.journal->forget(file);
    }
    f.settle();
    EXPECT_TRUE(std::filesystem::exists(f.dir / "0-1.log"));
    EXPECT_NE(f.journal->last_trouble().text.find("0-1.log"), std::string::npos);
    f.journal->forget(7);
    EXPECT_FALSE(std::filesystem::exists(f.dir / "0-1.log"));
}

// After recovery: old segments of any shard are adopted, and go when the files they speak of have gone.
TEST(Journal, AdoptedSegmentsGoWithTheirFiles) {
    Fixture f(small_segments(), 10);
    const SegmentName shard_3{3, 4}, shard_5{5, 9}, empty{6, 2};
    write_file(f.dir / segment_file_name(shard_3),
               segment_octets(shard_3, {claim_record(1, 1, "a"), claim_record(2, 1, "b")}));
    write_file(f.dir / segment_file_name(shard_5),
               segment_octets(shard_5, {fact(RecordKind::intent, 2, 1, 1, 1), fact(RecordKind::delivered, 1)}));
    write_file(f.dir / segment_file_name(empty), segment_octets(empty, {}));
    RecoveryReport report;
    RecoveredState state;
    state.add(2);  // 1 was done before the crash, and its file has gone
    state.listed();
    ASSERT_TRUE(recover_journals(f.dir.fd(), state, report));
    state.finish();
    EXPECT_EQ(state.next_sequence(), 11u);
    for (auto& segment : state.take_segments())
        if (segment.name.sequence != 10) f.journal->adopt(std::move(segment));
    EXPECT_EQ(f.journal->segments(), 3u);
    EXPECT_FALSE(std::filesystem::exists(f.dir / segment_file_name(empty)));
    f.journal->forget(2);
    EXPECT_EQ(f.journal->segments(), 1u);
    EXPECT_FALSE(std::filesystem::exists(f.dir / segment_file_name(shard_3)));
    EXPECT_FALSE(std::filesystem::exists(f.dir / segment_file_name(shard_5)));
}

TEST(Journal, ASegmentIsReservedWithoutGrowing) {
    Journal::Options options;
    options.segment_bytes = 8 << 20;
    Fixture f(options);
    struct stat st;
    ASSERT_EQ(stat((f.dir / "0-1.log").c_str(), &st), 0);
    EXPECT_EQ(static_cast<size_t>(st.st_size), kSegmentHeaderSize);
    EXPECT_GE(st.st_blocks * 512, 8 << 20);
}

// FAULTS 91: the process is killed at any moment. What it was told to be durable is found; of what it had begun, all
// intents whose turn was submitted.
[[noreturn]] void run_until_killed(const TempDir& dir, uint64_t sequence, int reports) {
    ShardLoop loop;
    auto options = small_segments();
    options.compact_above_bytes = 64 << 10;
    auto journal = std::move(*Journal::open(dir.fd(), 0, sequence, options));
    GroupCommit commit(*loop, {.commit_ms = 1}, {journal.get()});
    commit.on_durable([&](std::span<const Release> releases) {
        for (const auto& release : releases)
            if (write(reports, &release, sizeof release) != sizeof release) _exit(1);
    });
    std::vector<Release> submitted;
    loop->before_submit([&] {
        for (const auto& intent : submitted)
            if (write(reports, &intent, sizeof intent) != sizeof intent) _exit(1);
        submitted.clear();
    });
    for (uint64_t file = sequence << 32;; ++file) {
        journal->claim({file, 1, 1, 1, SpoolForm::eml, "x.eml"});
        journal->intent({file, 1, 0, 1});
        submitted.push_back({file, 0, 1});
        if (file % 3 == 0) {
            journal->result({file, 1, 0, 1, RecordKind::delivered, 1, 0});
            commit.when_durable({file, 0, 2});
        }
        if (file % 5 == 0) loop.turn(1);
    }
}

TEST(Journal, KilledAtAnyMomentNothingReportedIsMissing) {
    TempDir dir;
    std::set<uint64_t> intended, delivered;
    std::mt19937 random(94);
    uint64_t sequence = 1;
    for (int round = 0; round < 12; ++round) {
        int ends[2];
        ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
        fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) run_until_killed(dir, sequence, ends[1]);
        close(ends[1]);
        // Once it is under way and has told of something durable, however slow the machine is.
        Release release;
        auto heard = [&] {
            if (read(ends[0], &release, sizeof release) != sizeof release) return false;
            (release.kind == 1 ? intended : delivered).insert(release.a);
            return true;
        };
        for (const size_t before = delivered.size(); delivered.size() == before;) ASSERT_TRUE(heard());
        usleep(random() % 30'000);
        ASSERT_EQ(kill(child, SIGKILL), 0);
        ASSERT_EQ(waitpid(child, nullptr, 0), child);
        while (heard()) {
        }
        close(ends[0]);
        RecoveryReport report;
        const auto state = recover(dir, report);
        EXPECT_EQ(report.damaged_stretches, 0u);
        for (const uint64_t file : intended) {
            const auto* found = state.find(file);
            ASSERT_TRUE(found && state.recipients(*found).size() == 1) << file;
            EXPECT_EQ(state.recipients(*found)[0].intent_attempt, 1);
        }
        for (const uint64_t file : delivered)
            EXPECT_TRUE(state.recipients(*state.find(file))[0].final()) << file;
        sequence = state.next_sequence();
    }
    EXPECT_GE(intended.size(), 12u);
    EXPECT_GE(delivered.size(), 12u);
}

// The size follows what is left: a million results pass, one recipient of the first file waits on.
TEST(Journal, AMillionResultsLeaveAJournalAsSmallAsWhatIsLeft) {
    Journal::Options options;
    options.segment_bytes = 1 << 20;
    options.compact_above_bytes = 4 << 20;
    Fixture f(options);
    f.journal->claim({1, 1, 1, 1, SpoolForm::batch, "waits.bsmtp"});
    f.journal->result({1, 7, 0, 1, RecordKind::deferred, 1, 9});
    constexpr uint32_t kPerFile = 1'000;
    uint64_t most = 0;
    for (FileId file = 2; file < 1'002; ++file) {
        f.journal->claim({file, 1, 1, 1, SpoolForm::batch, "goes.bsmtp"});
        for (uint32_t i = 0; i < kPerFile; ++i) {
            f.journal->intent({file, i, 0, 1});
            f.journal->result({file, i, 0, 1, RecordKind::delivered, 1, 0});
        }
        f.settle();
        f.journal->forget(file);
        most = std::max(most, f.journal->octets());
    }
    f.settle();
    EXPECT_GE(f.journal->records(), 2'000'000u);
    EXPECT_LE(most, 8u << 20);
    EXPECT_LE(f.journal->octets(), 6u << 20) << f.journal->segments();
    RecoveryReport report;
    const auto state = recover(f.dir, report);
    const auto* found = state.find(1);
    ASSERT_TRUE(found && found->claimed);
    ASSERT_EQ(state.recipients(*found).size(), 1u);
    EXPECT_EQ(state.recipients(*found)[0].due_s, 9u);
}

// A segment is removed only when the folders its files left have been synced.
TEST(Journal, ASegmentOutlivesItsFilesUntilTheirFoldersAreSynced) {
    auto options = small_segments();
    size_t asked = 0;
    int folder = -1;
    options.removed_from = [&](std::vector<int>& folders) {
        ++asked;
        folders.push_back(folder);
    };
    Fixture f(options);
    folder = f.dir.fd();
    for (FileId file = 1; file <= 500; ++file) {
        f.life(file, true);
        if (file % 20 == 0) f.settle();
    }
    ASSERT_GE(f.journal->segments(), 2u);
    EXPECT_EQ(asked, 0u);
    ASSERT_TRUE(std::filesystem::exists(f.dir / "0-1.log"));
    for (FileId file = 1; file <= 500; ++file) f.journal->forget(file);
    EXPECT_TRUE(std::filesystem::exists(f.dir / "0-1.log")) << "no folder is synced yet";
    f.settle();
    EXPECT_FALSE(std::filesystem::exists(f.dir / "0-1.log"));
    EXPECT_GE(asked, 1u);
}

}  // namespace
}  // namespace postrider::testing
