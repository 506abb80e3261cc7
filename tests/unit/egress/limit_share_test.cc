// Workers at one limit, by a clock of the test's own: each gets its part, nothing is lost, and no window holds too much.
#include "engine/egress/limit_share.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <vector>

namespace postrider {
namespace {

struct Worker {
    uint32_t weight = LimitShare::kWhole;
    MonoNs latest_ns = 0;        // it wakes late by up to so much
    uint64_t at_once = UINT64_MAX;  // connections at rest: so many events in one go
    LimitShare share = {};
    MonoNs wakes_ns = 0;
    uint64_t taken = 0;
};

// A worker takes what it may, then contends and sleeps until it may again, as SiteWorker does. Answers all that was taken.
uint64_t run(RateLimit& limit, std::vector<Worker>& workers, MonoNs for_ns) {
    std::mt19937_64 random(5);
    const MonoNs begin = 1'000 * kNsPerSecond;
    for (Worker& each : workers) each.wakes_ns = begin;
    uint64_t sum = 0;
    for (;;) {
        Worker& next = *std::ranges::min_element(workers, {}, &Worker::wakes_ns);
        const MonoNs now = next.wakes_ns;
        if (now > begin + for_ns) return sum;
        for (uint64_t left = next.at_once; left > 0 && next.share.ready_at(now) == 0 && limit.take(now); --left) {
            next.share.took(now, 1);
            ++next.taken;
            ++sum;
        }
        MonoNs at = limit.ready_at(now);
        if (at) next.share.contend(limit, next.weight, now);
        at = std::max({at, next.share.ready_at(now), now + 1});
        const MonoNs ms = (at + kNsPerMs - 1) / kNsPerMs * kNsPerMs;
        next.wakes_ns = ms + (next.latest_ns ? static_cast<MonoNs>(random() % static_cast<uint64_t>(next.latest_ns)) : 0);
    }
}

RateLimit& set(RateLimit& limit, uint64_t rate, uint32_t burst) {
    limit.set(rate, 1, burst, 0);
    return limit;
}

TEST(LimitShare, TwoEqualWorkersGetHalfEach) {
    for (const auto& [rate, burst] : {std::pair{100u, 10u}, {1000u, 100u}, {40u, 4u}}) {
        RateLimit limit;
        std::vector<Worker> workers(2);
        workers[1].latest_ns = 8 * kNsPerMs;  // a busy core
        workers[1].at_once = 20;
        const uint64_t sum = run(set(limit, rate, burst), workers, 20 * kNsPerSecond);
        EXPECT_GE(sum, 20 * rate * 95 / 100) << rate;
        EXPECT_LE(sum, 20 * rate + burst) << rate;
        EXPECT_GE(workers[1].taken, sum * 40 / 100) << rate << "/s: " << workers[0].taken;
    }
}

TEST(LimitShare, WithoutABurstTheyTakeTurns) {
    RateLimit limit;
    std::vector<Worker> workers(3);
    const uint64_t sum = run(set(limit, 50, 1), workers, 20 * kNsPerSecond);
    EXPECT_GE(sum, 950u);
    for (const Worker& each : workers) EXPECT_GE(each.taken, sum * 30 / 100);
}

TEST(LimitShare, ShardsOfASiteShareItsPart) {
    RateLimit limit;
    std::vector<Worker> workers(5);
    for (size_t i = 0; i < 4; ++i) workers[i].weight = LimitShare::kWhole / 4;
    const uint64_t sum = run(set(limit, 200, 20), workers, 20 * kNsPerSecond);
    EXPECT_GE(sum, 200u * 20 * 95 / 100);
    EXPECT_NEAR(static_cast<double>(workers[4].taken), static_cast<double>(sum) / 2, static_cast<double>(sum) / 10);
}

TEST(LimitShare, WhatOneDoesNotTakeTheOtherUses) {
    RateLimit limit;
    set(limit, 100, 10);
    LimitShare absent;
    absent.contend(limit, LimitShare::kWhole, 0);  // it has no mail any more, and has not left yet
    std::vector<Worker> workers(1);
    const uint64_t sum = run(limit, workers, 20 * kNsPerSecond);
    EXPECT_GE(sum, 100u * 20 * 95 / 100);
    absent.leave_if_content(1'000 * kNsPerSecond);
    EXPECT_EQ(limit.contending.load(), LimitShare::kWhole);
    workers.clear();
    EXPECT_EQ(limit.contending.load(), 0u);
}

TEST(LimitShare, AloneItHoldsNothingBack) {
    RateLimit limit;
    set(limit, 10, 5);
    LimitShare share;
    const MonoNs now = 50 * kNsPerSecond;
    EXPECT_EQ(share.room(now), UINT64_MAX);
    share.contend(limit, LimitShare::kWhole, now);
    share.took(now, 100);
    EXPECT_EQ(share.ready_at(now), 0);
    EXPECT_EQ(share.room(now), UINT64_MAX);
}

TEST(LimitShare, RoomIsItsPartOfTheBurst) {
    RateLimit limit;
    set(limit, 100, 20);
    LimitShare one, other;
    const MonoNs now = 50 * kNsPerSecond;
    while (limit.take(now)) {}
    one.contend(limit, LimitShare::kWhole, now);
    other.contend(limit, LimitShare::kWhole, now);
    uint64_t at_once = 0;
    while (one.ready_at(now) == 0 && at_once < 100) {
        EXPECT_GE(one.room(now), 1u);
        one.took(now, 1);
        ++at_once;
    }
    EXPECT_EQ(at_once, 10u);
    EXPECT_EQ(one.room(now), 0u);
    EXPECT_GE(other.room(now), 10u);
}

}  // namespace
}  // namespace postrider
