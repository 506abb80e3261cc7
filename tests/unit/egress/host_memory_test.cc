#include "engine/egress/host_memory.h"

#include <gtest/gtest.h>

namespace postrider {
namespace {

TEST(HostMemory, AHostThatStumblesIsDemotedAStepAtATimeAndForgiven) {
    HostMemory memory;
    EXPECT_EQ(memory.most("mx.test", 0), Dialogue::bdat);
    memory.stumbled("mx.test", Dialogue::bdat, 0);
    EXPECT_EQ(memory.most("mx.test", 1), Dialogue::message);
    memory.stumbled("mx.test", Dialogue::bdat, 1);  // another connection of before
    EXPECT_EQ(memory.most("mx.test", 2), Dialogue::message);
    memory.stumbled("mx.test", Dialogue::message, 2);
    memory.stumbled("mx.test", Dialogue::group, 3);
    memory.stumbled("mx.test", Dialogue::none, 4);
    EXPECT_EQ(memory.most("mx.test", 5), Dialogue::none);
    EXPECT_EQ(memory.most("mx2.test", 5), Dialogue::bdat);
    EXPECT_EQ(memory.most("mx.test", 4 + HostMemory::kDialogueMs), Dialogue::bdat);
}

TEST(HostMemory, AFailedHandshakeIsForgottenInTime) {
    HostMemory memory;
    EXPECT_FALSE(memory.tls_failed_lately("mx.test", 0));
    memory.tls_failed("mx.test", 0);
    EXPECT_TRUE(memory.tls_failed_lately("mx.test", HostMemory::kNoTlsMs - 1));
    EXPECT_FALSE(memory.tls_failed_lately("mx.test", HostMemory::kNoTlsMs));
}

TEST(HostMemory, WhatAHostTakesAtMostIsForgottenInTime) {
    HostMemory memory;
    EXPECT_FALSE(memory.too_large("mx.test", 2'000, 0));
    memory.takes_at_most("mx.test", 1'000, 0);
    EXPECT_TRUE(memory.too_large("mx.test", 1'001, 1));
    EXPECT_FALSE(memory.too_large("mx.test", 1'000, 1));
    EXPECT_FALSE(memory.too_large("mx2.test", 1'001, 1));
    EXPECT_FALSE(memory.too_large("mx.test", 1'001, HostMemory::kSizeMs));
}

TEST(HostMemory, StaysBoundedOverManyHosts) {
    HostMemory memory;
    for (int i = 0; i < 20'000; ++i) {
        const int64_t now_ms = int64_t{i} * 1'000'000;  // each is past when the next comes
        memory.stumbled("mx" + std::to_string(i), Dialogue::message, now_ms);
        memory.tls_failed("mx" + std::to_string(i), now_ms);
        memory.takes_at_most("mx" + std::to_string(i), 1'000, now_ms);
    }
    EXPECT_LE(memory.size(), 3 * HostMemory::kKept);
}

}  // namespace
}  // namespace postrider
