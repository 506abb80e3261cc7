// The verdicts: what each situation of FAULTS means and what it condemns.
#include "engine/smtp/trouble.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

Answer said(Phase phase, std::string_view line) { return answer(phase, reply_of(std::string(line) + "\r\n")); }

void expect_refusal(Phase phase, std::string_view line, bool reused, OutcomeKind kind, Scope scope,
                    bool ends_session) {
    const Reply reply = reply_of(std::string(line) + "\r\n");
    ASSERT_EQ(answer(phase, reply), Answer::refused) << line;
    const Refusal refusal = judge_refusal(phase, reply, reused);
    EXPECT_EQ(name_of(refusal.kind), name_of(kind)) << name_of(phase) << " " << line;
    EXPECT_EQ(refusal.scope, scope) << name_of(phase) << " " << line;
    EXPECT_EQ(refusal.ends_session, ends_session) << name_of(phase) << " " << line;
}

using enum OutcomeKind;

TEST(Trouble, Fault05ClosingReplies) {
    expect_refusal(Phase::greeting, "421 busy", false, transient, Scope::host, true);
    expect_refusal(Phase::idle, "421 4.4.2 idle too long", true, transient, Scope::host, true);
    expect_refusal(Phase::mail, "421 busy", false, transient, Scope::host, true);
    expect_refusal(Phase::mail, "421 busy", true, requeued, Scope::session, true);
    expect_refusal(Phase::rcpt, "421 busy", true, transient, Scope::host, true);
    expect_refusal(Phase::dot, "421 busy", true, transient, Scope::host, true);
    EXPECT_EQ(said(Phase::idle, "250 hello"), Answer::out_of_step);
}

TEST(Trouble, Fault26HostOrDomainTakesNoMail) {
    expect_refusal(Phase::greeting, "521 no mail", false, bounced, Scope::site, true);
    expect_refusal(Phase::ehlo, "521 no mail", false, bounced, Scope::site, true);
    expect_refusal(Phase::mail, "556 null MX", false, bounced, Scope::site, true);
    expect_refusal(Phase::rcpt, "556 5.1.10 null MX", false, bounced, Scope::recipient, false);
}

TEST(Trouble, Fault31EhloRefused) {
    EXPECT_TRUE(helo_may_help(reply_of("500 what\r\n")));
    EXPECT_TRUE(helo_may_help(reply_of("502 not here\r\n")));
    EXPECT_TRUE(helo_may_help(reply_of("550 no\r\n")));
    EXPECT_FALSE(helo_may_help(reply_of("521 no mail\r\n")));
    EXPECT_FALSE(helo_may_help(reply_of("451 later\r\n")));
    EXPECT_FALSE(helo_may_help(reply_of("250 ok\r\n")));
    expect_refusal(Phase::ehlo, "451 later", false, transient, Scope::host, true);
    expect_refusal(Phase::helo, "550 5.7.1 blocked", false, bounced, Scope::host, true);
    EXPECT_EQ(said(Phase::ehlo, "250 mx"), Answer::accepted);
    EXPECT_EQ(said(Phase::ehlo, "220 mx"), Answer::out_of_step);
    EXPECT_EQ(said(Phase::helo, "354 mx"), Answer::out_of_step);
}

TEST(Trouble, Fault33Greeting) {
    EXPECT_EQ(said(Phase::greeting, "220 mx.test ESMTP"), Answer::accepted);
    EXPECT_EQ(said(Phase::greeting, "250 mx.test ESMTP"), Answer::out_of_step);
    expect_refusal(Phase::greeting, "554 5.7.1 not you", false, transient, Scope::host, true);
    expect_refusal(Phase::greeting, "450 later", false, transient, Scope::host, true);
    EXPECT_EQ(info_of(Phase::greeting).timeout_ms, 300'000);
    EXPECT_EQ(said(Phase::connect, "220 early"), Answer::out_of_step);
}

TEST(Trouble, Fault60Starttls) {
    EXPECT_EQ(said(Phase::starttls, "220 go"), Answer::accepted);
    EXPECT_EQ(said(Phase::starttls, "250 go"), Answer::out_of_step);
    EXPECT_EQ(said(Phase::starttls, "354 go"), Answer::out_of_step);
    expect_refusal(Phase::starttls, "454 4.7.0 not now", false, transient, Scope::host, false);
    expect_refusal(Phase::starttls, "502 what", false, transient, Scope::host, false);
    for (const auto trouble : {Trouble::tls_not_offered, Trouble::tls_refused, Trouble::tls_failed, Trouble::tls_injection}) {
        EXPECT_EQ(judge(trouble).kind, transient) << name_of(trouble);
        EXPECT_EQ(judge(trouble).scope, Scope::host) << name_of(trouble);
    }
}

TEST(Trouble, AnswersOfTheTransaction) {
    EXPECT_EQ(said(Phase::mail, "250 ok"), Answer::accepted);
    EXPECT_EQ(said(Phase::mail, "299 ok"), Answer::accepted);  // an unknown code: its first digit
    EXPECT_EQ(said(Phase::rcpt, "251 forwarded"), Answer::accepted);
    EXPECT_EQ(said(Phase::rcpt, "252 cannot verify"), Answer::accepted);
    EXPECT_EQ(said(Phase::data, "354 go"), Answer::accepted);
    EXPECT_EQ(said(Phase::data, "355 go"), Answer::out_of_step);
    EXPECT_EQ(said(Phase::data, "250 ok"), Answer::out_of_step);
    EXPECT_EQ(said(Phase::dot, "250 ok"), Answer::accepted);
    EXPECT_EQ(said(Phase::dot, "354 go"), Answer::out_of_step);
    EXPECT_EQ(said(Phase::bdat, "250 ok"), Answer::accepted);
    EXPECT_EQ(said(Phase::rset, "250 ok"), Answer::accepted);
    EXPECT_EQ(said(Phase::quit, "221 bye"), Answer::accepted);
    EXPECT_EQ(said(Phase::quit, "354 go"), Answer::out_of_step);
    expect_refusal(Phase::rcpt, "550 5.1.1 no", true, bounced, Scope::recipient, false);
    expect_refusal(Phase::data, "451 later", true, transient, Scope::transaction, false);
    expect_refusal(Phase::dot, "554 spam", true, bounced, Scope::transaction, false);
    expect_refusal(Phase::bdat, "554 spam", true, bounced, Scope::transaction, false);
    expect_refusal(Phase::rset, "500 what", true, requeued, Scope::session, true);
    expect_refusal(Phase::quit, "500 what", true, transient, Scope::session, true);
}

TEST(Trouble, Fault24WhatCountsAsTooMany) {
    for (const char* yes : {"452 too many", "452 4.5.3 x", "552 x", "552 5.5.3 x", "450 4.5.3 x", "550 5.5.3 x", "452 4.3.1 x"})
        EXPECT_TRUE(too_many_recipients(reply_of(std::string(yes) + "\r\n"))) << yes;
    for (const char* no : {"250 2.5.3 x", "450 x", "452 4.2.2 full", "552 5.2.2 full", "552 5.1.1 x", "550 5.1.1 x"})
        EXPECT_FALSE(too_many_recipients(reply_of(std::string(no) + "\r\n"))) << no;
}

TEST(Trouble, WhatIsGreylisting) {
    const auto outcome = [](const char* line) {
        const Reply reply = reply_of(std::string(line) + "\r\n");
        return Outcome{.code = reply.code, .enhanced = reply.enhanced, .text = reply.text, .local = false};
    };
    for (const char* yes : {"450 4.7.1 come later", "451 4.7.1 x", "450 4.2.0 <a@b.example>: Greylisted, see http://x", "451 GreyListing",
                            "451 4.3.0 Graylisted"})
        EXPECT_TRUE(is_greylisting(outcome(yes))) << yes;
    for (const char* no : {"450 4.2.1 busy", "421 4.7.1 too many", "452 4.7.1 x", "550 5.7.1 greylisted", "451 4.7.0 x", "450 grey list"})
        EXPECT_FALSE(is_greylisting(outcome(no))) << no;
    Outcome local = outcome("451 4.7.1 x");
    local.local = true;
    EXPECT_FALSE(is_greylisting(local));
}

struct Expected {
    Trouble trouble;
    OutcomeKind kind;
    Scope scope;
    const char* enhanced;
};

TEST(Trouble, Fault44And45And47TheMessageDoesNotFit) {
    for (const auto& [trouble, kind, scope, enhanced] :
         {Expected{Trouble::eight_bit_unsupported, bounced, Scope::transaction, "5.6.3"},
          Expected{Trouble::smtputf8_unsupported, bounced, Scope::recipient, "5.6.7"},
          Expected{Trouble::size_exceeded, bounced, Scope::host, "5.3.4"}}) {
        EXPECT_EQ(judge(trouble).kind, kind);
        EXPECT_EQ(judge(trouble).scope, scope);
        EXPECT_EQ(text_of(judge(trouble).enhanced), enhanced);
    }
}

TEST(Trouble, Fault78To83Dns) {
    for (const auto& [trouble, kind, scope, enhanced] :
         {Expected{Trouble::dns_temporary, requeued, Scope::site, "4.4.3"},
          Expected{Trouble::dns_no_domain, bounced, Scope::site, "5.1.2"},
          Expected{Trouble::dns_no_address, bounced, Scope::site, "5.4.4"},
          Expected{Trouble::dns_address_temporary, requeued, Scope::site, "4.4.3"},
          Expected{Trouble::null_mx, bounced, Scope::site, "5.1.10"},
          Expected{Trouble::no_usable_address, bounced, Scope::site, "5.4.4"}}) {
        EXPECT_EQ(name_of(judge(trouble).kind), name_of(kind)) << name_of(trouble);
        EXPECT_EQ(judge(trouble).scope, scope) << name_of(trouble);
        EXPECT_EQ(text_of(judge(trouble).enhanced), enhanced) << name_of(trouble);
    }
}

TEST(Trouble, Fault95OurOwnFaultsAreNoAttempts) {
    for (const int error : {EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL, EAGAIN}) {
        const Verdict& verdict = judge(trouble_of_errno(error, true));
        EXPECT_EQ(verdict.kind, requeued) << error;
        EXPECT_EQ(verdict.scope, Scope::engine) << "the host is not marked down";
    }
    EXPECT_EQ(trouble_of_errno(ECONNREFUSED, true), Trouble::connect_refused);
    EXPECT_EQ(trouble_of_errno(ETIMEDOUT, true), Trouble::connect_timeout);
    EXPECT_EQ(trouble_of_errno(EHOSTUNREACH, true), Trouble::connect_unreachable);
    EXPECT_EQ(trouble_of_errno(ECONNRESET, false), Trouble::lost);
    EXPECT_EQ(trouble_of_errno(EPIPE, false), Trouble::lost);
    EXPECT_EQ(trouble_of_errno(ETIMEDOUT, false), Trouble::lost);
}

TEST(Trouble, EveryVerdictIsConsistent) {
    std::set<std::string_view> names;
    for (size_t i = 0; i < kTroubleCount; ++i) {
        const auto trouble = static_cast<Trouble>(i);
        const Verdict& verdict = judge(trouble);
        EXPECT_TRUE(names.insert(name_of(trouble)).second) << name_of(trouble);
        EXPECT_FALSE(verdict.text.empty());
        EXPECT_EQ(verdict.text.find_first_of("\r\n"), std::string_view::npos);
        const int digit = verdict.kind == bounced ? 5 : 4;
        EXPECT_EQ(verdict.code / 100, digit) << name_of(trouble);
        EXPECT_EQ(verdict.enhanced.class_, digit) << name_of(trouble);
        const Verdict flying = judge_in_flight(trouble);
        EXPECT_EQ(flying.kind, ambiguous);
        EXPECT_EQ(flying.code, 451);
        EXPECT_EQ(flying.enhanced.class_, 4);
    }
}

}  // namespace
}  // namespace postrider
