// What `why` says, from answers as the engine gives them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/explain.h"

namespace postrider {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string last_reply_text(const json& reply) {
    json answer = {{"domain", "a.test"}, {"ready", 0}, {"deferred", 1}, {"suspended", 0}, {"last_reply", reply}};
    return why_text(answer);
}

TEST(ExplainText, ARefusalHasItsEnhancedCodeAndTheHostThatSaidIt) {
    const json reply = {{"at", 0}, {"code", 451}, {"enhanced", "4.7.1"}, {"text", "come later"}, {"host", "mx.a.test"}};
    EXPECT_THAT(last_reply_text(reply), HasSubstr("  refused     451 4.7.1 come later (mx.a.test, 1970-01-01"));
}

TEST(ExplainText, WhatFailedBeforeAHostWasAskedWasRefusedByNobody) {
    const json reply = {{"at", 0}, {"code", 451}, {"enhanced", ""}, {"text", "MX a.test: SERVFAIL"}, {"host", ""}};
    EXPECT_THAT(last_reply_text(reply), HasSubstr("  failed      451 MX a.test: SERVFAIL (1970-01-01"));
}

TEST(ExplainText, ACampaignOfWhichNothingIsQueuedIsToldFromOneThatWaits) {
    json answer = {{"campaign", "spring"}, {"partly", false}, {"domains", json::array()},
                   {"sums", {{"ready", 0}, {"deferred", 0}, {"suspended", 0}, {"domains", 0}}}};
    EXPECT_THAT(why_text(answer), HasSubstr("none is queued: "));
    answer["sums"]["ready"] = 7;
    answer["sums"]["domains"] = 1;
    EXPECT_THAT(why_text(answer), Not(HasSubstr("none is queued")));
}

}  // namespace
}  // namespace postrider
