// The line of a record: KumoMTA's shape, valid JSON whatever the octets are.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "engine/core/limits.h"
#include "tests/unit/engine/log/log_record.h"

namespace postrider {
namespace {

using test::format;
using test::full_record;
using Json = nlohmann::json;

// nlohmann refuses a string that is not well-formed UTF-8.
Json parse(const std::string& line) {
    EXPECT_TRUE(line.ends_with("}\n"));
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    return Json::parse(line);
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

}  // namespace
}  // namespace postrider
