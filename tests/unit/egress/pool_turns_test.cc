// Turns among the sources of a pool, by a clock of the test's own, and the pools that a configuration makes.
#include "engine/egress/pool_turns.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>

namespace postrider {
namespace {

using testing::ElementsAre;
using testing::Field;

constexpr size_t kA = 0, kB = 1;

size_t next(const PoolTurns& turns) {
    size_t least = 0;
    for (size_t member = 1; member < turns.size(); ++member)
        if (turns.standing(member) < turns.standing(least)) least = member;
    return least;
}

TEST(PoolTurnsTest, MessagesGoByWeightOneByOne) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 3}, PoolMember{3, 6}};
    PoolTurns turns(members);
    std::array<int, 3> taken{};
    for (int i = 0; i < 1'000; ++i) {
        const size_t member = next(turns);
        EXPECT_FALSE(turns.ahead(member, i));
        turns.took(member, i);
        ++taken[member];
    }
    EXPECT_THAT(taken, ElementsAre(100, 300, 600));
}

TEST(PoolTurnsTest, WhoIsAheadRestsWhileTheOtherTakes) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 1}};
    PoolTurns turns(members);
    turns.took(kB, 0);
    for (uint64_t i = 0; i < PoolTurns::kAhead + 1; ++i) {
        EXPECT_FALSE(turns.ahead(kA, 0)) << i;
        turns.took(kA, 0);
    }
    turns.took(kA, 0);
    EXPECT_TRUE(turns.ahead(kA, PoolTurns::kTakesMs - 1));
    EXPECT_FALSE(turns.ahead(kA, PoolTurns::kTakesMs)) << "the other takes nothing: nobody waits for it";
    EXPECT_FALSE(turns.ahead(kB, 0));
    turns.limited(kB, 0);
    EXPECT_FALSE(turns.ahead(kA, 0)) << "it may take no more: nobody waits for it";
    turns.took(kB, 100);
    EXPECT_FALSE(turns.ahead(kA, 100));
}

TEST(PoolTurnsTest, WhatAllShareIsDividedByWeight) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 3}};
    const PoolTurns turns(members);
    EXPECT_EQ(turns.part_of(1'000, kA), 500u);
    EXPECT_EQ(turns.part_of(1'000, kB), 1'500u);
    const std::vector<PoolMember> heavy(1'000, PoolMember{1, 1'000});
    EXPECT_EQ(PoolTurns(heavy).part_of(1'024, 999), 1'024u);
}

TEST(PoolTurnsTest, WhatASourceCouldNotTakeIsOwedToItOnlySoFar) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 1}};
    PoolTurns turns(members);
    for (int i = 0; i < 100'000; ++i) turns.took(kA, i);
    uint64_t before_its_turn = 0;
    for (; next(turns) == kB; ++before_its_turn) turns.took(kB, 100'000);
    EXPECT_LE(before_its_turn, PoolTurns::kOwed + 1);
    EXPECT_GE(before_its_turn, PoolTurns::kOwed - 1);
}

TEST(PoolTurnsTest, ConnectionsAreOpenedByWeight) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 3}};
    PoolTurns turns(members);
    std::array<int, 2> open{};
    for (int i = 0; i < 40; ++i) {
        const size_t next = turns.standing_with_open(kA) < turns.standing_with_open(kB) ? kA : kB;
        turns.opening(next);
        ++open[next];
    }
    EXPECT_THAT(open, ElementsAre(10, 30));
}

TEST(PoolTurnsTest, ASourceWithoutConnectionWantsOneWhenOthersAreAhead) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 1}};
    PoolTurns turns(members);
    turns.opening(kA);
    EXPECT_FALSE(turns.wanting(kB, 0));
    for (uint64_t i = 0; i < PoolTurns::kAhead + 1; ++i) turns.took(kA, 0);
    EXPECT_TRUE(turns.wanting(kB, 0));
    EXPECT_FALSE(turns.wanting(kA, 0));
    turns.opening(kB);
    EXPECT_FALSE(turns.wanting(kB, 0));
    turns.ended(kB);
    EXPECT_TRUE(turns.refused(kB, 0));
    EXPECT_FALSE(turns.wanting(kB, PoolTurns::kRefusedMs - 1));
    EXPECT_TRUE(turns.wanting(kB, PoolTurns::kRefusedMs));
}

TEST(PoolTurnsTest, ARefusalRestsLongerEachTimeUntilASessionIsOpen) {
    const std::array members{PoolMember{1, 1}, PoolMember{2, 1}};
    PoolTurns turns(members);
    int64_t now_ms = 0;
    for (uint32_t i = 0; i < 10; ++i) {
        turns.opened(kB);  // the others are well
        ASSERT_TRUE(turns.refused(kA, now_ms));
        const int64_t rest_ms = PoolTurns::kRefusedMs << std::min(i, PoolTurns::kDoublings);
        EXPECT_FALSE(turns.may_open(kA, now_ms + rest_ms - 1));
        EXPECT_TRUE(turns.may_open(kA, now_ms + rest_ms));
        EXPECT_TRUE(turns.may_open(kB, now_ms));
        now_ms += rest_ms;
    }
    turns.opened(kA);
    ASSERT_TRUE(turns.refused(kA, now_ms));
    EXPECT_TRUE(turns.may_open(kA, now_ms + PoolTurns::kRefusedMs));
}

TEST(PoolTurnsTest, WhoRefusesEverySourceOrManyInARowRefusesAll) {
    const std::array two{PoolMember{1, 1}, PoolMember{2, 1}};
    PoolTurns turns(two);
    EXPECT_TRUE(turns.refused(kA, 0));
    EXPECT_FALSE(turns.refused(kB, 0));
    EXPECT_TRUE(turns.may_open(kA, 0)) << "the site waits as a whole, not its sources";
    const std::vector<PoolMember> hundred(100, PoolMember{1, 1});
    PoolTurns many(hundred);
    for (size_t member = 0; member + 1 < PoolTurns::kRefusalsOfSources; ++member) EXPECT_TRUE(many.refused(member, 0));
    EXPECT_FALSE(many.refused(50, 0));
}

Config config_of(std::vector<std::string> sources) {
    Config config;
    for (auto& name : sources) config.sources.push_back({std::move(name), "192.0.2.1", "m.example.com"});
    return config;
}

auto member(SourceId source, uint32_t weight) {
    return testing::AllOf(Field(&PoolMember::source, source), Field(&PoolMember::weight, weight));
}

TEST(EgressPoolsTest, DefaultIsEverySourceAndASourceIsAPool) {
    const EgressPools pools(config_of({"a", "b"}));
    for (const char* name : {"", "default"}) {
        ASSERT_NE(pools.find(name), nullptr);
        EXPECT_EQ(pools.find(name)->id, 0);
        EXPECT_THAT(pools.find(name)->members, ElementsAre(member(1, 1), member(2, 1)));
    }
    ASSERT_NE(pools.find("b"), nullptr);
    EXPECT_THAT(pools.find("b")->members, ElementsAre(member(2, 1)));
    EXPECT_EQ(pools.find("c"), nullptr);
    EXPECT_EQ(pools.find("B"), nullptr);
}

TEST(EgressPoolsTest, WithoutASourceEverythingIsTheKernelsChoice) {
    const EgressPools pools(config_of({}));
    for (const char* name : {"", "default", "anything"}) {
        ASSERT_NE(pools.find(name), nullptr);
        EXPECT_THAT(pools.find(name)->members, ElementsAre(member(0, 1)));
    }
}

TEST(EgressPoolsTest, PoolsHaveTheirMembersAndTheDefaultMayBeOne) {
    Config config = config_of({"a", "b", "c"});
    config.pools = {{"news", {{"c", 1}, {"a", 5}}}, {"default", {{"b", 2}}}};
    const EgressPools pools(config);
    EXPECT_THAT(pools.find("news")->members, ElementsAre(member(3, 1), member(1, 5)));
    EXPECT_THAT(pools.find("")->members, ElementsAre(member(2, 2)));
    EXPECT_EQ(pools.size(), 5u);
    for (size_t i = 0; i < pools.size(); ++i) EXPECT_EQ(pools[static_cast<PoolId>(i)].id, i);
}

}  // namespace
}  // namespace postrider
