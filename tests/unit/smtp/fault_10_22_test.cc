// FAULTS 10-22 as dialogues: replies that refuse, come early, or cannot be there. The parser's are in reply_test.cc.
#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

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

}  // namespace
}  // namespace postrider
