#include "engine/smtp/trouble.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "engine/core/check.h"

namespace postrider {
namespace {

struct Row {
    Trouble trouble;
    std::string_view name;
    Verdict verdict;
};

using enum OutcomeKind;

// Codes and enhanced codes: RFC 5321 4.2.3, RFC 3463 3. A DNS failure burns no attempt: it is the site that waits
// (FAULTS 78, 88). What is our own fault never counts against the mail (FAULTS 95).
constexpr std::array<Row, kTroubleCount> kRows{{
    {Trouble::connect_refused, "connect_refused",
     {transient, Scope::host, 451, {4, 4, 1}, "connection refused"}},
    {Trouble::connect_timeout, "connect_timeout",
     {transient, Scope::host, 451, {4, 4, 1}, "connection timed out"}},
    {Trouble::connect_unreachable, "connect_unreachable",
     {transient, Scope::host, 451, {4, 4, 1}, "host is unreachable"}},
    {Trouble::connect_prohibited, "connect_prohibited",
     {bounced, Scope::host, 550, {5, 4, 4}, "address is among prohibited_hosts"}},
    {Trouble::lost, "lost", {transient, Scope::session, 451, {4, 4, 2}, "connection lost"}},
    {Trouble::timeout, "timeout",
     {transient, Scope::session, 451, {4, 4, 2}, "no reply within the timeout"}},
    {Trouble::too_slow, "too_slow",
     {transient, Scope::session, 451, {4, 4, 2}, "host answers the commands of a transaction too slowly"}},
    {Trouble::bad_reply, "bad_reply",
     {transient, Scope::session, 451, {4, 5, 0}, "host sent a line that is no reply"}},
    {Trouble::out_of_step, "out_of_step",
     {transient, Scope::session, 451, {4, 5, 0}, "host sent a reply that cannot answer the command"}},
    {Trouble::premature_reply, "premature_reply",
     {transient, Scope::session, 451, {4, 5, 0}, "host answered a command that was not sent yet"}},
    {Trouble::rset_refused, "rset_refused",
     {requeued, Scope::session, 451, {4, 5, 0}, "host refused RSET"}},
    {Trouble::tls_not_offered, "tls_not_offered",
     {transient, Scope::host, 451, {4, 7, 4}, "TLS is required and not offered"}},
    {Trouble::tls_refused, "tls_refused",
     {transient, Scope::host, 451, {4, 7, 4}, "TLS is required and STARTTLS was refused"}},
    {Trouble::tls_failed, "tls_failed",
     {transient, Scope::host, 451, {4, 7, 5}, "TLS handshake failed"}},
    {Trouble::tls_injection, "tls_injection",
     {transient, Scope::host, 451, {4, 7, 5}, "host sent plaintext behind its answer to STARTTLS"}},
    {Trouble::size_exceeded, "size_exceeded",
     {bounced, Scope::host, 552, {5, 3, 4}, "message is larger than the host takes (SIZE)"}},
    {Trouble::eight_bit_unsupported, "eight_bit_unsupported",
     {bounced, Scope::transaction, 554, {5, 6, 3}, "8-bit content and the host has no 8BITMIME"}},
    {Trouble::smtputf8_unsupported, "smtputf8_unsupported",
     {bounced, Scope::recipient, 553, {5, 6, 7}, "SMTPUTF8 is needed and the host has none"}},
    {Trouble::bad_sender, "bad_sender",
     {bounced, Scope::transaction, 553, {5, 1, 7}, "sender or envelope id cannot be written as a command"}},
    {Trouble::bad_recipient, "bad_recipient",
     {bounced, Scope::recipient, 553, {5, 1, 3}, "recipient cannot be written as a command"}},
    {Trouble::dns_temporary, "dns_temporary",
     {requeued, Scope::site, 451, {4, 4, 3}, "MX look-up failed for now"}},
    {Trouble::dns_no_domain, "dns_no_domain",
     {bounced, Scope::site, 550, {5, 1, 2}, "domain does not exist"}},
    {Trouble::dns_no_address, "dns_no_address",
     {bounced, Scope::site, 550, {5, 4, 4}, "no mail host of the domain has an address"}},
    {Trouble::dns_address_temporary, "dns_address_temporary",
     {requeued, Scope::site, 451, {4, 4, 3}, "address look-up of the mail hosts failed for now"}},
    {Trouble::null_mx, "null_mx",
     {bounced, Scope::site, 556, {5, 1, 10}, "domain takes no mail (null MX)"}},  // RFC 7505 4.1
    {Trouble::no_usable_address, "no_usable_address",
     {bounced, Scope::site, 550, {5, 4, 4}, "no mail host of the domain has a usable address"}},
    {Trouble::shutting_down, "shutting_down",
     {requeued, Scope::engine, 451, {4, 3, 2}, "engine is shutting down"}},
    {Trouble::no_descriptors, "no_descriptors",
     {requeued, Scope::engine, 451, {4, 3, 1}, "engine is out of file descriptors"}},
    {Trouble::no_memory, "no_memory",
     {requeued, Scope::engine, 451, {4, 3, 1}, "engine is out of memory"}},
    {Trouble::no_ports, "no_ports",
     {requeued, Scope::engine, 451, {4, 3, 1}, "engine is out of local ports or addresses"}},
    {Trouble::no_such_pool, "no_such_pool",
     {requeued, Scope::site, 451, {4, 3, 5}, "x-pool names no pool or source of the configuration"}},
    {Trouble::file_changed, "file_changed",
     {transient, Scope::engine, 451, {4, 3, 0}, "spool file changed while it was sent"}},
    {Trouble::file_unreadable, "file_unreadable",
     {transient, Scope::engine, 451, {4, 3, 0}, "spool file cannot be read"}},
}};

static_assert([] {
    for (size_t i = 0; i < kRows.size(); ++i)
        if (kRows[i].trouble != static_cast<Trouble>(i)) return false;
    return true;
}());

}  // namespace

const Verdict& judge(Trouble trouble) { return kRows[static_cast<size_t>(trouble)].verdict; }

Outcome outcome_of(Trouble trouble, Phase phase, std::string_view detail) {
    const Verdict& verdict = judge(trouble);
    Outcome outcome{.kind = verdict.kind, .scope = verdict.scope, .phase = phase, .code = verdict.code,
                    .enhanced = verdict.enhanced, .text = std::string(verdict.text)};
    if (!detail.empty()) outcome.text.append(": ").append(detail.substr(0, 200));
    return outcome;
}

Verdict judge_in_flight(Trouble trouble) {
    Verdict verdict = judge(trouble);
    // RFC 5321 4.5.3.2.6, RFC 1047: the receiver may have taken the message. As after a 451 it is tried again.
    verdict.kind = ambiguous;
    verdict.code = 451;
    if (verdict.enhanced.class_ != 4) verdict.enhanced = {4, 4, 2};
    return verdict;
}

std::string_view name_of(Trouble trouble) { return kRows[static_cast<size_t>(trouble)].name; }

Answer answer(Phase phase, const Reply& reply) {
    if (reply.code == 421) return Answer::refused;  // RFC 5321 3.8: to any command
    if (phase == Phase::connect || phase == Phase::idle) return Answer::out_of_step;
    if (reply.transient() || reply.permanent()) return Answer::refused;
    const int group = reply.code / 10;  // RFC 5321 4.2.1: the second digit
    bool accepted = false;
    switch (phase) {
        case Phase::greeting:
        case Phase::starttls: accepted = reply.code == 220; break;
        case Phase::data: accepted = reply.code == 354; break;
        case Phase::quit: accepted = reply.positive(); break;
        default: accepted = reply.positive() && group != 21 && group != 22 && group != 23; break;
    }
    return accepted ? Answer::accepted : Answer::out_of_step;
}

Refusal judge_refusal(Phase phase, const Reply& reply, bool reused) {
    POSTRIDER_CHECK(reply.transient() || reply.permanent(), "only a 4xx or 5xx refuses");
    const OutcomeKind by_code = reply.permanent() ? bounced : transient;
    // RFC 5321 3.8: the host closes; what it did not answer is tried again. Behind another transaction the mail
    // was not looked at (FAULTS 5, 28).
    if (reply.code == 421) {
        const bool untouched = reused && (phase == Phase::mail || phase == Phase::rset);
        return {untouched ? requeued : transient, untouched ? Scope::session : Scope::host, true};
    }
    switch (phase) {
        case Phase::greeting:
            // RFC 7504 4: 521 says the host takes no mail at all, ever. Another 5xx is often a block that passes,
            // and another MX may be open (FAULTS 33).
            if (reply.code == 521) return {bounced, Scope::site, true};
            return {transient, Scope::host, true};
        case Phase::ehlo:
        case Phase::helo:
            if (reply.code == 521) return {bounced, Scope::site, true};
            return {by_code, Scope::host, true};
        case Phase::starttls: return {transient, Scope::host, false};
        case Phase::mail:
            // Session state may be to blame: the message gets a fresh session, unpunished (FAULTS 28).
            if (reused && (reply.transient() || reply.code == 503))
                return {requeued, Scope::session, true};
            if (reply.code == 521 || reply.code == 556) return {bounced, Scope::site, true};
            return {by_code, Scope::transaction, false};
        case Phase::rcpt: return {by_code, Scope::recipient, false};
        case Phase::rset: return {requeued, Scope::session, true};  // FAULTS 27
        default: break;
    }
    if (phase == Phase::data || is_final(phase)) return {by_code, Scope::transaction, false};
    return {transient, Scope::session, true};
}

bool too_many_recipients(const Reply& rcpt) {
    if (!rcpt.transient() && !rcpt.permanent()) return false;
    const EnhancedCode& code = rcpt.enhanced;
    if (code.subject == 5 && code.detail == 3) return true;  // RFC 3463 3.6: X.5.3
    if (rcpt.code != 452 && rcpt.code != 552) return false;
    return code.subject != 1 && code.subject != 2;  // X.1, X.2: said of this address or mailbox
}

bool is_greylisting(const Outcome& outcome) {
    if (outcome.local || (outcome.code != 450 && outcome.code != 451)) return false;
    if (outcome.enhanced.subject == 7 && outcome.enhanced.detail == 1) return true;
    const auto says = [&](std::string_view word) {
        return !std::ranges::search(outcome.text, word, [](char a, char b) { return (a | 0x20) == b; }).empty();
    };
    return says("greylist") || says("graylist");
}

bool helo_may_help(const Reply& ehlo) { return ehlo.permanent() && ehlo.code != 521; }

Trouble trouble_of_errno(int error, bool connecting) {
    switch (error) {
        case EMFILE:
        case ENFILE: return Trouble::no_descriptors;
        case ENOMEM:
        case ENOBUFS: return Trouble::no_memory;
        default: break;
    }
    if (!connecting) return Trouble::lost;
    switch (error) {
        case ECONNREFUSED:
        case ECONNRESET: return Trouble::connect_refused;
        case ETIMEDOUT: return Trouble::connect_timeout;
        case EADDRNOTAVAIL:
        case EADDRINUSE:
        case EAGAIN: return Trouble::no_ports;
        default: return Trouble::connect_unreachable;
    }
}

}  // namespace postrider
