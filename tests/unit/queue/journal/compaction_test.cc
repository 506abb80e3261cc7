#include "queue/journal/compaction.h"

#include <set>

#include "support.h"

namespace postrider::testing {
namespace {

// Journals of several shards over one folder, as the engine has them.
class Shards {
  public:
    Shards(size_t count, const Journal::Options& options) {
        for (size_t shard = 0; shard < count; ++shard) {
            auto made = Journal::open(dir.fd(), static_cast<ShardId>(shard), 1, options);
            EXPECT_TRUE(made) << made.error().text;
            journals.push_back(std::move(*made));
            commits.push_back(std::make_unique<GroupCommit>(*loop, GroupCommit::Options{.commit_ms = 0},
                                                            std::vector<CommitParticipant*>{journals.back().get()}));
            commits.back()->on_failure([](const Error& error) { ADD_FAILURE() << error.text; });
            loop->each_turn([this, journal = journals.back().get()] { return journal->compact(loop->now_ns()); });
        }
    }
    void settle() {
        for (auto& commit : commits) commit->hurry();
        ASSERT_TRUE(loop.run_until([&] {
            return std::ranges::all_of(commits, [](const auto& commit) { return commit->idle(); }) &&
                   std::ranges::none_of(journals, [](const auto& journal) { return journal->compacting(); });
        }));
    }
    uint64_t octets() const {
        uint64_t sum = 0;
        for (const auto& journal : journals) sum += journal->octets();
        return sum;
    }

    TempDir dir;
    ShardLoop loop;
    std::vector<std::unique_ptr<Journal>> journals;
    std::vector<std::unique_ptr<GroupCommit>> commits;
};

Journal::Options small_segments() {
    Journal::Options options;
    options.segment_bytes = 16 << 10;
    options.compact_above_bytes = 32 << 10;
    options.compact_slice_bytes = 2 << 10;
    return options;
}

// What the engine makes of a state: an intent matters while no result of its attempt is known.
Model as_used(Model model) {
    for (auto& [id, file] : model)
        for (auto& [place, fate] : file.recipients)
            if (fate.final || fate.intent <= fate.attempt) fate.intent = 0;
    return model;
}

TEST(LatestResults, AHigherAttemptsResultMakesRecordsVoid) {
    LatestResults latest;
    const auto intent = fact(RecordKind::intent, 1, 7, 3, 2);
    const auto deferral = fact(RecordKind::deferred, 1, 7, 3, 2, 100, 200);
    latest.add(intent);
    EXPECT_FALSE(latest.makes_void(intent));
    latest.add(deferral);
    EXPECT_TRUE(latest.makes_void(intent)) << "its own result is known";
    EXPECT_FALSE(latest.makes_void(deferral));
    latest.hear_of(fact(RecordKind::intent, 1, 7, 3, 3));
    EXPECT_FALSE(latest.makes_void(deferral)) << "an attempt under way is no result";
    latest.hear_of(fact(RecordKind::deferred, 1, 7, 4, 3));
    latest.hear_of(fact(RecordKind::deferred, 1, 8, 3, 3));
    latest.hear_of(fact(RecordKind::deferred, 2, 7, 3, 3));
    EXPECT_FALSE(latest.makes_void(deferral)) << "another recipient, message, file";
    latest.hear_of(fact(RecordKind::deferred, 1, 7, 3, 2, 900, 999));
    EXPECT_FALSE(latest.makes_void(deferral)) << "which of the two counts is recovery's to say";
    latest.hear_of(fact(RecordKind::deferred, 1, 7, 3, 3));
    EXPECT_TRUE(latest.makes_void(deferral));
}

TEST(LatestResults, AFinalResultMakesAllButItselfVoid) {
    LatestResults latest;
    const auto delivered = fact(RecordKind::delivered, 1, 7, 3, 2);
    latest.add(fact(RecordKind::deferred, 1, 7, 3, 9));
    latest.add(delivered);
    latest.hear_of(fact(RecordKind::deferred, 1, 7, 3, 11));
    EXPECT_TRUE(latest.makes_void(fact(RecordKind::deferred, 1, 7, 3, 9)));
    EXPECT_TRUE(latest.makes_void(fact(RecordKind::intent, 1, 7, 3, 12)));
    EXPECT_FALSE(latest.makes_void(delivered));
    EXPECT_FALSE(latest.makes_void(claim_record(1, 1, "a")));
}

TEST(LatestResults, FindsEveryOneOfMany) {
    LatestResults latest;
    for (uint32_t i = 0; i < 100'000; ++i) latest.add(fact(RecordKind::deferred, 1 + i % 7, i / 3, i % 3, 1));
    EXPECT_EQ(latest.size(), 100'000u);
    for (uint32_t i = 0; i < 100'000; i += 2) latest.hear_of(fact(RecordKind::bounced, 1 + i % 7, i / 3, i % 3, 2));
    for (uint32_t i = 0; i < 100'000; ++i)
        ASSERT_EQ(latest.makes_void(fact(RecordKind::deferred, 1 + i % 7, i / 3, i % 3, 1)), i % 2 == 0) << i;
}

// A long outage: every recipient is tried thirty times, none is done, no file goes.
void outage(size_t shards) {
    constexpr uint32_t kRecipients = 4'000;
    auto options = small_segments();
    options.segment_bytes = 64 << 10;
    options.compact_above_bytes = 128 << 10;
    options.compact_slice_bytes = 64 << 10;
    Shards f(shards, options);
    std::mt19937 random(7);
    f.journals[0]->claim({1, 1, 1, 1, SpoolForm::batch, "waits.bsmtp"});
    uint64_t most = 0;
    for (uint16_t attempt = 1; attempt <= 30; ++attempt) {
        for (uint32_t i = 0; i < kRecipients; ++i) {
            Journal& journal = *f.journals[random() % shards];
            journal.intent({1, i, 0, attempt});
            journal.result({1, i, 0, attempt, RecordKind::deferred, attempt, attempt + 60u});
            if (i % 500 == 0) f.settle();
        }
        f.settle();
        most = std::max(most, f.octets());
    }
    // A result each, times four, and as much again while segments are merged and mail goes on. Unmerged: 6.7 MB.
    EXPECT_LE(most, shards * (options.compact_above_bytes + options.segment_bytes) + 8 * 32 * kRecipients);
    RecoveryReport report;
    const auto state = recover(f.dir, report);
    EXPECT_EQ(report.damaged_stretches, 0u);
    const auto* file = state.find(1);
    ASSERT_TRUE(file && file->claimed);
    ASSERT_EQ(state.recipients(*file).size(), kRecipients);
    for (const auto& recipient : state.recipients(*file)) {
        EXPECT_EQ(recipient.attempts(), 30);
        EXPECT_EQ(recipient.due_s, 90u);
        EXPECT_FALSE(recipient.ambiguous());
    }
    for (auto& journal : f.journals) EXPECT_EQ(journal->last_trouble().text, "");
}

TEST(Merging, ALongOutageLeavesAResultForEachRecipient) { outage(1); }
TEST(Merging, ResultsInTheJournalsOfOtherShardsCount) { outage(3); }

// Random lives of recipients in the journals of two shards; whenever all is durable, recovery finds what the obvious
// model says, whatever compaction and merging have done meanwhile.
TEST(Merging, RecoveryFindsTheSameStateAtEveryMoment) {
    std::mt19937 random(24);
    Shards f(2, small_segments());
    std::vector<JournalRecord> records;
    std::map<std::pair<FileId, uint32_t>, uint16_t> attempts;  // of whom is not done
    std::set<FileId> gone;
    FileId files = 0;
    uint64_t most = 0, written = 0;
    const auto tell = [&](const JournalRecord& r) {
        Journal& journal = *f.journals[random() % 2];
        records.push_back(r);
        if (r.kind == RecordKind::claim)
            journal.claim({r.file, r.size, r.mtime_ns, r.time_s, r.form, r.name});
        else if (r.kind == RecordKind::intent)
            journal.intent({r.file, r.place, r.recipient, r.attempt});
        else
            journal.result({r.file, r.place, r.recipient, r.attempt, r.kind, r.time_s, r.due_s});
        written += 32;
    };
    for (uint32_t step = 1; step <= 60'000; ++step) {
        if (attempts.size() < 400) {
            tell(claim_record(++files, 1, "f"));
            for (uint32_t i = 0; i < 1 + random() % 60; ++i) attempts[{files, i}] = 0;
        }
        auto one = attempts.lower_bound({1 + random() % files, random() % 60});
        if (one == attempts.end()) one = attempts.begin();
        const auto [file, recipient] = one->first;
        const auto attempt = ++one->second;
        if (random() % 10 != 0) tell(fact(RecordKind::intent, file, recipient, 0, attempt));
        if (random() % 20 == 0) continue;  // lost in flight: the next attempt follows
        const bool done = random() % 25 == 0;
        tell(fact(done ? RecordKind::delivered : RecordKind::deferred, file, recipient, 0, attempt, step, step + 60));
        if (done) {
            attempts.erase(one);
            const auto next = attempts.lower_bound({file, 0});
            if (next == attempts.end() || next->first.first != file) {
                f.settle();
                gone.insert(file);
                for (auto& journal : f.journals) journal->forget(file);
            }
        }
        if (step % 50 != 0) continue;
        f.settle();
        most = std::max(most, f.octets());
        if (step % 2'000 != 0) continue;
        std::erase_if(records, [&](const JournalRecord& r) { return gone.contains(r.file); });
        RecoveryReport report;
        RecoveredState state;
        for (FileId id = 1; id <= files; ++id)
            if (!gone.contains(id)) state.add(id);
        state.listed();
        // A copy: recovery seals what it finds.
        TempDir copy;
        for (const auto& entry : std::filesystem::directory_iterator(f.dir / ""))
            std::filesystem::copy(entry, copy / entry.path().filename());
        const auto read = recover_journals(copy.fd(), state, report);
        ASSERT_TRUE(read) << read.error().text;
        state.finish();
        ASSERT_EQ(report.damaged_stretches, 0u);
        ASSERT_EQ(as_used(model_of(state)), as_used(model_of(records))) << "step " << step;
    }
    EXPECT_GT(files, 50u);
    EXPECT_GT(written, 10 * most) << "nothing was merged";
}

}  // namespace
}  // namespace postrider::testing
