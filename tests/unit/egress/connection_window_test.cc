#include "engine/egress/connection_window.h"

#include <gtest/gtest.h>

#include <functional>

namespace postrider {
namespace {

// A site that answers a transaction on one of `n` connections after service(n) ms, with mail without end and at most
// `limit` connections. Time goes by the transactions; how many connections there are after `ms`.
uint32_t grown(const std::function<double(size_t)>& service, double ms, uint32_t limit = 32, uint32_t others = 100,
               uint64_t mail = 1'000'000, size_t in_session = SIZE_MAX) {
    ConnectionWindow window;
    size_t connections = 1, carried = 0;
    for (double now_ms = 0; now_ms < ms;) {
        const double each = service(connections);
        for (size_t i = 0; i < connections; ++i) window.took(carried % in_session == 0 ? 2 * each : each, carried % in_session == 0);
        ++carried;
        now_ms += each;
        for (size_t i = 0; i < connections; ++i) {
            if (window.round_ended(connections, connections, static_cast<int64_t>(now_ms)) && window.size() < limit &&
                window.worthwhile(mail, connections, others + static_cast<uint32_t>(connections)))
                window.open_more();
        }
        connections = std::min(window.size(), limit);
    }
    return static_cast<uint32_t>(connections);
}

TEST(ConnectionWindow, AFarReceiverGetsItsConnectionsInAFewRounds) {
    EXPECT_EQ(grown([](size_t) { return 50.0; }, 15 * 50, 20), 20u);
    EXPECT_EQ(grown([](size_t) { return 100.0; }, 15 * 100, 20), 20u);
}

TEST(ConnectionWindow, ABusyReceiverIsNotMetByMore) {
    // It takes one at a time, 4000 a second: what more connections bring is a queue.
    EXPECT_LE(grown([](size_t n) { return 0.25 * static_cast<double>(n); }, 60'000), 4u);
    EXPECT_LE(grown([](size_t n) { return 8.0 * static_cast<double>(n); }, 60'000), 4u);
    // Eight at a time.
    const uint32_t eight = grown([](size_t n) { return n <= 8 ? 10.0 : 10.0 * static_cast<double>(n) / 8; }, 60'000);
    EXPECT_GE(eight, 8u);
    EXPECT_LE(eight, 24u);
}

TEST(ConnectionWindow, AHandfulIsForTheMailAlone) {
    EXPECT_GE(grown([](size_t n) { return 0.1 * static_cast<double>(n); }, 5'000, 32, 0), 12u);
    EXPECT_LE(grown([](size_t n) { return 0.1 * static_cast<double>(n); }, 5'000, 32, 0), 17u);
}

TEST(ConnectionWindow, LittleMailOpensNoMore) { EXPECT_EQ(grown([](size_t) { return 10.0; }, 5'000, 32, 0, 15), 1u); }

TEST(ConnectionWindow, SessionsOfOneMessageAreMeasuredByIt) {
    EXPECT_EQ(grown([](size_t) { return 50.0; }, 2'000, 20, 100, 1'000'000, 1), 20u);
}

TEST(ConnectionWindow, AFailureHalves) {
    ConnectionWindow window;
    for (int i = 0; i < 5; ++i) window.open_more();
    const uint32_t before = window.size();
    window.failed();
    EXPECT_EQ(window.size(), before / 2);
    for (int i = 0; i < 10; ++i) window.failed();
    EXPECT_EQ(window.size(), 1u);
}

// New connections are on their way: what they change is not known yet.
TEST(ConnectionWindow, WaitsForThoseThatOpen) {
    ConnectionWindow window;
    for (int i = 0; i < 100; ++i) {
        window.took(50, false);
        EXPECT_FALSE(window.round_ended(2, 1, 0));
    }
}

}  // namespace
}  // namespace postrider
