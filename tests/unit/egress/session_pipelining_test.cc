// The next envelope in the flight of the dot (RFC 2920 3.1; DESIGN 2.4), seen from the server's end.
#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::MemoryFeed;
using test::quick_options;
using test::talk;
using test::Wire;
using enum OutcomeKind;
using ::testing::Each;
using ::testing::ElementsAre;

TEST(SessionPipelining, TheNextEnvelopeIsReadBeforeTheDotIsAnswered) {
    MemoryFeed feed;
    for (int i = 0; i < 5; ++i) feed.add();
    feed.add(std::string(300'000, 'x') + "\r\n");  // behind a content that is streamed, too
    feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        wire.envelope();
        std::string text;
        EXPECT_TRUE(wire.content(text));
        EXPECT_TRUE(wire.silent(50));  // the first transaction shows first whether the host is in step
        wire.say("250 ok\r\n");
        wire.envelope();
        for (int i = 2; i <= 6; ++i) {
            EXPECT_TRUE(wire.content(text));
            wire.expect("MAIL FROM:");
            EXPECT_EQ(wire.line(), "RCPT TO:<r" + std::to_string(i + 1) + "@test.example>");
            wire.expect("DATA");
            wire.say("250 2.0.0 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
        }
        EXPECT_TRUE(wire.content(text));
        EXPECT_TRUE(wire.silent(30));  // FAULTS 30: QUIT is never in flight behind a dot
        wire.say("250 ok\r\n");
        wire.end();
    });
    EXPECT_THAT(feed.kinds(), Each(delivered));
    EXPECT_EQ(feed.intents.size(), 7u);
}

TEST(SessionPipelining, GroupSendsNothingBehindTheDot) {
    MemoryFeed feed;
    for (int i = 0; i < 3; ++i) feed.add();
    SessionOptions options = quick_options();
    options.dialogue = Dialogue::group;
    talk(
        feed,
        [](Wire& wire) {
            wire.greet();
            for (int i = 0; i < 3; ++i) {
                wire.envelope();
                std::string text;
                EXPECT_TRUE(wire.content(text));
                EXPECT_TRUE(wire.silent(30));
                wire.say("250 ok\r\n");
            }
            wire.end();
        },
        options);
    EXPECT_THAT(feed.kinds(), Each(delivered));
}

// What is refused of the message at hand says nothing of the next, whose envelope is in flight.
TEST(SessionPipelining, RefusalsOfTheDotLeaveTheNextInPlace) {
    MemoryFeed feed;
    for (int i = 0; i < 5; ++i) feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        wire.take_message();
        wire.envelope();
        std::string text;
        for (const char* reply : {"554 5.7.1 spam\r\n", "451 4.3.0 later\r\n"}) {
            EXPECT_TRUE(wire.content(text));
            for (int i = 0; i < 3; ++i) (void)wire.line();
            wire.say(std::string(reply) + "250 ok\r\n250 ok\r\n354 go\r\n");
        }
        EXPECT_TRUE(wire.content(text));
        // Nobody of the next is accepted, and DATA is: a lone dot, then RSET in front of what follows.
        for (int i = 0; i < 3; ++i) (void)wire.line();
        wire.say("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n");
        EXPECT_EQ(wire.line(), ".");
        wire.say("554 5.5.1 nobody\r\n");
        wire.end();
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, bounced, transient, delivered, bounced));
}

// What the host cannot take at all is settled without a word on the wire.
TEST(SessionPipelining, MessagesThatDoNotFitAreSkipped) {
    MemoryFeed feed;
    feed.add();
    feed.add();
    feed.add("Subject: x\r\n\r\n\xe4\r\n");
    feed.add(std::string(3'000, 'x') + "\r\n");
    feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet("250-PIPELINING\r\n250 SIZE 2000\r\n");
        for (int i = 0; i < 3; ++i) wire.take_message();
        wire.end();
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, bounced, bounced, delivered));
}

}  // namespace
}  // namespace postrider
