// The intake after a restart: files in active/ are published again, less what the journals know to
// be settled.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/unit/queue/intake_fixture.h"

namespace postrider {
namespace {

using testing::count_files;
using ::testing::ElementsAre;
using testing::IntakeTest;
using ::testing::IsEmpty;
using testing::read_file;

class RecoveryTest : public IntakeTest {
  protected:
    struct Before {
        FileId id;
        ClaimFacts claim;
        std::string name;
        std::vector<Record> records;
    };
    // A first run that takes the one file in; what it would have journalled.
    Before first_run() {
        Before before;
        Run run(*this);
        run.start_and_settle();
        EXPECT_EQ(run.owner.claims.size(), 1u);
        const SpoolFile& file = run.owner.facts.at(0);
        before.id = file.id;
        before.name = file.name;
        before.claim = {file.id, file.size, file.mtime_ns, 1'000'000, file.form, {}};
        before.records = run.owner.records;
        return before;
    }
    static JournalRecord claim_record(const Before& before) {
        JournalRecord record;
        record.kind = RecordKind::claim;
        record.form = before.claim.form;
        record.file = before.id;
        record.time_s = before.claim.created_s;
        record.size = before.claim.size;
        record.mtime_ns = before.claim.mtime_ns;
        record.name = before.name;
        return record;
    }
    static JournalRecord record_of(RecordKind kind, const Before& before, size_t i,
                                   uint16_t attempt, uint32_t due_s = 0) {
        JournalRecord record;
        record.kind = kind;
        record.file = before.id;
        record.place = before.records[i].place;
        record.recipient = before.records[i].recipient;
        record.attempt = attempt;
        record.due_s = due_s;
        return record;
    }
    static JournalRecord told_record(const Before& before) {
        JournalRecord record;
        record.kind = RecordKind::refusals_told;
        record.file = before.id;
        record.place = record.recipient = kWholeFile;
        return record;
    }
    static std::vector<std::pair<uint32_t, uint32_t>> places(const std::vector<Record>& records) {
        std::vector<std::pair<uint32_t, uint32_t>> all;
        for (const Record& record : records) all.emplace_back(record.place, record.recipient);
        return all;
    }
    std::string three_messages() {
        return batch({"a@x.example", "b@x.example", "c@x.example"}) + batch({"d@x.example"}) +
               batch({"e@x.example", "f@x.example"});
    }
};

// Refused for its x-not-before by the run before: told once, set aside, and the others lie where they lay, whatever max_age is now.
TEST_F(RecoveryTest, WhatWasTooLateIsToldByTheIndexAndMovesNoPlace) {
    const std::string late = batch({"b@x.example", "c@x.example"}, "x-not-before: 2000000000\n");
    spool_.drop("a.bsmtp", batch({"a@x.example"}) + late + batch({"d@x.example"}));
    Before before;
    {
        Run run(*this);
        run.owner.expires_at_s = 2'000'000'000;
        run.start_and_settle();
        const SpoolFile& file = run.owner.facts.at(0);
        before = {file.id, {file.id, file.size, file.mtime_ns, 1'000'000, file.form, {}}, file.name, run.owner.records};
        ASSERT_EQ(before.records.size(), 2u);
    }
    for (const int64_t expires_s : {int64_t{0}, int64_t{1'000}}) {
        Run run(*this);
        run.owner.expires_at_s = expires_s;
        run.start_and_settle({claim_record(before)});
        EXPECT_EQ(run.owner.refused_messages.size(), 1u) << "killed before it was told";
        EXPECT_EQ(places(run.owner.records), places(before.records));
    }
    {
        Run run(*this);
        run.owner.expires_at_s = 1'000;
        run.start_and_settle({claim_record(before), told_record(before)});
        EXPECT_THAT(run.owner.refused_messages, IsEmpty());
        EXPECT_EQ(places(run.owner.records), places(before.records));
    }
    ASSERT_EQ(unlink(spool_.active(before.id, kIndexSuffix).c_str()), 0);
    Run run(*this);
    run.owner.expires_at_s = 1'000;
    run.start_and_settle({claim_record(before), told_record(before)});
    ASSERT_EQ(run.owner.records.size(), 4u) << "after a power cut it waits, and expires";
    EXPECT_EQ(run.owner.records.front().place, before.records.front().place);
    EXPECT_EQ(run.owner.records.back().place, before.records.back().place);
}

TEST_F(RecoveryTest, WhatIsSettledIsLeftOutAndTheRestKnowsItsPast) {
    for (const bool small : {true, false}) {
        spool_.drop(small ? "a.eml" : "a.bsmtp",
                    small ? eml({"a@x.example", "b@x.example", "c@x.example", "d@x.example",
                                 "e@x.example", "f@x.example"})
                          : three_messages());
        const Before before = first_run();
        ASSERT_EQ(before.records.size(), 6u);
        Run run(*this);
        run.start_and_settle(
            {claim_record(before), record_of(RecordKind::delivered, before, 0, 1),
                   record_of(RecordKind::deferred, before, 1, 2, 4'000'000'000),
                   record_of(RecordKind::intent, before, 2, 3),
                   record_of(RecordKind::deferred, before, 3, 1, 4'000'000'000),
                   record_of(RecordKind::intent, before, 3, 2),
                   record_of(RecordKind::deferred, before, 4, 1, 3'000'000'000),
                   record_of(RecordKind::deferred_in_doubt, before, 4, 2, 4'000'000'000),
                   record_of(RecordKind::bounced, before, 5, 1)});
        const auto& got = run.owner.records;
        ASSERT_EQ(got.size(), 4u);
        const auto all = places(before.records);
        EXPECT_THAT(places(got), ElementsAre(all[1], all[2], all[3], all[4]));
        const auto fact = [&](size_t i) {
            return std::tuple(got[i].attempts, got[i].due_s, got[i].possible_duplicate);
        };
        EXPECT_EQ(fact(0), std::tuple(2, 4'000'000'000u, false));
        EXPECT_EQ(fact(1), std::tuple(3, 0u, true));
        EXPECT_EQ(fact(2), std::tuple(2, 0u, true));
        EXPECT_EQ(fact(3), std::tuple(2, 4'000'000'000u, true)) << "answered since, but one before may have arrived";
        const SpoolFile& file = run.owner.facts.at(0);
        EXPECT_EQ(file.name, before.name);
        EXPECT_EQ(file.created_s, 1'000'000) << "its age counts from the first claim";
        EXPECT_EQ(run.files[got[0].file].pending, 5u);
        EXPECT_EQ(run.loaded().size(), 4u);
        ASSERT_TRUE(spool_->remove_active(before.id, ""));
    }
}

TEST_F(RecoveryTest, AMissingOrDamagedIndexIsMadeAgainWithTheSamePlaces) {
    spool_.drop("a.bsmtp", three_messages());
    const Before before = first_run();
    const std::string index = spool_.active(before.id, kIndexSuffix);
    const std::string whole = read_file(index);
    for (const size_t flip : {whole.size(), size_t{3}, whole.size() / 2, whole.size() - 1}) {
        if (flip == whole.size()) {
            ASSERT_EQ(unlink(index.c_str()), 0);
        } else {
            std::string damaged = whole;
            damaged[flip] = static_cast<char>(damaged[flip] ^ 1);
            testing::write_file(index, damaged);
        }
        Run run(*this);
        run.start_and_settle(
            {claim_record(before), record_of(RecordKind::delivered, before, 1, 1)});
        auto expected = places(before.records);
        expected.erase(expected.begin() + 1);
        EXPECT_EQ(places(run.owner.records), expected) << flip;
        EXPECT_EQ(run.loaded().size(), 5u);
        EXPECT_EQ(read_file(index), whole);
    }
}

// The journal that told of the claim keeps it: a spool of a million files does not write a million claims at each start.
TEST_F(RecoveryTest, AClaimThatTheJournalsHaveIsNotJournalledAgain) {
    spool_.drop("a.eml", eml({"a@x.example"}));
    const Before before = first_run();
    for (const bool journalled : {true, false}) {
        Run run(*this);
        run.start_and_settle(journalled ? std::vector{claim_record(before)} : std::vector{record_of(RecordKind::intent, before, 0, 1)});
        EXPECT_EQ(run.owner.claims.size(), 1u);
        EXPECT_EQ(run.owner.known_claims.size(), journalled ? 1u : 0u);
    }
}

// All recipients are final: the last hold is the intake's.
TEST_F(RecoveryTest, AFileWithoutOpenRecipientsIsDoneWithAtOnce) {
    spool_.drop("a.eml", eml({"a@x.example"}));
    const Before before = first_run();
    Run run(*this);
    run.start_and_settle(
        {claim_record(before), record_of(RecordKind::delivered, before, 0, 1)});
    EXPECT_THAT(run.owner.records, IsEmpty());
    ASSERT_EQ(run.owner.done.size(), 1u);
    EXPECT_EQ(run.files[run.owner.done[0]].pending, 1u);
}

// The claim's record did not reach the disk: the file is whole, its name is lost.
TEST_F(RecoveryTest, AClaimThatWasNotJournalledIsTakenIn) {
    for (const std::string& text :
         {batch({"a@x.example"}), eml({"a@x.example"}), "RSET\n" + batch({"a@x.example"}),
          "NOOP\n" + batch({"a@x.example"}), "EHLO x\n" + batch({"a@x.example"})}) {
        const bool is_batch = text[0] != 'x';
        spool_.drop(is_batch ? "a.bsmtp" : "a.eml", text);
        const Before before = first_run();
        Run run(*this);
        run.start_and_settle();
        EXPECT_THAT(run.owner.refused_files, IsEmpty()) << text;
        EXPECT_EQ(places(run.owner.records), places(before.records));
        EXPECT_EQ(run.loaded().size(), 1u);
        ASSERT_TRUE(spool_->remove_active(before.id, ""));
    }
}

TEST_F(RecoveryTest, AFileThatWasChangedIsRefused) {
    spool_.drop("a.eml", eml({"a@x.example"}));
    const Before before = first_run();
    testing::write_file(spool_.active(before.id), eml({"other@x.example"}));
    Run run(*this);
    run.start_and_settle({claim_record(before)});
    EXPECT_THAT(run.owner.refused_files, ElementsAre("a.eml"));
    EXPECT_THAT(run.owner.records, IsEmpty());
    EXPECT_EQ(read_file(spool_ / "bad/a.eml"), eml({"other@x.example"}));
}

// By a link in its place, or another owner: its mail can never be sent, and is told of as refused.
TEST_F(RecoveryTest, AFileThatCannotBeReadAnyMoreIsSetAside) {
    for (const bool journalled : {true, false}) {
        spool_.drop("a.eml", eml({"a@x.example"}));
        const Before before = first_run();
        const std::string file = spool_.active(before.id);
        ASSERT_EQ(unlink(file.c_str()), 0);
        ASSERT_EQ(symlink("/dev/null", file.c_str()), 0);
        Run run(*this);
        run.start_and_settle(journalled ? std::vector{claim_record(before)} : std::vector<JournalRecord>{});
        const std::string name = journalled ? "a.eml" : file_id_text(before.id);
        EXPECT_THAT(run.owner.refused_files, ElementsAre(name));
        EXPECT_THAT(run.owner.records, IsEmpty());
        EXPECT_THAT(read_file(spool_ / ("bad/" + name + ".reason")), ::testing::HasSubstr("cannot be read any more"));
        EXPECT_NE(access(file.c_str(), F_OK), 0);
    }
}

// A FIFO without a writer: opening it must not wait for one.
TEST_F(RecoveryTest, AFifoInPlaceOfAFileIsSetAside) {
    for (const bool journalled : {true, false}) {
        spool_.drop("a.eml", eml({"a@x.example"}));
        const Before before = first_run();
        ASSERT_EQ(unlink(spool_.active(before.id).c_str()), 0);
        ASSERT_EQ(mkfifo(spool_.active(before.id).c_str(), 0600), 0);
        Run run(*this);
        run.start_and_settle(journalled ? std::vector{claim_record(before)} : std::vector<JournalRecord>{});
        EXPECT_EQ(run.owner.refused_files.size(), 1u);
        EXPECT_THAT(run.owner.records, IsEmpty());
        EXPECT_NE(access(spool_.active(before.id).c_str(), F_OK), 0);
    }
}

TEST_F(RecoveryTest, AFolderInPlaceOfAFileIsSetAside) {
    spool_.drop("a.eml", eml({"a@x.example"}));
    const Before before = first_run();
    ASSERT_EQ(unlink(spool_.active(before.id).c_str()), 0);
    ASSERT_EQ(mkdir(spool_.active(before.id).c_str(), 0700), 0);
    Run run(*this);
    run.start_and_settle();
    EXPECT_THAT(run.owner.refused_files, ElementsAre(file_id_text(before.id)));
}

TEST_F(RecoveryTest, ARefusedMessageIsNotSetAsideTwice) {
    spool_.drop("a.bsmtp", batch({"a@x.example"}, "", "bare \r here") + batch({"b@x.example"}));
    const Before before = first_run();
    for (const bool indexed : {true, false}) {
        if (!indexed) ASSERT_EQ(unlink(spool_.active(before.id, kIndexSuffix).c_str()), 0);
        Run run(*this);
        run.start_and_settle({claim_record(before), told_record(before)});
        EXPECT_EQ(places(run.owner.records), places(before.records));
        EXPECT_EQ(count_files(spool_ / "bad"), 2u);
    }
}

// A claim may be durable without the lines of its refusals: the commit was still to come when the engine was killed.
TEST_F(RecoveryTest, RefusalsAreToldUntilTheLogHasThem) {
    for (const bool small : {true, false}) {
        spool_.drop(small ? "a.eml" : "a.bsmtp",
                    small ? eml({"a@x.example", "bad@@x.example"}) : batch({"a@x.example"}) + batch({"bad@@x.example", "b@x.example"}));
        const Before before = first_run();
        const std::string expected = small ? "a.eml 1 bad@@x.example" : "a.bsmtp 2 bad@@x.example";
        for (const bool indexed : {true, false}) {
            if (!small && !indexed) ASSERT_EQ(unlink(spool_.active(before.id, kIndexSuffix).c_str()), 0);
            for (const bool told : {false, true}) {
                auto known = std::vector{claim_record(before), record_of(RecordKind::delivered, before, 0, 1)};
                if (told) known.push_back(told_record(before));
                Run run(*this);
                run.start_and_settle(known);
                EXPECT_EQ(run.owner.records.size(), before.records.size() - 1);
                if (told) {
                    EXPECT_THAT(run.owner.refused_recipients, IsEmpty());
                    EXPECT_THAT(run.owner.told, IsEmpty());
                } else {
                    EXPECT_THAT(run.owner.refused_recipients, ElementsAre(expected));
                    EXPECT_THAT(run.owner.told, ElementsAre(before.id));
                }
            }
        }
        ASSERT_TRUE(spool_->remove_active(before.id, ""));
    }
}

}  // namespace
}  // namespace postrider
