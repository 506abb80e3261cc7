// The receiver's state machine alone: what it answers, what it keeps, and that no cut of the input changes either.
#include "tools/sink/smtp_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace postrider::sink {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Kept {
    std::string sender, content, message_id, verdict;
    std::vector<std::string> recipients;
    uint64_t size = 0, refused = 0;
    bool accepted = false;
    bool operator==(const Kept&) const = default;
};

class Keeper : public TransactionHandler {
  public:
    void on_transaction(const SinkTransaction& t) override {
        kept.push_back({std::string(t.sender), std::string(t.content), std::string(t.message_id),
                        std::string(t.verdict), {t.recipients.begin(), t.recipients.end()}, t.size,
                        t.refused_recipients, t.accepted});
    }
    std::vector<Kept> kept;
};

// A machine with its options and rules, fed in pieces.
struct Machine {
    explicit Machine(SinkOptions wanted = {}, const std::vector<std::string>& rule_texts = {})
        : options(std::move(wanted)) {
        options.keep_content = true;
        std::vector<Rule> parsed;
        for (const auto& text : rule_texts) parsed.push_back(parse_rule(text).value());
        if (!parsed.empty()) rules = std::make_unique<RuleSet>(std::move(parsed), 1);
        machine = std::make_unique<SmtpMachine>(MachineContext{options, rules.get(), &keeper, true}, 7,
                                                "127.0.0.1:40000", "127.0.0.1:25");
    }
    Flow feed(std::string_view in) { return flow = machine->feed(in, out, ++now_us); }
    std::string take() { return std::exchange(out, {}); }
    void hello() {
        feed("EHLO me.test\r\n");
        out.clear();
    }

    SinkOptions options;
    std::unique_ptr<RuleSet> rules;
    Keeper keeper;
    std::unique_ptr<SmtpMachine> machine;
    std::string out;
    Flow flow = Flow::go_on;
    int64_t now_us = 0;
};

TEST(SinkMachine, GroupedTransactionIsAnsweredReplyByReply) {
    Machine m;
    m.hello();
    m.feed("MAIL FROM:<a@b.test> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@f.test>\r\nDATA\r\n");
    EXPECT_EQ(m.take(), "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
    // The content, the dot and the next envelope in one flight.
    m.feed("Message-Id:  <1@b> \r\n\r\nhello\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
    EXPECT_EQ(m.take(), "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
    ASSERT_EQ(m.keeper.kept.size(), 1u);
    const Kept& kept = m.keeper.kept[0];
    EXPECT_EQ(kept.sender, "a@b.test");
    EXPECT_THAT(kept.recipients, ElementsAre("c@d.test", "e@f.test"));
    EXPECT_EQ(kept.content, "Message-Id:  <1@b> \r\n\r\nhello\r\n");
    EXPECT_EQ(kept.size, kept.content.size());
    EXPECT_EQ(kept.message_id, "<1@b>");
    EXPECT_TRUE(kept.accepted);
    EXPECT_EQ(m.machine->take_violations(), 0u);
}

TEST(SinkMachine, AnyCutGivesTheSameRepliesAndContents) {
    const std::string session =
        "EHLO me.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
        "Message-ID:\r\n <1@b>\r\n\r\n..stuffed\r\n\n.\r\n.x\r\n\r\r\n.\r.\r\n..\r\n.\r\n"
        "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 5\r\nab\r\n.BDAT 4 LAST\r\n\r\n.\r"
        "MAIL FROM:<>\r\nRCPT TO:<\"a b>\"@d.test>\r\nRSET\r\nNOOP\r\nMAIL FROM:<a@b.test>\r\nDATA\r\nQUIT\r\n";
    Machine whole;
    whole.feed(session);
    ASSERT_EQ(whole.keeper.kept.size(), 4u);
    EXPECT_EQ(whole.keeper.kept[0].content,
              "Message-ID:\r\n <1@b>\r\n\r\n.stuffed\r\n\n.\r\nx\r\n\r\r\n\r.\r\n.\r\n");
    EXPECT_EQ(whole.keeper.kept[0].message_id, "<1@b>");
    EXPECT_EQ(whole.keeper.kept[1].content, "ab\r\n.\r\n.\r");
    EXPECT_EQ(whole.keeper.kept[2].verdict, "aborted");
    EXPECT_THAT(whole.keeper.kept[2].recipients, ElementsAre("\"a b>\"@d.test"));
    EXPECT_THAT(whole.out, HasSubstr("354 End data"));
    EXPECT_TRUE(whole.out.ends_with("554 5.5.1 No valid recipients\r\n221 2.0.0 Bye\r\n"));
    for (size_t cut = 1; cut < session.size(); ++cut) {
        Machine m;
        m.feed(std::string_view(session).substr(0, cut));
        m.feed(std::string_view(session).substr(cut));
        ASSERT_EQ(m.out, whole.out) << "cut at " << cut;
        ASSERT_EQ(m.keeper.kept, whole.keeper.kept) << "cut at " << cut;
    }
    Machine drops;
    for (const char& c : session) drops.feed({&c, 1});
    EXPECT_EQ(drops.out, whole.out);
    EXPECT_EQ(drops.keeper.kept, whole.keeper.kept);
}

TEST(SinkMachine, OnlyCrlfDotCrlfEndsAMessage) {
    // The ways to smuggle (CVE-2023-51764 and its kin), each followed by the true end.
    for (const std::string_view middle : {"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\n.\r", "\r.\r\n",
                                          "\r\n\0.\r\n", "\r\n.\0\r\n"}) {
        Machine m;
        m.hello();
        m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
        m.feed("text");
        m.feed(middle);
        m.feed("QUIT");
        EXPECT_TRUE(m.keeper.kept.empty());
        m.feed("\r\n.\r\n");
        EXPECT_EQ(m.keeper.kept.size(), 1u);
    }
}

// What is sent stuffed comes back as it was, whatever lies at the edges of the pieces.
TEST(SinkMachine, StuffedContentComesBackAsItWas) {
    std::mt19937 random(20261123);
    for (int round = 0; round < 3000; ++round) {
        static constexpr char kAlphabet[] = "..\r\n\r\nab";
        std::string content;
        const size_t size = random() % 60;
        while (content.size() < size) content += kAlphabet[random() % (sizeof kAlphabet - 1)];
        content += "\r\n";
        std::string wire;
        for (size_t i = 0; i < content.size(); ++i) {
            const bool line_start = i == 0 || (i >= 2 && content[i - 1] == '\n' && content[i - 2] == '\r');
            if (line_start && content[i] == '.') wire += '.';
            wire += content[i];
        }
        wire += ".\r\n";
        Machine m;
        m.hello();
        m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
        for (std::string_view rest = wire; !rest.empty();) {
            const size_t piece = std::min<size_t>(1 + random() % 40, rest.size());
            m.feed(rest.substr(0, piece));
            rest.remove_prefix(piece);
        }
        ASSERT_EQ(m.keeper.kept.size(), 1u) << round;
        ASSERT_EQ(m.keeper.kept[0].content, content) << round;
    }
}

TEST(SinkMachine, RefusedRecipientsLeaveDataWithoutTakers) {
    Machine m({}, {"rcpt=*@busy.test reply=\"451 4.7.1 greylisted\""});
    m.hello();
    m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@BUSY.test>\r\nDATA\r\n");
    EXPECT_EQ(m.take(), "250 2.1.0 Ok\r\n451 4.7.1 greylisted\r\n554 5.5.1 No valid recipients\r\n");
    m.feed("RSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@busy.test>\r\nRCPT TO:<y@b.test>\r\nDATA\r\n");
    EXPECT_TRUE(m.take().ends_with("451 4.7.1 greylisted\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"));
    m.feed("x\r\n.\r\n");
    EXPECT_THAT(m.keeper.kept.back().recipients, ElementsAre("y@b.test"));
    EXPECT_EQ(m.keeper.kept.back().refused, 1u);
    EXPECT_EQ(m.machine->take_violations(), 0u);
    EXPECT_EQ(m.machine->take_rules_applied(), 2u);
}

TEST(SinkMachine, ChunksWithoutTransactionAreSwallowed) {
    Machine m;
    m.hello();
    m.feed("MAIL FROM:<bad\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    EXPECT_EQ(m.take(), "501 5.1.7 Bad sender address syntax\r\n503 5.5.1 No transaction for this chunk\r\n250 2.0.0 Ok\r\n");
}

TEST(SinkMachine, AfterARefusedChunkOnlyRsetHelps) {
    Machine m({}, {"dot=* reply=\"452 4.3.1 full\" times=1"});
    m.hello();
    const std::string transaction = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3 LAST\r\nx\r\n";
    m.feed(transaction);
    EXPECT_TRUE(m.take().ends_with("452 4.3.1 full\r\n"));
    m.feed(transaction);  // a sender that forgot the RSET
    EXPECT_EQ(m.take(), "503 5.5.1 A transaction is open\r\n503 5.5.1 MAIL first\r\n503 5.5.1 No transaction for this chunk\r\n");
    m.feed("RSET\r\n" + transaction);
    EXPECT_TRUE(m.take().ends_with("250 2.0.0 Ok\r\n"));
    EXPECT_TRUE(m.keeper.kept.back().accepted);
}

TEST(SinkMachine, FaultsOfTheClientAreViolations) {
    const auto violations = [](std::string_view session, SinkOptions options = {}) {
        Machine m(std::move(options));
        m.hello();
        m.feed(session);
        return m.machine->take_violations();
    };
    const std::string envelope = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n";
    EXPECT_EQ(violations(envelope), 0u);
    EXPECT_EQ(violations(envelope + "DATA\r\ntoo early\r\n.\r\n"), 1u);
    EXPECT_EQ(violations("NOOP\n"), 1u);
    EXPECT_EQ(violations(std::string(5000, 'x') + "\r\n"), 1u);
    EXPECT_EQ(violations("MAIL FROM: <a@b.test>\r\n"), 1u);
    EXPECT_EQ(violations("XYZZY\r\n"), 1u);
    EXPECT_EQ(violations(envelope + "MAIL FROM:<a@b.test>\r\n"), 1u);
    EXPECT_EQ(violations("QUIT\r\nNOOP\r\n"), 1u);
    EXPECT_EQ(violations("EHLO again\r\nNOOP\r\n"), 1u);
    EXPECT_EQ(violations("MAIL FROM:<a@b.test> BODY=8BITMIME\r\n", {.eight_bit_mime = false}), 1u);
    EXPECT_EQ(violations("BDAT 1 LAST\r\n", {.chunking = false}), 1u);
    EXPECT_EQ(violations("MAIL FROM:<a@b.test>\r\nRCPT TO:<\xc3\xa9@d.test>\r\n"), 1u);
    EXPECT_EQ(violations("MAIL FROM:<a@b.test> SMTPUTF8\r\nRCPT TO:<\xc3\xa9@d.test>\r\n"), 0u);
    EXPECT_EQ(violations("NOOP\r\nNOOP\r\n", {.pipelining = false}), 1u);
    EXPECT_EQ(violations("NOOP\r\n", {.pipelining = false}), 0u);
}

TEST(SinkMachine, PlainTextBehindStarttlsNeverReachesTheSecureSession) {
    Machine m;
    m.hello();
    EXPECT_EQ(m.feed("STARTTLS\r\nMAIL FROM:<evil@b.test>\r\n"), Flow::starttls);
    EXPECT_EQ(m.take(), "220 2.0.0 Ready to start TLS\r\n");
    EXPECT_EQ(m.machine->take_violations(), 1u);
    m.machine->secured("TLSv1.3");
    m.feed("MAIL FROM:<a@b.test>\r\n");
    EXPECT_EQ(m.take(), "503 5.5.1 EHLO first\r\n");
    m.feed("EHLO me.test\r\n");
    EXPECT_EQ(m.take().find("STARTTLS"), std::string::npos);
}

TEST(SinkMachine, RulesOfConnectAndStarttlsAreOfTheAddress) {
    Machine m({}, {"starttls=127.0.0.1 reply=\"454 4.7.0 not now\""});
    m.hello();
    m.feed("STARTTLS\r\n");
    EXPECT_EQ(m.take(), "454 4.7.0 not now\r\n");
}

TEST(SinkMachine, LimitsAreOfferedAndKept) {
    Machine m({.size_limit = 10, .recipients_limit = 1, .mail_limit = 2});
    m.feed("EHLO me.test\r\n");
    const std::string offer = m.take();
    EXPECT_THAT(offer, HasSubstr("250-SIZE 10\r\n"));
    EXPECT_THAT(offer, HasSubstr("250-LIMITS MAILMAX=2 RCPTMAX=1\r\n"));
    m.feed("MAIL FROM:<a@b.test> SIZE=11\r\n");
    EXPECT_EQ(m.take(), "552 5.3.4 Message too big\r\n");
    m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@d.test>\r\nDATA\r\n");
    EXPECT_THAT(m.take(), HasSubstr("452 4.5.3 Too many recipients\r\n"));
    m.feed("more than ten\r\n.\r\n");
    EXPECT_EQ(m.take(), "552 5.3.4 Message too big\r\n");
    EXPECT_FALSE(m.keeper.kept.back().accepted);
    m.feed("MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n");
    EXPECT_TRUE(m.take().ends_with("452 4.5.3 Too many messages in this session\r\n"));
}

TEST(SinkMachine, RepliesLoseTheirEnhancedCodesWhenNotOffered) {
    Machine m({.enhanced_status_codes = false});
    m.hello();
    m.feed("MAIL FROM:<a@b.test>\r\nDATA\r\n");
    EXPECT_EQ(m.take(), "250 Ok\r\n554 No valid recipients\r\n");
}

TEST(SinkMachine, RulesAtTheDotDecideWhatWasKept) {
    const std::string transaction = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3 LAST\r\nx\r\n";
    const auto end_with = [&](const std::string& rule) {
        auto m = std::make_unique<Machine>(SinkOptions{}, std::vector<std::string>{rule});
        m->hello();
        m->feed(transaction);
        return m;
    };
    auto m = end_with("dot=* action=close");
    EXPECT_EQ(m->flow, Flow::drop);
    EXPECT_EQ(m->out, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    EXPECT_FALSE(m->keeper.kept.back().accepted);
    m = end_with("dot=*@d.test action=reset reply=\"250 2.0.0 kept\"");
    EXPECT_EQ(m->flow, Flow::reset);
    EXPECT_TRUE(m->keeper.kept.back().accepted);
    m = end_with("dot=* action=hang");
    EXPECT_EQ(m->flow, Flow::hang);
    m = end_with("dot=* action=close-after-reply");
    EXPECT_EQ(m->flow, Flow::close);
    EXPECT_TRUE(m->out.ends_with("250 2.0.0 Ok\r\n"));
    EXPECT_TRUE(m->keeper.kept.back().accepted);
    m = end_with("dot=* action=garbage");
    EXPECT_TRUE(m->out.ends_with("*** this is no reply ***\r\n250 2.0.0 Ok\r\n"));
    EXPECT_EQ(m->keeper.kept.back().verdict, "250 2.0.0 Ok");
    m = end_with("dot=* reply=\"421 4.3.2 going\"");
    EXPECT_EQ(m->flow, Flow::close);
    m = end_with("dot=* action=slow");
    EXPECT_EQ(m->machine->pace(), Pace::slow);
    m = end_with("dot=* reply=\"550 5.7.1 one\\n550 5.7.1 two\"");
    EXPECT_TRUE(m->out.ends_with("550-5.7.1 one\r\n550 5.7.1 two\r\n"));
    EXPECT_EQ(m->keeper.kept.back().verdict, "550-5.7.1 one");
}

TEST(SinkMachine, DataAnswered250TakesNoContent) {
    Machine m({}, {"data=* reply=\"250 2.0.0 what\" times=1"});
    m.hello();
    m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
    EXPECT_TRUE(m.take().ends_with("250 2.0.0 what\r\n"));
    m.feed("RSET\r\n");
    EXPECT_EQ(m.take(), "250 2.0.0 Ok\r\n");
}

TEST(SinkMachine, ConnectRulesAndLimitsGreet) {
    Machine limited({.connections_per_mx = 2});
    EXPECT_EQ(limited.machine->greet(2, limited.out), Flow::go_on);
    EXPECT_TRUE(limited.take().starts_with("220 sink.test"));
    EXPECT_EQ(limited.machine->greet(3, limited.out), Flow::close);
    EXPECT_EQ(limited.take(), "421 4.7.0 Too many connections\r\n");
    EXPECT_EQ(limited.machine->take_limited(), 1u);
    Machine ruled({}, {"connect=127.0.0.1 limit=1", "connect=127.0.0.9 reply=\"554 5.3.2 no\""});
    EXPECT_EQ(ruled.machine->greet(1, ruled.out), Flow::go_on);
    ruled.out.clear();
    EXPECT_EQ(ruled.machine->greet(2, ruled.out), Flow::close);
    EXPECT_EQ(ruled.out, "421 4.7.0 Too many connections\r\n");
}

TEST(SinkMachine, BareLineEndsInContentAreFoundWithHash) {
    Machine m({.hash = true});
    m.hello();
    m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
    m.feed("clean\r\n.\r\n");
    EXPECT_EQ(m.machine->take_violations(), 0u);
    m.feed("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
    m.feed("bare\nline\r\n.\r\n");
    EXPECT_EQ(m.machine->take_violations(), 1u);
}

}  // namespace
}  // namespace postrider::sink
