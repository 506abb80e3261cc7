// The intake on a real folder: what lies there before it starts, what is dropped while it runs,
// what it refuses.
#include "queue/intake.h"

#include <dirent.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/queue/intake_fixture.h"

// A file system that tells no types in its listings, as some do.
static bool no_types = false;

extern "C" dirent* readdir(DIR* dir) {
    static const auto next = reinterpret_cast<dirent* (*)(DIR*)>(dlsym(RTLD_NEXT, "readdir64"));
    dirent* entry = next(dir);
    if (entry && no_types) entry->d_type = DT_UNKNOWN;
    return entry;
}

namespace postrider {
namespace {

using testing::count_files;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IntakeTest;
using ::testing::IsEmpty;
using testing::read_file;
using ::testing::UnorderedElementsAre;
using Texts = std::multiset<std::string>;

TEST_F(IntakeTest, FilesOfBeforeAndOfWhileItRuns) {
    spool_.drop("a.eml", eml({"a@one.example", "b@two.example"}));
    spool_.drop("b.bsmtp",
                batch({"c@one.example"}, "x-campaign: spring\n") + batch({"d@three.example"}));
    spool_.drop(".hidden.eml", eml({"no@one.example"}));
    Run run(*this);
    run.start_and_settle();
    EXPECT_EQ(run.owner.records.size(), 4u);
    spool_.drop("c.eml", eml({"e@one.example"}));
    ASSERT_TRUE(run.until_records(5));
    EXPECT_EQ(run.loaded(), (Texts{"a@one.example ", "b@two.example ", "c@one.example spring",
                                   "d@three.example ", "e@one.example "}));
    EXPECT_EQ(run.owner.claims.size(), 3u);
    ASSERT_EQ(run.owner.done.size(), 3u);
    EXPECT_EQ(run.intake.files(), 3u);
    EXPECT_EQ(run.intake.messages(), 4u);
    EXPECT_EQ(run.intake.recipients(), 5u);
    EXPECT_THAT(run.owner.troubles, IsEmpty());
    EXPECT_EQ(count_files(spool_ / "new"), 1u) << "dotfiles are left alone";
    for (const FileSlot slot : run.owner.done)
        EXPECT_EQ(run.files[slot].pending, run.files.name(slot) == "c.eml" ? 2u : 3u);
}

// FAULTS 97: the kernel keeps so many notices and no more; what came behind them is found all the same, also in a folder made then.
TEST_F(IntakeTest, WhatCameWhileNoticesWereLostIsFound) {
    Run run(*this);
    run.start_and_settle();
    size_t kept = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> kept;
    if (kept == 0 || kept > 1'000'000) GTEST_SKIP() << kept << " notices are too many to lose";
    const std::string a = spool_ / "new/.a", b = spool_ / "new/.b";
    testing::write_file(a, "");
    for (size_t i = 0; i <= kept; ++i) ASSERT_EQ(rename((i % 2 ? b : a).c_str(), (i % 2 ? a : b).c_str()), 0);
    spool_.drop("late.eml", eml({"a@one.example"}));
    std::filesystem::create_directory(spool_ / "new/folder");
    spool_.drop("folder/late.eml", eml({"b@one.example"}));
    ASSERT_TRUE(run.until_records(2));
    EXPECT_EQ(run.loaded(), (Texts{"a@one.example ", "b@one.example "}));
    spool_.drop("folder/later.eml", eml({"c@one.example"}));
    ASSERT_TRUE(run.until_records(3)) << "the folder is watched";
}

// Each shard takes its part of the names in each folder.
TEST_F(IntakeTest, EveryShardServesAFolderWhoseTypeIsNotListed) {
    for (int folder = 0; folder < 4; ++folder) {
        ASSERT_EQ(mkdir((spool_ / fmt::format("new/p{}", folder)).c_str(), 0755), 0);
        for (int i = 0; i < 10; ++i) spool_.drop(fmt::format("p{}/{}.eml", folder, i), eml({"a@one.example"}));
    }
    spool_.drop("a.eml", eml({"a@one.example"}));
    no_types = true;
    Run first(*this, {}, 0, 2), second(*this, {}, 1, 2);
    for (Run* run : {&first, &second}) run->start();
    for (Run* run : {&first, &second}) ASSERT_TRUE(run->loop.run_until([&] { return run->intake.idle(); }));
    no_types = false;
    EXPECT_GT(first.owner.records.size(), 5u);
    EXPECT_GT(second.owner.records.size(), 5u);
    EXPECT_EQ(first.owner.records.size() + second.owner.records.size(), 41u);
}

TEST_F(IntakeTest, FoldersBelowNewAlsoThoseMadeLater) {
    ASSERT_EQ(mkdir((spool_ / "new/p1").c_str(), 0755), 0);
    spool_.drop("p1/a.eml", eml({"a@one.example"}));
    Run run(*this);
    run.start_and_settle();
    EXPECT_EQ(run.owner.records.size(), 1u);
    spool_.drop("p1/b.eml", eml({"b@one.example"}));
    ASSERT_TRUE(run.until_records(2));
    ASSERT_EQ(mkdir((spool_ / "new/p2").c_str(), 0755), 0);
    spool_.drop("p2/c.eml", eml({"c@one.example"}));
    ASSERT_TRUE(run.until_records(3));
    spool_.drop("p2/d.eml", eml({"d@one.example"}));
    ASSERT_TRUE(run.until_records(4));
    // Taken away, and another folder put in its place.
    ASSERT_EQ(rename((spool_ / "new/p2").c_str(), (spool_ / "tmp/p2").c_str()), 0);
    ASSERT_EQ(mkdir((spool_ / "new/p2").c_str(), 0755), 0);
    spool_.drop("p2/e.eml", eml({"e@one.example"}));
    ASSERT_TRUE(run.until_records(5));
    spool_.drop("p2/f.eml", eml({"f@one.example"}));
    EXPECT_TRUE(run.until_records(6));
    EXPECT_EQ(run.loaded().size(), 6u);
}

struct OneOfThree {
    ShardId shard;
    testing::ShardLoop loop;
    FileTable files;
    RecordArena arena;
    RecordSupply supply{arena};
    NameTable domains, labels;
    testing::RecordingOwner owner{arena, files};
    Intake intake;
    OneOfThree(MailExchange& exchange, ShardId s, const SpoolDirectory& spool)
        : shard(s),
          loop(&exchange, s),
          intake(*loop, 3, spool, files, arena, supply, domains, labels, {}, owner) {
        loop->each_turn([this] { return intake.slice(); });
    }
    ~OneOfThree() {
        intake.close();
        EXPECT_TRUE(loop.run_until([&] { return intake.closed(); }));
    }
};

// Also at a restart, whatever the number of shards was: each file has one shard.
TEST_F(IntakeTest, EachShardTakesItsOwn) {
    for (int i = 0; i < 60; ++i)
        spool_.drop(fmt::format("{}.eml", i), eml({fmt::format("r{}@one.example", i)}));
    for (int run = 0; run < 2; ++run) {
        MailExchange exchange(3);
        const auto left_over = recovered({}, 3);
        std::vector<std::unique_ptr<OneOfThree>> shards;
        for (ShardId shard = 0; shard < 3; ++shard) {
            shards.push_back(std::make_unique<OneOfThree>(exchange, shard, *spool_));
            ASSERT_TRUE(shards.back()->intake.start(left_over));
        }
        std::multiset<FileId> files;
        for (auto& shard : shards) {
            ASSERT_TRUE(shard->loop.run_until([&] { return shard->intake.idle(); }));
            files.insert(shard->owner.claims.begin(), shard->owner.claims.end());
            EXPECT_LT(shard->owner.claims.size(), 40u) << "the work is spread";
        }
        EXPECT_EQ(files.size(), 60u);
        EXPECT_EQ(std::set<FileId>(files.begin(), files.end()).size(), 60u);
    }
}

TEST_F(IntakeTest, RefusesWithAReasonAndGoesOn) {
    spool_.drop("text.txt", "x");
    spool_.drop("empty.eml", "");
    spool_.drop("nobody.eml", "x-sender: s@example.org\nSubject: x\n\nx\n");
    spool_.drop("frame.bsmtp", batch({"a@one.example"}) + "FROB\n");
    ASSERT_EQ(symlink("/etc/passwd", (spool_ / "new/link.eml").c_str()), 0);
    spool_.drop("good.eml", eml({"a@one.example", "bad@@one.example"}));
    Run run(*this);
    run.start_and_settle();
    EXPECT_EQ(run.loaded(), Texts{"a@one.example "});
    EXPECT_THAT(run.owner.refused_files, UnorderedElementsAre("text.txt", "empty.eml", "nobody.eml",
                                                              "frame.bsmtp", "link.eml"));
    EXPECT_THAT(run.owner.refused_recipients, ElementsAre("good.eml 1 bad@@one.example"));
    for (const auto& name : run.owner.refused_files)
        EXPECT_NE(read_file(spool_ / ("bad/" + name + ".reason")), "");
    EXPECT_EQ(read_file(spool_ / "bad/frame.bsmtp"), batch({"a@one.example"}) + "FROB\n");
    EXPECT_EQ(count_files(spool_ / "active"), 1u) << "the good one, and no index of the refused";
    EXPECT_EQ(run.intake.refused(), 5u);
}

// Each message set aside keeps two files open until the commit.
TEST_F(IntakeTest, RefusedMessagesOfOneFileWaitForCommits) {
    std::string text;
    for (int i = 0; i < 3'000; ++i) text += "MAIL FROM:<>\nRSET\n";
    spool_.drop("a.bsmtp", text + batch({"a@one.example"}));
    Run run(*this);
    run.start_and_settle();
    EXPECT_EQ(run.owner.refused_messages.size(), 3'000u);
    EXPECT_EQ(run.owner.records.size(), 1u);
    EXPECT_LE(run.most_aside, SetAside::kMany + 2 * 1024 / 18 + 2);
}

// Found out at once: of a file that is sparse there may be no end.
TEST_F(IntakeTest, ABadOctetRefusesAFileBeforeItsEnd) {
    spool_.drop("a.eml", eml({"a@one.example"}) + std::string(1, '\0'));
    ASSERT_EQ(truncate((spool_ / "new/a.eml").c_str(), off_t{1} << 40), 0);
    Run run(*this);
    run.start_and_settle();
    EXPECT_THAT(run.owner.refused_files, ElementsAre("a.eml"));
}

TEST_F(IntakeTest, ARefusedMessageIsSetAsideAloneWithItsReason) {
    const std::string bad = batch({"b@one.example", "c@one.example"}, "", "bare \r here");
    const std::string text =
        batch({"a@one.example"}) + bad + batch({"d@two.example", "x@@y"}, "x-campaign: spring\n") + batch({"@@"});
    spool_.drop("b.bsmtp", text);
    Run run(*this);
    run.start_and_settle();
    EXPECT_EQ(run.loaded(), (Texts{"a@one.example ", "d@two.example spring"}));
    EXPECT_THAT(run.owner.refused_messages, ElementsAre("b.bsmtp 2 <s@example.org> b.bsmtp.2.eml"));
    EXPECT_THAT(run.owner.refused_recipients,
                ElementsAre("b.bsmtp 3 x@@y", "b.bsmtp 4 @@"));
    EXPECT_EQ(run.owner.refused_places.at(0), run.owner.records.at(1).place) << "the id of the message's other recipient";
    EXPECT_FALSE(run.owner.refused_places.at(1)) << "nobody else, no place";
    EXPECT_THAT(run.owner.refused_campaigns, ElementsAre("spring", ""));
    EXPECT_EQ(read_file(spool_ / "bad/b.bsmtp.2.eml"), bad);
    EXPECT_THAT(read_file(spool_ / "bad/b.bsmtp.2.eml.reason"), HasSubstr("CR"));
}

// [retry] max_age would end it before it may be sent.
TEST_F(IntakeTest, AMessageThatMayNotBeSentBeforeItExpiresIsRefused) {
    const std::string last = "x-not-before: 1999999999\n", late = "x-not-before: 2000000000\n";
    const std::string bad = batch({"b@one.example", "c@one.example", "x@@y"}, late + "x-campaign: winter\n");
    spool_.drop("b.bsmtp", batch({"a@one.example"}, last) + bad + batch({"d@two.example"}) + batch({"y@@"}, late));
    spool_.drop("small.eml", "x-sender: s@example.org\n" + late + "x-receiver: e@one.example\nSubject: x\n\nhello\n");
    Run run(*this);
    run.owner.expires_at_s = 2'000'000'000;
    run.start_and_settle();
    EXPECT_EQ(run.loaded(), (Texts{"a@one.example ", "d@two.example "}));
    EXPECT_THAT(run.owner.refused_messages, ElementsAre("b.bsmtp 2 <s@example.org> b.bsmtp.2.eml"));
    EXPECT_THAT(run.owner.refused_recipients, ElementsAre("b.bsmtp 2 x@@y", "b.bsmtp 4 y@@"));
    EXPECT_THAT(run.owner.refused_campaigns, ElementsAre("winter", ""));
    EXPECT_EQ(read_file(spool_ / "bad/b.bsmtp.2.eml"), bad);
    EXPECT_THAT(read_file(spool_ / "bad/b.bsmtp.2.eml.reason"),
                AllOf(HasSubstr("x-not-before 2033-05-18T03:33:20Z is not before 2033-05-18T03:33:20Z"), HasSubstr("max_age")));
    EXPECT_THAT(run.owner.refused_files, ElementsAre("small.eml"));
    EXPECT_THAT(run.owner.refused_why, HasSubstr("x-not-before 2033-05-18T03:33:20Z"));
    EXPECT_EQ(run.intake.refused(), 2u);
}

TEST_F(IntakeTest, ALargeEmlThatMayNotBeSentBeforeItExpiresIsRefused) {
    std::vector<std::string> to;
    for (int i = 0; i < 10'000; ++i) to.push_back(fmt::format("r{}@d.example", i));
    spool_.drop("large.eml", eml(to).insert(24, "x-not-before: 2000000000\n"));
    Run run(*this);
    run.owner.expires_at_s = 2'000'000'000;
    run.start_and_settle();
    EXPECT_THAT(run.owner.refused_files, ElementsAre("large.eml"));
    EXPECT_THAT(run.owner.refused_why, HasSubstr("never be sent"));
    EXPECT_TRUE(run.owner.records.empty());
}

TEST_F(IntakeTest, AHundredThousandRecipientsComeInSlices) {
    std::vector<std::string> to;
    for (int i = 0; i < 100'000; ++i) to.push_back(fmt::format("r{}@d{}.example", i, i % 777));
    spool_.drop("a.eml", eml(to));
    spool_.drop("b.bsmtp", batch(to));
    Run run(*this);
    run.start_and_settle();
    ASSERT_EQ(run.owner.records.size(), 200'000u);
    EXPECT_GT(run.loop->turns(), 10u);
    EXPECT_EQ(run.files[run.owner.records[0].file].pending, 100'001u);
    std::vector<Record> some;
    for (size_t i = 0; i < run.owner.records.size(); i += 997) some.push_back(run.owner.records[i]);
    run.owner.records = some;
    const auto loaded = run.loaded();
    EXPECT_EQ(loaded.size(), some.size());
    EXPECT_TRUE(loaded.contains("r0@d0.example "));
}

TEST_F(IntakeTest, WithoutRoomNothingNewIsBegun) {
    spool_.drop("a.eml", eml({"a@one.example"}));
    Run run(*this);
    run.owner.room = false;
    run.start();
    for (int i = 0; i < 20; ++i) run.loop->turn(0);
    EXPECT_THAT(run.owner.claims, IsEmpty());
    EXPECT_EQ(count_files(spool_ / "new"), 1u);
    EXPECT_FALSE(run.intake.idle());
    run.owner.room = true;
    EXPECT_TRUE(run.until_records(1));
    run.intake.stop();
    spool_.drop("b.eml", eml({"b@one.example"}));
    for (int i = 0; i < 20; ++i) run.loop->turn(0);
    EXPECT_EQ(run.owner.records.size(), 1u);
    EXPECT_EQ(count_files(spool_ / "new"), 1u);
}

// Promise 5 inside one file: what is published can be sent while the rest of the same message waits for room.
TEST_F(IntakeTest, WithoutRoomTheRestOfAFileWaits) {
    std::vector<std::string> to;
    for (int i = 0; i < 50'000; ++i) to.push_back(fmt::format("r{}@d{}.example", i, i % 7));
    spool_.drop("many.eml", eml(to));
    Run run(*this);
    run.start();
    ASSERT_TRUE(run.loop.run_until([&] { return !run.owner.records.empty(); }));
    run.owner.room = false;
    const size_t before = run.owner.records.size();
    for (int i = 0; i < 20; ++i) run.loop->turn(0);
    EXPECT_EQ(run.owner.records.size(), before);
    EXPECT_LE(before, 20'000u) << "a slice";
    EXPECT_THAT(run.owner.done, IsEmpty()) << "the file is held";
    EXPECT_FALSE(run.intake.idle());
    run.owner.room = true;
    ASSERT_TRUE(run.until_records(to.size()));
    EXPECT_EQ(run.owner.done.size(), 1u);
    EXPECT_EQ(run.loaded().size(), to.size()) << "each once";
}

TEST_F(IntakeTest, AStopDoesNotWaitForRoom) {
    std::vector<std::string> to;
    for (int i = 0; i < 50'000; ++i) to.push_back(fmt::format("r{}@one.example", i));
    spool_.drop("many.eml", eml(to));
    {
        Run run(*this);
        run.start();
        ASSERT_TRUE(run.loop.run_until([&] { return !run.owner.records.empty(); }));
        run.owner.room = false;
        EXPECT_FALSE(run.intake.idle_now());
        run.intake.stop();
        EXPECT_TRUE(run.intake.idle_now());
    }
    Run again(*this);
    again.start_and_settle();
    EXPECT_EQ(again.owner.records.size(), to.size());
}

// Too many open files is a fault of this machine: every file stays where it is and is taken a
// second later.
TEST_F(IntakeTest, OutOfDescriptorsNothingIsLostOrRefused) {
#if __has_feature(address_sanitizer)
    GTEST_SKIP() << "UBSan looks at an object's type through a pipe, for which no descriptor is left";
#endif
    ASSERT_EQ(mkdir((spool_ / "new/p1").c_str(), 0755), 0);
    for (int i = 0; i < 5; ++i) {
        spool_.drop(fmt::format("{}.eml", i), eml({fmt::format("r{}@one.example", i)}));
        spool_.drop(fmt::format("p1/{}.bsmtp", i), batch({fmt::format("s{}@one.example", i)}));
    }
    Run run(*this);
    run.start();
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t free = 0; free < 4; ++free) {
        const int next = dup(0);
        close(next);
        const rlimit low{static_cast<rlim_t>(next) + free, before.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
        run.loop.run_until([] { return false; }, 1'100);
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    }
    EXPECT_TRUE(run.until_records(10));
    EXPECT_EQ(run.loaded().size(), 10u);
    EXPECT_THAT(run.owner.refused_files, IsEmpty());
    EXPECT_FALSE(run.owner.troubles.empty());
    EXPECT_EQ(count_files(spool_ / "new"), 0u);
}

}  // namespace
}  // namespace postrider
