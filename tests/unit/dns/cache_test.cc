#include "dns/cache.h"

#include <gtest/gtest.h>

#include "dns/server_health.h"

namespace postrider {
namespace {

struct Answer {
    int64_t expires_ms = 0;
    int number = 0;
};

class CacheTest : public testing::Test {
  protected:
    void put(const std::string& name, int number, int64_t lives_ms, bool failed = false) {
        cache.take_off(name);
        cache.land(name, Answer{reactor->now_ms() + lives_ms, number}, failed);
    }
    MailExchange exchange{1};
    std::unique_ptr<Reactor> reactor =
        *Reactor::make(0, exchange, {.entries = 64, .receive_buffers = 8});
    LookupCache<Answer> cache{*reactor, 3};
};

TEST_F(CacheTest, HoldsUntilTheAnswerExpires) {
    put("a", 1, 30);
    ASSERT_NE(cache.find("a"), nullptr);
    EXPECT_EQ((*cache.find("a"))->number, 1);
    EXPECT_EQ(cache.find("b"), nullptr);
    const int64_t until_ms = reactor->now_ms() + 30;
    while (reactor->now_ms() < until_ms) reactor->turn(until_ms * kNsPerMs);
    EXPECT_EQ(cache.find("a"), nullptr);
}

TEST_F(CacheTest, BoundedAndTheLeastRecentlyUsedGoes) {
    for (const char* name : {"a", "b", "c"}) put(name, 1, 60'000);
    cache.find("a");
    put("d", 1, 60'000);
    EXPECT_EQ(cache.size(), 3u);
    EXPECT_EQ(cache.find("b"), nullptr);
    for (const char* name : {"a", "c", "d"}) EXPECT_NE(cache.find(name), nullptr) << name;
}

TEST_F(CacheTest, CountsFailuresInARow) {
    put("a", 1, 60'000, true);
    put("a", 1, 60'000, true);
    EXPECT_EQ(cache.failures("a"), 2u);
    put("a", 1, 60'000);
    EXPECT_EQ(cache.failures("a"), 0u);
}

Task<void> join(LookupCache<Answer>& cache, int& got) {
    got = (co_await cache.flight("a")->join())->number;
}

TEST_F(CacheTest, LandingWakesAllWhoJoinedLater) {
    Gate gate;
    int first = 0, second = 0;
    cache.take_off("a");
    spawn(gate, join(cache, first));
    spawn(gate, join(cache, second));
    cache.land("a", Answer{0, 9}, false);  // expired at once: those who waited still have it
    EXPECT_EQ(first, 0) << "never inside land()";
    EXPECT_EQ(cache.flights(), 0u);
    reactor->turn(0);
    EXPECT_EQ(first, 9);
    EXPECT_EQ(second, 9);
}

TEST(ServerHealth, DownAfterSilenceThenOneProbe) {
    ServerHealth health;
    for (uint32_t i = 0; i < ServerHealth::kSilent; ++i) {
        EXPECT_TRUE(health.admit(1000));
        health.silent(1000);
    }
    EXPECT_FALSE(health.admit(1000));
    EXPECT_FALSE(health.admit(1999));
    EXPECT_TRUE(health.admit(2000));
    EXPECT_FALSE(health.admit(2000)) << "one probe at a time";
    health.silent(5000);
    EXPECT_FALSE(health.admit(6999)) << "twice the back-off";
    EXPECT_TRUE(health.admit(7000));
    health.inconclusive(7000);
    EXPECT_TRUE(health.admit(7000));
    health.answered();
    EXPECT_TRUE(health.admit(7000));
    EXPECT_TRUE(health.up());
}

TEST(ServerHealth, BackOffIsBoundedAndForgottenAfterAnAnswer) {
    ServerHealth health;
    int64_t now_ms = 0;
    for (uint32_t i = 0; i < ServerHealth::kSilent; ++i) health.silent(now_ms);
    for (int i = 0; i < 20; ++i) {
        now_ms = health.retry_ms(now_ms);
        ASSERT_TRUE(health.admit(now_ms));
        health.silent(now_ms);
    }
    EXPECT_EQ(health.retry_ms(now_ms), now_ms + ServerHealth::kLongestBackoffMs);
    health.answered();
    for (uint32_t i = 1; i < ServerHealth::kSilent; ++i) health.silent(now_ms);
    EXPECT_TRUE(health.up()) << "an answer ends the row";
    health.silent(now_ms);
    EXPECT_EQ(health.retry_ms(now_ms), now_ms + ServerHealth::kFirstBackoffMs);
}

}  // namespace
}  // namespace postrider
