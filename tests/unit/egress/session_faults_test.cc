// FAULTS 1-38 where they are a matter of octets and time on a connection: what the pure transaction is told about in
// strings elsewhere, here a real peer does.
#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::Dialogued;
using test::MemoryFeed;
using test::MemoryMessage;
using test::quick_options;
using test::talk;
using test::Wire;
using test::with_timeout;
using enum OutcomeKind;
using ::testing::ElementsAre;

enum class End { fin, reset, silence };

class SessionFaults : public ::testing::TestWithParam<End> {};

TEST_P(SessionFaults, Fault01_TheReplyToTheDotIsLost) {
    MemoryFeed feed;
    auto& message = feed.add();
    const Dialogued out = talk(
        feed,
        [end = GetParam()](Wire& wire) {
            wire.greet();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            if (end == End::reset) wire.reset();
            if (end == End::silence) EXPECT_EQ(wire.rest(), "");  // no QUIT behind a dot
        },
        with_timeout(Phase::dot, 200));
    EXPECT_EQ(message.kind(), ambiguous);
    EXPECT_TRUE(message.outcome().possible_duplicate);
    EXPECT_EQ(message.outcome().phase, Phase::dot);
    EXPECT_THAT(feed.intents, ElementsAre(&message));
    EXPECT_FALSE(out.end.reusable);
    EXPECT_FALSE(out.end.may_quit);
}

TEST_P(SessionFaults, Fault01_LostBeforeTheDotIsTransient) {
    MemoryFeed feed;
    auto& message = feed.add();
    talk(
        feed,
        [end = GetParam()](Wire& wire) {
            wire.greet();
            wire.expect("MAIL");
            wire.expect("RCPT");
            wire.expect("DATA");
            wire.say("250 ok\r\n250 ok\r\n");
            if (end == End::reset) wire.reset();
            if (end == End::silence) EXPECT_EQ(wire.rest(), "");
        },
        with_timeout(Phase::data, 200));  // FAULTS 34: the 354 never comes
    EXPECT_EQ(message.kind(), transient);
    EXPECT_EQ(message.outcome().phase, Phase::data);
    EXPECT_TRUE(feed.intents.empty());
}

TEST(SessionFault, F34_EachReplyInTimeAndAllTogetherTooLate) {
    MemoryFeed feed;
    auto& message = feed.add();
    SessionOptions use = test::quick_options();
    use.envelope_ms = 300;
    const Dialogued out = talk(
        feed,
        [](Wire& wire) {
            wire.greet();
            for (int i = 0; i < 2; ++i) {  // MAIL and RCPT; the 354 would come in time too
                ::usleep(200'000);
                wire.say("250 ok\r\n");
            }
            (void)wire.rest();
        },
        use);
    EXPECT_FALSE(out.end.reusable);
    EXPECT_EQ(message.kind(), transient);
    EXPECT_THAT(message.outcome().text, ::testing::HasSubstr("too slowly"));
    EXPECT_TRUE(feed.intents.empty());
}

TEST_P(SessionFaults, TheNextTransactionIsUntouchedWhenTheSessionEndsBehindTheDot) {
    MemoryFeed feed;
    for (int i = 0; i < 4; ++i) feed.add();
    talk(
        feed,
        [end = GetParam()](Wire& wire) {
            wire.greet();
            wire.take_message();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.expect("MAIL FROM:");
            wire.say("250 2.0.0 taken\r\n");
            if (end == End::reset) wire.reset();
            if (end == End::silence) (void)wire.rest();
        },
        with_timeout(Phase::mail, 200));
    EXPECT_EQ(feed.messages[1]->kind(), delivered);
    EXPECT_EQ(feed.messages[2]->kind(), requeued);
    EXPECT_EQ(feed.ends.size(), 3u);
    EXPECT_EQ(feed.waiting.size(), 1u);
}

TEST_P(SessionFaults, TheNextTransactionIsUntouchedWhenTheCurrentOneIsAmbiguous) {
    MemoryFeed feed;
    for (int i = 0; i < 3; ++i) feed.add();
    talk(
        feed,
        [end = GetParam()](Wire& wire) {
            wire.greet();
            wire.take_message();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.expect("MAIL FROM:");
            if (end == End::reset) wire.reset();
            if (end == End::silence) (void)wire.rest();
        },
        with_timeout(Phase::dot, 200));
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, ambiguous, requeued));
}

TEST_P(SessionFaults, Fault29_ARestingSessionIsClosedByThePeer) {
    MemoryFeed feed, more;
    auto& late = more.add();
    test::Shard shard;
    test::Peer peer([end = GetParam()](int fd) {
        Wire wire(fd);
        wire.greet();
        wire.take_message();
        if (end == End::silence) wire.say("421 4.4.2 idle for too long\r\n");  // FAULTS 5
        if (end == End::reset) wire.reset();
        if (end == End::silence) EXPECT_EQ(wire.rest(), "");  // no MAIL into a session that has ended
    });
    feed.add();
    auto rest_and_go_on = [](test::Shard& here, SocketAddress to, MemoryFeed& first, MemoryFeed& second) -> Task<void> {
        Connection connection(*here.reactor, here.buffers);
        EXPECT_EQ(co_await connection.connect(to, {}, here.in_ms(5'000)), 0);
        Session session(*here.reactor, connection, quick_options());
        EXPECT_FALSE((co_await session.open()).has_value());
        EXPECT_TRUE((co_await session.carry(first)).reusable);
        (void)co_await connection.more_input(here.in_ms(5'000));
        const SessionEnd end = co_await session.carry(second);
        EXPECT_FALSE(end.reusable);
        co_await session.quit(end.may_quit);
    };
    shard.run(rest_and_go_on(shard, peer.address, feed, more));
    peer.join();
    EXPECT_EQ(feed.messages[0]->kind(), delivered);
    EXPECT_EQ(late.kind(), requeued);  // no attempt counted
}

INSTANTIATE_TEST_SUITE_P(Ends, SessionFaults, ::testing::Values(End::fin, End::reset, End::silence),
                         [](const auto& info) {
                             return std::string(info.param == End::fin     ? "Fin"
                                                : info.param == End::reset ? "Reset"
                                                                           : "Silence");
                         });

TEST(SessionFault, F04_ResetRightBehindThe250) {
    for (int round = 0; round < 20; ++round) {
        MemoryFeed feed;
        auto& message = feed.add();
        talk(feed, [](Wire& wire) {
            wire.greet();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.say("250 2.0.0 taken\r\n");
            wire.reset();
        });
        EXPECT_EQ(message.kind(), delivered);
    }
}

TEST(SessionFault, F05_421ToTheDotOfOneAndInFrontOfAnother) {
    MemoryFeed feed;
    for (int i = 0; i < 3; ++i) feed.add();
    const Dialogued out = talk(feed, [](Wire& wire) {
        wire.greet();
        wire.take_message();
        wire.envelope();
        std::string text;
        EXPECT_TRUE(wire.content(text));
        wire.say("421 4.3.2 going down\r\n");
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, transient, requeued));
    EXPECT_FALSE(out.end.reusable);
}

TEST(SessionFault, F06_F08_RecipientsFareEachByTheirOwnReply) {
    MemoryFeed feed;
    auto& mixed = feed.add();
    for (RecordId id : {101u, 102u, 103u}) mixed.transaction.add_recipient(id, "r@test.example");
    auto& cut = feed.add();
    for (RecordId id : {201u, 202u}) cut.transaction.add_recipient(id, "r@test.example");
    talk(feed, [](Wire& wire) {
        wire.greet();
        for (int i = 0; i < 6; ++i) (void)wire.line();
        wire.say("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n451 4.7.1 later\r\n250 ok\r\n354 go\r\n");
        std::string text;
        EXPECT_TRUE(wire.content(text));
        wire.say("250 ok\r\n");
        for (int i = 0; i < 5; ++i) (void)wire.line();
        wire.say("250 ok\r\n550 5.1.1 no\r\n421 4.3.2 closing\r\n");
    });
    EXPECT_EQ(mixed.kind(0), delivered);
    EXPECT_EQ(mixed.kind(1), bounced);
    EXPECT_EQ(mixed.kind(2), transient);
    EXPECT_EQ(mixed.kind(3), delivered);
    EXPECT_EQ(cut.kind(0), bounced);
    EXPECT_EQ(cut.kind(1), transient);
    EXPECT_EQ(cut.kind(2), transient);
}

TEST(SessionFault, F07_550ToMailAndClosed) {
    MemoryFeed feed;
    auto& message = feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        wire.expect("MAIL");
        wire.say("550 5.7.1 not you\r\n");
        wire.reset();
    });
    EXPECT_EQ(message.kind(), bounced);
    EXPECT_EQ(message.outcome().code, 550);
}

TEST(SessionFault, F09_NobodyAcceptedAnd354) {
    MemoryFeed feed;
    feed.add();
    feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        for (int i = 0; i < 3; ++i) (void)wire.line();
        wire.say("250 ok\r\n550 5.1.1 no\r\n354 go\r\n");
        EXPECT_EQ(wire.line(), ".");  // no octet of content
        wire.say("250 taken for nobody\r\n");
        wire.expect("RSET");
        wire.say("250 ok\r\n");
        wire.take_message();
        wire.end();
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(bounced, delivered));
}

TEST(SessionFault, F12_F14_F15_F16_RepliesOutOfStep) {
    struct Case {
        const char* name;
        std::string after_envelope;  // instead of 354
        std::string after_dot;
        OutcomeKind kind;
    };
    for (const Case& each : {
             Case{"FAULTS 12: 250 to DATA", "250 ok\r\n", "", transient},
             Case{"FAULTS 13: 354 twice", "354 go\r\n354 go\r\n", "", transient},
             Case{"FAULTS 14: the dot answered before it was sent", "354 go\r\n250 taken\r\n", "", transient},
             Case{"FAULTS 15: garbage before the reply", "354 go\r\n", "hello\r\n250 ok\r\n", ambiguous},
             Case{"FAULTS 16: 221 to the dot", "354 go\r\n", "221 bye\r\n", ambiguous},
             Case{"FAULTS 17: four digits", "354 go\r\n", "2500 ok\r\n", ambiguous},
             Case{"FAULTS 18: two codes in one reply", "354 go\r\n", "250-ok\r\n251 ok\r\n", ambiguous},
             Case{"FAULTS 20: bare LF ends a line", "354 go\n", "250 ok\n", delivered},
             Case{"FAULTS 22: the basic code decides", "354 go\r\n", "250 5.1.1 no such user\r\n", delivered},
         }) {
        SCOPED_TRACE(each.name);
        MemoryFeed feed;
        auto& message = feed.add();
        talk(feed, [&each](Wire& wire) {
            wire.greet();
            for (int i = 0; i < 3; ++i) (void)wire.line();
            wire.say("250 ok\r\n250 ok\r\n" + each.after_envelope);
            std::string text;
            if (each.after_dot.empty()) {
                EXPECT_FALSE(wire.content(text));  // no dot is sent
                return;
            }
            EXPECT_TRUE(wire.content(text));
            wire.say(each.after_dot);
            (void)wire.rest();
        });
        EXPECT_EQ(message.kind(), each.kind);
    }
}

TEST(SessionFault, F19_EndlessReplies) {
    for (const bool one_line : {false, true}) {
        MemoryFeed feed;
        auto& message = feed.add();
        talk(feed, [one_line](Wire& wire) {
            wire.greet();
            (void)wire.line();
            std::string flood;
            for (int i = 0; i < 2000; ++i) flood += one_line ? "250-padding " : "250-padding\r\n";
            for (int i = 0; i < 400; ++i) wire.say(flood);  // 10 MB; the client has long gone
        });
        EXPECT_EQ(message.kind(), transient);
    }
}

TEST(SessionFault, F13_EarlyReplyWhileFiveMegabytesAreSent) {
    for (const auto& [reply, kind] : {std::pair{"552 5.3.4 too much\r\n", bounced}, {"451 4.3.0 not now\r\n", transient},
                                      {"250 taken already\r\n", ambiguous}, {"what?\r\n", transient}}) {
        SCOPED_TRACE(reply);
        MemoryFeed feed;
        std::string body;
        while (body.size() < 5'000'000) body += "a line of some fifty octets, and a hundred thousand like it\r\n";
        auto& message = feed.add(body);
        talk(
            feed,
            [said = std::string(reply)](Wire& wire) {
                wire.greet();
                wire.envelope();
                wire.read_some(100'000);
                wire.say(said);
                ::usleep(50'000);
                const std::string rest = wire.rest();
                EXPECT_LT(rest.size(), 5'000'000u);
                EXPECT_FALSE(rest.ends_with("\r\n.\r\n"));
            },
            quick_options(), 64 * 1024);
        EXPECT_EQ(message.kind(), kind);
        EXPECT_TRUE(feed.intents.empty());
    }
}

// A host that reads nothing and never ends its reply: what is unsent stays bounded, and so does the wait.
TEST(SessionFault, F19_F34_F36_PiecesOfAReplyWhileNothingIsRead) {
    MemoryFeed feed;
    auto& message = feed.add(std::string(8'000'000, 'x') + "\r\n");
    talk(
        feed,
        [](Wire& wire) {
            wire.greet();
            wire.envelope();
            ::usleep(50'000);  // the content is on its way: none of this is premature
            int pieces = 0;
            for (; pieces < 500; ++pieces) {
                if (::send(wire.fd(), "250-\r\n", 6, MSG_NOSIGNAL) < 0) break;
                ::usleep(pieces < 100 ? 1'000 : 10'000);
            }
            EXPECT_LT(pieces, 500) << "each piece has bought time";
        },
        with_timeout(Phase::content, 500), 8192);
    EXPECT_EQ(message.kind(), transient);
    EXPECT_TRUE(feed.intents.empty());
}

TEST(SessionFault, F21_EachReplySplitAtEachOctet) {
    MemoryFeed feed;
    for (int i = 0; i < 3; ++i) feed.add();
    talk(feed, [](Wire& wire) {
        wire.say_split("220-mx.test\r\n220 ready\r\n");
        wire.expect("EHLO ");
        wire.say_split("250-mx.test\r\n250-PIPELINING\r\n250 SIZE\r\n");
        for (int i = 0; i < 3; ++i) {
            for (int k = 0; k < 3; ++k) (void)wire.line();
            wire.say_split("250 2.1.0 ok\r\n250-2.1.5 ok\r\n250 2.1.5 ok\r\n354 go\r\n");
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.say_split("250-2.0.0 taken\r\n250 2.0.0 and well kept\r\n");
        }
        wire.expect("QUIT");
        wire.say_split("221 bye\r\n");
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, delivered));
}

TEST(SessionFault, F27_RsetRefused) {
    MemoryFeed feed;
    feed.add();
    feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        for (int i = 0; i < 3; ++i) (void)wire.line();
        wire.say("250 ok\r\n550 5.1.1 no\r\n554 5.5.1 no valid recipients\r\n");  // FAULTS 10
        wire.expect("RSET");
        wire.say("502 5.5.1 what is RSET\r\n");
        (void)wire.rest();
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(bounced, requeued));
}

TEST(SessionFault, F30_TheAnswerToQuitNeverComes) {
    MemoryFeed feed;
    auto& message = feed.add();
    const int64_t before_ns = read_mono_clock();
    talk(feed, [](Wire& wire) {
        wire.greet();
        wire.take_message();
        wire.expect("QUIT");
        ::usleep(400'000);
    });
    EXPECT_EQ(message.kind(), delivered);
    EXPECT_LT(read_mono_clock() - before_ns, 8 * kNsPerSecond);
}

TEST(SessionFault, F35_NothingIsSentAheadWherePipeliningIsNotOffered) {
    MemoryFeed feed;
    feed.add();
    feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet("250 SIZE\r\n");
        for (int i = 0; i < 2; ++i) {
            for (const char* command : {"MAIL", "RCPT", "DATA"}) {
                wire.expect(command);
                EXPECT_TRUE(wire.silent(40)) << command;
                wire.say(command == std::string_view("DATA") ? "354 go\r\n" : "250 ok\r\n");
            }
            std::string text;
            EXPECT_TRUE(wire.content(text));
            EXPECT_TRUE(wire.silent(40));
            wire.say("250 ok\r\n");
        }
        wire.end();
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered));
}

TEST(SessionFault, F37_HalfClosedBehindTheDot) {
    MemoryFeed feed;
    auto& message = feed.add();
    talk(feed, [](Wire& wire) {
        wire.greet();
        wire.envelope();
        std::string text;
        EXPECT_TRUE(wire.content(text));
        wire.half_close();
        EXPECT_EQ(wire.rest(), "");
    });
    EXPECT_EQ(message.kind(), ambiguous);
}

TEST(SessionFault, F38_AReplyForEachRecipientPutsTheNextMessageOutOfStep) {
    MemoryFeed feed;
    feed.add();
    feed.add().transaction.add_recipient(99, "second@test.example");
    feed.add();
    const Dialogued out = talk(feed, [](Wire& wire) {
        wire.greet();
        wire.take_message();
        for (int i = 0; i < 4; ++i) (void)wire.line();
        wire.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
        std::string text;
        EXPECT_TRUE(wire.content(text));
        for (int i = 0; i < 3; ++i) (void)wire.line();
        wire.say("250 first has it\r\n250 second has it\r\n250 ok\r\n250 ok\r\n354 go\r\n");
        EXPECT_FALSE(wire.content(text));
    });
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, transient));
    EXPECT_TRUE(out.end.stumbled);  // a simpler dialogue for this host
}

// A host that throws away what it has read behind the dot never sees the next MAIL; waiting for its answer again and
// again would cost a timeout a message.
TEST(SessionFault, F35_AHostThatDropsWhatFollowsTheDotIsRemembered) {
    MemoryFeed feed;
    for (int i = 0; i < 3; ++i) feed.add();
    const Dialogued out = talk(
        feed,
        [](Wire& wire) {
            wire.greet();
            wire.take_message();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.say("250 ok\r\n");
            (void)wire.rest();
        },
        with_timeout(Phase::mail, 200));
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, requeued));
    EXPECT_TRUE(out.end.stumbled);
}

}  // namespace
}  // namespace postrider
