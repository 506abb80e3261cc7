// STARTTLS against a real client: TLS 1.3 and 1.2, tickets, and what is left when the handshake fails.
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/coding.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/tools/sink/plain_client.h"
#include "tools/sink/certificate.h"
#include "tools/sink/sink.h"

namespace postrider::sink {
namespace {

using testing::HasSubstr;

class SecureClient {
  public:
    SecureClient(WOLFSSL_CTX* context, uint16_t port, WOLFSSL_SESSION* session = nullptr) : plain_(port) {
        offer_ = plain_.hello();
        plain_.send("STARTTLS\r\n");
        plain_.lines(1);
        ssl_ = wolfSSL_new(context);
        if (session != nullptr) wolfSSL_set_session(ssl_, session);
        wolfSSL_set_fd(ssl_, plain_.fd());
        connected_ = wolfSSL_connect(ssl_) == WOLFSSL_SUCCESS;
    }
    ~SecureClient() { wolfSSL_free(ssl_); }
    SecureClient(const SecureClient&) = delete;
    SecureClient& operator=(const SecureClient&) = delete;

    std::string ask(std::string_view commands, size_t lines) {
        wolfSSL_write(ssl_, commands.data(), static_cast<int>(commands.size()));
        std::string replies;
        while (static_cast<size_t>(std::count(replies.begin(), replies.end(), '\n')) < lines) {
            char buffer[4096];
            const int n = wolfSSL_read(ssl_, buffer, sizeof buffer);
            if (n <= 0) break;
            replies.append(buffer, static_cast<size_t>(n));
        }
        return replies;
    }
    std::string deliver(std::string_view number) {
        const std::string header = "X-Seq: " + std::string(number) + "\r\n\r\n" + std::string(100'000, 'x') + "\r\n";
        return ask("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT " + std::to_string(header.size()) +
                   " LAST\r\n" + header, 3);
    }
    bool connected() const { return connected_; }
    WOLFSSL* ssl() const { return ssl_; }
    const std::string& offer() const { return offer_; }

  private:
    PlainClient plain_;
    WOLFSSL* ssl_ = nullptr;
    bool connected_ = false;
    std::string offer_;
};

struct Context {
    explicit Context(WOLFSSL_METHOD* method) : get(wolfSSL_CTX_new(method)) {
        wolfSSL_CTX_set_verify(get, WOLFSSL_VERIFY_NONE, nullptr);
        wolfSSL_CTX_UseSessionTicket(get);
    }
    ~Context() { wolfSSL_CTX_free(get); }
    WOLFSSL_CTX* get;
};

class SinkTls : public testing::TestWithParam<bool> {};

TEST_P(SinkTls, DeliversAndResumes) {
    const bool tls12 = GetParam();
    const auto sink = Sink::start({.require_tls = true, .tls12_only = tls12});
    ASSERT_TRUE(sink) << sink.error().text;
    Context context(tls12 ? wolfTLSv1_2_client_method() : wolfTLSv1_3_client_method());
    WOLFSSL_SESSION* session = nullptr;
    {
        SecureClient client(context.get, (*sink)->smtp_port());
        ASSERT_TRUE(client.connected());
        EXPECT_THAT(client.offer(), HasSubstr("STARTTLS"));
        EXPECT_THAT(client.ask("EHLO me.test\r\n", 7), testing::Not(HasSubstr("STARTTLS")));
        EXPECT_EQ(client.deliver("1"), "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n");
        session = wolfSSL_get1_session(client.ssl());
        EXPECT_STREQ(wolfSSL_get_version(client.ssl()), tls12 ? "TLSv1.2" : "TLSv1.3");
        wolfSSL_shutdown(client.ssl());
    }
    SecureClient again(context.get, (*sink)->smtp_port(), session);
    ASSERT_TRUE(again.connected());
    EXPECT_EQ(wolfSSL_session_reused(again.ssl()), 1);
    again.ask("EHLO me.test\r\n", 7);
    EXPECT_TRUE(again.deliver("2").ends_with("250 2.0.0 Ok\r\n"));
    const SinkCounters counters = (*sink)->counters();
    EXPECT_EQ(counters.tls_connections, 2u);
    EXPECT_EQ(counters.resumed_sessions, 1u);
    EXPECT_EQ(counters.tls_messages, 2u);
    EXPECT_EQ(counters.tls_failures, 0u);
    wolfSSL_SESSION_free(session);
}

INSTANTIATE_TEST_SUITE_P(Versions, SinkTls, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "Tls12" : "Tls13"; });

TEST(SinkTlsCertificate, IsItsOwnAnchorAndNamesTheHost) {
    const auto pair = make_self_signed("sink.test");
    ASSERT_TRUE(pair) << pair.error().text;
    Context context(wolfTLSv1_3_client_method());
    EXPECT_EQ(wolfSSL_CTX_load_verify_buffer(
                  context.get, reinterpret_cast<const unsigned char*>(pair->certificate_der.data()),
                  static_cast<long>(pair->certificate_der.size()), WOLFSSL_FILETYPE_ASN1),
              WOLFSSL_SUCCESS);
    EXPECT_THAT(pair->certificate_der, HasSubstr("*.sink.test"));
}

// Two pairs that the sink made for itself, written as files.
TEST(SinkTlsCertificate, WhatIsWrongWithWhichFileIsTold) {
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("postrider-tls-" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    const auto pem = [&](const char* name, std::string_view kind, const std::string& der) {
        byte text[4096];
        word32 size = sizeof text;
        Base64_Encode(reinterpret_cast<const byte*>(der.data()), static_cast<word32>(der.size()), text, &size);
        std::ofstream(folder / name) << "-----BEGIN " << kind << "-----\n"
                                     << std::string_view(reinterpret_cast<char*>(text), size) << "-----END " << kind << "-----\n";
        return (folder / name).string();
    };
    const auto mine = make_self_signed("sink.test"), other = make_self_signed("sink.test");
    ASSERT_TRUE(mine && other);
    const std::string certificate = pem("c.pem", "CERTIFICATE", mine->certificate_der), none = (folder / "none").string();
    const std::string key = pem("k.pem", "EC PRIVATE KEY", mine->key_der), strange = pem("o.pem", "EC PRIVATE KEY", other->key_der);
    const auto error = [](const std::string& c, const std::string& k) {
        const auto sink = Sink::start({.certificate_file = c, .key_file = k});
        return sink ? std::string("started") : sink.error().text;
    };
    EXPECT_EQ(error(certificate, key), "started");
    EXPECT_EQ(error(certificate, strange), "key " + strange + ": is not that of the certificate " + certificate);
    EXPECT_EQ(error(none, key), "certificate " + none + ": No such file or directory");
    EXPECT_EQ(error(certificate, none), "key " + none + ": No such file or directory");
    EXPECT_EQ(error(key, certificate), "certificate " + key + ": holds no certificate in PEM");
    EXPECT_THAT(error(certificate, certificate), HasSubstr("key " + certificate + ": holds no private key in PEM"));
    std::filesystem::remove_all(folder);
}

TEST(SinkTlsFailure, IsCountedAndEndsTheConnection) {
    const auto sink = Sink::start({});
    ASSERT_TRUE(sink);
    PlainClient client((*sink)->smtp_port());
    client.hello();
    client.send("STARTTLS\r\n");
    EXPECT_THAT(client.lines(1), HasSubstr("220"));
    client.send("this is no client hello\r\n");
    while (!client.receive().empty()) {
    }
    EXPECT_TRUE(client.ended());
    EXPECT_EQ((*sink)->counters().tls_failures, 1u);
}

TEST(SinkTlsFailure, ClearMailIsRefusedWhereTlsIsDemanded) {
    const auto sink = Sink::start({.require_tls = true});
    ASSERT_TRUE(sink);
    PlainClient client((*sink)->smtp_port());
    client.hello();
    client.send("MAIL FROM:<a@b.test>\r\n");
    EXPECT_THAT(client.lines(1), HasSubstr("530 5.7.0"));
    const auto plain = Sink::start({.tls = false});
    ASSERT_TRUE(plain);
    PlainClient other((*plain)->smtp_port());
    EXPECT_THAT(other.hello(), testing::Not(HasSubstr("STARTTLS")));
    other.send("STARTTLS\r\n");
    EXPECT_THAT(other.lines(1), HasSubstr("502"));
}

}  // namespace
}  // namespace postrider::sink
