// FAULTS 1-9 as dialogues: the final reply, closing hosts, refused recipients.
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

}  // namespace
}  // namespace postrider
