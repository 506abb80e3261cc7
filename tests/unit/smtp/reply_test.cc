// The reply parser: RFC 5321 4.2 against whatever a host may send.
#include "engine/smtp/reply.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/core/limits.h"

namespace postrider {
namespace {

struct Parsed {
    std::vector<Reply> replies;
    ReplyFault fault = ReplyFault::none;
    size_t consumed = 0;
    bool idle = true;
};

// Feeds `octets` in blocks of the sizes `next_size` gives.
template <class NextSize>
Parsed parse(std::string_view octets, NextSize next_size) {
    ReplyParser parser;
    Parsed parsed;
    std::string_view block;
    while (true) {
        if (block.empty()) {
            if (octets.empty()) break;
            block = octets.substr(0, next_size());
            octets.remove_prefix(block.size());
        }
        const auto progress = parser.feed(block);
        EXPECT_LE(progress.consumed, block.size());
        parsed.consumed += progress.consumed;
        block.remove_prefix(progress.consumed);
        if (progress.state == ReplyState::complete) parsed.replies.push_back(parser.reply());
        if (progress.state == ReplyState::partial) EXPECT_TRUE(block.empty());
        if (progress.state == ReplyState::bad) {
            parsed.fault = parser.fault();
            break;
        }
    }
    parsed.idle = parser.idle();
    return parsed;
}

Parsed parse(std::string_view octets) {
    return parse(octets, [] { return std::string_view::npos; });
}

ReplyFault fault_of(std::string_view octets) { return parse(octets).fault; }

TEST(Reply, OneLine) {
    const Parsed parsed = parse("250 2.1.5 Ok\r\n");
    ASSERT_EQ(parsed.replies.size(), 1U);
    const Reply& reply = parsed.replies[0];
    EXPECT_EQ(reply.code, 250);
    EXPECT_TRUE(reply.positive());
    EXPECT_EQ(reply.enhanced, (EnhancedCode{2, 1, 5}));
    EXPECT_EQ(reply.text, "2.1.5 Ok");
    EXPECT_TRUE(parsed.idle);
}

TEST(Reply, MultiLineKeepsEveryLine) {
    const Parsed parsed = parse("250-mx.test\r\n250-\r\n250-SIZE 10\r\n250 DSN\r\n");
    ASSERT_EQ(parsed.replies.size(), 1U);
    EXPECT_EQ(parsed.replies[0].text, "mx.test\n\nSIZE 10\nDSN");
}

TEST(Reply, CodeAloneIsAReply) {
    EXPECT_EQ(parse("250\r\n").replies.at(0).text, "");
    EXPECT_EQ(parse("250 \r\n").replies.at(0).text, "");
    EXPECT_EQ(parse("354-\r\n354\r\n").replies.at(0).code, 354);
}

TEST(Reply, EnhancedCodeOfTheFirstLineThatHasOne) {
    EXPECT_EQ(parse("550-hello\r\n550-5.7.1 no\r\n550 5.1.1 x\r\n").replies.at(0).enhanced,
              (EnhancedCode{5, 7, 1}));
    for (const char* none : {"550 5.1 no\r\n", "550 5.1.1x\r\n", "550 3.1.1 no\r\n", "550 5.1234.1 no\r\n",
                             "550 5.1.1234 no\r\n", "550 5..1 no\r\n", "550 55.1.1 no\r\n", "354 5.1.1 go\r\n"})
        EXPECT_FALSE(parse(none).replies.at(0).enhanced.present()) << none;
    EXPECT_EQ(parse("550 5.123.999\r\n").replies.at(0).enhanced, (EnhancedCode{5, 123, 999}));
}

// FAULTS 17.
TEST(Reply, Fault17CodesOutsideTheTable) {
    for (const char* line : {"850 x", "150 x", "600 x", "050 x", "2500", "25", "2", "", "abc", "25o ok", "250ok",
                             "250_ok", " 250 ok", "-250 ok", "250\tok", "+250 ok", "HTTP/1.1 400 Bad Request"})
        EXPECT_EQ(fault_of(std::string(line) + "\r\n"), ReplyFault::not_a_reply) << line;
    EXPECT_EQ(parse("571 x\r\n").replies.at(0).code, 571);  // an unknown code: the first digit decides
}

// FAULTS 18.
TEST(Reply, Fault18CodeChangesInsideAReply) {
    EXPECT_EQ(fault_of("250-a\r\n550 b\r\n"), ReplyFault::different_codes);
    EXPECT_EQ(fault_of("250-a\r\n251-b\r\n"), ReplyFault::different_codes);
    EXPECT_EQ(fault_of("250-a\r\n\r\n"), ReplyFault::not_a_reply);
}

// FAULTS 19.
TEST(Reply, Fault19EndlessRepliesEndAndTakeNoMemory) {
    std::string lines;
    while (lines.size() <= limits::kReplyTotal) lines += "250-go on and on and on\r\n";
    EXPECT_EQ(fault_of(lines), ReplyFault::too_long);
    ReplyParser parser;
    const std::string block(65536, '2');
    ReplyState state = ReplyState::partial;
    size_t fed = 0;
    while (state == ReplyState::partial && fed <= 2 * limits::kReplyTotal) {
        state = parser.feed(block).state;
        fed += block.size();
        EXPECT_LE(parser.reply().text.capacity(), 2 * limits::kReplyKept);
    }
    EXPECT_EQ(state, ReplyState::bad);
    EXPECT_EQ(parser.fault(), ReplyFault::too_long);
    EXPECT_EQ(parser.feed("250 ok\r\n").state, ReplyState::bad) << "bad until reset";
    parser.reset();
    EXPECT_EQ(parser.feed("250 ok\r\n").state, ReplyState::complete);
}

TEST(Reply, TheLongestReplyIsAccepted) {
    std::string whole = "250 ";
    whole.resize(limits::kReplyTotal - 2, 'x');
    whole += "\r\n";
    const Parsed parsed = parse(whole);
    ASSERT_EQ(parsed.replies.size(), 1U);
    EXPECT_EQ(parsed.replies[0].text.size(), limits::kReplyLine - 4);
    whole.insert(4, "y");
    EXPECT_EQ(fault_of(whole), ReplyFault::too_long);
}

TEST(Reply, KeptTextIsBounded) {
    std::string octets;
    for (int i = 0; i < 100; ++i) octets += "250-" + std::string(500, 'x') + "\r\n";
    octets += "250 end\r\n";
    const Parsed parsed = parse(octets);
    ASSERT_EQ(parsed.replies.size(), 1U);
    EXPECT_EQ(parsed.replies[0].text.size(), limits::kReplyKept);
}

// FAULTS 20.
TEST(Reply, Fault20BareLfEndsALineAndTheLogIsCensored) {
    const Parsed parsed = parse("250-a\n250 b\n550 5.1.1 \x1b[31mr\rd\x01 \xff caf\xc3\xa9 \xc2\x9b\n");
    ASSERT_EQ(parsed.replies.size(), 2U);
    EXPECT_EQ(parsed.replies[0].text, "a\nb");
    std::string text = "old";
    log_text(parsed.replies[1], text);
    EXPECT_EQ(text, "?[31mr?d? ? caf\xc3\xa9 ??");
    const Parsed nul = parse(std::string_view("250 a\0b\r\n", 9));
    log_text(nul.replies.at(0), text);
    EXPECT_EQ(text, "a?b");
}

TEST(Reply, LogTextJoinsLinesDropsCodesAndIsBounded) {
    std::string text;
    log_text(parse("550-5.7.1 We do not\r\n550-\r\n550 5.7.1 want this.\r\n").replies.at(0), text);
    EXPECT_EQ(text, "We do not want this.");
    log_text(parse("250 2.0.0\r\n").replies.at(0), text);
    EXPECT_EQ(text, "");
    log_text(parse("250 3.4.5 version\r\n").replies.at(0), text);
    EXPECT_EQ(text, "3.4.5 version");
    std::string octets = "250 x";
    for (int i = 0; i < 800; ++i) octets += "\xc3\xa9";
    log_text(parse(octets + "\r\n").replies.at(0), text);
    EXPECT_EQ(text.size(), limits::kReplyLogged - 1) << "no half of a character at the bound";
    EXPECT_EQ(text.back(), '\xa9');
}

TEST(Reply, LogTextRefusesBrokenUtf8) {
    const struct {
        const char* in;
        const char* out;
    } cases[] = {
        {"\xc0\xaf", "??"},          // overlong
        {"\xe0\x80\xaf", "???"},     // overlong
        {"\xed\xa0\x80", "???"},     // surrogate
        {"\xf4\x90\x80\x80", "????"},  // above U+10FFFF
        {"\xf0\x8f\xbf\xbf", "????"},
        {"\xe2\x82", "??"},           // cut
        {"\xe2\x82\xac", "\xe2\x82\xac"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
    };
    std::string text;
    for (const auto& [in, expected] : cases) {
        log_text(parse(std::string("250 ") + in + "\r\n").replies.at(0), text);
        EXPECT_EQ(text, expected);
    }
}

// FAULTS 21.
TEST(Reply, Fault21ManyRepliesInOnePacket) {
    const Parsed parsed = parse("250 a\r\n250-b\r\n250 c\r\n354 go\r\n2");
    ASSERT_EQ(parsed.replies.size(), 3U);
    EXPECT_EQ(parsed.replies[2].code, 354);
    EXPECT_FALSE(parsed.idle);
}

TEST(Reply, Fault21AnySplitGivesTheSameResult) {
    std::mt19937 random(20);
    const std::string_view pieces[] = {"250 ok\r\n", "250-first\r\n250 last\n", "354 go\r\n", "550 5.1.1 no\r\n", "220-",
                                       "250 ", "\r\n", "\n", "\r", "4", "abc", "421 4.3.2 bye\r\n"};
    size_t replies = 0;
    size_t faults = 0;
    for (int round = 0; round < 20'000; ++round) {
        std::string octets;
        for (unsigned n = random() % 6 + 1; n > 0; --n)
            octets += pieces[random() % (random() % 4 == 0 ? std::size(pieces) : 4)];
        const Parsed whole = parse(octets);
        const Parsed single = parse(octets, [] { return size_t{1}; });
        const Parsed split = parse(octets, [&] { return random() % 5 + 1; });
        for (const Parsed* other : {&single, &split}) {
            ASSERT_TRUE(whole.replies == other->replies) << octets;
            ASSERT_EQ(whole.fault, other->fault) << octets;
            ASSERT_EQ(whole.consumed, other->consumed) << octets;
            ASSERT_EQ(whole.idle, other->idle) << octets;
        }
        replies += whole.replies.size();
        faults += whole.fault != ReplyFault::none;
    }
    EXPECT_GT(replies, 10'000U);
    EXPECT_GT(faults, 1'000U);
}

TEST(Reply, SplitOfAnEndlessReplyIsTheSame) {
    std::string octets = "250-";
    octets.resize(limits::kReplyTotal + 10, 'x');
    const Parsed whole = parse(octets);
    const Parsed split = parse(octets, [] { return size_t{1000}; });
    EXPECT_EQ(whole.fault, ReplyFault::too_long);
    EXPECT_EQ(split.fault, ReplyFault::too_long);
    EXPECT_EQ(whole.consumed, limits::kReplyTotal);
    EXPECT_EQ(split.consumed, limits::kReplyTotal);
}

// FAULTS 22: 250 5.1.1 is a success, 550 2.1.5 a failure.
TEST(Reply, Fault22TheBasicCodeDecides) {
    EXPECT_TRUE(parse("250 5.1.1 fine\r\n").replies.at(0).positive());
    EXPECT_TRUE(parse("550 2.1.5 not fine\r\n").replies.at(0).permanent());
}

}  // namespace
}  // namespace postrider
