// Connections under TLS, against wolfSSL's server over a real socket.
#include "tests/unit/net/tls_peer.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <latch>
#include <vector>

#include "engine/net/connection.h"
#include "engine/net/session_cache.h"
#include "engine/net/tls_context.h"
#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

using test::Peer;
using test::Shard;
using test::TlsServer;

const std::string kHost = "mx.test.example";

struct Tls {
    SessionCache sessions;
    std::unique_ptr<TlsContext> context = *TlsContext::make(TlsLevel::opportunistic, sessions);
};

std::string read_tls(WOLFSSL* ssl, size_t size) {
    std::string text(size, '\0');
    size_t have = 0;
    while (have < size) {
        const int n = wolfSSL_read(ssl, text.data() + have, static_cast<int>(size - have));
        if (n <= 0) break;
        have += static_cast<size_t>(n);
    }
    text.resize(have);
    return text;
}

void write_tls(WOLFSSL* ssl, std::string_view text) {
    wolfSSL_write(ssl, text.data(), static_cast<int>(text.size()));
}

// Greets as a server does before STARTTLS, then serves under TLS.
auto serve_tls(TlsServer& server, std::function<void(WOLFSSL*, int fd)> serve) {
    return [&server, serve = std::move(serve)](int fd) {
        test::put(fd, "220 go ahead\r\n");
        WOLFSSL* ssl = server.over_socket(fd);
        if (wolfSSL_accept(ssl) == WOLFSSL_SUCCESS) serve(ssl, fd);
        wolfSSL_free(ssl);
    };
}

Task<TlsResult> open_tls(Shard& shard, Tls& tls, Connection& connection, SocketAddress to) {
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    EXPECT_EQ(co_await connection.more_input(shard.in_ms(5'000)), IoStatus::ok);
    connection.consume(connection.input().size());
    co_return co_await connection.start_tls(*tls.context, kHost, shard.in_ms(5'000));
}

Task<void> exchange(Shard& shard, Tls& tls, SocketAddress to, std::string up, size_t down_size,
                    std::string& down, TlsResult& result) {
    Connection connection(*shard.reactor, shard.buffers);
    result = co_await open_tls(shard, tls, connection, to);
    EXPECT_TRUE(result.ok) << result.error;
    EXPECT_EQ(connection.secured(), result.ok);
    for (size_t at = 0; at < up.size();) {
        const size_t size = std::min<size_t>(up.size() - at, 30'000);
        connection.append({up.data() + at, size});
        connection.flush();
        at += size;
        IoStatus status;
        while ((status = co_await connection.drained(64'000, shard.in_ms(10'000))) ==
               IoStatus::input) {
            down += connection.input();
            connection.consume(connection.input().size());
        }
        EXPECT_EQ(status, IoStatus::ok);
    }
    while (down.size() < down_size &&
           co_await connection.more_input(shard.in_ms(10'000)) == IoStatus::ok) {
        down += connection.input();
        connection.consume(connection.input().size());
    }
    // A peer that has all it wants closes at once; what was sent is known nevertheless.
    if (!connection.all_handed_over()) {
        EXPECT_EQ(co_await connection.drained(0, shard.in_ms(10'000)), IoStatus::ok);
    }
    co_await connection.close(true);
    EXPECT_TRUE(connection.all_handed_over());
}

TEST(ConnectionTls, SendsAndReceives) {
    TlsServer server;
    const std::string up = test::pattern(500'000, 1), down = test::pattern(300'000, 2);
    std::string peer_got;
    bool close_notify = false;
    Peer peer(serve_tls(server, [&](WOLFSSL* ssl, int) {
        peer_got = read_tls(ssl, up.size());
        write_tls(ssl, down);
        char c;
        const int end = wolfSSL_read(ssl, &c, 1);
        close_notify = wolfSSL_get_error(ssl, end) == WOLFSSL_ERROR_ZERO_RETURN;
    }));
    Tls tls;
    Shard shard;
    std::string got;
    TlsResult result;
    shard.run(exchange(shard, tls, peer.address, up, down.size(), got, result));
    peer.join();
    EXPECT_EQ(result.version, "TLSv1.3");
    EXPECT_NE(result.cipher.find("AES"), std::string::npos) << result.cipher;
    EXPECT_FALSE(result.resumed);
    EXPECT_TRUE(peer_got == up);
    EXPECT_TRUE(got == down);
    EXPECT_TRUE(close_notify) << "a polite end is announced";
}

// FAULTS 36, under TLS: the peer sends all of its own before it reads.
TEST(ConnectionTls, NeitherSideWaitsForTheOther) {
    TlsServer server;
    const std::string both = test::pattern(6 << 20, 5);
    std::string peer_got;
    Peer peer(serve_tls(server, [&](WOLFSSL* ssl, int) {
        write_tls(ssl, both);
        peer_got = read_tls(ssl, both.size());
    }));
    Tls tls;
    Shard shard;
    std::string got;
    TlsResult result;
    shard.run(exchange(shard, tls, peer.address, both, both.size(), got, result));
    peer.join();
    EXPECT_TRUE(peer_got == both);
    EXPECT_TRUE(got == both);
}

// A ticket taken by one shard serves the next on another thread.
TEST(ConnectionTls, ResumesOnAnotherThread) {
    for (const auto version : {TlsServer::Version::tls12, TlsServer::Version::tls13}) {
        TlsServer server(version);
        constexpr int kConnections = 9;
        Peer peer(serve_tls(server, [&](WOLFSSL* ssl, int) { write_tls(ssl, read_tls(ssl, 4)); }),
                  kConnections);
        Tls tls;
        const auto connect_once = [&](Shard& shard, TlsResult& result) {
            std::string got;
            shard.run(exchange(shard, tls, peer.address, "ping", 4, got, result));
            EXPECT_EQ(got, "ping");
        };
        TlsResult first;
        std::thread([&] {
            Shard shard;
            connect_once(shard, first);
        }).join();
        EXPECT_FALSE(first.resumed);
        EXPECT_EQ(tls.sessions.size(), 1u);
        std::vector<TlsResult> results(kConnections - 1);
        std::latch both_there(2);
        const auto connect_some = [&](size_t from, size_t to) {
            Shard shard;
            both_there.arrive_and_wait();
            for (size_t i = from; i < to; ++i) connect_once(shard, results[i]);
        };
        std::thread one(connect_some, 0, results.size() / 2);
        std::thread two(connect_some, results.size() / 2, results.size());
        one.join();
        two.join();
        for (const auto& result : results) EXPECT_TRUE(result.resumed) << result.error;
    }
}

Task<void> fail_tls(Shard& shard, Tls& tls, SocketAddress to, int64_t timeout_ms,
                    TlsResult& result) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    EXPECT_EQ(co_await connection.more_input(shard.in_ms(5'000)), IoStatus::ok);
    connection.consume(strlen("220 go ahead\r\n"));
    result = co_await connection.start_tls(*tls.context, kHost, shard.in_ms(timeout_ms));
    EXPECT_FALSE(result.ok);
    EXPECT_FALSE(result.error.empty());
    EXPECT_FALSE(connection.secured());
    connection.append("MAIL FROM:<>\r\n");
    connection.flush();
    const IoStatus end = co_await connection.more_input(shard.in_ms(5'000));
    EXPECT_TRUE(end == IoStatus::error || end == IoStatus::closed);
    EXPECT_FALSE(connection.all_handed_over())
        << "nothing is sent in clear behind a failed handshake";
    co_await connection.close(true);
}

// FAULTS 62.
TEST(ConnectionTls, AHandshakeThatFailsHangsOrEnds) {
    Tls tls;
    std::string peer_got;
    TlsResult result;
    const auto against = [&](std::function<void(int)> serve, int64_t timeout_ms) {
        Peer peer([&](int fd) {
            test::put(fd, "220 go ahead\r\n");
            serve(fd);
            peer_got = test::get_all(fd);
        });
        Shard shard;
        result = {};
        shard.run(fail_tls(shard, tls, peer.address, timeout_ms, result));
        peer.join();
        EXPECT_EQ(peer_got.find("MAIL"), std::string::npos);
    };
    against([](int fd) { test::get(fd, 10), test::put(fd, "454 4.7.0 changed my mind\r\n"); },
            5'000);
    EXPECT_FALSE(result.timed_out);
    against([](int fd) { test::get(fd, 10), test::put(fd, test::pattern(5'000, 1)); }, 5'000);
    EXPECT_FALSE(result.timed_out);
    against([](int) {}, 60);
    EXPECT_TRUE(result.timed_out);
    against([](int fd) { test::get(fd, 10), ::shutdown(fd, SHUT_WR); }, 5'000);
    EXPECT_EQ(result.error, "TLS handshake: the peer closed the connection");
}

Task<void> injected(Shard& shard, Tls& tls, SocketAddress to, TlsResult& result) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    while (connection.input().size() < 30) {
        if (co_await connection.more_input(shard.in_ms(5'000)) != IoStatus::ok) break;
    }
    connection.consume(strlen("220 go ahead\r\n"));
    result = co_await connection.start_tls(*tls.context, kHost, shard.in_ms(5'000));
    EXPECT_TRUE(connection.peer_closed()) << "it can only be closed";
    co_await connection.close(false);
}

// FAULTS 59.
TEST(ConnectionTls, OctetsBehindThe220AreNotCarriedIntoTls) {
    Peer peer([&](int fd) { test::put(fd, "220 go ahead\r\n250 injected\r\n250 OK\r\n"); });
    Tls tls;
    Shard shard;
    TlsResult result;
    shard.run(injected(shard, tls, peer.address, result));
    EXPECT_FALSE(result.ok);
    EXPECT_EQ(result.error, "octets behind the reply that starts TLS");
}

Task<void> read_to_end(Shard& shard, Tls& tls, SocketAddress to, std::string& got, IoStatus& end,
                       bool& truncated) {
    Connection connection(*shard.reactor, shard.buffers);
    const TlsResult result = co_await open_tls(shard, tls, connection, to);
    EXPECT_TRUE(result.ok) << result.error;
    while ((end = co_await connection.more_input(shard.in_ms(5'000))) == IoStatus::ok) {
        got += connection.input();
        connection.consume(connection.input().size());
    }
    truncated = connection.truncated();
    co_await connection.close(true);
}

// FAULTS 75.
TEST(ConnectionTls, TellsTruncationFromTheEnd) {
    for (const int how : {0, 1, 2}) {
        TlsServer server;
        Peer peer(serve_tls(server, [&](WOLFSSL* ssl, int fd) {
            write_tls(ssl, "250 2.0.0 taken\r\n");
            if (how == 0) wolfSSL_shutdown(ssl);
            if (how == 2)
                test::put(fd, std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'f'));
        }));
        Tls tls;
        Shard shard;
        std::string got;
        IoStatus end;
        bool truncated = false;
        shard.run(read_to_end(shard, tls, peer.address, got, end, truncated));
        EXPECT_EQ(got, "250 2.0.0 taken\r\n") << how;
        EXPECT_EQ(end, how == 2 ? IoStatus::error : IoStatus::closed) << how;
        EXPECT_EQ(truncated, how == 1) << how;
    }
}

// The answers to key updates pile up behind content that the peer does not read.
Task<void> be_flooded(Shard& shard, Tls& tls, SocketAddress to, std::atomic<bool>& go, IoStatus& end, int& error) {
    Connection connection(*shard.reactor, shard.buffers);
    const TlsResult result = co_await open_tls(shard, tls, connection, to);
    EXPECT_TRUE(result.ok) << result.error;
    EXPECT_EQ(co_await test::fill(shard, connection), IoStatus::timeout);
    go = true;
    end = co_await connection.more_input(shard.in_ms(30'000));
    error = connection.error_code();
    co_await connection.close(false);
}

// FAULTS 76.
TEST(ConnectionTls, AFloodOfKeyUpdatesEndsTheConnection) {
    TlsServer server(TlsServer::Version::tls13);
    std::atomic<bool> go = false;
    int sent = 0;
    Peer peer(serve_tls(server,
                        [&](WOLFSSL* ssl, int) {
                            wolfSSL_SetIOWriteFlags(ssl, MSG_NOSIGNAL);
                            while (!go) ::usleep(1'000);
                            // Every second asks for an answer of some 27 octets: 3 MB in all.
                            while (sent < 220'000 && wolfSSL_update_keys(ssl) == WOLFSSL_SUCCESS) ++sent;
                        }),
              1, 8192);
    Tls tls;
    Shard shard;
    IoStatus end{};
    int error = 0;
    shard.run(be_flooded(shard, tls, peer.address, go, end, error));
    peer.join();
    EXPECT_EQ(end, IoStatus::error);
    EXPECT_EQ(error, EMSGSIZE);
    EXPECT_LT(sent, 220'000);
}

Task<void> close_during(Shard& shard, Tls& tls, SocketAddress to, int stage) {
    Connection connection(*shard.reactor, shard.buffers);
    const TlsResult result = co_await open_tls(shard, tls, connection, to);
    EXPECT_TRUE(result.ok) << result.error;
    if (stage >= 1) connection.append(std::string(60'000, 'x'));
    if (stage >= 2) connection.flush();
    if (stage >= 3) co_await Yield(*shard.reactor);
    co_await connection.close(false);
    EXPECT_EQ(connection.all_handed_over(), stage == 0 || connection.unsent() == 0);
}

TEST(ConnectionTls, ClosesAtEveryStage) {
    for (int stage = 0; stage <= 3; ++stage) {
        TlsServer server;
        Peer peer(serve_tls(server, [&](WOLFSSL*, int fd) { test::get_all(fd); }), 1, 4096);
        Tls tls;
        Shard shard;
        shard.run(close_during(shard, tls, peer.address, stage));
    }
}

Task<void> rest(Shard& shard, Tls& tls, SocketAddress to, std::atomic<bool>& go, int& events) {
    Connection connection(*shard.reactor, shard.buffers);
    const TlsResult result = co_await open_tls(shard, tls, connection, to);
    EXPECT_TRUE(result.ok) << result.error;
    connection.on_idle_event([&] { ++events; });
    // The tickets of TLS 1.3 arrive meanwhile: they are no event.
    co_await Sleep(*shard.reactor, 50);
    EXPECT_EQ(events, 0);
    EXPECT_EQ(shard.buffers.bytes_in_use(), 0u);
    go = true;
    while (events == 0) co_await Sleep(*shard.reactor, 1);
    EXPECT_TRUE(connection.peer_closed());
    co_await connection.close(true);
}

TEST(ConnectionTls, TicketsDoNotWakeThePool) {
    TlsServer server(TlsServer::Version::tls13);
    std::atomic<bool> go = false;
    Peer peer(serve_tls(server, [&](WOLFSSL* ssl, int) {
        while (!go) ::usleep(1'000);
        wolfSSL_shutdown(ssl);
    }));
    Tls tls;
    Shard shard;
    int events = 0;
    shard.run(rest(shard, tls, peer.address, go, events));
    EXPECT_EQ(events, 1);
    EXPECT_EQ(tls.sessions.size(), 1u);
}

#if !__has_feature(address_sanitizer) && \
    !__has_feature(thread_sanitizer)  // their allocators do not count
size_t allocated() { return mallinfo2().uordblks; }

Task<void> open_many(Shard& shard, Tls& tls, SocketAddress to, size_t count, size_t& bytes_each) {
    std::vector<std::unique_ptr<Connection>> connections;
    for (size_t i = 0; i < count + 5; ++i) {
        static_assert(sizeof(Connection) < 2048);
        if (i == 5) bytes_each = allocated();  // what the first of them allocate once is left out
        connections.push_back(std::make_unique<Connection>(*shard.reactor, shard.buffers));
        const TlsResult result = co_await open_tls(shard, tls, *connections.back(), to);
        EXPECT_TRUE(result.ok) << result.error;
        connections.back()->append("EHLO client.example\r\n");
        connections.back()->flush();
        EXPECT_EQ(co_await connections.back()->more_input(shard.in_ms(5'000)), IoStatus::ok);
        connections.back()->consume(connections.back()->input().size());
        (void)co_await connections.back()->more_input(shard.in_ms(2));
    }
    bytes_each = (allocated() - bytes_each) / count;
    for (auto& connection : connections) co_await connection->close(false);
}

// Promise 5: an idle connection under TLS costs at most 40 KiB.
TEST(ConnectionTls, AnIdleConnectionIsSmall) {
    constexpr size_t kConnections = 100;
    TlsServer server;
    // Answers each first line and keeps the socket; freed of its TLS state, so that only our side
    // counts.
    std::vector<int> kept;
    Peer peer(
        [&](int fd) {
            serve_tls(server, [](WOLFSSL* ssl, int) {
                read_tls(ssl, strlen("EHLO client.example\r\n"));
                write_tls(ssl, "250 mx.test.example\r\n");
            })(fd);
            kept.push_back(::dup(fd));
        },
        kConnections + 5);
    Tls tls;
    Shard shard;
    size_t bytes_each = 0;
    shard.run(open_many(shard, tls, peer.address, kConnections, bytes_each));
    peer.join();
    for (const int fd : kept) ::close(fd);
    RecordProperty("bytes_each", static_cast<int>(bytes_each));
    std::printf("an idle TLS connection costs %zu bytes\n", bytes_each);
    EXPECT_GT(bytes_each, 1'000u) << "mallinfo2 counts nothing";
    EXPECT_LE(bytes_each, 40u << 10);
}
#endif

}  // namespace
}  // namespace postrider
