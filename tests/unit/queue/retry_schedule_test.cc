#include "queue/retry_schedule.h"

#include <gtest/gtest.h>

#include <set>

namespace postrider {
namespace {

TEST(RetrySchedule, TheLastIntervalRepeatsAndEachJittersByATenth) {
    const RetrySchedule schedule{{600'000, 1'800'000, 7'200'000}, 388'800};
    Random random(1);
    const int64_t expected[] = {600,  600,  1800,
                                7200, 7200, 7200};  // [0]: attempts are counted from 1
    for (uint32_t attempts = 0; attempts < 6; ++attempts) {
        std::set<int64_t> seen;
        for (int i = 0; i < 2'000; ++i) seen.insert(schedule.wait_s(attempts, random));
        EXPECT_GE(*seen.begin(), expected[attempts] * 9 / 10);
        EXPECT_LE(*seen.rbegin(), expected[attempts] * 11 / 10 + 1);
        EXPECT_GT(*seen.rbegin() - *seen.begin(), expected[attempts] * 15 / 100)
            << "a herd comes back together";
        EXPECT_GT(seen.size(), 100u);
    }
    EXPECT_NEAR(static_cast<double>(schedule.wait_s(65'535, random)), 7200, 721);
}

TEST(RetrySchedule, NeverAtOnce) {
    const RetrySchedule schedule{{0, 1}, 60};
    Random random(1);
    for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(schedule.wait_s(1, random), 1);
        EXPECT_EQ(schedule.wait_s(2, random), 1);
    }
}

TEST(RetrySchedule, AgeCountsFromTheClaim) {
    const RetrySchedule schedule{{1000}, 3600};
    EXPECT_FALSE(schedule.expired(1'000'000, 1'003'599));
    EXPECT_TRUE(schedule.expired(1'000'000, 1'003'600));
    EXPECT_FALSE(schedule.expired(1'000'000, 999'000))
        << "a clock that was set back does not age mail";
}

}  // namespace
}  // namespace postrider
