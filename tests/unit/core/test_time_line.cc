#include <gtest/gtest.h>

#include "engine/core/time_line.h"

namespace postrider {
namespace {

constexpr int64_t kYearS = 365 * 86'400, kNowS = 1'900'000'000;
constexpr WallUs kNowUs = kNowS * kUsPerSecond;
constexpr MonoNs kBootNs = 1'000 * kNsPerSecond;

constexpr int64_t us(int64_t seconds) { return seconds * kUsPerSecond; }

// What the line says at a start, in seconds; the clock says kNowS.
int64_t begun(int64_t offset_s, int64_t newest_s) {
    TimeLine line;
    line.begin(kNowUs, kBootNs, us(offset_s), newest_s);
    return line.at_s(kBootNs);
}

TEST(TimeLine, IsTheWallClockWhenNothingIsKnown) { EXPECT_EQ(begun(0, 0), kNowS); }

TEST(TimeLine, GoesOnOverAStartAsIfTheClockHadNotBeenSet) {
    EXPECT_EQ(begun(kYearS, kNowS - kYearS - 60), kNowS - kYearS) << "set forward while mail was there";
    EXPECT_EQ(begun(-kYearS, kNowS + kYearS - 60), kNowS + kYearS) << "set back";
}

TEST(TimeLine, NeverBeginsBelowTheNewestStamp) {
    EXPECT_EQ(begun(0, kNowS + kYearS), kNowS + kYearS) << "set back while no engine ran";
    EXPECT_EQ(begun(kYearS, kNowS + 5), kNowS + 5) << "behind again, as a machine without a battery is at each boot";
}

TEST(TimeLine, OfAClockThatWasPutRightWhileNoEngineRanTheOffsetIsForgotten) {
    EXPECT_EQ(begun(-kYearS, kNowS - 60), kNowS) << "was set back by mistake";
    EXPECT_EQ(begun(kYearS, kNowS - 60), kNowS) << "was set forward by mistake";
    EXPECT_EQ(begun(-kYearS, kNowS + 40), kNowS + 40) << "put right by hand, to the minute";
}

TEST(TimeLine, SeesAStepOnceAndGoesOn) {
    TimeLine line;
    line.begin(kNowUs, kBootNs, 0, 0);
    MonoNs mono_ns = kBootNs + 60 * kNsPerSecond;
    EXPECT_EQ(line.look(kNowUs + us(69), mono_ns), 0) << "less than ten seconds are no step";
    EXPECT_EQ(line.look(kNowUs + us(60 - 2 * kYearS), mono_ns), -2 * kYearS);
    EXPECT_EQ(line.look(kNowUs + us(61 - 2 * kYearS), mono_ns + kNsPerSecond), 0);
    EXPECT_EQ(line.at_s(mono_ns), kNowS + 60);
    EXPECT_EQ(line.wall_s(kNowS + 60), kNowS + 60 - 2 * kYearS);
    EXPECT_EQ(line.offset_us(), us(-2 * kYearS));

    TimeLine next;
    next.begin(kNowUs + us(90 - 2 * kYearS), kBootNs, line.offset_us(), kNowS + 60);
    EXPECT_EQ(next.at_s(kBootNs), kNowS + 90);
}

TEST(TimeLine, SmallStepsAddUpToOne) {
    TimeLine line;
    line.begin(kNowUs, kBootNs, 0, 0);
    EXPECT_EQ(line.look(kNowUs + us(6), kBootNs), 0);
    EXPECT_EQ(line.look(kNowUs + us(12), kBootNs), 12);
}

}  // namespace
}  // namespace postrider
