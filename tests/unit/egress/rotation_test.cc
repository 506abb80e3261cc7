// Whose turn it is among the windows of a site: deficit round robin by recipients.
#include "engine/egress/rotation.h"

#include <gmock/gmock.h>

#include <map>
#include <memory>

namespace postrider {
namespace {

using testing::ElementsAre;

class RotationTest : public testing::Test {
  protected:
    size_t add(DomainId domain, Priority priority = Priority::normal) {
        windows_.push_back(std::make_unique<ReadyWindow>(domain, priority));
        return rotation_.add(*windows_.back(), 0);
    }
    DomainId domain_at_turn() { return rotation_[rotation_.at_turn()].window->domain(); }
    // Serves messages, each to as many recipients as `size` says of its domain; answers the recipients of each.
    std::map<DomainId, size_t> serve(size_t messages, const std::map<DomainId, size_t>& size) {
        std::map<DomainId, size_t> recipients;
        for (size_t i = 0; i < messages; ++i) {
            const DomainId domain = domain_at_turn();
            recipients[domain] += size.at(domain);
            rotation_.served(size.at(domain));
        }
        return recipients;
    }

    Rotation rotation_;
    std::vector<std::unique_ptr<ReadyWindow>> windows_;
};

TEST_F(RotationTest, OneRecipientEachInTurn) {
    for (DomainId domain = 1; domain <= 3; ++domain) add(domain);
    std::vector<DomainId> order;
    for (int i = 0; i < 7; ++i) {
        order.push_back(domain_at_turn());
        rotation_.served(1);
    }
    EXPECT_THAT(order, ElementsAre(1, 2, 3, 1, 2, 3, 1));
}

TEST_F(RotationTest, TheTurnStaysUntilItIsUsed) {
    add(1);
    add(2);
    EXPECT_EQ(domain_at_turn(), 1u);
    EXPECT_EQ(domain_at_turn(), 1u);
    rotation_.pass();
    EXPECT_EQ(domain_at_turn(), 2u);
}

TEST_F(RotationTest, AMessageToManySitsTurnsOut) {
    for (DomainId domain = 1; domain <= 3; ++domain) add(domain);
    const auto recipients = serve(6'000, {{1, 100}, {2, 1}, {3, 7}});
    const size_t least = std::min({recipients.at(1), recipients.at(2), recipients.at(3)});
    const size_t most = std::max({recipients.at(1), recipients.at(2), recipients.at(3)});
    EXPECT_LE(most - least, 100u);
}

TEST_F(RotationTest, WhenAllAreInDebtNobodyWaits) {
    for (DomainId domain = 1; domain <= 1'000; ++domain) add(domain);
    std::map<DomainId, size_t> size;
    for (DomainId domain = 1; domain <= 1'000; ++domain) size[domain] = 50 + domain % 50;
    const auto recipients = serve(20'000, size);
    size_t least = SIZE_MAX, most = 0;
    for (const auto& [domain, count] : recipients) {
        least = std::min(least, count);
        most = std::max(most, count);
    }
    EXPECT_EQ(recipients.size(), 1'000u);
    EXPECT_LE(most - least, 200u);
}

TEST_F(RotationTest, OneAloneHasEveryTurn) {
    add(1);
    EXPECT_EQ(serve(100, {{1, 100}}).at(1), 10'000u);
}

TEST_F(RotationTest, UrgentOnesHaveAllTurns) {
    add(1);
    add(2);
    EXPECT_EQ(serve(1, {{1, 1}, {2, 1}}).at(1), 1u);
    add(3, Priority::high);
    add(4, Priority::high);
    const auto urgent = serve(10, {{3, 1}, {4, 1}});
    EXPECT_EQ(urgent.at(3), 5u);
    EXPECT_EQ(urgent.at(4), 5u);
    rotation_.remove(0);
    rotation_.remove(0);
    EXPECT_EQ(domain_at_turn(), 2u) << "where the normal ones stood";
}

TEST_F(RotationTest, WhoLeavesTakesNobodysTurn) {
    for (DomainId domain = 1; domain <= 4; ++domain) add(domain);
    (void)serve(2, {{1, 1}, {2, 1}});
    rotation_.remove(0);  // 1
    EXPECT_EQ(domain_at_turn(), 3u);
    rotation_.remove(1);  // 3, whose turn it was
    EXPECT_EQ(domain_at_turn(), 4u);
    rotation_.remove(1);  // 4, the last
    EXPECT_EQ(domain_at_turn(), 2u);
}

}  // namespace
}  // namespace postrider
