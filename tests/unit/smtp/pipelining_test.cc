// Several transactions of one session in flight: the next envelope behind the last content, and BDAT in depth.
#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

const char* const kTwoInFlight = R"(
    message 1 a@x.test
    message 2 b@x.test c@x.test
    begin 1 group
    > MAIL FROM:<s@sender.test>
    > RCPT TO:<a@x.test>
    > DATA
    < 250 ok
    < 250 ok
    < 354 go
    = send_content
    begin 2 message reused
    > MAIL FROM:<s@sender.test>
    > RCPT TO:<b@x.test>
    > RCPT TO:<c@x.test>
    > DATA
    handed 1
)";

TEST(Message, NextEnvelopeBehindTheContent) {
    Script(std::string(kTwoInFlight) + R"(
        < 250 2.0.0 first
        = done
        awaits MAIL FROM
        < 250 ok
        < 250 ok
        < 550 5.1.1 no
        < 354 go
        = send_content
        handed 2
        < 250 2.0.0 second
        = done
        @ a@x.test delivered 250 2.0.0
        @ b@x.test delivered 250 2.0.0
        @ c@x.test bounced 550 5.1.1
    )");
}

TEST(Message, FirstRefusedAtItsDotAndTheNextGoesOn) {
    Script(std::string(kTwoInFlight) + R"(
        < 554 5.7.1 spam
        = done
        < 250 ok
        < 250 ok
        < 250 ok
        < 354 go
        handed 2
        < 250 ok
        @ a@x.test bounced 554 5.7.1
        @ b@x.test delivered 250
        @ c@x.test delivered 250
    )");
}

TEST(Message, ClosingToTheDotReturnsTheNextUntouched) {
    Script(std::string(kTwoInFlight) + R"(
        < 421 4.3.2 bye
        = end_session
        lost lost
        @ a@x.test transient 421 4.3.2
        @ b@x.test requeued 451 4.4.2
        @ c@x.test requeued 451 4.4.2
    )");
}

TEST(Message, ClosingToTheNextMailReturnsItUntouched) {
    Script(std::string(kTwoInFlight) + R"(
        < 250 ok
        < 421 4.7.0 enough messages
        = end_session
        @ a@x.test delivered 250
        @ b@x.test requeued 421 4.7.0
        @ c@x.test requeued 421 4.7.0
    )");
}

TEST(Message, LostBehindTheDot) {
    Script(std::string(kTwoInFlight) + R"(
        lost lost
        @ a@x.test ambiguous 451 4.4.2
        @ b@x.test requeued 451 4.4.2
        @ c@x.test requeued 451 4.4.2
    )");
}

TEST(Message, EarlyRefusalOfTheFirstReturnsTheNext) {
    Script(R"(
        message 1 a@x.test
        message 2 b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 250 ok
        < 354 go
        begin 2 message reused
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 552 5.3.4 too big
        = end_session
        lost out_of_step
        @ a@x.test bounced 552 5.3.4
        @ b@x.test requeued 451 4.5.0
    )");
}

// A surplus reply shifts the stream by one: it must end at DATA at the latest, with nothing delivered by it.
TEST(Message, SurplusReplyBetweenTwoTransactions) {
    Script(std::string(kTwoInFlight) + R"(
        < 250 first
        < 250 surplus
        < 250 mail
        < 250 rcpt
        < 250 rcpt
        = end_session
        @ a@x.test delivered 250
        @ b@x.test transient 451 4.5.0
        @ c@x.test transient 451 4.5.0
    )");
}

TEST(Message, ResetOpensTheNextFlight) {
    Script(R"(
        message 1 a@x.test
        message 2 b@x.test
        begin 1 group
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > DATA
        < 250 ok
        < 550 no
        < 554 no
        = done_reset_first
        begin 2 message reused reset
        > RSET
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<b@x.test>
        > DATA
        < 250 reset
        < 250 ok
        < 250 ok
        < 354 go
        handed 2
        < 250 ok
        = done
        @ a@x.test bounced 550
        @ b@x.test delivered 250
    )");
}

const char* const kBdat = R"(
    message 1 a@x.test
    message 2 b@x.test
    message 3 c@x.test
    begin 1 bdat
    > MAIL FROM:<s@sender.test>
    > RCPT TO:<a@x.test>
    > BDAT 0 LAST
    handed 1
    begin 2 bdat reused reset
    > RSET
    > MAIL FROM:<s@sender.test>
    > RCPT TO:<b@x.test>
    > BDAT 0 LAST
    handed 2
    begin 3 bdat reused reset
    > RSET
    > MAIL FROM:<s@sender.test>
    > RCPT TO:<c@x.test>
    > BDAT 0 LAST
)";

TEST(Bdat, ThreeInFlight) {
    Script(std::string(kBdat) + R"(
        handed 3
        < 250 ok
        < 250 ok
        awaits BDAT LAST
        < 250 2.0.0 one
        = done
        awaits RSET
        < 250 reset
        < 250 ok
        < 250 ok
        < 250 2.0.0 two
        < 250 reset
        < 250 ok
        < 250 ok
        < 250 2.0.0 three
        = done
        @ a@x.test delivered 250 2.0.0
        @ b@x.test delivered 250 2.0.0
        @ c@x.test delivered 250 2.0.0
    )");
}

TEST(Bdat, RefusedChunkIsFollowedByTheResetThatIsAlreadySent) {
    Script(std::string(kBdat) + R"(
        handed 3
        < 250 ok
        < 550 5.1.1 no
        < 554 5.5.1 no recipients
        = done_reset_first
        < 250 reset
        < 250 ok
        < 250 ok
        < 451 4.3.0 later
        = done_reset_first
        < 250 reset
        < 250 ok
        < 250 ok
        < 250 three
        = done
        @ a@x.test bounced 550 5.1.1
        @ b@x.test transient 451 4.3.0
        @ c@x.test delivered 250
    )");
}

TEST(Bdat, LostWithThreeInFlight) {
    // The third's content was still being sent: it cannot have been taken.
    Script(std::string(kBdat) + R"(
        < 250 ok
        < 250 ok
        < 250 one
        lost lost
        @ a@x.test delivered 250
        @ b@x.test ambiguous 451 4.4.2
        @ c@x.test requeued 451 4.4.2
    )");
}

TEST(Bdat, MailRefusedMakesEveryLaterSuccessAmbiguous) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > BDAT 0 LAST
        handed 1
        < 451 4.7.1 not now
        < 503 MAIL first
        < 503 MAIL first
        < 250 2.0.0 taken after all
        = end_session
        @ a@x.test ambiguous 250 2.0.0
        @ b@x.test ambiguous 250 2.0.0
    )");
    Script(std::string(kBdat) + R"(
        handed 3
        < 550 5.7.1 blocked
        < 503 MAIL first
        < 503 MAIL first
        = end_session
        lost out_of_step
        @ a@x.test bounced 550 5.7.1
        @ b@x.test ambiguous 451 4.5.0
        @ c@x.test ambiguous 451 4.5.0
    )");
}

TEST(Bdat, RecipientAcceptedBehindARefusedMailIsOpenAgain) {
    Script(R"(
        message 1 a@x.test b@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > RCPT TO:<b@x.test>
        > BDAT 0 LAST
        handed 1
        < 550 5.7.1 blocked
        < 250 ok
        < 503 MAIL first
        lost lost
        @ a@x.test ambiguous 451 4.4.2
        @ b@x.test bounced 550 5.7.1
    )");
}

TEST(Bdat, EarlyAndUnwantedSuccess) {
    Script(R"(
        message 1 a@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > BDAT 0 LAST
        < 250 ok
        < 250 ok
        awaits content
        < 250 already
        = end_session
        @ a@x.test ambiguous 250
    )");
    Script(R"(
        message 1 a@x.test
        begin 1 bdat
        > MAIL FROM:<s@sender.test>
        > RCPT TO:<a@x.test>
        > BDAT 0 LAST
        handed 1
        < 250 ok
        < 550 5.1.1 no
        < 250 for whom
        = end_session
        @ a@x.test bounced 550 5.1.1
    )");
}

TEST(Bdat, ResetRefusedInFlight) {
    Script(std::string(kBdat) + R"(
        handed 3
        < 250 ok
        < 250 ok
        < 250 one
        < 500 no RSET here
        = end_session
        lost out_of_step
        @ a@x.test delivered 250
        @ b@x.test ambiguous 451 4.5.0
        @ c@x.test ambiguous 451 4.5.0
    )");
}

// Whom an intent must name before the last octet goes out.
TEST(Transaction, WhoAwaitsTheFinalReply) {
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    for (const char* to : {"a@x.test", "b@x.test", "not a path"}) transaction.add_recipient(1, to);
    Capabilities host;
    host.pipelining = host.chunking = true;
    const auto awaiting = [&] {
        std::string who;
        for (size_t i = 0; i < transaction.size(); ++i) who += transaction.awaits_final(i) ? '+' : '-';
        return who;
    };
    std::string out;
    transaction.begin(host, Dialogue::group, {}, out);
    EXPECT_EQ(awaiting(), "---");
    for (const char* reply : {"250 ok\r\n", "550 no\r\n", "250 ok\r\n", "354 go\r\n"})
        transaction.on_reply(reply_of(reply), out);
    EXPECT_EQ(awaiting(), "-+-");
    transaction.restart();
    transaction.begin(host, Dialogue::bdat, {}, out);
    EXPECT_EQ(awaiting(), "++-") << "the content is behind the RCPTs, answered or not";
    transaction.on_reply(reply_of("250 ok\r\n"), out);
    transaction.on_reply(reply_of("550 no\r\n"), out);
    EXPECT_EQ(awaiting(), "-+-");
}

TEST(Transaction, NeverBegunIsSettledAsTold) {
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    transaction.add_recipient(1, "a@x.test");
    Outcome outcome;
    outcome.kind = OutcomeKind::transient;
    outcome.text = "connection refused";
    transaction.settle_unbegun(outcome);
    transaction.on_session_lost(Trouble::lost);
    EXPECT_TRUE(transaction.done());
    EXPECT_EQ(transaction.outcome(0).kind, OutcomeKind::transient);
    EXPECT_EQ(transaction.outcome(0).text, "connection refused");
}

TEST(Transaction, RepliesDueAreCounted) {
    Transaction transaction;
    transaction.set_message("s@sender.test", {});
    transaction.add_recipient(1, "a@x.test");
    transaction.add_recipient(2, "b@x.test");
    Capabilities host;
    host.pipelining = host.chunking = true;
    for (const auto dialogue : {Dialogue::group, Dialogue::bdat}) {
        transaction.restart();
        std::string out;
        transaction.begin(host, dialogue, {.reused_session = true, .reset_first = true}, out);
        EXPECT_TRUE(transaction.begins_with_reset());
        size_t due = 5;
        EXPECT_EQ(transaction.replies_due(), due);
        while (--due > 0) {
            transaction.on_reply(reply_of("250 ok\r\n"), out);
            EXPECT_EQ(transaction.replies_due(), due);
        }
        if (dialogue == Dialogue::group) {
            transaction.on_reply(reply_of("354 go\r\n"), out);
            EXPECT_EQ(transaction.replies_due(), 1U);
        }
        transaction.content_handed_over();
        EXPECT_EQ(transaction.on_reply(reply_of("250 ok\r\n"), out), Transaction::Step::done);
        EXPECT_EQ(transaction.replies_due(), 0U);
    }
}

}  // namespace
}  // namespace postrider
