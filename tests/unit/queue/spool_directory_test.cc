// The spool's folders: one engine at a time, the claim by rename and its races, and what is no
// message (FAULTS 97).
#include "queue/spool_directory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "tests/unit/queue/support.h"

namespace postrider {
namespace {

using testing::count_files;
using ::testing::HasSubstr;
using testing::read_file;
using testing::TempFolder;
using testing::TempSpool;
using testing::write_file;
using Entry = SpoolDirectory::Entry;

struct Look {
    Entry entry;
    struct stat st{};
    std::string why;
};
Look look(SpoolDirectory& spool, const std::string& name, bool top = true, int dir = -1) {
    Look seen;
    seen.entry = spool.look(dir < 0 ? spool.incoming() : dir, name, top, seen.st, seen.why);
    return seen;
}
Result<ClaimedFile> claim(SpoolDirectory& spool, const std::string& name) {
    const Look seen = look(spool, name);
    return spool.claim(spool.incoming(), name, SpoolForm::eml, seen.st);
}

TEST(SpoolLock, NamesTheProcessThatHoldsIt) {
    TempFolder folder;
    int told[2], end[2];
    ASSERT_EQ(pipe(told) + pipe(end), 0);
    const pid_t other = fork();
    ASSERT_GE(other, 0);
    if (other == 0) {  // another engine
        auto spool = SpoolDirectory::open(folder / "spool");
        char octet = spool ? '1' : '0';
        (void)!write(told[1], &octet, 1);
        (void)!read(end[0], &octet, 1);
        _exit(0);
    }
    char held = 0;
    ASSERT_EQ(read(told[0], &held, 1), 1);
    EXPECT_EQ(held, '1');
    auto refused = SpoolDirectory::open(folder / "spool");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EWOULDBLOCK);
    EXPECT_THAT(refused.error().text, HasSubstr(fmt::format("process {}", other)));
    ASSERT_EQ(write(end[1], "x", 1), 1);
    int status;
    ASSERT_EQ(waitpid(other, &status, 0), other);
    EXPECT_TRUE(SpoolDirectory::open(folder / "spool")) << "the lock ends with its process";
    for (const int fd : {told[0], told[1], end[0], end[1]}) close(fd);
}

TEST(SpoolDirectory, TellsWhyItCannotBeMade) {
    TempFolder folder;
    write_file(folder / "file", "");
    auto spool = SpoolDirectory::open(folder / "file");
    ASSERT_FALSE(spool);
    EXPECT_EQ(spool.error().code, ENOTDIR);
    EXPECT_THAT(SpoolDirectory::open(folder / "a/b").error().text, HasSubstr("[server] spool"));
}

TEST(SpoolClaim, KeepsNameAndFactsAndTakesTheFileOutOfNew) {
    TempSpool spool;
    spool.drop("a.eml", "hello");
    auto file = claim(*spool, "a.eml");
    ASSERT_TRUE(file) << file.error().text;
    EXPECT_EQ(file->name, "a.eml");
    EXPECT_EQ(file->size, 5u);
    EXPECT_EQ(count_files(spool / "new"), 0u);
    EXPECT_EQ(read_file(spool.active(file->id)), "hello");
    std::vector<FileId> found;
    ASSERT_TRUE(spool->scan_active([&](FileId id) { found.push_back(id); }));
    EXPECT_EQ(found, std::vector<FileId>{file->id});
    ASSERT_TRUE(spool->remove_active(file->id, ""));
    EXPECT_EQ(count_files(spool / "active"), 0u);
}

// What a journal tells of a file must not be taken for true of one that is put in later, with the same name, size, time and
// perhaps inode.
TEST(SpoolClaim, PutInAgainHasAnotherId) {
    TempSpool spool;
    spool.drop("a.eml", "hello");
    const FileId first = claim(*spool, "a.eml")->id;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the file system's clock ticks
    ASSERT_EQ(rename(spool.active(first).c_str(), (spool / "new/a.eml").c_str()), 0);
    EXPECT_NE(claim(*spool, "a.eml")->id, first);
}

TEST(SpoolClaim, OfManyThreadsOneWins) {
    constexpr int kFiles = 300;
    TempSpool spool;
    for (int i = 0; i < kFiles; ++i) spool.drop(fmt::format("{}.eml", i), std::to_string(i));
    std::atomic<int> won = 0, lost = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kFiles; ++i) {
                const std::string name = fmt::format("{}.eml", i);
                const Look seen = look(*spool, name);
                if (seen.entry == Entry::gone) continue;
                auto file = spool->claim(spool->incoming(), name, SpoolForm::eml, seen.st);
                if (file) {
                    ++won;
                    continue;
                }
                ++lost;
                EXPECT_EQ(file.error().code, ENOENT) << file.error().text;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(won, kFiles);
    EXPECT_EQ(count_files(spool / "active"), static_cast<size_t>(kFiles));
    EXPECT_EQ(count_files(spool / "bad"), 0u);
}

TEST(SpoolClaim, AFileThatBecameAnotherIsToldFromTheOneThatWasLookedAt) {
    TempSpool spool;
    spool.drop("a.eml", "first");
    const Look seen = look(*spool, "a.eml");
    spool.drop("a.eml", "second, renamed over it");
    auto file = spool->claim(spool->incoming(), "a.eml", SpoolForm::eml, seen.st);
    ASSERT_TRUE(file);
    EXPECT_TRUE(file->changed);
    EXPECT_EQ(read_file(spool.active(file->id)), "second, renamed over it");
    spool.drop("b.eml", "whole");
    EXPECT_FALSE(claim(*spool, "b.eml")->changed);
}

TEST(SpoolLook, WhatIsNoMessageIsRefusedWithItsReason) {
    TempSpool spool;
    const auto refused = [&](const std::string& name, const std::string& word, bool top = true,
                             int dir = -1) {
        const Look seen = look(*spool, name, top, dir);
        EXPECT_EQ(seen.entry, Entry::refuse) << name;
        EXPECT_THAT(seen.why, HasSubstr(word));
        EXPECT_EQ(seen.why.find('\n'), std::string::npos);
    };
    spool.drop("a.eml", "x");
    spool.drop("a.bsmtp", "x");
    spool.drop("a.txt", "x");
    spool.drop(".eml", "x");
    EXPECT_EQ(look(*spool, "a.eml").entry, Entry::eml);
    EXPECT_EQ(look(*spool, "a.bsmtp").entry, Entry::batch);
    EXPECT_EQ(look(*spool, "b.eml").entry, Entry::gone);
    refused("a.txt", ".bsmtp");
    refused(".eml", "ends neither");
    ASSERT_EQ(symlink("a.eml", (spool / "new/link.eml").c_str()), 0);
    refused("link.eml", "symbolic link");
    ASSERT_EQ(mkfifo((spool / "new/fifo.eml").c_str(), 0600), 0);
    refused("fifo.eml", "FIFO");
    ASSERT_EQ(link((spool / "new/a.eml").c_str(), (spool / "new/hard.eml").c_str()), 0);
    refused("hard.eml", "2 hard links");
    ASSERT_EQ(mkdir((spool / "new/folder.eml").c_str(), 0700), 0);
    EXPECT_EQ(look(*spool, "folder.eml").entry, Entry::folder);
    auto folder = spool->open_incoming("folder.eml");
    ASSERT_TRUE(folder);
    ASSERT_EQ(mkdir((spool / "new/folder.eml/deep").c_str(), 0700), 0);
    refused("deep", "one level", false, folder->get());
}

// A link that takes the place of the file between look and claim is not followed, and a FIFO does
// not block.
TEST(SpoolClaim, DoesNotFollowWhatTookTheFilesPlace) {
    TempSpool spool;
    for (const bool fifo : {false, true}) {
        spool.drop("a.eml", "x");
        const Look seen = look(*spool, "a.eml");
        ASSERT_EQ(unlink((spool / "new/a.eml").c_str()), 0);
        if (fifo)
            ASSERT_EQ(mkfifo((spool / "new/a.eml").c_str(), 0600), 0);
        else
            ASSERT_EQ(symlink("/etc/passwd", (spool / "new/a.eml").c_str()), 0);
        auto file = spool->claim(spool->incoming(), "a.eml", SpoolForm::eml, seen.st);
        EXPECT_TRUE(!file || file->changed);
        EXPECT_EQ(count_files(spool / "active"), 0u) << "no message";
        (void)unlink((spool / "new/a.eml").c_str());
    }
    EXPECT_FALSE(spool->open_incoming("../bad")) << "beneath new/ only";
    ASSERT_EQ(symlink("../bad", (spool / "new/out").c_str()), 0);
    EXPECT_FALSE(spool->open_incoming("out"));
}

TEST(SpoolRefusal, AnyNameFindsItsPlaceAndItsReason) {
    TempSpool spool;
    for (const std::string& name :
         {std::string(255, 'n'), std::string("two\nlines.eml"), std::string("\xff\xfe"),
          std::string("ende\xcc\x88.txt"), std::string("-rf")}) {
        std::set<std::string> places;
        for (int i = 0; i < 12; ++i) {
            spool.drop(name, std::to_string(i));
            auto moved =
                spool->refuse_incoming(spool->incoming(), name, fmt::format("reason {}", i));
            ASSERT_TRUE(moved) << moved.error().text;
            EXPECT_TRUE(places.insert(*moved).second);
            EXPECT_LE(moved->size(), 255u);
            EXPECT_EQ(read_file(spool / ("bad/" + *moved)), std::to_string(i));
            EXPECT_EQ(read_file(spool / ("bad/" + *moved + ".reason")),
                      fmt::format("reason {}\n", i));
        }
        if (name.size() < 100) EXPECT_TRUE(places.contains(name)) << "the first keeps its name";
    }
}

// A producer's file may itself be called like another's reason; neither may overwrite the other.
TEST(SpoolRefusal, AReasonNeverReplacesARefusedFile) {
    for (const bool reason_first : {true, false}) {
        TempSpool spool;
        spool.drop("a.eml", "the message");
        spool.drop("a.eml.reason", "a producer's own");
        std::set<std::string> kept;
        for (const std::string name :
             {reason_first ? "a.eml.reason" : "a.eml", reason_first ? "a.eml" : "a.eml.reason"}) {
            auto moved = spool->refuse_incoming(spool->incoming(), name, "no good");
            ASSERT_TRUE(moved) << moved.error().text;
            kept.insert(read_file(spool / ("bad/" + *moved)));
            EXPECT_EQ(read_file(spool / ("bad/" + *moved + ".reason")), "no good\n");
        }
        EXPECT_EQ(kept, (std::set<std::string>{"the message", "a producer's own"}));
        EXPECT_EQ(count_files(spool / "bad"), 4u);
    }
}

TEST(SpoolRefusal, AMessageSetAsideAgainAfterACrashIsOneFile) {
    TempSpool spool;
    const std::string text = "MAIL FROM:<a@b>\r\n" + std::string(600'000, 'x') + "\r\n.\r\nrest";
    spool.drop("b.bsmtp", text);
    auto file = claim(*spool, "b.bsmtp");
    ASSERT_TRUE(file);
    const std::string name = "b.bsmtp.1.eml";
    for (int pass = 0; pass < 2; ++pass) {
        auto kept = spool->refuse_message(file->id, file->fd.get(), {17, 600'000}, name, "a reason");
        ASSERT_TRUE(kept) << kept.error().text;
        EXPECT_EQ(*kept, name);
    }
    // A crash in mid-copy.
    ASSERT_EQ(unlink((spool / ("bad/" + name)).c_str()) +
                  unlink((spool / ("bad/" + name + ".reason")).c_str()),
              0);
    write_file(spool / ("bad/." + file_id_text(file->id) + "." + name), "half of another copy");
    ASSERT_TRUE(spool->refuse_message(file->id, file->fd.get(), {17, 600'000}, name, "a reason"));
    EXPECT_EQ(read_file(spool / ("bad/" + name)), std::string(600'000, 'x'));
    EXPECT_EQ(count_files(spool / "bad"), 2u);
}

// Producers use a name again, the next day's file among others: what is set aside of it replaces
// nothing.
TEST(SpoolRefusal, AMessageOfANamesakeReplacesNothing) {
    TempSpool spool;
    std::set<std::string> places;
    for (const std::string text : {"first", "other", "first and more"}) {
        spool.drop("b.bsmtp", text);
        auto file = claim(*spool, "b.bsmtp");
        ASSERT_TRUE(file);
        auto kept =
            spool->refuse_message(file->id, file->fd.get(), {0, text.size()}, "b.bsmtp.1.eml", "of " + text);
        ASSERT_TRUE(kept) << kept.error().text;
        places.insert(*kept);
        EXPECT_EQ(read_file(spool / ("bad/" + *kept)), text);
        EXPECT_EQ(read_file(spool / ("bad/" + *kept + ".reason")), "of " + text + "\n");
    }
    EXPECT_EQ(places.size(), 3u);
    EXPECT_EQ(read_file(spool / "bad/b.bsmtp.1.eml"), "first");
}

}  // namespace
}  // namespace postrider
