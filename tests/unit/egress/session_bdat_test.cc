// Several transactions in flight by BDAT (RFC 3030; DESIGN 2.4), seen from the server's end: what is in flight, what each
// failure in the middle makes of those before it, in it and behind it.
#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::Dialogued;
using test::MemoryFeed;
using test::quick_options;
using test::talk;
using test::Wire;
using test::with_timeout;
using enum OutcomeKind;
using ::testing::Each;
using ::testing::ElementsAre;

constexpr char kChunking[] = "250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n";
constexpr char kTaken[] = "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 taken\r\n";

SessionOptions deep(size_t depth = 4) {
    SessionOptions options = quick_options();
    options.dialogue = Dialogue::bdat;
    options.pipeline_depth = depth;
    return options;
}

MemoryFeed feed_of(size_t messages) {
    MemoryFeed feed;
    for (size_t i = 0; i < messages; ++i) feed.add("Subject: " + std::to_string(i + 1) + "\r\n\r\nhello\r\n");
    return feed;
}

// The first two transactions of a session: DATA, then a chunk alone.
void prove(Wire& wire) {
    wire.greet(kChunking);
    wire.take_message();
    wire.chunk(false);
    EXPECT_TRUE(wire.silent(30));
    wire.say(kTaken);
}

// Chunks number `from` to `to` of one flight.
void read_flight(Wire& wire, int from, int to, bool first_reset = false) {
    for (int i = from; i <= to; ++i) {
        std::string recipient;
        EXPECT_EQ(wire.chunk(first_reset || i > from, &recipient), "Subject: " + std::to_string(i) + "\r\n\r\nhello\r\n");
        EXPECT_EQ(recipient, "r" + std::to_string(i) + "@test.example");
    }
}

TEST(SessionBdat, AsManyAsTheDepthAreInFlight) {
    MemoryFeed feed = feed_of(9);
    talk(
        feed,
        [](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 6);
            EXPECT_TRUE(wire.silent(50));
            wire.say(kTaken);  // of the third: the seventh takes its place
            read_flight(wire, 7, 7, true);
            EXPECT_TRUE(wire.silent(50));
            wire.say("250 reset\r\n" + std::string(kTaken) + "250 reset\r\n" + kTaken);
            read_flight(wire, 8, 9, true);
            for (int i = 6; i <= 9; ++i) {
                EXPECT_TRUE(wire.silent(20));  // FAULTS 30: QUIT waits for all
                wire.say("250 reset\r\n" + std::string(kTaken));
            }
            wire.end();
        },
        deep());
    EXPECT_THAT(feed.kinds(), Each(delivered));
    EXPECT_EQ(feed.intents.size(), 9u);
}

TEST(SessionBdat, WithoutChunkingTheNextEnvelopeFollowsTheDot) {
    MemoryFeed feed = feed_of(3);
    talk(
        feed,
        [](Wire& wire) {
            wire.greet();
            wire.take_message();
            wire.envelope();
            std::string text;
            EXPECT_TRUE(wire.content(text));
            wire.expect("MAIL FROM:");
            wire.expect("RCPT TO:");
            wire.expect("DATA");
            wire.say("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
            EXPECT_TRUE(wire.content(text));
            wire.say("250 ok\r\n");
            wire.end();
        },
        deep());
    EXPECT_THAT(feed.kinds(), Each(delivered));
}

// RFC 3030 2: no dot is stuffed; SIZE and chunk are the octets on the wire, whatever lies in the file.
TEST(SessionBdat, ContentsGoAsTheyAre) {
    MemoryFeed feed = feed_of(2);
    feed.add(".dot\r\n..\r\nlast\r\n");
    feed.add("one\n.two\nthree", StoredForm::plain);
    feed.add("..a\n...\n", StoredForm::stuffed_lf);
    feed.add(".." + std::string(300'000, 'x') + "\r\n", StoredForm::stuffed_crlf);
    feed.add("behind\r\n");
    talk(
        feed,
        [&](Wire& wire) {
            prove(wire);
            for (size_t i = 2; i < 6; ++i) EXPECT_EQ(wire.chunk(i > 2), feed.messages[i]->wire);
            wire.say(kTaken);
            EXPECT_EQ(wire.chunk(true), "behind\r\n");
            for (int i = 3; i < 7; ++i) wire.say("250 reset\r\n" + std::string(kTaken));
            wire.end();
        },
        deep());
    EXPECT_THAT(feed.kinds(), Each(delivered));
}

// The server does not read on before its replies are read, and replies while five megabytes are on their way (FAULTS 36).
TEST(SessionBdat, RepliesAreHeardWhileAChunkIsStreamed) {
    MemoryFeed feed = feed_of(3);
    feed.add(std::string(5'000'000, 'y') + "\r\n");
    feed.add("last\r\n");
    talk(
        feed,
        [&](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 3);
            wire.expect("RSET");
            wire.say(kTaken);
            ::usleep(50'000);
            wire.expect("MAIL FROM:");
            wire.expect("RCPT TO:");
            wire.say("250 reset\r\n250 ok\r\n250 ok\r\n");
            wire.expect("BDAT 5000002 LAST");
            EXPECT_EQ(wire.octets(5'000'002), feed.messages[3]->wire);
            EXPECT_EQ(wire.chunk(true), "last\r\n");
            wire.say("250 taken\r\n250 reset\r\n" + std::string(kTaken));
            wire.end();
        },
        deep(), 8192);
    EXPECT_THAT(feed.kinds(), Each(delivered));
}

// FAULTS 36: a hundred replies and more, each by itself, while nothing of the chunk is read: what is unsent stays bounded.
TEST(SessionBdat, RepliesOneByOneDoNotPileUpTheChunk) {
    MemoryFeed feed = feed_of(2);
    auto& large = feed.add(std::string(9'000'000, 'y') + "\r\n");
    for (RecordId id = 101; id < 220; ++id) large.transaction.add_recipient(id, "r" + std::to_string(id) + "@test.example");
    talk(
        feed,
        [&](Wire& wire) {
            prove(wire);
            wire.expect("MAIL FROM:");
            for (int i = 0; i < 120; ++i) wire.expect("RCPT TO:");
            wire.expect("BDAT 9000002 LAST");
            for (int i = 0; i < 121; ++i) {
                wire.say("250 ok\r\n");
                ::usleep(2'000);
            }
            EXPECT_TRUE(wire.octets(9'000'002) == large.wire);
            wire.say("250 taken\r\n");
            wire.end();
        },
        deep(), 8192);
    for (size_t i = 0; i < 120; ++i) EXPECT_EQ(large.kind(i), delivered);
}

// A reply in the middle that does not end the session settles its own and leaves the others in place.
TEST(SessionBdat, RefusalsInAFlightStayWithTheirTransaction) {
    MemoryFeed feed = feed_of(7);
    talk(
        feed,
        [](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 6);
            wire.say("250 ok\r\n550 5.1.1 nobody\r\n554 5.5.1 no valid recipients\r\n");  // FAULTS 10
            wire.say("250 reset\r\n250 ok\r\n250 ok\r\n452 4.3.1 disk is full\r\n");      // FAULTS 46
            wire.say("250 reset\r\n250 ok\r\n451 4.7.1 greylisted\r\n503 5.5.1 no recipients\r\n");
            wire.say("250 reset\r\n250 ok\r\n250 ok\r\n554 5.7.1 spam\r\n");
            read_flight(wire, 7, 7, true);
            wire.say("250 reset\r\n" + std::string(kTaken));
            wire.end();
        },
        deep());
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, bounced, transient, transient, bounced, delivered));
}

// DESIGN 2.4: after a refused MAIL nobody knows what the host made of the chunk, and of those behind it.
TEST(SessionBdat, ARefusedMailEndsTheSession) {
    MemoryFeed feed = feed_of(8);
    const Dialogued out = talk(
        feed,
        [](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 6);
            wire.say(kTaken);
            wire.say("250 reset\r\n450 4.7.1 slow down\r\n503 5.5.1 no MAIL\r\n503 5.5.1 no MAIL\r\n");
            EXPECT_EQ(wire.rest().find("QUIT"), std::string::npos);
        },
        deep());
    EXPECT_EQ(feed.messages[2]->kind(), delivered);
    EXPECT_EQ(feed.messages[3]->kind(), requeued);  // FAULTS 28
    EXPECT_FALSE(feed.messages[3]->outcome().possible_duplicate);
    EXPECT_EQ(feed.messages[4]->kind(), ambiguous);
    EXPECT_EQ(feed.messages[5]->kind(), ambiguous);
    EXPECT_TRUE(out.end.stumbled);
    EXPECT_FALSE(out.end.reusable);
    EXPECT_FALSE(out.end.may_quit);
}

TEST(SessionBdat, AResetRefusedEndsTheSession) {  // FAULTS 27
    MemoryFeed feed = feed_of(6);
    const Dialogued out = talk(
        feed,
        [](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 6);
            wire.say(kTaken);
            wire.say("500 5.5.1 what\r\n");
            (void)wire.rest();
        },
        deep());
    EXPECT_THAT(feed.kinds(), ElementsAre(delivered, delivered, delivered, ambiguous, ambiguous, ambiguous));
    EXPECT_FALSE(out.end.reusable);
}

enum class End { fin, reset, silence, closing, garbage, half_line };

class SessionBdatCut : public ::testing::TestWithParam<std::tuple<End, int>> {};

// The session ends after any number of replies: those answered are final, those in flight and not one more are in doubt,
// those not begun are untouched.
TEST_P(SessionBdatCut, NoMoreIsInDoubtThanWasInFlight) {
    const auto [end, replies] = GetParam();
    if (end == End::silence && replies % 5 != 2) return;  // the wait is long, the places are enough
    MemoryFeed feed = feed_of(9);
    SessionOptions options = deep();
    for (const Phase phase : {Phase::mail, Phase::rcpt, Phase::bdat, Phase::rset})
        options.timeouts_ms[static_cast<size_t>(phase)] = 500;
    const Dialogued out = talk(
        feed,
        [end, replies](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 6);
            std::string all = kTaken;
            for (int i = 0; i < 3; ++i) all += "250 reset\r\n" + std::string(kTaken);
            size_t at = 0;
            for (int i = 0; i < replies; ++i) at = all.find("\r\n", at) + 2;
            all.resize(at);
            if (end == End::closing) all += "421 4.3.2 closing\r\n";
            if (end == End::garbage) all += "what?\r\n";
            if (end == End::half_line) all += "250 2.";
            wire.say(all);
            if (end == End::reset) ::usleep(20'000), wire.reset();
            if (end == End::silence) EXPECT_EQ(wire.rest().find("QUIT"), std::string::npos);
        },
        options);
    const int answered = replies < 3 ? 0 : 1 + (replies - 3) / 4;
    // Behind an answered one the next of the feed has taken its place, unless all came in one.
    for (size_t i = 0; i < feed.messages.size(); ++i) {
        const auto& message = *feed.messages[i];
        const int number = static_cast<int>(i) + 1;
        if (number <= 2 + answered) {
            EXPECT_EQ(message.kind(), delivered) << number;
        } else if (!message.transaction.done()) {
            EXPECT_GT(number, 6) << "what was in flight is settled";
        } else if (end == End::closing && number == 3 + answered) {  // FAULTS 5: this one is answered
            EXPECT_FALSE(message.outcome().possible_duplicate);
        } else {
            EXPECT_EQ(message.kind(), ambiguous) << number;
            EXPECT_TRUE(message.outcome().possible_duplicate);
            EXPECT_LE(number, 6 + answered);
        }
    }
    EXPECT_LE(std::ranges::count(feed.kinds(), ambiguous), 4);
    EXPECT_FALSE(out.end.reusable);
    EXPECT_FALSE(out.end.may_quit);
    if (end == End::garbage) EXPECT_TRUE(out.end.stumbled);
}

INSTANTIATE_TEST_SUITE_P(All, SessionBdatCut,
                         ::testing::Combine(::testing::Values(End::fin, End::reset, End::silence, End::closing, End::garbage,
                                                              End::half_line),
                                            ::testing::Range(0, 15)));

// FAULTS 38, 15: a chunk answered twice is met while it is alone in flight.
TEST(SessionBdat, AChunkAnsweredTwiceIsNoticedBeforeOthersFollow) {
    MemoryFeed feed = feed_of(6);
    talk(
        feed,
        [](Wire& wire) {
            wire.greet(kChunking);
            wire.take_message();
            wire.chunk(false);
            wire.say(std::string(kTaken) + "250 2.0.0 taken\r\n");
            EXPECT_EQ(wire.rest(), "");
        },
        deep());
    EXPECT_EQ(feed.messages[0]->kind(), delivered);
    EXPECT_EQ(feed.messages[1]->kind(), delivered);
    EXPECT_EQ(feed.messages[2]->kind(), requeued);
    EXPECT_EQ(feed.ends.size(), 3u);
}

// FAULTS 51: announced and not to be had any more: no LAST is ever complete.
TEST(SessionBdat, AFileThatChangedEndsTheSession) {
    MemoryFeed feed = feed_of(6);
    feed.messages[4]->changed = true;
    std::string seen;
    talk(
        feed,
        [&](Wire& wire) {
            prove(wire);
            seen = wire.rest();
        },
        deep());
    EXPECT_EQ(feed.messages[4]->kind(), transient);  // an attempt: else it would be tried without end
    for (size_t i : {2, 3, 5}) EXPECT_EQ(feed.messages[i]->kind(), requeued) << i;  // nothing of the flight has left
    // An answer that is not taken would stay with a message, and be that of its next content.
    for (size_t i : {2, 3, 4, 5}) EXPECT_EQ(feed.messages[i]->looks, 1u) << i;
    EXPECT_EQ(seen, "");
    EXPECT_EQ(feed.ends.size(), 6u);
}

// Content of about `size` octets, by lines: with CRLF it goes as it lies.
std::string lines(size_t size, std::string_view end) {
    std::string text;
    while (text.size() < size) (text += "a line of a large message") += end;
    return text;
}

// What comes of the third message, which is streamed, until the client has closed; what was announced in `size`.
std::string streamed(MemoryFeed& feed, size_t& size) {
    std::string content;
    talk(
        feed,
        [&](Wire& wire) {
            prove(wire);
            wire.expect("MAIL FROM:");
            wire.expect("RCPT TO:");
            size = static_cast<size_t>(std::atoll(wire.line().c_str() + 5));
            content = wire.rest();
        },
        with_timeout(Phase::mail, 300, deep()));
    return content;
}

// FAULTS 51: a chunk has no dot to keep back, so its last octet is: the host has nothing to deliver.
TEST(SessionBdat, AStreamedFileThatChangedIsNeverWhole) {
    for (const size_t length : {62'000u, 131'072u, 400'000u}) {
        for (const char* end : {"\r\n", "\n"}) {
            SCOPED_TRACE(length);
            MemoryFeed feed = feed_of(2);
            auto& large = feed.add(lines(length, end));
            large.changed = true;
            size_t size = 0;
            EXPECT_LT(streamed(feed, size).size(), size);
            EXPECT_EQ(size, large.wire.size());
            EXPECT_EQ(large.kind(), transient);
            EXPECT_EQ(feed.intents.size(), 2u);
        }
    }
}

// FAULTS 46: octets beyond the announced size would be read as commands.
TEST(SessionBdat, AStreamedFileOfAnotherSizeThanWasAnnouncedIsNeverWhole) {
    for (const size_t surplus : {1u, 100u, 150'000u, 300'000u}) {
        SCOPED_TRACE(surplus);
        MemoryFeed feed = feed_of(2);
        auto& large = feed.add(lines(400'000, "\n"));
        large.content.wire_size -= surplus;
        large.transaction.set_message("sender@test.example", {.wire_size = large.content.wire_size});
        size_t size = 0;
        EXPECT_LT(streamed(feed, size).size(), size);
        EXPECT_EQ(size, large.wire.size() - surplus);
        EXPECT_EQ(large.kind(), transient);
        EXPECT_EQ(feed.intents.size(), 2u);
    }
}

// The last that goes to the wire may lie far before the end of the file.
TEST(SessionBdat, WhatIsLeftOutAtTheEndDoesNotLetTheLastOctetGo) {
    for (const bool changed : {true, false}) {
        MemoryFeed feed = feed_of(2);
        auto& large = feed.add(lines(400'000, "\n"));
        const size_t kept = large.wire.size() / 27 / 2;  // lines
        large.content.removed = {{kept * 26, large.content.stored.size - kept * 26}};
        large.content.wire_size = kept * 27;
        large.transaction.set_message("sender@test.example", {.wire_size = kept * 27});
        large.changed = changed;
        size_t size = 0;
        const std::string got = streamed(feed, size);
        EXPECT_EQ(size, kept * 27);
        EXPECT_EQ(got == large.wire.substr(0, size), !changed);
        EXPECT_LE(got.size(), size);
        EXPECT_EQ(feed.intents.size(), changed ? 2u : 3u);
    }
}

// Those before it were handed over, and have left.
TEST(SessionBdat, AStreamedFileThatChangedKeepsNothingBackOfTheOthers) {
    MemoryFeed feed = feed_of(3);
    auto& large = feed.add(lines(62'000, "\r\n"));
    large.changed = true;
    talk(
        feed,
        [](Wire& wire) {
            prove(wire);
            read_flight(wire, 3, 3);
            EXPECT_LT(wire.rest().size(), 62'000u);
        },
        deep());
    EXPECT_EQ(feed.messages[2]->kind(), ambiguous);
    EXPECT_EQ(large.kind(), transient);
}

// After a rest the first goes alone, by DATA: a session that the peer has closed meanwhile leaves nothing in doubt.
TEST(SessionBdat, AfterARestTheFirstGoesAlone) {
    MemoryFeed feed = feed_of(3), more = feed_of(5);
    test::Shard shard;
    test::Peer peer([](int fd) {
        Wire wire(fd);
        prove(wire);
        read_flight(wire, 3, 3);
        wire.say(kTaken);
        wire.take_message();
        read_flight(wire, 2, 5);
        for (int i = 0; i < 4; ++i) wire.say((i ? "250 reset\r\n" : "") + std::string(kTaken));
        wire.end();
    });
    auto rest_and_go_on = [](test::Shard& here, SocketAddress to, MemoryFeed& first, MemoryFeed& second) -> Task<void> {
        Connection connection(*here.reactor, here.buffers);
        EXPECT_EQ(co_await connection.connect(to, {}, here.in_ms(5'000)), 0);
        Session session(*here.reactor, connection, deep());
        EXPECT_FALSE((co_await session.open()).has_value());
        EXPECT_TRUE((co_await session.carry(first)).reusable);
        const SessionEnd end = co_await session.carry(second);
        EXPECT_TRUE(end.reusable);
        co_await session.quit(end.may_quit);
    };
    shard.run(rest_and_go_on(shard, peer.address, feed, more));
    peer.join();
    EXPECT_THAT(more.kinds(), Each(delivered));
}

}  // namespace
}  // namespace postrider
