// Connections in clear: how they begin, rest and end.
#include "engine/net/connection.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

using test::Peer;
using test::Shard;

Task<void> rest_in_pool(Shard& shard, SocketAddress to, std::atomic<bool>& go, int& events) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    connection.on_idle_event([&] { ++events; });
    co_await Sleep(*shard.reactor, 20);
    EXPECT_EQ(events, 0);
    go = true;
    while (events == 0) co_await Sleep(*shard.reactor, 1);
    co_await Sleep(*shard.reactor, 20);
    EXPECT_EQ(events, 1) << "once";
    if (!connection.peer_closed()) {
        EXPECT_EQ(connection.input(), "421 going down\r\n");
        connection.consume(connection.input().size());
        EXPECT_EQ(co_await connection.more_input(shard.in_ms(5'000)), IoStatus::closed);
    }
    connection.on_idle_event([&] { ++events; });
    EXPECT_EQ(events, 2) << "at once: it has happened already";
    co_await connection.close(false);
}

// FAULTS 5, 29: a 421 or the end of the stream while the connection rests.
TEST(Connection, TellsThePoolWhatHappensWhileItRests) {
    for (const bool says_421 : {true, false}) {
        std::atomic<bool> go = false;
        Peer peer([&](int fd) {
            while (!go) ::usleep(1'000);
            if (says_421) test::put(fd, "421 going down\r\n");
            ::usleep(40'000 * says_421);
        });
        Shard shard;
        int events = 0;
        shard.run(rest_in_pool(shard, peer.address, go, events));
        EXPECT_EQ(events, 2);
    }
}

struct Resting {
    Shard& shard;
    std::unique_ptr<Connection> connection;
    bool gone = false;
};

Task<void> retire(Resting& resting) {
    co_await resting.connection->close(true);
    resting.connection.reset();
    resting.gone = true;
}

Task<void> destroy_from_idle_event(Resting& resting, SocketAddress to) {
    Shard& shard = resting.shard;
    resting.connection = std::make_unique<Connection>(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await resting.connection->connect(to, {}, shard.in_ms(5'000)), 0);
    resting.connection->on_idle_event([&resting] { spawn(resting.shard.gate, retire(resting)); });
    while (!resting.gone) co_await Sleep(*shard.reactor, 1);
}

TEST(Connection, MayBeDestroyedByItsIdleEvent) {
    Peer peer([](int) { ::usleep(10'000); });
    Shard shard;
    Resting resting{shard, nullptr};
    shard.run(destroy_from_idle_event(resting, peer.address));
    EXPECT_TRUE(resting.gone);
}

Task<void> close_at_stage(Shard& shard, SocketAddress to, int stage, bool polite,
                          int64_t& took_ms) {
    Connection connection(*shard.reactor, shard.buffers);
    if (stage > 0) {
        EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    }
    if (stage == 2) co_await Yield(*shard.reactor);  // the recv is with the kernel
    if (stage >= 3) {
        for (int i = 0; i < 20; ++i) connection.append(std::string(50'000, 'x'));
    }
    if (stage >= 4) connection.flush();
    if (stage == 5) co_await Yield(*shard.reactor);  // the send is
    if (stage == 6)
        EXPECT_EQ(co_await test::fill(shard, connection), IoStatus::timeout);  // and is stuck
    if (stage == 7) (void)connection.reserve(1'000);
    const int64_t start_ms = shard.reactor->now_ms();
    co_await connection.close(polite);
    took_ms = shard.reactor->now_ms() - start_ms;
}

TEST(Connection, ClosesAtEveryStageWithIoInFlight) {
    for (int stage = 0; stage <= 7; ++stage) {
        if (stage == 0) {
            Shard shard;
            int64_t took_ms = 0;
            shard.run(close_at_stage(shard, {}, stage, true, took_ms));
            continue;
        }
        std::atomic<bool> done = false;
        Peer peer(
            [&](int) {
                while (!done) ::usleep(1'000);
            },
            1, 4096);
        Shard shard;
        int64_t took_ms = 0;
        shard.run(close_at_stage(shard, peer.address, stage, false, took_ms));
        EXPECT_LT(took_ms, 500) << stage;
        done = true;
    }
}

// The slot of a connection is free after the peer's end of stream, or 5 s.
TEST(Connection, PoliteCloseWaitsForThePeerAndNotForEver) {
    {
        Peer peer([](int fd) {
            ::usleep(100'000);
            test::put(fd, "221 bye\r\n");
        });
        Shard shard;
        int64_t took_ms = 0;
        shard.run(close_at_stage(shard, peer.address, 1, true, took_ms));
        EXPECT_GE(took_ms, 90);
        EXPECT_LT(took_ms, 900);
    }
    {
        // A peer that closes only when we do is told after a second.
        Peer peer([](int fd) { test::get_all(fd); });
        Shard shard;
        int64_t took_ms = 0;
        shard.run(close_at_stage(shard, peer.address, 1, true, took_ms));
        EXPECT_GE(took_ms, Connection::kPeerFirstMs);
        EXPECT_LT(took_ms, 2 * Connection::kPeerFirstMs);
    }
    {
        // One that never reads nor closes.
        std::atomic<bool> done = false;
        Peer peer(
            [&](int) {
                while (!done) ::usleep(1'000);
            },
            1, 4096);
        Shard shard;
        int64_t took_ms = 0;
        shard.run(close_at_stage(shard, peer.address, 4, true, took_ms));
        EXPECT_GE(took_ms, Connection::kPoliteCloseMs);
        EXPECT_LT(took_ms, Connection::kPoliteCloseMs + 1'000);
        done = true;
    }
}

Task<void> connect_only(Shard& shard, SocketAddress to, std::optional<SocketAddress> source,
                        int64_t timeout_ms, int& result, std::string& local) {
    Connection connection(*shard.reactor, shard.buffers);
    result = co_await connection.connect(to, source, shard.in_ms(timeout_ms));
    local = connection.local().address_text();
    co_await connection.close(false);
}

TEST(Connection, ReportsAFailedConnect) {
    Shard shard;
    int result = 1;
    std::string local;
    SocketAddress closed_port;
    {
        Peer peer([](int) {}, 0);
        closed_port = peer.address;
    }
    shard.run(connect_only(shard, closed_port, {}, 5'000, result, local));
    EXPECT_EQ(result, -ECONNREFUSED);
    shard.run(connect_only(shard, closed_port, *SocketAddress::parse("192.0.2.1:0"), 5'000, result,
                           local));
    EXPECT_EQ(result, -EADDRNOTAVAIL);
    shard.run(
        connect_only(shard, closed_port, *SocketAddress::parse("[::1]:0"), 5'000, result, local));
    EXPECT_EQ(result, -EAFNOSUPPORT);
}

TEST(Connection, LeavesFromTheSourceAddress) {
    Peer peer([](int) {});
    Shard shard;
    int result = 1;
    std::string local;
    shard.run(connect_only(shard, peer.address, *SocketAddress::parse("127.0.0.9:0"), 5'000, result,
                           local));
    EXPECT_EQ(result, 0);
    EXPECT_EQ(local, "127.0.0.9");
}

// A listener whose queue is full answers no SYN.
TEST(Connection, ConnectEndsAtItsDeadline) {
    test::DeafListener deaf;
    Shard shard;
    int result = 1;
    std::string local;
    const MonoNs start_ns = read_mono_clock();
    shard.run(connect_only(shard, deaf.address, {}, 150, result, local));
    EXPECT_EQ(result, -ETIMEDOUT);
    EXPECT_LT(read_mono_clock() - start_ns, 900 * kNsPerMs);
}

Task<void> connect_twice(Shard& shard, SocketAddress closed_port, SocketAddress open_port) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(closed_port, {}, shard.in_ms(5'000)), -ECONNREFUSED);
    EXPECT_EQ(co_await connection.connect(open_port, {}, shard.in_ms(5'000)), 0);
    co_await connection.close(false);
}

TEST(Connection, IsFreshAfterAFailedConnect) {
    SocketAddress closed_port;
    {
        Peer peer([](int) {}, 0);
        closed_port = peer.address;
    }
    Peer peer([](int) {});
    Shard shard;
    shard.run(connect_twice(shard, closed_port, peer.address));
}

TEST(ConnectionDeathTest, IsNotDestroyedOpen) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(
        {
            Peer peer([](int fd) { test::get_all(fd); });
            Shard shard;
            auto connection = std::make_unique<Connection>(*shard.reactor, shard.buffers);
            int result = 1;
            shard.run([](Shard& s, Connection& c, SocketAddress to, int& r) -> Task<void> {
                r = co_await c.connect(to, {}, s.in_ms(1'000));
                s.reactor->defer([&c] { c.~Connection(); });
                co_await Sleep(*s.reactor, 100);
            }(shard, *connection, peer.address, result));
        },
        "closed before it is destroyed");
}

}  // namespace
}  // namespace postrider
