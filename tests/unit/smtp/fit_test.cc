// What a host cannot take is settled before MAIL: FAULTS 42-49 as far as they are the dialogue's, RFC 9422.
#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

TEST(Fit, Fault44EightBitWithout8bitmime) {
    Script(R"(
        host PIPELINING
        message 1 a@x.test b@x.test
        facts 1 8bit
        begin 1 group
        = done
        @ a@x.test bounced 554 5.6.3
        @ b@x.test bounced 554 5.6.3
    )");
}

TEST(Fit, Fault45Smtputf8PerRecipient) {
    Script(R"(
        host PIPELINING
        message 1 müller@x.test plain@x.test idn@xn--bcher-kva.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<plain@x.test>
        > RCPT TO:<idn@xn--bcher-kva.test>
        > DATA
        < 250 ok
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 250 ok
        = done
        @ müller@x.test bounced 553 5.6.7
        @ plain@x.test delivered 250
        @ idn@xn--bcher-kva.test delivered 250
    )");
}

TEST(Fit, Fault45Smtputf8IsAskedForWhenNeeded) {
    Script(R"(
        host PIPELINING SMTPUTF8
        message 1 plain@x.test müller@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test> SMTPUTF8
        > RCPT TO:<plain@x.test>
        > RCPT TO:<müller@x.test>
        > DATA
        < 550 5.7.1 no
        < 503 no
        < 503 no
        < 503 no
        = done
        @ plain@x.test bounced 550 5.7.1
        @ müller@x.test bounced 550 5.7.1
    )");
    Script(R"(
        host PIPELINING SMTPUTF8
        message 1 plain@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<plain@x.test>
        > DATA
        lost lost
        @ plain@x.test transient 451 4.4.2
    )");
    // Headers that need it: the whole message.
    Script(R"(
        message 1 a@x.test
        facts 1 utf8
        begin 1 group
        = done
        @ a@x.test bounced 553 5.6.7
    )");
    Script(R"(
        message 1 a@x.test
        sender 1 müller@sender.test
        begin 1 group
        = done
        @ a@x.test bounced 553 5.6.7
    )");
}

TEST(Fit, Fault46ExactCountAndNoSecondBdat) {
    Script(R"(
        message 1 a@x.test
        facts 1 size=123456
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > BDAT 123456 LAST
        = send_content
        < 250 ok
        < 250 ok
        handed 1
        < 452 4.3.1 no space
        = done_reset_first
        @ a@x.test transient 452 4.3.1
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > BDAT 0 LAST
        < 250 ok
        < 250 ok
        < 554 5.6.0 stop that
        = end_session
        @ a@x.test bounced 554 5.6.0
    )");
}

TEST(Fit, Fault47SizeTooSmallTriesTheNextHost) {
    Script script(R"(
        host PIPELINING SIZE=1000
        message 1 a@x.test
        facts 1 size=1001
        begin 1 group
        = done
        @ a@x.test bounced 552 5.3.4
    )");
    EXPECT_EQ(script.transaction(1).outcome(0).scope, Scope::host);
    Transaction& again = script.transaction(1);
    again.restart();
    Capabilities host;
    std::string out;
    EXPECT_EQ(again.begin(host, Dialogue::group, {}, out), Transaction::Step::need_reply);
    EXPECT_EQ(out, "MAIL FROM:<s@sender.test>\r\n");
    again.on_session_lost(Trouble::shutting_down);
}

TEST(Fit, Fault48NoLimitIsNoLimit) {
    for (const char* size : {"SIZE", "SIZE=0", "SIZE=x", "SIZE=18446744073709551617", "SIZE=1001"}) {
        Script(std::string("host PIPELINING ") + size + R"(
            message 1 a@x.test
            facts 1 size=1001
            begin 1 group
            > MAIL FROM:<s@sender.test> SIZE=1001
            > RCPT TO:<a@x.test>
            > DATA
            < 550 no
            < 503 no
            < 503 no
            @ a@x.test bounced 550
        )");
    }
}

TEST(Fit, Fault49AnAddressWritesNoCommands) {
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    transaction.add_recipient(1, "a@x.test\r\nRCPT TO:<victim@y.test>");
    transaction.add_recipient(2, "a@x.test", "NOTIFY=NEVER\r\nRSET");
    transaction.add_recipient(3, "good@x.test");
    Capabilities host;
    host.pipelining = true;
    std::string out;
    EXPECT_EQ(transaction.begin(host, Dialogue::group, {}, out), Transaction::Step::need_reply);
    EXPECT_EQ(out, "MAIL FROM:<s@sender.test>\r\nRCPT TO:<good@x.test>\r\nDATA\r\n");
    transaction.on_session_lost(Trouble::lost);
    EXPECT_EQ(text_of(transaction.outcome(0).enhanced), "5.1.3");
    EXPECT_EQ(text_of(transaction.outcome(1).enhanced), "5.1.3");
    EXPECT_EQ(transaction.outcome(2).kind, OutcomeKind::transient);

    for (const char* envid : {"ok\r\nRSET", "a b", "\"a b\""}) {
        transaction.reset();
        MessageFacts facts;
        facts.envid = envid;
        transaction.set_message("s@sender.test", facts);
        transaction.add_recipient(1, "a@x.test");
        host.dsn = true;
        out.clear();
        EXPECT_EQ(transaction.begin(host, Dialogue::group, {}, out), Transaction::Step::done);
        EXPECT_EQ(out, "");
        EXPECT_EQ(text_of(transaction.outcome(0).enhanced), "5.1.7");
    }
}

TEST(Fit, RcptMaxOfTheHost) {
    Capabilities host;
    host.rcpt_max = 2;
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    for (const char* to : {"bad address", "a@x.test", "b@x.test", "c@x.test"}) transaction.add_recipient(1, to);
    std::string out;
    transaction.begin(host, Dialogue::none, {}, out);
    EXPECT_EQ(transaction.replies_due(), 1U);
    for (const char* reply : {"250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"})
        transaction.on_reply(reply_of(reply), out);
    transaction.content_handed_over();
    EXPECT_EQ(transaction.on_reply(reply_of("250 ok\r\n"), out), Transaction::Step::done);
    EXPECT_EQ(out, "MAIL FROM:<s@sender.test>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n");
    EXPECT_EQ(transaction.outcome(0).kind, OutcomeKind::bounced);
    EXPECT_EQ(transaction.outcome(2).kind, OutcomeKind::delivered);
    EXPECT_EQ(transaction.outcome(3).kind, OutcomeKind::requeued);
}

TEST(Fit, DsnOnlyWhereOffered) {
    Script(R"(
        host PIPELINING
        message 1 a@x.test dsn:NOTIFY=SUCCESS dsn:ORCPT=rfc822;a@x.test
        facts 1 full envid=QQ1
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        lost lost
        @ a@x.test transient 451 4.4.2
    )");
    Script(R"(
        host PIPELINING DSN
        message 1 a@x.test dsn:NOTIFY=SUCCESS dsn:ORCPT=rfc822;a@x.test
        facts 1 full envid=QQ1
        begin 1 group
        > MAIL FROM:<s@sender.test> RET=FULL ENVID=QQ1
        > RCPT TO:<a@x.test> NOTIFY=SUCCESS ORCPT=rfc822;a@x.test
        > DATA
        lost lost
        @ a@x.test transient 451 4.4.2
    )");
}

TEST(Fit, WhatThePeerOrTheSystemSaidIsOneBoundedLine) {
    Script script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 550-5.1.1 no
        < 550 5.1.1 such user
        lost lost connection reset by peer
        @ a@x.test bounced 550 5.1.1
        @ b@x.test transient 451 4.4.2
    )");
    const Outcome& refused = script.transaction(1).outcome(0);
    EXPECT_EQ(refused.text, "no such user");
    EXPECT_FALSE(refused.local);
    EXPECT_EQ(name_of(refused.phase), "RCPT TO");
    const Outcome& lost = script.transaction(1).outcome(1);
    EXPECT_EQ(lost.text, "connection lost: connection reset by peer");
    EXPECT_TRUE(lost.local);
}

}  // namespace
}  // namespace postrider
