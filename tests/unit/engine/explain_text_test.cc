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
    const json reply = {{"at", 0}, {"code", 451}, {"enhanced", "4.7.1"}, {"text", "come later"}, {"host", "mx.a.test"},
                        {"said", true}};
    EXPECT_THAT(last_reply_text(reply), HasSubstr("  refused     451 4.7.1 come later (mx.a.test, 1970-01-01"));
}

TEST(ExplainText, WhatFailedBeforeAHostWasAskedWasRefusedByNobody) {
    const json reply = {{"at", 0}, {"code", 451}, {"enhanced", ""}, {"text", "MX a.test: SERVFAIL"}, {"host", ""},
                        {"said", false}};
    EXPECT_THAT(last_reply_text(reply), HasSubstr("  failed      451 MX a.test: SERVFAIL (1970-01-01"));
}

TEST(ExplainText, WhatFailedAtAHostThatSaidNothingNamesIt) {
    const json reply = {{"at", 0}, {"code", 451}, {"enhanced", "4.4.2"}, {"text", "connection lost"}, {"host", "mx.a.test"},
                        {"said", false}};
    EXPECT_THAT(last_reply_text(reply), HasSubstr("  failed      451 4.4.2 connection lost (mx.a.test, 1970-01-01"));
}

TEST(ExplainText, ACampaignOfWhichNothingIsQueuedIsToldFromOneThatWaits) {
    json answer = {{"campaign", "spring"}, {"partly", false}, {"domains", json::array()},
                   {"sums", {{"ready", 0}, {"deferred", 0}, {"suspended", 0}, {"domains", 0}}}};
    EXPECT_THAT(why_text(answer), HasSubstr("none is queued: "));
    answer["sums"]["ready"] = 7;
    answer["sums"]["domains"] = 1;
    EXPECT_THAT(why_text(answer), Not(HasSubstr("none is queued")));
}

TEST(ExplainText, CountsAndDurationsReadAsTheyAreSpoken) {
    json answer = {{"domain", "a.test"}, {"ready", 1}, {"deferred", 0}, {"suspended", 0}, {"site", "mx.a.test"}, {"connections", 1},
                   {"binding", {{{"limit", "max_message_rate"}, {"source", "ip-1"}, {"next_in_ms", 3'598'867}}}}};
    EXPECT_THAT(why_text(answer), HasSubstr("mx.a.test, 1 connection\n"));
    EXPECT_THAT(why_text(answer), HasSubstr("  binds       max_message_rate of source ip-1, next in 59m59s\n"));
    answer["connections"] = 0;
    answer["binding"][0]["next_in_ms"] = 250;
    EXPECT_THAT(why_text(answer), HasSubstr("mx.a.test, 0 connections\n"));
    EXPECT_THAT(why_text(answer), HasSubstr("next in 250ms\n"));
    json message = {{"id", "00"}, {"waiting", 1}, {"partly", false}, {"domains", json::array()},
                    {"recipients", {{{"recipient", "r@a.test"}, {"state", "ready"}, {"num_attempts", 1}, {"possible_duplicate", false}}}}};
    EXPECT_THAT(why_text(message), HasSubstr("1 recipient waits\n  r@a.test: ready, 1 attempt made\n"));
}

}  // namespace
}  // namespace postrider
