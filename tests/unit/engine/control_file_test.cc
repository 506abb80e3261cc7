#include <gtest/gtest.h>

#include "engine/control_file.h"

namespace postrider {
namespace {

TEST(ControlFile, KeepsByHowMuchTheClockWasSet) {
    for (const int64_t offset_us : {int64_t{-63'072'000'000'001}, int64_t{0}, int64_t{31'536'000'000'000}}) {
        ControlState state;
        state.clock_offset_us = offset_us;
        const auto again = parse_control_text(control_text(state));
        ASSERT_TRUE(again) << again.error().text;
        EXPECT_EQ(again->clock_offset_us, offset_us);
    }
    const auto old = parse_control_text(R"({"holds":[],"shapes":[]})");
    ASSERT_TRUE(old) << "of an engine that did not keep it";
    EXPECT_EQ(old->clock_offset_us, 0);
    for (const char* bad : {R"("1")", "1.5", "9223372036854775807", "-9223372036854775808", "18446744073709551615"})
        EXPECT_FALSE(parse_control_text(std::string(R"({"holds":[],"shapes":[],"clock":)") + bad + "}")) << bad;
}

}  // namespace
}  // namespace postrider
