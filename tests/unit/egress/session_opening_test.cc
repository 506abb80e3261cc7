// From the greeting to the EHLO under TLS: FAULTS 31-33, 59-64.
#include "tests/unit/net/tls_peer.h"

#include "engine/net/session_cache.h"
#include "engine/net/tls_context.h"
#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::Dialogued;
using test::MemoryFeed;
using test::quick_options;
using test::talk;
using test::TlsServer;
using test::Wire;
using test::with_timeout;
using enum OutcomeKind;

TEST(SessionOpening, F33_GreetingThatRefuses) {
    for (const auto& [greeting, kind, scope] :
         {std::tuple{"554 5.7.1 not you\r\n", transient, Scope::host}, {"421 4.3.2 busy\r\n", transient, Scope::host},
          {"521 takes no mail\r\n", bounced, Scope::site}, {"250 hello\r\n", transient, Scope::session},
          {"SSH-2.0-x\r\n", transient, Scope::session}}) {
        SCOPED_TRACE(greeting);
        MemoryFeed feed;
        feed.add();
        const Dialogued out = talk(feed, [said = std::string(greeting)](Wire& wire) {
            EXPECT_TRUE(wire.silent(50));  // RFC 5321 3.1: the server speaks first
            wire.say(said);
            EXPECT_EQ(wire.rest(), "");
        });
        ASSERT_TRUE(out.failure);
        EXPECT_EQ(out.failure->outcome.kind, kind);
        EXPECT_EQ(out.failure->outcome.phase, Phase::greeting);
        if (greeting != std::string_view("250 hello\r\n")) EXPECT_EQ(out.failure->outcome.scope, scope);
        EXPECT_EQ(feed.waiting.size(), 1u);
    }
}

TEST(SessionOpening, F33_GreetingThatNeverComes) {
    MemoryFeed feed;
    const Dialogued out = talk(feed, [](Wire& wire) { EXPECT_EQ(wire.rest(), ""); }, with_timeout(Phase::greeting, 150));
    ASSERT_TRUE(out.failure);
    EXPECT_EQ(out.failure->trouble, Trouble::timeout);
}

TEST(SessionOpening, ClosedBehindTheGreetingOrTheEhlo) {
    for (const bool greeted : {false, true}) {
        MemoryFeed feed;
        const Dialogued out = talk(feed, [greeted](Wire& wire) {
            wire.say("220 hello\r\n");
            if (greeted) wire.expect("EHLO");
        });
        ASSERT_TRUE(out.failure);
        EXPECT_EQ(out.failure->trouble, Trouble::lost);
    }
}

TEST(SessionOpening, F31_EhloRefusedThenHelo) {
    MemoryFeed feed;
    auto& message = feed.add();
    const Dialogued out = talk(feed, [](Wire& wire) {
        wire.say("220 old\r\n");
        wire.expect("EHLO client.test");
        wire.say("502 5.5.1 what\r\n");
        wire.expect("HELO client.test");
        wire.say("250 old PIPELINING\r\n");
        EXPECT_EQ(wire.line(), "MAIL FROM:<sender@test.example>");  // no extension is used
        EXPECT_TRUE(wire.silent(30));
        wire.say("250 ok\r\n");
        wire.expect("RCPT");
        wire.say("250 ok\r\n");
        wire.expect("DATA");
        wire.say("354 go\r\n");
        std::string text;
        EXPECT_TRUE(wire.content(text));
        wire.say("250 ok\r\n");
        wire.end();
    });
    EXPECT_FALSE(out.failure);
    EXPECT_EQ(out.capabilities, Capabilities{});
    EXPECT_EQ(message.kind(), delivered);
}

TEST(SessionOpening, F31_BothRefused) {
    MemoryFeed feed;
    const Dialogued out = talk(feed, [](Wire& wire) {
        wire.say("220 old\r\n");
        wire.expect("EHLO");
        wire.say("500 what\r\n");
        wire.expect("HELO");
        wire.say("450 not today\r\n");
        EXPECT_EQ(wire.rest(), "");
    });
    ASSERT_TRUE(out.failure);
    EXPECT_EQ(out.failure->outcome.kind, transient);
    EXPECT_EQ(out.failure->outcome.phase, Phase::helo);
}

// No reply of a peer may end the process.
TEST(SessionOpening, F12_EhloAnsweredWithAnotherCommandsReply) {
    for (const char* reply : {"354 go\r\n", "220 again\r\n", "334 more\r\n", "221 bye\r\n"}) {
        MemoryFeed feed;
        const Dialogued out = talk(feed, [reply](Wire& wire) {
            wire.say("220 hello\r\n");
            wire.expect("EHLO");
            wire.say(reply);
            EXPECT_EQ(wire.rest(), "");
        });
        ASSERT_TRUE(out.failure) << reply;
        EXPECT_EQ(out.failure->trouble, Trouble::out_of_step) << reply;
        EXPECT_EQ(out.failure->outcome.kind, transient);
    }
}

TEST(SessionOpening, F14_OctetsBehindTheGreeting) {
    MemoryFeed feed;
    const Dialogued out = talk(feed, [](Wire& wire) {
        wire.say("220 hello\r\n250 I know what you will say\r\n");
        EXPECT_EQ(wire.rest(), "");
    });
    ASSERT_TRUE(out.failure);
    EXPECT_EQ(out.failure->trouble, Trouble::premature_reply);
}

// ---- TLS

class SessionTls : public ::testing::Test {
  protected:
    SessionOptions options(TlsUse use) {
        SessionOptions options = quick_options();
        options.tls = use;
        options.tls_context = context_.get();
        options.peer_name = "mx.test.example";
        return options;
    }
    SessionCache sessions_;
    std::unique_ptr<TlsContext> context_ = *TlsContext::make(TlsLevel::opportunistic, sessions_);
};

TEST_F(SessionTls, F60_StarttlsRefused) {
    for (const char* refusal : {"454 4.7.0 not now\r\n", "501 5.5.2 syntax\r\n"}) {
        for (const TlsUse use : {TlsUse::opportunistic, TlsUse::required}) {
            MemoryFeed feed;
            auto& message = feed.add();
            const Dialogued out = talk(
                feed,
                [refusal, use](Wire& wire) {
                    wire.greet("250-PIPELINING\r\n250 STARTTLS\r\n");
                    wire.expect("STARTTLS");
                    wire.say(refusal);
                    if (use == TlsUse::required) {
                        EXPECT_EQ(wire.rest(), "");  // never in clear
                        return;
                    }
                    wire.take_message();
                    wire.end();
                },
                options(use));
            EXPECT_EQ(out.failure.has_value(), use == TlsUse::required);
            if (use == TlsUse::opportunistic)
                EXPECT_EQ(message.kind(), delivered);
            else
                EXPECT_EQ(out.failure->outcome.kind, transient);
        }
    }
}

// 354 and 250 are no answers to STARTTLS: nobody knows in which state the server is.
TEST_F(SessionTls, F60_StarttlsAnsweredWithAnotherCommandsReply) {
    for (const char* reply : {"354 go\r\n", "250 ok\r\n"}) {
        MemoryFeed feed;
        auto& message = feed.add();
        const Dialogued out = talk(
            feed,
            [reply](Wire& wire) {
                wire.greet("250-PIPELINING\r\n250 STARTTLS\r\n");
                wire.expect("STARTTLS");
                wire.say(reply);
                EXPECT_EQ(wire.rest(), "");
            },
            options(TlsUse::opportunistic));
        ASSERT_TRUE(out.failure) << reply;
        EXPECT_EQ(out.failure->outcome.kind, transient);
        EXPECT_EQ(message.transaction.size(), 1u);
        EXPECT_EQ(feed.waiting.size(), 1u);
    }
}

TEST_F(SessionTls, F61_StarttlsStripped) {
    for (const TlsUse use : {TlsUse::opportunistic, TlsUse::required}) {
        MemoryFeed feed;
        auto& message = feed.add();
        const Dialogued out = talk(
            feed,
            [use](Wire& wire) {
                wire.greet("250 PIPELINING\r\n");
                if (use == TlsUse::required) {
                    EXPECT_EQ(wire.rest(), "");
                    return;
                }
                wire.take_message();
                wire.end();
            },
            options(use));
        if (use == TlsUse::opportunistic) {
            EXPECT_EQ(message.kind(), delivered);
        } else {
            ASSERT_TRUE(out.failure);
            EXPECT_EQ(out.failure->trouble, Trouble::tls_not_offered);
        }
    }
}

TEST_F(SessionTls, F59_PlaintextBehindThe220) {
    MemoryFeed feed;
    const Dialogued out = talk(
        feed,
        [](Wire& wire) {
            wire.greet("250-PIPELINING\r\n250 STARTTLS\r\n");
            wire.expect("STARTTLS");
            wire.say("220 go\r\n250 injected\r\n");
            EXPECT_EQ(wire.rest(), "");  // not even a ClientHello
        },
        options(TlsUse::opportunistic));
    ASSERT_TRUE(out.failure);
    EXPECT_EQ(out.failure->trouble, Trouble::tls_injection);
}

TEST_F(SessionTls, F62_HandshakeHangsOrFails) {
    for (const bool hangs : {true, false}) {
        MemoryFeed feed;
        SessionOptions use = options(TlsUse::opportunistic);
        use.timeouts_ms[static_cast<size_t>(Phase::starttls)] = hangs ? 200 : 20'000;
        const Dialogued out = talk(
            feed,
            [hangs](Wire& wire) {
                wire.greet("250-PIPELINING\r\n250 STARTTLS\r\n");
                wire.expect("STARTTLS");
                wire.say("220 go\r\n");
                if (!hangs) wire.say("220 this is not TLS at all, and long enough to be read as a record\r\n");
                (void)wire.rest();
            },
            use);
        ASSERT_TRUE(out.failure);
        EXPECT_NE(out.failure->trouble, Trouble::lost);
        if (hangs) EXPECT_EQ(out.failure->trouble, Trouble::tls_failed);
        EXPECT_EQ(out.failure->outcome.kind, transient);
    }
}

std::string tls_line(WOLFSSL* ssl) {
    std::string text;
    char c;
    while (!text.ends_with("\r\n") && wolfSSL_read(ssl, &c, 1) == 1) text += c;
    return text;
}

void tls_say(WOLFSSL* ssl, std::string_view text) {
    wolfSSL_write(ssl, text.data(), static_cast<int>(text.size()));
}

TEST_F(SessionTls, F64_WhatWasKnownBeforeTheHandshakeIsForgotten) {
    TlsServer server;
    MemoryFeed feed;
    auto& message = feed.add();
    const Dialogued out = talk(
        feed,
        [&server](Wire& wire) {
            wire.greet("250-PIPELINING\r\n250-SIZE 1\r\n250 STARTTLS\r\n");
            wire.expect("STARTTLS");
            wire.say("220 go\r\n");
            WOLFSSL* ssl = server.over_socket(wire.fd());
            ASSERT_EQ(wolfSSL_accept(ssl), WOLFSSL_SUCCESS);
            EXPECT_TRUE(tls_line(ssl).starts_with("EHLO "));
            tls_say(ssl, "250-mx.test\r\n250 dsn\r\n");
            for (const char* command : {"MAIL FROM:<sender@test.example>\r\n", "RCPT TO:", "DATA\r\n"}) {
                const std::string got = tls_line(ssl);
                EXPECT_TRUE(got.starts_with(command)) << got;
                tls_say(ssl, got == "DATA\r\n" ? "354 go\r\n" : "250 ok\r\n");
            }
            while (tls_line(ssl) != ".\r\n") {
            }
            tls_say(ssl, "250 ok\r\n");
            EXPECT_EQ(tls_line(ssl), "QUIT\r\n");
            tls_say(ssl, "221 bye\r\n");
            wolfSSL_free(ssl);
        },
        options(TlsUse::required));
    EXPECT_FALSE(out.failure);
    EXPECT_FALSE(out.capabilities.pipelining);
    EXPECT_TRUE(out.capabilities.dsn);
    EXPECT_EQ(message.kind(), delivered);
}

// A host that fails behind the handshake is as one that fails in it: another try in clear may do, and it is no bounce.
TEST_F(SessionTls, F63_EhloFailsBehindTheHandshake) {
    for (const char* answer : {"", "554 5.7.1 not under TLS\r\n"}) {
        TlsServer server;
        MemoryFeed feed;
        const Dialogued out = talk(
            feed,
            [&server, answer](Wire& wire) {
                wire.greet("250-PIPELINING\r\n250 STARTTLS\r\n");
                wire.expect("STARTTLS");
                wire.say("220 go\r\n");
                WOLFSSL* ssl = server.over_socket(wire.fd());
                ASSERT_EQ(wolfSSL_accept(ssl), WOLFSSL_SUCCESS);
                EXPECT_TRUE(tls_line(ssl).starts_with("EHLO "));
                tls_say(ssl, answer);
                wolfSSL_free(ssl);
            },
            options(TlsUse::opportunistic));
        ASSERT_TRUE(out.failure) << answer;
        EXPECT_EQ(out.failure->trouble, Trouble::tls_failed) << answer;
        EXPECT_EQ(out.failure->outcome.kind, transient) << answer;
    }
}

}  // namespace
}  // namespace postrider
