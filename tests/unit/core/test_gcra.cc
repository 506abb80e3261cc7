// Properties of the rate limit, over random rates, bursts, clocks and threads.
#include "engine/core/gcra.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace postrider {
namespace {

constexpr MonoNs kStart = 1'000 * kNsPerSecond;

struct Case {
    uint64_t count;
    uint32_t period_s;
    uint64_t burst;
};
const std::vector<Case> kCases = {{1, 86'400, 1},  {1, 1, 1},        {19, 1, 1},           {7, 60, 3},
                                  {1000, 3600, 5}, {333, 1, 33},     {1'000'000, 1, 100'000}, {1'000'000, 1, 1},
                                  {3, 1, 1'000},   {1 << 30, 1, 1 << 20}};

// Over every window: no more than rate * W + burst. All windows that begin and end at an event are all there are.
TEST(Gcra, NoWindowHoldsMoreThanTheRateAndTheBurst) {
    std::mt19937_64 random(7);
    for (const Case& c : kCases) {
        Gcra limit(c.count, c.period_s, c.burst);
        const double rate = static_cast<double>(c.count) / static_cast<double>(c.period_s) / 1e9;
        const auto step = static_cast<MonoNs>(1 / rate) + 1;
        std::vector<MonoNs> granted;
        MonoNs now = kStart;
        for (int i = 0; i < 4'000; ++i) {
            if (limit.take(now)) granted.push_back(now);
            const auto how = random() % 8;
            if (how == 0) now += static_cast<MonoNs>(random() % static_cast<uint64_t>(step * 5));
            if (how == 1) now = std::max(now, limit.ready_at(now));
            if (how == 2) now += static_cast<MonoNs>(random() % static_cast<uint64_t>(step));
        }
        ASSERT_GT(granted.size(), 100u);
        for (size_t from = 0; from < granted.size(); from += 7)
            for (size_t to = from; to < granted.size(); ++to)
                ASSERT_LE(static_cast<double>(to - from + 1),
                          rate * static_cast<double>(granted[to] - granted[from]) + static_cast<double>(c.burst) + 1e-6)
                    << c.count << "/" << c.period_s << " burst " << c.burst;
    }
}

// Who comes exactly when told uses the whole rate.
TEST(Gcra, WhoComesWhenToldUsesTheRate) {
    for (const Case& c : kCases) {
        Gcra limit(c.count, c.period_s, c.burst);
        MonoNs now = kStart;
        uint64_t granted = 0;
        for (; granted < c.burst + 3'000; ++granted) {
            if (const MonoNs at = limit.ready_at(now)) now = at;
            ASSERT_TRUE(limit.take(now)) << "granted at the time that it named";
        }
        const double ideal = 3'000.0 * static_cast<double>(c.period_s) / static_cast<double>(c.count) * 1e9;
        EXPECT_NEAR(static_cast<double>(now - kStart), ideal, ideal * 0.003 + 1e6) << c.count << "/" << c.period_s;
    }
}

TEST(Gcra, WhatIsGivenBackMayBeTakenAgain) {
    for (const Case& c : kCases) {
        if (c.count > 1'000'000) continue;  // octets: not one by one
        Gcra limit(c.count, c.period_s, c.burst);
        const MonoNs now = kStart;
        const uint64_t all = limit.available(now);
        EXPECT_EQ(all, c.burst) << c.count << "/" << c.period_s;
        for (int i = 0; i < 10'000; ++i) {
            ASSERT_TRUE(limit.take(now));
            limit.give_back();
        }
        uint64_t taken = 0;
        while (limit.take(now)) ++taken;
        EXPECT_EQ(taken, c.burst);
        EXPECT_EQ(limit.available(now), 0u);
    }
}

// A message larger than the burst goes, and its octets are paid for after it.
TEST(Gcra, MoreThanTheBurstIsPaidForAfterwards) {
    Gcra octets(1'000, 1, 100);
    ASSERT_TRUE(octets.take(kStart, 5'000));
    EXPECT_FALSE(octets.take(kStart + 4'800 * kNsPerMs, 1));
    EXPECT_TRUE(octets.take(kStart + 5'000 * kNsPerMs, 1));
}

// Ten changes a second between two rates: what passes is what the two allow in their times, and one burst.
TEST(Gcra, ChangesAddUpToNoMoreThanTheRatesAllow) {
    for (const auto& [fast, slow] : std::vector<std::pair<uint64_t, uint64_t>>{{1'000, 200}, {500, 10}, {90'000, 100}, {20, 10}}) {
        Gcra limit(fast, 1, std::max<uint64_t>(1, fast / 10));
        double allowed = static_cast<double>(std::max<uint64_t>(1, fast / 10));
        uint64_t granted = 0;
        MonoNs now = kStart;
        for (int change = 0; change < 200; ++change) {
            const uint64_t rate = change % 2 ? slow : fast;
            limit.set(rate, 1, std::max<uint64_t>(1, rate / 10), now);
            for (int step = 0; step < 200; ++step, now += kNsPerMs / 2)
                while (limit.take(now)) ++granted;
            allowed += static_cast<double>(rate) * 0.1;
        }
        EXPECT_LE(static_cast<double>(granted), allowed * 1.001 + 1) << fast << " and " << slow;
        EXPECT_GE(static_cast<double>(granted), allowed * 0.6) << fast << " and " << slow;
    }
}

TEST(Gcra, ASlowRatesWaitEndsWhenItIsRaised) {
    Gcra limit(1, 86'400, 1);
    ASSERT_TRUE(limit.take(kStart));
    limit.set(100, 1, 10, kStart);
    EXPECT_FALSE(limit.take(kStart)) << "no burst is given for a change";
    EXPECT_TRUE(limit.take(kStart + 11 * kNsPerMs));
}

TEST(Gcra, ThreadsTogetherGetNoMoreThanOneWould) {
    Gcra limit(1'000'000, 1, 1'000);
    std::vector<uint64_t> granted(4);
    constexpr MonoNs kSpan = 50 * kNsPerMs;
    std::vector<std::thread> threads;
    for (auto& mine : granted)
        threads.emplace_back([&limit, &mine] {
            for (MonoNs now = kStart; now < kStart + kSpan; now += 100) mine += limit.take(now) ? 1 : 0;
        });
    for (auto& thread : threads) thread.join();
    uint64_t sum = 0;
    for (const uint64_t each : granted) sum += each;
    EXPECT_LE(sum, 50'000u + 1'000u);
    EXPECT_GE(sum, 50'000u);
}

}  // namespace
}  // namespace postrider
