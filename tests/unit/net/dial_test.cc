#include "engine/net/dial.h"

#include <gtest/gtest.h>

#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

using test::DeafListener;
using test::Peer;
using test::Shard;

// Counts as a caller would: one slot of its own, and `surplus` to spare.
class Slots final : public DialSlots {
  public:
    explicit Slots(int surplus, int syns = 1'000) : surplus_(surplus), syns_(syns) {}
    bool take(const SocketAddress&, bool surplus) override {
        ++asked;
        if (syns_ == 0 || (surplus && surplus_ == 0)) return false;
        --syns_;
        if (surplus) --surplus_;
        ++taken;
        return true;
    }
    void give_back() override { ++surplus_; }
    int asked = 0, taken = 0;
    int surplus_;

  private:
    int syns_;
};

SocketAddress closed_port() {
    Peer peer([](int) {}, 0);
    return peer.address;
}

Task<void> dial_and_close(Shard& shard, std::vector<SocketAddress> addresses, DialOptions options,
                          DialResult& result, int64_t& took_ms) {
    const int64_t start_ms = shard.reactor->now_ms();
    result = co_await dial(*shard.reactor, shard.buffers, std::move(addresses), options);
    took_ms = shard.reactor->now_ms() - start_ms;
    if (result.connection) {
        EXPECT_EQ(shard.reactor->ring().in_flight(), 1u) << "the winner's receive and nothing else";
        co_await result.connection->close(false);
    }
}

struct Outcome {
    DialResult result;
    int64_t took_ms = 0;
};

Outcome run(std::vector<SocketAddress> addresses, DialOptions options) {
    Shard shard;
    Outcome outcome;
    shard.run(
        dial_and_close(shard, std::move(addresses), options, outcome.result, outcome.took_ms));
    outcome.result.connection.reset();
    return outcome;
}

TEST(Dial, TriesInTurn) {
    Peer peer([](int fd) { test::get_all(fd); });
    Slots slots(0);
    const auto first = closed_port(), second = closed_port();
    const auto [result, took_ms] =
        run({first, second, peer.address, closed_port()}, {.slots = &slots});
    ASSERT_EQ(result.attempts.size(), 3u);
    EXPECT_EQ(result.attempts[0].address, first);
    EXPECT_EQ(result.attempts[0].result, -ECONNREFUSED);
    EXPECT_EQ(result.attempts[1].result, -ECONNREFUSED);
    EXPECT_EQ(result.attempts[2].address, peer.address);
    EXPECT_EQ(result.attempts[2].result, 0);
    EXPECT_EQ(slots.taken, 3);
    EXPECT_LT(took_ms, 200) << "a refused connect costs no stagger";
}

TEST(Dial, ADeadFirstAddressCostsOnlyItsAttempt) {
    DeafListener deaf;
    Peer peer([](int fd) { test::get_all(fd); });
    const auto [result, took_ms] = run({deaf.address, peer.address}, {.attempt_ms = 100});
    ASSERT_EQ(result.attempts.size(), 2u);
    EXPECT_EQ(result.attempts[0].result, -ETIMEDOUT);
    EXPECT_GE(result.attempts[0].took_ms, 100);
    EXPECT_EQ(result.attempts[1].result, 0);
    EXPECT_GE(took_ms, 100);
    EXPECT_LT(took_ms, 400);
}

TEST(Dial, RacesWhenThereIsASlot) {
    DeafListener deaf;
    Peer peer([](int fd) { test::get_all(fd); });
    Slots slots(1);
    const auto [result, took_ms] =
        run({deaf.address, peer.address}, {.max_parallel = 2, .stagger_ms = 50, .slots = &slots});
    ASSERT_EQ(result.attempts.size(), 2u);
    EXPECT_EQ(result.attempts[0].result, -ECANCELED);
    EXPECT_EQ(result.attempts[1].result, 0);
    EXPECT_GE(took_ms, 50);
    EXPECT_LT(took_ms, 250);
    EXPECT_EQ(slots.surplus_, 1) << "the loser's slot is free again";
    EXPECT_EQ(slots.taken, 2);
}

TEST(Dial, FallsBackToTurnsWithoutASlot) {
    DeafListener deaf;
    Peer peer([](int fd) { test::get_all(fd); });
    Slots slots(0);
    const auto [result, took_ms] =
        run({deaf.address, peer.address},
            {.max_parallel = 2, .stagger_ms = 30, .attempt_ms = 150, .slots = &slots});
    EXPECT_EQ(result.attempts[0].result, -ETIMEDOUT);
    EXPECT_EQ(result.attempts[1].result, 0);
    EXPECT_GE(took_ms, 150);
    EXPECT_EQ(slots.taken, 2);
    EXPECT_GE(slots.asked, 5) << "asked again every 30 ms";
}

TEST(Dial, EndsAtItsDeadline) {
    DeafListener deaf;
    Slots slots(3);
    const auto [result, took_ms] =
        run({deaf.address, deaf.address, deaf.address},
            {.max_parallel = 2, .stagger_ms = 20, .timeout_ms = 200, .slots = &slots});
    ASSERT_GE(result.attempts.size(), 2u);
    for (const auto& attempt : result.attempts) EXPECT_EQ(attempt.result, -ETIMEDOUT);
    EXPECT_EQ(result.error(), -ETIMEDOUT);
    EXPECT_FALSE(result.address().specified());
    EXPECT_GE(took_ms, 200);
    EXPECT_LT(took_ms, 500);
    EXPECT_EQ(slots.surplus_, 3);
}

TEST(Dial, SendsNoSynWithoutLeave) {
    Peer peer([](int) {}, 1);
    Slots slots(1, 0);
    const auto [result, took_ms] = run({peer.address, peer.address}, {.slots = &slots});
    EXPECT_EQ(result.attempts.size(), 2u);
    EXPECT_EQ(result.error(), -EAGAIN);
    EXPECT_EQ(run({}, {}).result.error(), -EADDRNOTAVAIL);
}

TEST(Dial, AllRefused) {
    Slots slots(2);
    const auto [result, took_ms] = run({closed_port(), closed_port(), closed_port()},
                                       {.max_parallel = 3, .stagger_ms = 1, .slots = &slots});
    EXPECT_EQ(result.attempts.size(), 3u);
    EXPECT_EQ(result.error(), -ECONNREFUSED);
    EXPECT_EQ(slots.surplus_, 2);
}

// RFC 8305 4.
TEST(Dial, AlternatesFamilies) {
    const auto at = [](const char* text) { return *SocketAddress::parse(text, 25); };
    std::vector<SocketAddress> addresses = {at("::1"), at("::2"), at("::3"), at("192.0.2.1"),
                                            at("192.0.2.2")};
    alternate_families(addresses);
    const std::vector<SocketAddress> expected = {at("::1"), at("192.0.2.1"), at("::2"),
                                                 at("192.0.2.2"), at("::3")};
    EXPECT_EQ(addresses, expected);
}

// A shutdown does not wait for a host that answers no SYN.
TEST(Dial, IsGivenUpWhenTheCallerAsks) {
    Shard shard;
    DeafListener deaf;
    DialAbort abort;
    DialOptions options;
    options.abort = &abort;
    Outcome outcome;
    struct Later final : Timer {
        DialAbort& abort;
        explicit Later(DialAbort& a) : abort(a) {}
        void on_timer() override { abort.ask(); }
    } later(abort);
    shard.reactor->arm(later, shard.reactor->now_ms() + 100);
    shard.run(dial_and_close(shard, {deaf.address}, options, outcome.result, outcome.took_ms));
    EXPECT_FALSE(outcome.result.connection);
    EXPECT_EQ(outcome.result.error(), -ECANCELED);
    EXPECT_LT(outcome.took_ms, 3'000);
}

}  // namespace
}  // namespace postrider
