// FAULTS 23-38 as dialogues: limits of recipients, session state, pipelining. Greeting, EHLO and the connection's own
// faults are in trouble_test.cc.
#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

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
