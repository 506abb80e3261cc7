// Connections in clear: what is sent and received.
#include "engine/net/connection.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>

#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

using test::Peer;
using test::Shard;

Task<void> echo_lines(Shard& shard, SocketAddress to, std::string& got) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    EXPECT_EQ(connection.peer(), to);
    EXPECT_EQ(connection.local().address_text(), "127.0.0.1");
    connection.append("one ");
    connection.append("flight");
    EXPECT_EQ(connection.unsent(), 10u);
    connection.flush();
    EXPECT_EQ(co_await connection.drained(0, shard.in_ms(5'000)), IoStatus::ok);
    EXPECT_TRUE(connection.all_handed_over());
    EXPECT_EQ(co_await connection.more_input(shard.in_ms(5'000)), IoStatus::ok);
    got = connection.input();
    connection.consume(got.size());
    EXPECT_EQ(co_await connection.more_input(shard.in_ms(20)), IoStatus::timeout);
    EXPECT_EQ(shard.buffers.bytes_in_use(), 0u) << "an idle connection holds no buffer";
    connection.append("!");
    connection.flush();
    EXPECT_EQ(co_await connection.more_input(shard.in_ms(5'000)), IoStatus::closed);
    EXPECT_TRUE(connection.peer_closed());
    EXPECT_FALSE(connection.truncated());
    EXPECT_EQ(connection.error_code(), 0);
    co_await connection.close(true);
}

TEST(Connection, SendsAndReceives) {
    Peer peer([](int fd) {
        test::put(fd, test::get(fd, 10));
        test::get(fd, 1);
    });
    Shard shard;
    std::string got;
    shard.run(echo_lines(shard, peer.address, got));
    EXPECT_EQ(got, "one flight");
}

Task<void> send_random(Shard& shard, SocketAddress to, const std::string& text, uint32_t seed,
                       bool& handed_over) {
    std::mt19937 random(seed);
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    for (size_t at = 0; at < text.size();) {
        const size_t size =
            std::min(text.size() - at, size_t{1} + random() % (random() % 20 == 0 ? 60'000 : 200));
        if (random() % 2 == 0) {
            connection.append({text.data() + at, size});
        } else {
            const auto room = connection.reserve(size);
            // Sends end while a file is being read into the buffer: it must stay where it is.
            if (random() % 16 == 0) co_await Yield(*shard.reactor);
            std::memcpy(room.data(), text.data() + at, size);
            connection.commit(size);
        }
        at += size;
        if (random() % 4 == 0) connection.flush();
        if (random() % 32 == 0) co_await Yield(*shard.reactor);
        if (connection.unsent() > 64'000) {
            connection.flush();
            EXPECT_EQ(co_await connection.drained(random() % 64'000, shard.in_ms(20'000)),
                      IoStatus::ok);
        }
    }
    connection.flush();
    EXPECT_EQ(co_await connection.drained(0, shard.in_ms(20'000)), IoStatus::ok);
    handed_over = connection.all_handed_over();
    co_await connection.close(true);
}

// FAULTS 53: short sends are continued, in order, with what was appended meanwhile behind them.
TEST(Connection, KeepsOrderThroughShortSendsAndRandomSplits) {
    const std::string text =
        test::pattern(12 << 20, 1);  // about 10^5 appends at the distribution above
    std::string got;
    // A small window, read in dribbles: sends are short.
    Peer peer(
        [&](int fd) {
            char chunk[3000];
            for (ssize_t n; (n = ::recv(fd, chunk, sizeof chunk, 0)) > 0;)
                got.append(chunk, static_cast<size_t>(n));
        },
        1, 8192);
    Shard shard;
    bool handed_over = false;
    shard.run(send_random(shard, peer.address, text, 3, handed_over));
    peer.join();
    EXPECT_TRUE(handed_over);
    EXPECT_TRUE(got == text);
}

Task<void> send_against_talker(Shard& shard, SocketAddress to, size_t size, size_t& received) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    for (size_t sent = 0; sent < size; sent += 50'000) {
        connection.append(std::string(50'000, 'x'));
        connection.flush();
        for (;;) {
            const IoStatus status = co_await connection.drained(60'000, shard.in_ms(20'000));
            if (status != IoStatus::input) {
                EXPECT_EQ(status, IoStatus::ok);
                break;
            }
            received += connection.input().size();
            connection.consume(connection.input().size());
        }
    }
    while (co_await connection.more_input(shard.in_ms(20'000)) == IoStatus::ok) {
        received += connection.input().size();
        connection.consume(connection.input().size());
    }
    co_await connection.close(true);
}

// FAULTS 36: a peer that does not read until it has been read from.
TEST(Connection, NeitherSideWaitsForTheOther) {
    constexpr size_t kBoth = 20 << 20;
    size_t peer_received = 0;
    Peer peer([&](int fd) {
        test::put(fd, std::string(kBoth, 'y'));  // blocks until we read
        while (peer_received < kBoth) {
            const size_t n = test::get(fd, std::min<size_t>(65'536, kBoth - peer_received)).size();
            if (n == 0) return;
            peer_received += n;
        }
    });
    Shard shard;
    size_t received = 0;
    // 420 flights of 50 000 octets cover kBoth and a little; the peer closes when it has its share.
    shard.run(send_against_talker(shard, peer.address, kBoth - kBoth % 50'000 + 50'000, received));
    EXPECT_EQ(received, kBoth);
    peer.join();
    EXPECT_EQ(peer_received, kBoth);
}

Task<void> read_behind_error(Shard& shard, SocketAddress to, bool send_first, std::string& got,
                             IoStatus& drained, IoStatus& end) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    drained = IoStatus::ok;
    while (send_first && (drained == IoStatus::ok || drained == IoStatus::input)) {
        if (drained == IoStatus::ok) connection.append(std::string(60'000, 'b'));
        connection.flush();
        drained = co_await connection.drained(0, shard.in_ms(5'000));
        if (drained == IoStatus::input) got = connection.input();
    }
    for (;;) {
        end = co_await connection.more_input(shard.in_ms(5'000));
        if (end != IoStatus::ok) break;
        got = connection.input();  // not consumed: it stays readable behind the error
    }
    EXPECT_TRUE(connection.input() == got);
    // The reset may come just when the kernel has taken everything, or before: either way it stays known.
    const bool all_handed_over = connection.all_handed_over();
    co_await connection.close(true);
    EXPECT_EQ(connection.all_handed_over(), all_handed_over) << "still known when it is closed";
}

// FAULTS 4: the end of the stream in the same segment as the reply.
TEST(Connection, HandsOutDataBeforeTheEndBehindIt) {
    Peer peer([](int fd) { test::put(fd, "250 2.0.0 taken\r\n"); });
    Shard shard;
    std::string got;
    IoStatus drained, end;
    shard.run(read_behind_error(shard, peer.address, false, got, drained, end));
    EXPECT_EQ(got, "250 2.0.0 taken\r\n");
    EXPECT_EQ(end, IoStatus::closed);
}

TEST(Connection, HandsOutDataBeforeAReset) {
    Peer peer([](int fd) {
        test::put(fd, "250 2.0.0 taken\r\n");
        ::usleep(20'000);  // let it be read: a reset discards what is on its way
        test::close_with_reset(fd);
    });
    Shard shard;
    std::string got;
    IoStatus drained, end;
    shard.run(read_behind_error(shard, peer.address, false, got, drained, end));
    EXPECT_EQ(got, "250 2.0.0 taken\r\n");
    EXPECT_EQ(end, IoStatus::error);
}

// FAULTS 7: the peer refuses and resets while we are still sending: the reply outranks the failed
// send.
TEST(Connection, HandsOutDataBeforeAFailedSend) {
    Peer peer([](int fd) {
        test::put(fd, "550 5.7.1 go away\r\n");
        test::get(fd, 1000);
        test::close_with_reset(fd);
    });
    Shard shard;
    std::string got;
    IoStatus drained, end;
    shard.run(read_behind_error(shard, peer.address, true, got, drained, end));
    EXPECT_EQ(drained, IoStatus::error);
    EXPECT_EQ(got, "550 5.7.1 go away\r\n");
    EXPECT_EQ(end, IoStatus::error);
}

Task<void> wait_without_answer(Shard& shard, SocketAddress to, IoStatus& input, IoStatus& drained,
                               IoStatus& past) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    const int64_t start_ms = shard.reactor->now_ms();
    input = co_await connection.more_input(shard.in_ms(40));
    EXPECT_GE(shard.reactor->now_ms(), start_ms + 40);
    past = co_await connection.more_input(shard.in_ms(-1'000));
    drained = co_await test::fill(shard, connection);
    const size_t unsent = connection.unsent();
    EXPECT_GT(unsent, 0u);
    connection.append("more");
    EXPECT_EQ(co_await connection.drained(unsent + 4, shard.in_ms(40)), IoStatus::ok);
    co_await connection.close(false);
    EXPECT_FALSE(connection.all_handed_over());
}

TEST(Connection, EveryWaitHasItsDeadline) {
    std::atomic<bool> done = false;
    Peer peer(
        [&](int) {
            while (!done) ::usleep(1'000);
        },
        1, 8192);
    Shard shard;
    IoStatus input, drained, past;
    shard.run(wait_without_answer(shard, peer.address, input, drained, past));
    done = true;
    EXPECT_EQ(input, IoStatus::timeout);
    EXPECT_EQ(past, IoStatus::timeout);
    EXPECT_EQ(drained, IoStatus::timeout);
}

Task<void> flush_then_append(Shard& shard, SocketAddress to, std::atomic<size_t>& peer_has) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    connection.append("first");
    connection.flush();
    connection.append("second");
    EXPECT_EQ(co_await connection.drained(6, shard.in_ms(5'000)), IoStatus::ok);
    connection.append("+");
    connection.flush();
    connection.append("third");
    while (peer_has < 12) co_await Sleep(*shard.reactor, 1);
    co_await Sleep(*shard.reactor, 20);
    EXPECT_EQ(peer_has, 12u) << "what is not flushed stays";
    EXPECT_EQ(connection.unsent(), 5u);
    co_await connection.close(false);
    EXPECT_EQ(connection.unsent(), 5u);
}

TEST(Connection, SendsOnlyWhatWasFlushed) {
    std::atomic<size_t> peer_has = 0;
    std::string got;
    Peer peer([&](int fd) {
        char c;
        while (::recv(fd, &c, 1, 0) == 1) {
            got += c;
            ++peer_has;
        }
    });
    Shard shard;
    shard.run(flush_then_append(shard, peer.address, peer_has));
    peer.join();
    EXPECT_EQ(got, "firstsecond+");
}

Task<void> never_read(Shard& shard, SocketAddress to, IoStatus& end, size_t& held) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    while (!connection.peer_closed()) co_await Sleep(*shard.reactor, 1);
    held = connection.input().size();
    end = co_await connection.more_input(shard.in_ms(5'000));
    EXPECT_EQ(connection.error_code(), EMSGSIZE);
    co_await connection.close(false);
}

TEST(Connection, BoundsUnreadInput) {
    Peer peer([](int fd) { test::put(fd, std::string(8 << 20, 'z')); });
    Shard shard;
    IoStatus end;
    size_t held = 0;
    shard.run(never_read(shard, peer.address, end, held));
    EXPECT_EQ(end, IoStatus::error);
    EXPECT_GT(held, Connection::kUnreadMax);
    EXPECT_LE(held, Connection::kUnreadMax + 4096);
}

}  // namespace
}  // namespace postrider
