#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/config/units.h"

namespace postrider {
namespace {

TEST(Units, DurationsAsOperatorsWriteThem) {
    const std::vector<std::pair<std::string_view, DurationMs>> cases = {
        {"100ms", 100},
        {"10s", 10'000},
        {"5m", 300'000},
        {"5min", 300'000},
        {"90 minutes", 5'400'000},
        {"1 hour", 3'600'000},
        {"2 hours", 7'200'000},
        {"30 days", 2'592'000'000},
        {"4d12h", 388'800'000},
        {"1h 30m", 5'400'000},
        {" 1w ", 604'800'000},
        {"0s", 0},
        {"3650d", 315'360'000'000},
    };
    for (const auto& [text, ms] : cases) {
        const auto parsed = parse_duration(text);
        ASSERT_TRUE(parsed) << text;
        EXPECT_EQ(*parsed, ms) << text;
    }
}

TEST(Units, DurationsThatAreRefused) {
    for (const std::string_view text :
         {"", " ", "10", "s", "-5s", "1.5h", "10S", "5M", "10 parsecs", "10s5", "3651d", "1e3s",
          "99999999999999999999s", "18446744073709551615w", "1_000s", "10s,"}) {
        const auto parsed = parse_duration(text);
        ASSERT_FALSE(parsed) << text;
        EXPECT_THAT(parsed.error().text, ::testing::StartsWith("not a duration: \""));
    }
    EXPECT_EQ(parse_duration("1x").error().text,
              "not a duration: \"1x\", allowed: a number and a unit (ms, s, m, h, d, w), also "
              "joined, such as \"10s\", \"4d12h\", \"90 minutes\", at most 3650d");
}

TEST(Units, ErrorsStayOneShortPrintableLine) {
    const auto parsed = parse_rate(std::string(100'000, '\n'));
    ASSERT_FALSE(parsed);
    EXPECT_LT(parsed.error().text.size(), 600U);
    EXPECT_EQ(parsed.error().text.find('\n'), std::string::npos);
}

TEST(Units, Sizes) {
    const std::vector<std::pair<std::string_view, uint64_t>> cases = {
        {"4096", 4096},          {"10KiB", 10'240},    {"1GiB", 1ULL << 30},
        {"64 MiB", 64ULL << 20}, {"1TiB", 1ULL << 40}, {"64MB", 64'000'000},
        {"1_000B", 1000},        {"1,024", 1024},      {"0", 0},
    };
    for (const auto& [text, octets] : cases) {
        const auto parsed = parse_size(text);
        ASSERT_TRUE(parsed) << text;
        EXPECT_EQ(*parsed, octets) << text;
    }
    for (const std::string_view text :
         {"", "GiB", "-1", "1.5GiB", "1gib", "1G", "9223372036854775808", "99999999TiB",
          "18446744073709551616"}) {
        EXPECT_FALSE(parse_size(text)) << text;
    }
}

TEST(Units, Counts) {
    EXPECT_EQ(parse_count("1,000").value(), 1000U);
    EXPECT_EQ(parse_count("local:32").value(), 32U);
    EXPECT_EQ(parse_count("18446744073709551615").value(), UINT64_MAX);
    for (const std::string_view text :
         {"", ",", "_1", "1_", "1 0", "0x10", "18446744073709551616"}) {
        EXPECT_FALSE(parse_count(text)) << text;
    }
}

TEST(Units, RatesAsKumoMtaWritesThem) {
    const std::vector<std::pair<std::string_view, Rate>> cases = {
        {"500/s", {500, 1, {}}},
        {"100/min", {100, 60, {}}},
        {"10/minute", {10, 60, {}}},
        {"100/m", {100, 60, {}}},
        {"1,000/hr", {1000, 3600, {}}},
        {"1_000/h", {1000, 3600, {}}},
        {"10/second", {10, 1, {}}},
        {"1/d", {1, 86'400, {}}},
        {"1/day", {1, 86'400, {}}},
        {"5/30s", {5, 30, {}}},
        {"local:7/sec", {7, 1, {}}},
        {"10/s,max_burst=50", {10, 1, 50}},
        {"local:1,000/hour,max_burst=1,000", {1000, 3600, 1000}},
    };
    for (const auto& [text, rate] : cases) {
        const auto parsed = parse_rate(text);
        ASSERT_TRUE(parsed) << text;
        EXPECT_EQ(*parsed, rate) << text;
    }
    for (const std::string_view text :
         {"", "/", "500", "500/", "/s", "0/s", "10/week", "10/0s", "1.5/s", "-1/s",
          "10/s,max_burst=", "10/s,max_burst=0", "10/s,burst=5", "10/s/s", "1/999999999999d",
          "global:1/s"}) {
        const auto parsed = parse_rate(text);
        ASSERT_FALSE(parsed) << text;
        EXPECT_THAT(parsed.error().text, ::testing::HasSubstr("allowed: a number of at least 1"));
    }
}

TEST(Units, BurstIsWhatTheRateAllowsInATenthOfASecond) {
    EXPECT_EQ(parse_rate("500/s")->burst(), 50U);
    EXPECT_EQ(parse_rate("9/s")->burst(), 1U);
    EXPECT_EQ(parse_rate("1/d")->burst(), 1U);
    EXPECT_EQ(parse_rate("36,000/h")->burst(), 1U);
    EXPECT_EQ(parse_rate("72,000/h")->burst(), 2U);
    EXPECT_EQ(parse_rate("500/s,max_burst=7")->burst(), 7U);
}

TEST(Units, DataRates) {
    EXPECT_EQ(parse_data_rate("10MiB/s").value(), (Rate{10ULL << 20, 1, {}}));
    EXPECT_EQ(parse_data_rate("1GiB/h,max_burst=64MiB").value(),
              (Rate{1ULL << 30, 3600, 64ULL << 20}));
    EXPECT_FALSE(parse_data_rate("10Mbit/s"));
    EXPECT_FALSE(parse_data_rate("0/s"));
}

TEST(Units, WhatIsFormattedParsesToTheSame) {
    std::mt19937_64 random(42);
    for (int i = 0; i < 20'000; ++i) {
        const auto ms = static_cast<DurationMs>(random() % 315'360'000'000ULL);
        EXPECT_EQ(parse_duration(format_duration(ms)).value(), ms);
        Rate rate{1 + random() % 1'000'000, static_cast<uint32_t>(1 + random() % 100'000), {}};
        if (random() % 2 == 0) rate.max_burst = 1 + random() % 1000;
        EXPECT_EQ(parse_rate(format_rate(rate)).value(), rate) << format_rate(rate);
    }
    EXPECT_EQ(format_duration(388'800'000), "4d12h");
    EXPECT_EQ(format_rate({1000, 3600, {}}), "1000/h");
}

// Random words of the grammar's own alphabet: nothing may crash, and what is accepted formats and
// parses back.
TEST(Units, RandomTextIsParsedOrRefused) {
    std::mt19937_64 random(7);
    constexpr std::string_view kAlphabet = "0123456789smhdMGiKB/,_. maxburst=local:-";
    int accepted = 0;
    for (int i = 0; i < 200'000; ++i) {
        std::string text;
        for (auto n = random() % 8; n > 0; --n) text += kAlphabet[random() % kAlphabet.size()];
        if (const auto duration = parse_duration(text)) {
            ++accepted;
            EXPECT_EQ(parse_duration(format_duration(*duration)).value(), *duration);
        }
        if (const auto rate = parse_rate(text)) {
            ++accepted;
            EXPECT_EQ(parse_rate(format_rate(*rate)).value(), *rate);
        }
    }
    EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace postrider
