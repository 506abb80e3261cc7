// FAULTS 1-38 as dialogues, as far as they are the transaction's. Greeting, EHLO and the connection's own faults are
// in trouble_test.cc, the reply parser's in reply_test.cc.
#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

TEST(Fault, GoodDialogueOneCommandAtATime) {
    Script(R"(
        host 8BITMIME
        message 1 a@x.test b@x.test
        begin 1 message
        > MAIL FROM:<s@sender.test>
        = need_reply
        awaits MAIL FROM
        < 250 ok
        > RCPT TO:<a@x.test>
        = send_more
        < 250 ok
        > RCPT TO:<b@x.test>
        awaits RCPT TO
        < 250 ok
        > DATA
        = send_more
        awaits DATA
        < 354 go
        = send_content
        awaits content
        handed 1
        awaits end of data
        < 250 2.0.0 queued
        = done
        @ a@x.test delivered 250 2.0.0
        @ b@x.test delivered 250 2.0.0
    )");
}

TEST(Fault, GoodDialogueInOneGroup) {
    Script(R"(
        host PIPELINING SIZE=10000 8BITMIME DSN
        message 1 a@x.test dsn:NOTIFY=NEVER b@x.test
        facts 1 size=5000 8bit headers envid=QQ1
        begin 1 group
        > MAIL FROM:<s@sender.test> SIZE=5000 BODY=8BITMIME RET=HDRS ENVID=QQ1
        > RCPT TO:<a@x.test> NOTIFY=NEVER
        > RCPT TO:<b@x.test>
        > DATA
        = need_reply
        < 250 ok
        < 250 ok
        < 250 ok
        = need_reply
        < 354 go
        = send_content
        handed 1
        < 250 queued
        = done
        @ a@x.test delivered 250
        @ b@x.test delivered 250
    )");
}

TEST(Fault, Fault01FinalReplyLost) {
    for (const char* trouble : {"lost", "timeout", "shutting_down"}) {
        Script(std::string(R"(
            message 1 a@x.test b@x.test
            begin 1 group
            > MAIL FROM:<s@sender.test>
            > RCPT TO:<a@x.test>
            > RCPT TO:<b@x.test>
            > DATA
            < 250 ok
            < 250 ok
            < 550 5.1.1 no such user
            < 354 go
            handed 1
            lost )") + trouble + R"(
            @ a@x.test ambiguous 451 4.)" + (std::string(trouble) == "shutting_down" ? "3.2" : "4.2") + R"(
            @ b@x.test bounced 550 5.1.1
        )");
    }
}

TEST(Fault, Fault01LostWhileTheContentIsSentIsNotAmbiguous) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        lost lost
        @ a@x.test transient 451 4.4.2
    )");
}

TEST(Fault, Fault02TheFinalReplyIsAwaitedTenMinutes) {
    Script script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        awaits end of data
        < 250 ok
        @ a@x.test delivered 250
    )");
    EXPECT_EQ(info_of(Phase::dot).timeout_ms, 600'000);
}

// The window is a bit of its own: what crashes here is flagged on restart (FAULTS 3).
TEST(Fault, Fault03InFlightFromTheLastOctetToTheReply) {
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    transaction.add_recipient(1, "a@x.test");
    Capabilities host;
    host.pipelining = true;
    std::string out;
    transaction.begin(host, Dialogue::group, {}, out);
    transaction.on_reply(reply_of("250 ok\r\n"), out);
    transaction.on_reply(reply_of("250 ok\r\n"), out);
    transaction.on_reply(reply_of("354 go\r\n"), out);
    EXPECT_FALSE(transaction.in_flight());
    transaction.content_handed_over();
    EXPECT_TRUE(transaction.in_flight());
    transaction.on_reply(reply_of("250 ok\r\n"), out);
    EXPECT_FALSE(transaction.in_flight());
}

TEST(Fault, Fault04ResetBehindTheFinalReply) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 250 2.0.0 ok
        lost lost
        @ a@x.test delivered 250 2.0.0
    )");
}

TEST(Fault, Fault05ClosingToAnyCommand) {
    // To MAIL, to DATA and to the final dot of a fresh session: the attempt counts, nothing is ambiguous.
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 421 4.3.2 shutting down
        = end_session
        @ a@x.test transient 421 4.3.2
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 421 too busy
        = end_session
        @ a@x.test transient 421
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 421 4.7.0 too much
        = end_session
        @ a@x.test transient 421 4.7.0
    )");
}

TEST(Fault, Fault06ClosingBetweenRcptReplies) {
    Script(R"(
        message 1 a@x.test b@x.test c@x.test d@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > RCPT TO:<c@x.test>
        > RCPT TO:<d@x.test>
        > DATA
        < 250 ok
        < 550 5.1.1 no
        < 250 ok
        < 421 4.3.2 bye
        = end_session
        @ a@x.test bounced 550 5.1.1
        @ b@x.test transient 421 4.3.2
        @ c@x.test transient 421 4.3.2
        @ d@x.test transient 421 4.3.2
    )");
}

TEST(Fault, Fault07ClosedBehindARefusalOfMail) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 550 5.7.1 blocked
        = need_reply
        lost lost
        @ a@x.test bounced 550 5.7.1
        @ b@x.test bounced 550 5.7.1
    )");
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 550 5.1.1 no
        lost lost connection reset by peer
        @ a@x.test bounced 550 5.1.1
        @ b@x.test transient 451 4.4.2
    )");
}

TEST(Fault, Fault08SomeRecipientsRefused) {
    for (const char* dialogue : {"group", "none"}) {
        const bool group = std::string(dialogue) == "group";
        const std::string begin = R"(
            message 1 a@x.test b@x.test c@x.test
            begin 1 )";
        const std::string rest = R"(
            handed 1
            < 250 2.0.0 ok
            = done
            @ a@x.test bounced 550 5.1.1
            @ b@x.test delivered 250 2.0.0
            @ c@x.test transient 450 4.2.1
        )";
        const std::string sent = group ? R"(
            > MAIL FROM:<s@sender.test>
            > RCPT TO:<a@x.test>
            > RCPT TO:<b@x.test>
            > RCPT TO:<c@x.test>
            > DATA
            < 250 ok
            < 550 5.1.1 no
            < 250 ok
            < 450 4.2.1 later
            < 354 go)"
                                       : R"(
            > MAIL FROM:<s@sender.test>
            < 250 ok
            > RCPT TO:<a@x.test>
            < 550 5.1.1 no
            > RCPT TO:<b@x.test>
            < 250 ok
            > RCPT TO:<c@x.test>
            < 450 4.2.1 later
            > DATA
            < 354 go)";
        Script(begin + dialogue + sent + rest);
    }
}

TEST(Fault, Fault09AllRefusedButDataIsAnswered354) {
    for (const char* last : {"250 2.0.0 queued as nothing", "554 5.5.1 no valid recipients"}) {
        Script(std::string(R"(
            message 1 a@x.test b@x.test
            begin 1 group
            > MAIL FROM:<s@sender.test>
            > RCPT TO:<a@x.test>
            > RCPT TO:<b@x.test>
            > DATA
            < 250 ok
            < 550 5.1.1 no
            < 451 4.7.1 greylisted
            < 354 go
            = send_dot_only
            > .
            awaits end of data
            < )") + last + R"(
            = done_reset_first
            @ a@x.test bounced 550 5.1.1
            @ b@x.test transient 451 4.7.1
        )");
    }
}

TEST(Fault, Fault09TheReplyToTheLoneDotIsOutOfStep) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 550 5.1.1 no
        < 354 go
        > .
        < 354 go on
        = end_session
        @ a@x.test bounced 550 5.1.1
    )");
}

TEST(Fault, Fault10AllRefusedAndDataToo) {
    for (const char* data : {"503 5.5.1 RCPT first", "554 5.5.1 no valid recipients", "451 no"}) {
        Script(std::string(R"(
            message 1 a@x.test
            begin 1 group
            > MAIL FROM:<s@sender.test>
            > RCPT TO:<a@x.test>
            > DATA
            < 250 ok
            < 550 5.1.1 no
            < )") + data + R"(
            = done_reset_first
            @ a@x.test bounced 550 5.1.1
        )");
    }
    // MAIL refused too: there is no transaction to reset.
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 550 5.7.1 not you
        < 503 5.5.1 MAIL first
        < 503 5.5.1 RCPT first
        = done
        @ a@x.test bounced 550 5.7.1
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 550 5.1.1 no
        = done_reset_first
        @ a@x.test bounced 550 5.1.1
    )");
}

TEST(Fault, Fault11DataRefused) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 550 5.1.1 no
        < 451 4.3.0 not now
        = done_reset_first
        @ a@x.test transient 451 4.3.0
        @ b@x.test bounced 550 5.1.1
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 250 ok
        > DATA
        < 554 5.7.1 policy
        = done_reset_first
        @ a@x.test bounced 554 5.7.1
    )");
}

TEST(Fault, Fault12DataAnswered250) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 250 ok
        = end_session
        @ a@x.test transient 451 4.5.0
    )");
}

TEST(Fault, Fault13RepliesWhileTheContentIsSent) {
    const std::string until_354 = R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        = send_content
        < )";
    Script(until_354 + R"(552 5.3.4 too big
        = end_session
        @ a@x.test bounced 552 5.3.4
    )");
    Script(until_354 + R"(452 4.3.1 disk full
        = end_session
        @ a@x.test transient 452 4.3.1
    )");
    Script(until_354 + R"(250 2.0.0 thanks already
        = end_session
        @ a@x.test ambiguous 250 2.0.0
    )");
    Script(until_354 + R"(354 go on
        = end_session
        @ a@x.test transient 451 4.5.0
    )");
    Script(until_354 + R"(421 bye
        = end_session
        @ a@x.test transient 421
    )");
}

TEST(Fault, Fault13Twice354BehindTheDot) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 354 go on
        = end_session
        @ a@x.test ambiguous 451 4.5.0
    )");
}

TEST(Fault, Fault14PrematureReplies) {
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        = send_more
        > RCPT TO:<a@x.test>
        lost premature_reply
        @ a@x.test transient 451 4.5.0
    )");
    // Nothing was sent at all.
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    transaction.add_recipient(1, "a@x.test");
    std::string out;
    EXPECT_EQ(transaction.on_reply(reply_of("250 ok\r\n"), out), Transaction::Step::end_session);
    EXPECT_TRUE(transaction.done());
    EXPECT_FALSE(transaction.may_quit());
    EXPECT_EQ(transaction.outcome(0).kind, OutcomeKind::requeued);
}

TEST(Fault, Fault15GarbageBetweenReplies) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 550 5.1.1 no
        lost bad_reply
        @ a@x.test bounced 550 5.1.1
        @ b@x.test transient 451 4.5.0
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        lost bad_reply
        @ a@x.test ambiguous 451 4.5.0
    )");
}

TEST(Fault, Fault16ClosingReplyIsNoDelivery) {
    for (const char* reply : {"221 2.0.0 bye", "220 mx.test ready", "211 help", "235 ok"}) {
        Script(std::string(R"(
            message 1 a@x.test
            begin 1 group
            > MAIL FROM:<s@sender.test>
            > RCPT TO:<a@x.test>
            > DATA
            < 250 ok
            < 250 ok
            < 354 go
            handed 1
            < )") + reply + R"(
            = end_session
            @ a@x.test ambiguous 451 4.5.0
        )");
    }
}

// FAULTS 17-21 are the parser's (reply_test.cc); what it calls bad comes here as a lost session.
TEST(Fault, Fault17To21ABadReplyNeverDelivers) {
    for (const char* reply : {"850 ok\r\n", "250ok\r\n", "2500 ok\r\n", "25\r\n", "250-a\r\n251 b\r\n"}) {
        ReplyParser parser;
        EXPECT_EQ(parser.feed(reply).state, ReplyState::bad);
    }
    EXPECT_EQ(judge(Trouble::bad_reply).kind, OutcomeKind::transient);
    EXPECT_EQ(judge(Trouble::bad_reply).scope, Scope::session);
    EXPECT_EQ(judge_in_flight(Trouble::bad_reply).kind, OutcomeKind::ambiguous);
}

TEST(Fault, Fault22EnhancedCodeDisagrees) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 5.1.1 ok
        < 250 5.1.1 ok
        < 450 5.1.1 later
        < 354 go
        handed 1
        < 250 4.0.0 ok
        = done
        @ a@x.test delivered 250 4.0.0
        @ b@x.test transient 450 5.1.1
    )");
}

TEST(Fault, Fault23TooManyRecipientsBy552) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 552 too many recipients
        < 354 go
        handed 1
        < 250 ok
        = done
        @ a@x.test delivered 250
        @ b@x.test requeued 552
    )");
    // Alone, or said of the mailbox, it means what it says.
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 552 too many recipients
        = done_reset_first
        @ a@x.test bounced 552
    )");
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 552 5.2.2 mailbox full
        < 354 go
        handed 1
        < 250 ok
        = done
        @ a@x.test delivered 250
        @ b@x.test bounced 552 5.2.2
    )");
}

TEST(Fault, Fault24TooManyRecipientsBy452) {
    Script(R"(
        message 1 a@x.test b@x.test c@x.test d@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > RCPT TO:<c@x.test>
        > RCPT TO:<d@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 452 4.5.3 too many
        < 452 too many
        < 451 4.5.3 too many
        < 354 go
        handed 1
        < 250 ok
        = done
        @ a@x.test delivered 250
        @ b@x.test requeued 452 4.5.3
        @ c@x.test requeued 452
        @ d@x.test requeued 451 4.5.3
    )");
    // The accepted ones fail later: the rest stays without penalty.
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 250 ok
        > RCPT TO:<b@x.test>
        < 452 4.5.3 too many
        > DATA
        < 354 go
        handed 1
        < 550 5.7.1 spam
        = done
        @ a@x.test bounced 550 5.7.1
        @ b@x.test requeued 452 4.5.3
    )");
    // Nobody accepted: a transient failure that counts, or the same mail would turn for ever.
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 452 4.3.1 no space
        < 452 4.5.3 too many
        < 503 no
        = done_reset_first
        @ a@x.test transient 452 4.3.1
        @ b@x.test transient 452 4.5.3
    )");
}

TEST(Fault, Fault25ForwardedAndMoved) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 251 will forward
        < 551 5.1.6 try <b@y.test>
        < 354 go
        handed 1
        < 250 ok
        = done
        @ a@x.test delivered 250
        @ b@x.test bounced 551 5.1.6
    )");
}

TEST(Fault, Fault26HostTakesNoMail) {
    Script script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 521 5.3.2 no mail here
        = end_session
        @ a@x.test bounced 521 5.3.2
    )");
    EXPECT_EQ(script.transaction(1).outcome(0).scope, Scope::site) << "no other MX is tried";
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 556 5.1.10 null MX
        = done_reset_first
        @ a@x.test bounced 556 5.1.10
    )");
}

TEST(Fault, Fault27ResetRefused) {
    Script(R"(
        message 1 a@x.test
        begin 1 group reused reset
        > RSET
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        awaits RSET
        < 500 what
        = end_session
        @ a@x.test requeued 451 4.5.0
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 none reused reset
        > RSET
        < 250 clean
        = send_more
        > MAIL FROM:<s@sender.test>
        < 550 5.7.1 no
        = done
        @ a@x.test bounced 550 5.7.1
    )");
}

TEST(Fault, Fault28SecondMessageIsNotPunishedForTheSession) {
    for (const char* reply : {"503 5.5.1 nested MAIL", "451 4.7.0 slow down"}) {
        const std::string codes = std::string(reply).substr(0, 9);
        Script script(std::string(R"(
            message 1 a@x.test
            begin 1 none reused
            > MAIL FROM:<s@sender.test>
            < )") + reply + R"(
            = end_session
            @ a@x.test requeued )" + codes + "\n");
        EXPECT_TRUE(script.transaction(1).may_quit());
    }
    // In a group the replies behind it are read before the session ends in good order.
    Script script(R"(
        message 1 a@x.test
        begin 1 message reused
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 451 4.7.0 too many messages
        = need_reply
        < 503 MAIL first
        < 503 RCPT first
        = end_session
        @ a@x.test requeued 451 4.7.0
    )");
    EXPECT_TRUE(script.transaction(1).may_quit());
    // The same on a fresh session is said of the message; a clear refusal is one on any.
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 451 4.7.0 slow down
        = done
        @ a@x.test transient 451 4.7.0
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 none reused
        > MAIL FROM:<s@sender.test>
        < 550 5.7.1 blocked
        = done
        @ a@x.test bounced 550 5.7.1
    )");
}

TEST(Fault, Fault29IdleSessionClosedByThePeer) {
    Script(R"(
        message 1 a@x.test
        begin 1 group reused
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        lost lost
        @ a@x.test requeued 451 4.4.2
    )");
    // A fresh session that breaks at MAIL is an attempt: a host that always does so must not be tried at once again.
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        lost timeout
        @ a@x.test transient 451 4.4.2
    )");
}

TEST(Fault, Fault30WhatHappensAtQuitChangesNothing) {
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 250 ok
        > DATA
        < 354 go
        handed 1
        < 250 ok
        = done
        lost timeout
        < 500 what
        = end_session
        @ a@x.test delivered 250
    )");
    EXPECT_EQ(info_of(Phase::quit).timeout_ms, 5'000);
}

TEST(Fault, Fault34TheSlowHost) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        lost too_slow
        @ a@x.test transient 451 4.4.2
    )");
}

TEST(Fault, Fault35NoPipeliningWhereNoneIsOffered) {
    for (const char* wanted : {"group", "message", "bdat"}) {
        Script(std::string(R"(
            host CHUNKING 8BITMIME
            message 1 a@x.test
            begin 1 )") + wanted + R"(
            > MAIL FROM:<s@sender.test>
            < 250 ok
            > RCPT TO:<a@x.test>
            < 250 ok
            > DATA
            < 354 go
            handed 1
            < 250 ok
            @ a@x.test delivered 250
        )");
    }
    Script(R"(
        host PIPELINING
        message 1 a@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        = need_reply
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 250 ok
        @ a@x.test delivered 250
    )");
}

// FAULTS 36: replies are taken in any amount between sends; 37: a half-closed peer is a lost one.
TEST(Fault, Fault36And37RepliesDoNotWaitForSends) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > BDAT 0 LAST
        = send_content
        < 250 ok
        < 250 ok
        < 550 5.1.1 no
        = need_reply
        handed 1
        lost lost
        @ a@x.test ambiguous 451 4.4.2
        @ b@x.test bounced 550 5.1.1
    )");
}

TEST(Fault, Fault38OneFinalReplyForEachRecipient) {
    // As LMTP would answer: the first speaks for all, the second ends the session.
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 250 ok
        < 354 go
        handed 1
        < 250 ok
        = done
        < 550 ok
        = end_session
        @ a@x.test delivered 250
        @ b@x.test delivered 250
    )");
}

TEST(Fault, RepliesOutOfStepToMailAndRcpt) {
    Script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 354 go
        = end_session
        @ a@x.test transient 451 4.5.0
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 none
        > MAIL FROM:<s@sender.test>
        < 250 ok
        > RCPT TO:<a@x.test>
        < 221 bye
        = end_session
        @ a@x.test transient 451 4.5.0
    )");
}

// A host that refused MAIL and takes recipients has lost its mind; a dot would send an empty message.
TEST(Fault, RecipientAcceptedBehindARefusedMail) {
    Script script(R"(
        message 1 a@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 450 4.1.8 who are you
        < 250 ok
        = end_session
        @ a@x.test transient 450 4.1.8
    )");
    EXPECT_FALSE(script.transaction(1).may_quit());
}

}  // namespace
}  // namespace postrider
