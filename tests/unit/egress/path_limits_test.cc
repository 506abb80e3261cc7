// Leases of connections: the counts hold, and of a limit that was lowered as many leave as are too many.
#include "engine/egress/path_limits.h"

#include <gtest/gtest.h>

#include <algorithm>
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

}  // namespace
}  // namespace postrider
