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

#include "engine/core/limits.h"

namespace postrider {
namespace {

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

std::string format(const LogRecord& record) {
    LogFormatter formatter;
    std::string line;
    formatter.append(record, line);
    return line;
}

// nlohmann refuses a string that is not well-formed UTF-8.
Json parse(const std::string& line) {
    EXPECT_TRUE(line.ends_with("}\n"));
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    return Json::parse(line);
}

LogRecord full_record() {
    LogRecord r;
    r.type = LogType::transient_failure;
    r.possible_duplicate = true;
    r.num_attempts = 3;
    r.id = {0x0123456789abcdef, 42};
    r.sender = "news@sender.example";
    r.recipient = "user@gmail.com";
    r.queue = "spring:acme@gmail.com";
    r.site = "alt1.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google.com";
    r.size = 10240;
    r.response = {451, 4, 7, 28, "try \"later\"\r\nplease", "."};
    r.peer_name = "gmail-smtp-in.l.google.com";
    r.peer_address = "142.251.2.27";
    r.event_us = 1'678'069'691'000'042;
    r.created_s = 1'678'069'600;
    r.bounce_classification = "RateLimited";
    r.egress_pool = "pool0";
    r.egress_source = "ip-1";
    r.source_address = "[2001:db8::1]:40312";
    r.delivery_protocol = "ESMTP";
    r.tls_cipher = "TLS_AES_128_GCM_SHA256";
    r.tls_protocol_version = "TLSv1.3";
    r.session_high = 0x9bcd689e23d941b7;
    r.session_low = 0xa01563a1382f8b57;
    r.campaign = "spring";
    r.tenant = "acme";
    r.job = "j-1";
    r.envid = "QQ314159";
    r.file = "batch-1.bsmtp";
    return r;
}

TEST(LogFormat, EveryFieldHasKumoMtasShape) {
    const Json expected = {
        {"type", "TransientFailure"},
        {"id", "0123456789abcdef000000000000002a"},
        {"sender", "news@sender.example"},
        {"recipient", "user@gmail.com"},
        {"queue", "spring:acme@gmail.com"},
        {"site", "alt1.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google.com"},
        {"size", 10240},
        {"response",
         {{"code", 451},
          {"enhanced_code", {{"class", 4}, {"subject", 7}, {"detail", 28}}},
          {"content", "try \"later\"\r\nplease"},
          {"command", "."}}},
        {"peer_address", {{"name", "gmail-smtp-in.l.google.com"}, {"addr", "142.251.2.27"}}},
        {"timestamp", 1'678'069'691},
        {"created", 1'678'069'600},
        {"event_time", "2023-03-06T02:28:11.000042Z"},
        {"num_attempts", 3},
        {"bounce_classification", "RateLimited"},
        {"egress_pool", "pool0"},
        {"egress_source", "ip-1"},
        {"source_address", {{"address", "[2001:db8::1]:40312"}}},
        {"delivery_protocol", "ESMTP"},
        {"tls_cipher", "TLS_AES_128_GCM_SHA256"},
        {"tls_protocol_version", "TLSv1.3"},
        {"session_id", "9bcd689e-23d9-41b7-a015-63a1382f8b57"},
        {"possible_duplicate", true},
        {"meta",
         {{"campaign", "spring"},
          {"tenant", "acme"},
          {"job", "j-1"},
          {"envid", "QQ314159"},
          {"file", "batch-1.bsmtp"}}}};
    EXPECT_EQ(parse(format(full_record())), expected);
}

TEST(LogFormat, WhatIsAbsentIsNullOrLeftOut) {
    LogRecord r;
    r.type = LogType::expiration;
    const Json line = parse(format(r));
    const Json expected = {
        {"type", "Expiration"},
        {"id", std::string(32, '0')},
        {"sender", ""},
        {"recipient", ""},
        {"queue", ""},
        {"site", ""},
        {"size", 0},
        {"response", {{"code", 0}, {"enhanced_code", nullptr}, {"content", ""}, {"command", nullptr}}},
        {"peer_address", nullptr},
        {"timestamp", 0},
        {"created", 0},
        {"event_time", "1970-01-01T00:00:00.000000Z"},
        {"num_attempts", 0},
        {"bounce_classification", "Uncategorized"},
        {"egress_pool", nullptr},
        {"egress_source", nullptr},
        {"source_address", nullptr},
        {"delivery_protocol", nullptr},
        {"meta", Json::object()}};
    EXPECT_EQ(line, expected);
}

TEST(LogFormat, EveryTypeHasItsWord) {
    const std::vector<std::string> words = {"Delivery",   "TransientFailure", "Bounce",   "Expiration",
                                            "AdminBounce", "Rejection",        "Reception"};
    for (size_t i = 0; i < words.size(); ++i) {
        LogRecord r;
        r.type = static_cast<LogType>(i);
        EXPECT_EQ(parse(format(r))["type"], words[i]);
    }
}

// FAULTS 20: what a peer said reaches the log as text, never as control characters, whatever its octets.
TEST(LogFormat, AnyOctetsBecomeOneLineOfValidJson) {
    for (int first = 0; first < 256; ++first) {
        for (int second = 0; second < 256; ++second) {
            const std::string octets = {'a', static_cast<char>(first), static_cast<char>(second), 'z'};
            LogRecord r;
            r.response.content = octets;
            const std::string line = format(r);
            for (const unsigned char c : line.substr(0, line.size() - 1))
                ASSERT_TRUE(c >= 0x20 && c != 0x7f) << first << " " << second;
            const std::string back = parse(line)["response"]["content"];
            if (first < 0x80 && second < 0x80) ASSERT_EQ(back, octets);
            ASSERT_EQ(back.front(), 'a');
            ASSERT_EQ(back.back(), 'z');
        }
    }
}

TEST(LogFormat, LongRandomStringsAtEveryAlignmentSurvive) {
    std::mt19937 random(7);
    const std::string alphabet = "abcXYZ \"\\\x7f\x1b\r\n\t/";
    for (int round = 0; round < 5000; ++round) {
        std::string text;
        for (size_t i = random() % 60; i-- > 0;)
            text += random() % 4 ? 'x' : alphabet[random() % alphabet.size()];
        LogRecord r;
        r.sender = text;
        r.file = text;
        const Json line = parse(format(r));
        ASSERT_EQ(line["sender"], text);
        if (!text.empty()) ASSERT_EQ(line["meta"]["file"], text);
    }
}

TEST(LogFormat, Utf8IsKeptAndWhatIsNoneBecomesTheReplacement) {
    const auto content = [](std::string_view text) {
        LogRecord r;
        r.response.content = text;
        return parse(format(r))["response"]["content"].get<std::string>();
    };
    EXPECT_EQ(content("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xa7"), "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xa7");
    const std::string replacement = "\xef\xbf\xbd";
    EXPECT_EQ(content("\xff"), replacement);
    EXPECT_EQ(content("\xc0\xaf"), replacement + replacement);                // overlong
    EXPECT_EQ(content("\xed\xa0\x80"), replacement + replacement + replacement);  // surrogate
    EXPECT_EQ(content("\xf4\x90\x80\x80").size(), 12u);                       // above U+10FFFF
    EXPECT_EQ(content("\xe2\x82"), replacement + replacement);                // cut short
    EXPECT_EQ(content("\xc2\x9b"), "\xc2\x9b");                               // C1: escaped, comes back
}

TEST(LogFormat, PeerTextIsBoundedBetweenCharacters) {
    for (size_t shift = 0; shift < 4; ++shift) {
        std::string text(shift, 'x');
        while (text.size() < 3 * limits::kReplyLogged) text += "\xf0\x9f\x93\xa7";
        LogRecord r;
        r.response.content = text;
        const std::string back = parse(format(r))["response"]["content"];
        EXPECT_LE(back.size(), limits::kReplyLogged);
        EXPECT_GT(back.size(), limits::kReplyLogged - 4);
        EXPECT_EQ(back, text.substr(0, back.size()));
    }
}

TEST(LogFormat, TheWorstCaseFitsItsRoom) {
    const std::string worst(255, '\x01');
    LogRecord r = full_record();
    for (auto* field : {&r.sender, &r.recipient, &r.queue, &r.site, &r.peer_name, &r.peer_address,
                        &r.bounce_classification, &r.egress_pool, &r.egress_source, &r.source_address,
                        &r.delivery_protocol, &r.tls_cipher, &r.tls_protocol_version, &r.campaign,
                        &r.tenant, &r.job, &r.envid, &r.file, &r.response.content, &r.response.command})
        *field = worst;
    r.size = UINT64_MAX;
    r.created_s = INT64_MIN;
    r.num_attempts = UINT16_MAX;
    r.type = LogType::transient_failure;
    r.response.code = r.response.enhanced_subject = r.response.enhanced_detail = UINT16_MAX;
    const std::string line = format(r);
    EXPECT_EQ(parse(line)["meta"]["file"], worst);
    EXPECT_LE(line.size() - 20 * 6 * worst.size(), 1024u) << "the fixed part";
}

TEST(LogFormat, TheCalendarFollowsTheSecond) {
    LogFormatter formatter;
    const auto time_of = [&](WallUs us) {
        std::string line;
        LogRecord r;
        r.event_us = us;
        formatter.append(r, line);
        return parse(line)["event_time"].get<std::string>();
    };
    EXPECT_EQ(time_of(1'709'251'199'999'999), "2024-02-29T23:59:59.999999Z");
    EXPECT_EQ(time_of(1'709'251'200'000'000), "2024-03-01T00:00:00.000000Z");
    EXPECT_EQ(time_of(1'709'251'199'000'001), "2024-02-29T23:59:59.000001Z");
    EXPECT_EQ(time_of(-1), "1969-12-31T23:59:59.999999Z");
}

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
