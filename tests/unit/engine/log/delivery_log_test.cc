#include "engine/log/delivery_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "tests/unit/engine/log/log_record.h"

namespace postrider {
namespace {

using test::format;
using test::full_record;
using Json = nlohmann::json;

class Folder {
  public:
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "log-XXXXXX").string();
        path_ = mkdtemp(pattern.data());
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

std::vector<std::string> lines_of(const std::string& path) {
    std::ifstream in(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

void commit(DeliveryLog& log, size_t descriptors) {
    std::vector<int> to_sync;
    ASSERT_TRUE(log.begin_commit(to_sync));
    ASSERT_EQ(to_sync.size(), descriptors);
    for (const int fd : to_sync) ASSERT_EQ(fdatasync(fd), 0);
    ASSERT_TRUE(log.end_commit());
}

Result<void> write(DeliveryLog& log) {
    std::vector<int> to_sync;
    return log.begin_commit(to_sync);
}

TEST(DeliveryLog, WholeLinesOfSeveralWritersDoNotMix) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    std::vector<std::thread> writers;
    for (uint64_t shard = 0; shard < 4; ++shard) {
        writers.emplace_back([&, shard] {
            auto log = DeliveryLog::open(path);
            LogRecord r = full_record();
            for (uint64_t i = 0; i < 2000; ++i) {
                r.id = {shard, i};
                (*log)->append(r);
                if (i % 7 == 0) EXPECT_TRUE(write(**log));
            }
            EXPECT_TRUE(write(**log));
        });
    }
    for (auto& writer : writers) writer.join();
    std::vector<uint64_t> next(4);
    for (const auto& line : lines_of(path)) {
        const std::string id = Json::parse(line)["id"];
        const size_t shard = std::stoul(id.substr(0, 16), nullptr, 16);
        EXPECT_EQ(std::stoul(id.substr(16), nullptr, 16), next[shard]++);
    }
    EXPECT_EQ(next, std::vector<uint64_t>(4, 2000));
    struct stat st;
    ASSERT_EQ(stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777 & ~0640u, 0u);
}

TEST(DeliveryLog, ReopenLeavesNothingUnsyncedBehind) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    auto log = std::move(*DeliveryLog::open(path));
    LogRecord r;
    r.sender = "one";
    log->append(r);
    ASSERT_TRUE(write(*log));
    r.sender = "two";
    log->append(r);
    std::filesystem::rename(path, dir / "old.jsonl");
    ASSERT_TRUE(log->reopen());
    EXPECT_TRUE(log->dirty());
    commit(*log, 2);  // the old file's line and the new one's
    EXPECT_FALSE(log->dirty());
    ASSERT_EQ(lines_of(dir / "old.jsonl").size(), 1u);
    EXPECT_EQ(Json::parse(lines_of(dir / "old.jsonl")[0])["sender"], "one");
    ASSERT_EQ(lines_of(path).size(), 1u);
    EXPECT_EQ(Json::parse(lines_of(path)[0])["sender"], "two");
    log->append(r);
    commit(*log, 1);
    EXPECT_EQ(lines_of(path).size(), 2u);
}

// A write that kill -9 tore: the fragment goes, and the next line is whole.
TEST(DeliveryLog, ATornLastLineIsCutBeforeTheLogIsOpened) {
    for (const std::string torn : {R"({"type":"Deli)", R"({"type":"Delivery","id":"0")"}) {
        for (const std::string before : {"", "{\"type\":\"Bounce\"}\n"}) {
            Folder dir;
            const std::string path = dir / "delivery.jsonl";
            std::ofstream(path) << before << torn;
            ASSERT_TRUE(DeliveryLog::mend(path));
            auto log = std::move(*DeliveryLog::open(path));
            log->append(LogRecord{});
            commit(*log, 1);
            const auto lines = lines_of(path);
            ASSERT_EQ(lines.size(), before.empty() ? 1u : 2u);
            for (const auto& line : lines) EXPECT_NO_THROW((void)Json::parse(line)) << line;
        }
    }
}

// What a failed write-back leaves: zeros, and whole lines that nobody has synced behind them.
TEST(DeliveryLog, BehindAHoleNothingIsKept) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    const std::string line = "{\"type\":\"Delivery\"}\n";
    for (const size_t zeros : {1u, 5'000u, 700'000u}) {
        std::ofstream(path, std::ios::binary) << line << line << "{\"ty" << std::string(zeros, 0) << "e\"}\n" << line;
        ASSERT_TRUE(DeliveryLog::mend(path));
        EXPECT_EQ(std::filesystem::file_size(path), 2 * line.size()) << zeros;
        ASSERT_TRUE(DeliveryLog::mend(path));
        EXPECT_EQ(std::filesystem::file_size(path), 2 * line.size());
    }
    std::ofstream(path, std::ios::binary) << std::string(5'000, 0);
    ASSERT_TRUE(DeliveryLog::mend(path));
    EXPECT_EQ(std::filesystem::file_size(path), 0u);
}

TEST(DeliveryLog, OctetsThatAreNoTornLineOfOursAreKept) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    std::ofstream(path) << std::string(300'000, 'x');
    ASSERT_TRUE(DeliveryLog::mend(path));
    auto log = std::move(*DeliveryLog::open(path));
    log->append(LogRecord{});
    commit(*log, 1);
    const auto lines = lines_of(path);
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[0].size(), 300'000u);
    EXPECT_NO_THROW((void)Json::parse(lines[1]));
}

TEST(DeliveryLog, AReopenThatFailsKeepsTheOldFile) {
    Folder dir;
    std::filesystem::create_directory(dir / "logs");
    auto log = std::move(*DeliveryLog::open(dir / "logs/delivery.jsonl"));
    std::filesystem::rename(dir / "logs", dir / "moved");
    const auto reopened = log->reopen();
    ASSERT_FALSE(reopened);
    EXPECT_NE(reopened.error().text.find("logs/delivery.jsonl"), std::string::npos);
    log->append(LogRecord{});
    commit(*log, 1);
    EXPECT_EQ(lines_of(dir / "moved/delivery.jsonl").size(), 1u);
}

// FAULTS 98: a log that cannot be written stops new work, as the journal does.
TEST(DeliveryLog, AFullDeviceIsAnError) {
    auto log = DeliveryLog::open("/dev/full");
    ASSERT_TRUE(log) << log.error().text;
    (*log)->append(LogRecord{});
    const auto begun = write(**log);
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code, ENOSPC);
}

TEST(DeliveryLog, ADeviceIsWrittenAndNotSynced) {
    auto log = DeliveryLog::open("/dev/null");
    ASSERT_TRUE(log) << log.error().text;
    (*log)->append(LogRecord{});
    commit(**log, 0);
    EXPECT_FALSE((*log)->dirty());
}

TEST(DeliveryLog, ASymbolicLinkIsRefused) {
    Folder dir;
    std::filesystem::create_symlink(dir / "elsewhere", dir / "delivery.jsonl");
    EXPECT_FALSE(DeliveryLog::open(dir / "delivery.jsonl"));
    EXPECT_FALSE(std::filesystem::exists(dir / "elsewhere"));
}

// /dev/full says ENOSPC to every write: what is gathered stays gathered.
TEST(DeliveryLog, AFullDiskKeepsTheLines) {
    auto log = DeliveryLog::open("/dev/full");
    ASSERT_TRUE(log) << log.error().text;
    (*log)->append(full_record());
    for (int i = 0; i < 3; ++i) {
        const auto written = write(**log);
        ASSERT_FALSE(written);
        EXPECT_TRUE(is_no_space(written.error().code));
        EXPECT_TRUE((*log)->dirty());
    }
}

// A commit may last for seconds and a turn for a tenth of one: the lines do not wait in memory for either.
TEST(DeliveryLog, ManyLinesAreWrittenBeforeTheCommitThatSyncsThem) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    auto log = std::move(*DeliveryLog::open(path));
    log->append(full_record());
    ASSERT_TRUE(write(*log));
    for (int i = 0; i < 100'000; ++i) log->append(full_record());
    const auto in_flight = std::filesystem::file_size(path);
    EXPECT_GT(in_flight + (size_t{512} << 10), 100'000 * format(full_record()).size());
    EXPECT_FALSE(log->urgent());
    EXPECT_TRUE(log->end_commit());
    EXPECT_TRUE(log->dirty());  // written, and not covered by the sync of that commit
    commit(*log, 1);
    EXPECT_EQ(lines_of(path).size(), 100'001u);
}

TEST(DeliveryLog, AnEarlyWriteThatFailsIsToldBeforeTheTurnsSends) {
    Folder dir;
    auto log = std::move(*DeliveryLog::open(dir / "delivery.jsonl"));
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 4'000; ++i) log->append(full_record());
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    std::signal(SIGXFSZ, handler);
    EXPECT_TRUE(log->urgent());
    const auto told = log->write_urgent();
    ASSERT_FALSE(told);
    EXPECT_EQ(told.error().code, EFBIG);
    EXPECT_FALSE(write(*log));  // for good: never tried again
}

// A full disk cuts a line of one shard; when there is space again another one may be the first to write.
TEST(DeliveryLog, ALineAfterAnotherShardsTornLineIsWhole) {
    for (const bool rotated : {false, true}) {
        Folder dir;
        const std::string path = dir / "delivery.jsonl";
        auto torn = std::move(*DeliveryLog::open(path)), other = std::move(*DeliveryLog::open(path));
        LogRecord r = full_record();
        for (const char* sender : {"one", "two", "three"}) {
            r.sender = sender;
            torn->append(r);
        }
        r.sender = "other";
        other->append(r);
        const auto with_room = [](rlim_t octets, auto call) {
            rlimit before;
            ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
            const rlimit small{.rlim_cur = octets, .rlim_max = before.rlim_max};
            const auto handler = std::signal(SIGXFSZ, SIG_IGN);
            ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
            call();
            ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
            std::signal(SIGXFSZ, handler);
        };
        const rlim_t in_the_second = format(full_record()).size() * 3 / 2;
        with_room(in_the_second, [&] {
            EXPECT_FALSE(write(*torn));
            EXPECT_FALSE(write(*other)) << "it finds no room to end the line either";
            EXPECT_FALSE(write(*torn));
        });
        EXPECT_EQ(std::filesystem::file_size(path), in_the_second);
        if (rotated) {
            std::filesystem::rename(path, dir / "old.jsonl");
            ASSERT_TRUE(torn->reopen());
        }
        EXPECT_TRUE(write(*other));
        EXPECT_TRUE(write(*torn));
        std::vector<std::string> senders;
        auto lines = lines_of(path);
        if (rotated) {
            const auto old = lines_of(dir / "old.jsonl");
            lines.insert(lines.begin(), old.begin(), old.end());
        }
        size_t fragments = 0;
        for (const auto& line : lines) {
            const Json parsed = Json::parse(line, nullptr, false);
            fragments += parsed.is_discarded();
            if (!parsed.is_discarded()) senders.push_back(parsed["sender"]);
        }
        EXPECT_EQ(fragments, 1u);
        EXPECT_EQ(senders, (std::vector<std::string>{"one", "other", "two", "three"}));
    }
}

// A full disk is no failure: the lines stay gathered, and are not tried again line by line.
TEST(DeliveryLog, AnEarlyWriteWithoutSpaceKeepsTheLines) {
    auto log = std::move(*DeliveryLog::open("/dev/full"));
    for (int i = 0; i < 4'000; ++i) log->append(full_record());
    EXPECT_TRUE(log->write_urgent());
    const auto written = write(*log);
    ASSERT_FALSE(written);
    EXPECT_TRUE(is_no_space(written.error().code));
}

TEST(DeliveryLog, RoomIsReservedBehindTheEndOfTheLog) {
    Folder dir;
    const std::string path = dir / "delivery.jsonl";
    auto log = std::move(*DeliveryLog::open(path));
    log->append(full_record());
    ASSERT_TRUE(write(*log));
    struct stat st;
    ASSERT_EQ(stat(path.c_str(), &st), 0);
    EXPECT_LT(st.st_size, 4096);
    EXPECT_GE(st.st_blocks * 512, 16 << 20);
    EXPECT_FALSE(log->space_low());
    EXPECT_FALSE(log->space_out());
}

}  // namespace
}  // namespace postrider
