// Leases of connections: the counts hold, and of a limit that was lowered as many leave as are too many.
#include "engine/egress/path_limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace postrider {
namespace {

TEST(ConnectionLeaseTest, EveryScopeHasASlotOrNoneIsTaken) {
    CountLimit broad(5), narrow(2);
    PathView path;
    path.slots = {&broad, &narrow};
    std::vector<ConnectionLease> held;
    for (int i = 0; i < 2; ++i) {
        held.push_back(ConnectionLease::take(path));
        EXPECT_TRUE(held.back());
    }
    EXPECT_FALSE(ConnectionLease::take(path));
    EXPECT_EQ(broad.used(), 2u);
    held.pop_back();
    EXPECT_EQ(narrow.used(), 1u);
    EXPECT_TRUE(ConnectionLease::take(path));
    EXPECT_EQ(broad.used(), 1u) << "the last one ended with its statement";
}

TEST(ConnectionLeaseTest, AsManyLeaveAsAreTooMany) {
    CountLimit broad, narrow(8);
    PathView path;
    path.slots = {&broad, &narrow};
    std::vector<ConnectionLease> held;
    for (int i = 0; i < 8; ++i) held.push_back(ConnectionLease::take(path));
    for (auto& lease : held) EXPECT_FALSE(lease.over());
    narrow.set(5);
    std::vector<bool> leaves;
    for (auto& lease : held) leaves.push_back(lease.over());
    EXPECT_EQ(std::ranges::count(leaves, true), 3);
    for (size_t i = 0; i < held.size(); ++i) EXPECT_EQ(held[i].over(), leaves[i]) << "asked again, the same one leaves";
    narrow.set(4);
    EXPECT_EQ(std::ranges::count_if(held, [](auto& lease) { return lease.over(); }), 4);
    EXPECT_FALSE(ConnectionLease::take(path));
    while (narrow.used() > 4) {  // those that leave do; the others see no reason to
        std::vector<ConnectionLease> rest;
        bool gone = false;
        for (auto& lease : held)
            if (gone || !lease.over())
                rest.push_back(std::move(lease));
            else
                gone = true;
        held.clear();
        held.swap(rest);
    }
    EXPECT_EQ(std::ranges::count_if(held, [](auto& lease) { return lease.over(); }), 0);
    EXPECT_EQ(held.size(), 4u);
    held.clear();
    EXPECT_EQ(broad.used(), 0u);
    held.push_back(ConnectionLease::take(path));
    EXPECT_FALSE(held.back().over());
}

TEST(ConnectionLeaseTest, ALimitThatComesCountsWhatIsOpenAndOneThatGoesForgetsIt) {
    CountLimit sockets, provider(2), site(10);
    PathView before, after;
    before.slots = {&sockets, &site};
    after.slots = {&sockets, &provider, &site};
    std::vector<ConnectionLease> held;
    for (int i = 0; i < 6; ++i) held.push_back(ConnectionLease::take(before));
    for (int times = 0; times < 2; ++times) {
        for (auto& lease : held) lease.adopt(after);
        EXPECT_EQ(provider.used(), 6u) << "above its limit, once each";
        EXPECT_EQ(site.used(), 6u);
        EXPECT_EQ(sockets.used(), 6u);
    }
    EXPECT_FALSE(ConnectionLease::take(after));
    EXPECT_EQ(std::ranges::count_if(held, [](auto& lease) { return lease.over(); }), 4);
    for (auto& lease : held) lease.adopt(before);
    EXPECT_EQ(provider.used(), 0u);
    EXPECT_EQ(site.used(), 6u);
    EXPECT_EQ(std::ranges::count_if(held, [](auto& lease) { return lease.over(); }), 0) << "the limit that they were above is gone";
    for (auto& lease : held) lease.adopt(after);
    EXPECT_EQ(std::ranges::count_if(held, [](auto& lease) { return lease.over(); }), 4) << "and none is remembered as leaving";
    held.clear();
    for (const CountLimit* limit : {&sockets, &provider, &site}) EXPECT_EQ(limit->used(), 0u);
    held.push_back(ConnectionLease::take(after));
    EXPECT_TRUE(held.back());
    EXPECT_FALSE(held.back().over());
}

TEST(ConnectionLeaseTest, CountsStayExactWhileThreadsAdoptAndTake) {
    CountLimit sockets(64), provider(8), site(40);
    PathView with, without;
    with.slots = {&sockets, &provider, &site};
    without.slots = {&sockets, &site};
    const auto shard = [&] {
        std::vector<ConnectionLease> held;
        for (int i = 0; i < 20'000; ++i) {
            const PathView& now = i % 64 < 32 ? with : without;
            if (i % 32 == 0)
                for (auto& lease : held) lease.adopt(now);
            if (auto lease = ConnectionLease::take(now)) held.push_back(std::move(lease));
            if (!held.empty() && (held.back().over() || i % 3 == 0)) held.pop_back();
        }
    };
    std::vector<std::jthread> shards;
    for (int i = 0; i < 4; ++i) shards.emplace_back(shard);
    shards.clear();
    for (CountLimit* limit : {&sockets, &provider, &site}) {
        EXPECT_EQ(limit->used(), 0u);
        EXPECT_FALSE(limit->must_leave());
    }
    provider.set(0);
    provider.take_anyway();
    EXPECT_TRUE(provider.must_leave()) << "nobody is counted as leaving who has left";
}

}  // namespace
}  // namespace postrider
