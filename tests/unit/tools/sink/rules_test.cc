// The notation of rules, what refuses one, and how often one acts.
#include "tools/sink/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postrider::sink {
namespace {

using testing::HasSubstr;

TEST(SinkRules, PatternsKnowStarAndQuestionMark) {
    EXPECT_TRUE(glob_match("*@busy.test", "Some.One@BUSY.TEST"));
    EXPECT_TRUE(glob_match("u?@*.test", "u1@a.b.test"));
    EXPECT_TRUE(glob_match("*a*b*", "xxaxxaxxb"));
    EXPECT_TRUE(glob_match("*", ""));
    EXPECT_FALSE(glob_match("*@busy.test", "a@busy.test.org"));
    EXPECT_FALSE(glob_match("u?", "u"));
    EXPECT_FALSE(glob_match("", "a"));
}

TEST(SinkRules, BothNotationsGiveTheSameRule) {
    const auto line = parse_rule(R"(rcpt=*@b.test reply="451 4.7.1 \"later\"" after=2 times=3 per=address probability=0.5)");
    ASSERT_TRUE(line) << line.error().text;
    const auto file = parse_rules_toml("[[rule]]\nrcpt = \"*@b.test\"\nreply = '451 4.7.1 \"later\"'\nafter = 2\n"
                                       "times = 3\nper = \"address\"\nprobability = 0.5\n", "rules.toml");
    ASSERT_TRUE(file) << file.error().text;
    for (const Rule& rule : {*line, file->front()}) {
        EXPECT_EQ(rule.point, Point::rcpt);
        EXPECT_EQ(rule.pattern, "*@b.test");
        EXPECT_EQ(rule.reply, "451 4.7.1 \"later\"");
        EXPECT_EQ(rule.action, Action::reply);
        EXPECT_EQ(rule.after, 2u);
        EXPECT_EQ(rule.times, 3u);
        EXPECT_EQ(rule.per, Per::address);
        EXPECT_EQ(rule.probability, 0.5);
    }
}

TEST(SinkRules, WhatIsWrongIsSaid) {
    const auto error = [](std::string_view text) {
        const auto rule = parse_rule(text);
        return rule ? std::string("accepted") : rule.error().text;
    };
    EXPECT_THAT(error("reply=\"451 x\""), HasSubstr("needs a point"));
    EXPECT_THAT(error("rcpt=* mail=*"), HasSubstr("second"));
    EXPECT_THAT(error("rcpt=*"), HasSubstr("needs reply= or action="));
    EXPECT_THAT(error("rcpt=* action=explode"), HasSubstr("bad value \"explode\" for action, allowed: reply, close,"));
    for (const std::string reply : {"abc", "45", "999 x", "199 x", "451x", "4a1 x", "451 a\\nmore", "560 x"})
        EXPECT_THAT(error("rcpt=* reply=\"" + reply + "\""), HasSubstr("is no reply line")) << reply;
    EXPECT_EQ(error("rcpt=* reply=\"451\""), "accepted");
    EXPECT_THAT(error("rcpt=* color=red"), HasSubstr("unknown key \"color\""));
    EXPECT_THAT(error("rcpt=* reply=\"451"), HasSubstr("not closed"));
    EXPECT_THAT(error("rcpt=* reply=no"), HasSubstr("no reply line"));
    EXPECT_THAT(error("mail=* domain=x action=close"), HasSubstr("domain="));
    EXPECT_THAT(error("rcpt=* limit=3"), HasSubstr("limit="));
    EXPECT_THAT(error("rcpt"), HasSubstr("key=value"));
    EXPECT_THAT(parse_rules_toml("[[rule]]\n\nrcpt = \"*\"\ntimes = \"x\"\n", "r.toml").error().text,
                HasSubstr("r.toml:4"));
    EXPECT_THAT(parse_rules_toml("[[rule\n", "r.toml").error().text, HasSubstr("r.toml:1"));
}

std::vector<Rule> rules(std::initializer_list<std::string_view> texts) {
    std::vector<Rule> all;
    for (const auto text : texts) all.push_back(parse_rule(text).value());
    return all;
}

TEST(SinkRules, CountsTogetherOrApart) {
    RuleSet together(rules({"rcpt=* reply=\"451 a\" after=1 times=2"}), 1);
    std::string said;
    for (int i = 0; i < 5; ++i) said += together.match(Point::rcpt, {"a@b"}, i).reply.empty() ? '.' : 'x';
    EXPECT_EQ(said, ".xx..");
    RuleSet apart(rules({"rcpt=* reply=\"451 a\" times=1 per=address"}), 1);
    said.clear();
    for (const auto* address : {"a@b", "A@B", "c@b", "c@b"})
        said += apart.match(Point::rcpt, {address}, 1).reply.empty() ? '.' : 'x';
    EXPECT_EQ(said, "x.x.");
    RuleSet by_connection(rules({"rcpt=* reply=\"451 a\" times=1 per=connection"}), 1);
    said.clear();
    for (const uint64_t connection : {1, 1, 2}) 
        said += by_connection.match(Point::rcpt, {"a@b"}, connection).reply.empty() ? '.' : 'x';
    EXPECT_EQ(said, "x.x");
}

TEST(SinkRules, TheFirstThatActsWinsAndOtherPointsAreFree) {
    RuleSet set(rules({"rcpt=*@x.test reply=\"451 first\" times=1", "domain=x.test reply=\"550 second\""}), 1);
    EXPECT_TRUE(set.has(Point::rcpt));
    EXPECT_FALSE(set.has(Point::dot));
    EXPECT_EQ(set.match(Point::rcpt, {"a@x.test"}, 1).reply, "451 first");
    EXPECT_EQ(set.match(Point::rcpt, {"a@x.test"}, 1).reply, "550 second");
    EXPECT_EQ(set.match(Point::rcpt, {"a@y.test"}, 1).action, Action::none);
}

TEST(SinkRules, ChanceComesFromTheSeed) {
    const auto draws = [](uint64_t seed) {
        RuleSet set(rules({"mail=* reply=\"421 x\" probability=0.3"}), seed);
        std::string said;
        for (int i = 0; i < 1000; ++i) said += set.match(Point::mail, {"a@b"}, 1).reply.empty() ? '.' : 'x';
        return said;
    };
    const std::string said = draws(5);
    EXPECT_EQ(said, draws(5));
    EXPECT_NE(said, draws(6));
    EXPECT_NEAR(static_cast<double>(std::count(said.begin(), said.end(), 'x')), 300, 60);
}

}  // namespace
}  // namespace postrider::sink
