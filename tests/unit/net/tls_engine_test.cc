#include "tests/unit/net/tls_peer.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/net/session_cache.h"
#include "engine/net/tls_engine.h"
#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

const SocketAddress kPeer = *SocketAddress::parse("192.0.2.1:25");

struct Client {
    SessionCache sessions;
    std::unique_ptr<TlsContext> context = *TlsContext::make(TlsLevel::opportunistic, sessions);
    BufferPool pool;
    Buffer plain{pool}, out{pool};
    std::unique_ptr<TlsEngine> engine;

    void begin(const std::string& host = "mx.test.example") {
        engine = *TlsEngine::make(*context, host, kPeer);
        plain.release();
        out.release();
    }
};

// A client and a server joined in memory; what flies between them is cut at random.
struct Pair : Client {
    test::TlsServer server;
    test::TlsServer::Pipes pipes;
    WOLFSSL* ssl = nullptr;
    std::mt19937 random{7};
    size_t largest_piece = 40;
    uint64_t pieces = 0;

    explicit Pair(test::TlsServer::Version version = test::TlsServer::Version::any)
        : server(version) {}
    ~Pair() { wolfSSL_free(ssl); }

    void begin() {
        Client::begin();
        wolfSSL_free(ssl);
        pipes = {};
        ssl = server.over_memory(pipes);
    }
    std::string piece(std::string& from) {
        const size_t size = std::min<size_t>(from.size(), 1 + random() % largest_piece);
        std::string cut = from.substr(0, size);
        from.erase(0, size);
        ++pieces;
        return cut;
    }
    void to_server() {
        pipes.inbox.append(out.view());
        out.release();
    }
    bool handshake() {
        std::string_view nothing;
        auto status = engine->handshake(nothing, out);
        while (status == TlsEngine::Status::more) {
            to_server();
            wolfSSL_accept(ssl);
            if (pipes.outbox.empty()) return false;
            while (!pipes.outbox.empty() && status == TlsEngine::Status::more) {
                const std::string cut = piece(pipes.outbox);
                std::string_view view = cut;
                status = engine->handshake(view, out);
                if (!view.empty()) pipes.outbox.insert(0, view);
            }
        }
        to_server();
        return status == TlsEngine::Status::done && wolfSSL_accept(ssl) == WOLFSSL_SUCCESS;
    }
    // Everything the server has written so far.
    TlsEngine::Status receive() {
        auto status = TlsEngine::Status::more;
        while (!pipes.outbox.empty() && status == TlsEngine::Status::more)
            status = engine->decrypt(piece(pipes.outbox), plain, out);
        return status;
    }
    std::string server_reads() {
        std::string text;
        char chunk[20'000];
        for (int n; (n = wolfSSL_read(ssl, chunk, sizeof chunk)) > 0;)
            text.append(chunk, static_cast<size_t>(n));
        return text;
    }
};

class TlsEngineVersions : public testing::TestWithParam<test::TlsServer::Version> {};

// FAULTS 76: records of every size, cut anywhere, both ways.
TEST_P(TlsEngineVersions, CarriesEveryOctetThroughRandomSplits) {
    Pair pair(GetParam());
    pair.begin();
    ASSERT_TRUE(pair.handshake()) << pair.engine->error_text();
    EXPECT_FALSE(pair.engine->cipher().empty());
    uint32_t round = 0;
    while (pair.pieces < 50'000) {
        ++round;
        const std::string down = test::pattern(1 + pair.random() % 40'000, round);
        ASSERT_EQ(wolfSSL_write(pair.ssl, down.data(), static_cast<int>(down.size())),
                  static_cast<int>(down.size()));
        ASSERT_EQ(pair.receive(), TlsEngine::Status::more) << pair.engine->error_text();
        ASSERT_EQ(pair.plain.view(), down);
        pair.plain.release();

        const std::string up = test::pattern(1 + pair.random() % 60'000, ~round);
        ASSERT_TRUE(pair.engine->encrypt(up, pair.out));
        std::string wire(pair.out.view());
        pair.out.release();
        std::string got;
        while (!wire.empty()) {
            pair.pipes.inbox += pair.piece(wire);
            if (pair.random() % 8 == 0 || wire.empty()) got += pair.server_reads();
        }
        ASSERT_EQ(got, up);
    }
}

TEST_P(TlsEngineVersions, ResumesASession) {
    Pair pair(GetParam());
    pair.begin();
    ASSERT_TRUE(pair.handshake());
    EXPECT_FALSE(pair.engine->resumed());
    wolfSSL_write(pair.ssl, "x", 1);
    pair.receive();
    ASSERT_EQ(pair.sessions.size(), 1u);
    for (int i = 0; i < 3; ++i) {
        pair.begin();
        ASSERT_TRUE(pair.handshake()) << pair.engine->error_text();
        EXPECT_TRUE(pair.engine->resumed());
        wolfSSL_write(pair.ssl, "x", 1);
        pair.receive();
        EXPECT_EQ(pair.plain.view(), "x");
    }
}

TEST_P(TlsEngineVersions, TellsCloseNotify) {
    Pair pair(GetParam());
    pair.begin();
    ASSERT_TRUE(pair.handshake());
    wolfSSL_write(pair.ssl, "last words", 10);
    wolfSSL_shutdown(pair.ssl);
    EXPECT_EQ(pair.receive(), TlsEngine::Status::closed);
    EXPECT_EQ(pair.plain.view(), "last words");
    pair.engine->close_notify(pair.out);
    pair.to_server();
    char chunk[10];
    const int result = wolfSSL_read(pair.ssl, chunk, sizeof chunk);
    EXPECT_EQ(wolfSSL_get_error(pair.ssl, result), WOLFSSL_ERROR_ZERO_RETURN);
}

// One flipped bit in a record is an error, and what came before it stays good.
TEST_P(TlsEngineVersions, RefusesAForgedRecord) {
    Pair pair(GetParam());
    pair.begin();
    ASSERT_TRUE(pair.handshake());
    wolfSSL_write(pair.ssl, "good", 4);
    ASSERT_EQ(pair.receive(), TlsEngine::Status::more);
    wolfSSL_write(pair.ssl, "evil", 4);
    pair.pipes.outbox.back() = static_cast<char>(pair.pipes.outbox.back() ^ 1);
    EXPECT_EQ(pair.receive(), TlsEngine::Status::failed);
    EXPECT_EQ(pair.plain.view(), "good");
    EXPECT_FALSE(pair.engine->error_text().empty());
    EXPECT_FALSE(pair.out.empty()) << "an alert";
}

INSTANTIATE_TEST_SUITE_P(Versions, TlsEngineVersions,
                         testing::Values(test::TlsServer::Version::tls12,
                                         test::TlsServer::Version::tls13));

TEST(TlsEngine, ReadsALargeFlightInOnePiece) {
    Pair pair;
    pair.largest_piece = 1 << 20;
    pair.begin();
    ASSERT_TRUE(pair.handshake());
    EXPECT_EQ(pair.engine->version(), "TLSv1.3");
    const std::string down = test::pattern(120'000, 3);
    wolfSSL_write(pair.ssl, down.data(), static_cast<int>(down.size()));
    ASSERT_EQ(pair.receive(), TlsEngine::Status::more);
    EXPECT_EQ(pair.plain.view(), down);
}

// Random octets, cut anywhere: a failure or a wish for more, never a session.
TEST(TlsEngine, GarbageIsNeverAHandshake) {
    Client client;
    std::mt19937 random(11);
    for (uint32_t i = 0; i < 300; ++i) {
        client.begin();
        std::string_view nothing;
        ASSERT_EQ(client.engine->handshake(nothing, client.out), TlsEngine::Status::more);
        std::string garbage = test::pattern(random() % 500, i);
        // Half of them look like a handshake record at first.
        if (i % 2 == 0) garbage.insert(0, std::string("\x16\x03\x03\x00\x40\x02\x00\x00\x3c", 9));
        std::string_view view = garbage;
        const auto status = client.engine->handshake(view, client.out);
        ASSERT_NE(status, TlsEngine::Status::done);
        ASSERT_NE(status, TlsEngine::Status::closed);
        if (status == TlsEngine::Status::failed) {
            EXPECT_FALSE(client.engine->error_text().empty());
        }
    }
    client.begin();
    std::string_view smtp = "454 4.7.0 TLS not available\r\n";
    std::string_view nothing;
    client.engine->handshake(nothing, client.out);
    EXPECT_EQ(client.engine->handshake(smtp, client.out), TlsEngine::Status::failed);
}

// RFC 6066 3: a name, never a literal address.
TEST(TlsEngine, NamesTheHostInSni) {
    Client client;
    const auto sni = [&](const std::string& host) {
        client.begin(host);
        std::string_view nothing;
        EXPECT_EQ(client.engine->handshake(nothing, client.out), TlsEngine::Status::more);
        return test::sni_of(client.out.view());
    };
    EXPECT_EQ(sni("mx.test.example"), "mx.test.example");
    EXPECT_EQ(sni("192.0.2.1"), "");
    EXPECT_EQ(sni("2001:db8::1"), "");
    EXPECT_EQ(sni("[192.0.2.1]"), "");
}

TEST(TlsEngine, ABadSessionIsNotOfferedAgain) {
    Pair pair;
    pair.begin();
    ASSERT_TRUE(pair.handshake());
    wolfSSL_write(pair.ssl, "x", 1);
    pair.receive();
    ASSERT_EQ(pair.sessions.size(), 1u);
    pair.begin();
    std::string_view nothing;
    pair.engine->handshake(nothing, pair.out);
    std::string_view alert("\x15\x03\x03\x00\x02\x02\x28", 7);  // fatal handshake_failure
    EXPECT_EQ(pair.engine->handshake(alert, pair.out), TlsEngine::Status::failed);
    EXPECT_EQ(pair.sessions.size(), 0u);
    EXPECT_NE(pair.engine->error_text().find("alert 40"), std::string::npos)
        << pair.engine->error_text();
    // A session that cannot even be read costs a full handshake, no more.
    pair.sessions.store(SessionCache::key("mx.test.example", kPeer, TlsLevel::opportunistic),
                        "nonsense");
    pair.begin();
    ASSERT_TRUE(pair.handshake()) << pair.engine->error_text();
    EXPECT_FALSE(pair.engine->resumed());
}

}  // namespace
}  // namespace postrider
