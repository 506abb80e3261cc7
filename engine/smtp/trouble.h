// The one file that decides what a failure means and what it condemns (FAULTS 1-38, 44, 45, 47, 48, 78-82, and local
// faults). Callers say what happened; the verdict names the fate of a recipient that is not settled yet, the scope,
// and the words for the log. The duplicate window is the transaction's business: it turns the verdict of a lost
// session into `ambiguous` when the final dot may have been seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/smtp/outcome.h"

namespace postrider {

// What can go wrong without a reply that says so.
enum class Trouble : uint8_t {
    // Reaching the host.
    connect_refused,
    connect_timeout,
    connect_unreachable,
    connect_prohibited,  // [smtp] prohibited_hosts
    // The session breaks.
    lost,             // reset, end of stream, half-closed (FAULTS 1, 7, 29, 37)
    timeout,          // a phase's deadline (FAULTS 2, 34)
    too_slow,         // each reply in time, all of them together too late (FAULTS 34)
    bad_reply,        // ReplyParser said bad (FAULTS 15, 17-20)
    out_of_step,      // a reply that cannot be here (FAULTS 12-16)
    premature_reply,  // a reply to a command not sent yet (FAULTS 14)
    rset_refused,     // FAULTS 27
    // TLS.
    tls_not_offered,  // demanded by the policy (FAULTS 61)
    tls_refused,      // FAULTS 60
    tls_failed,       // FAULTS 62, 63
    tls_injection,    // octets behind the 220 of STARTTLS (FAULTS 59)
    // The message does not fit the host.
    size_exceeded,       // FAULTS 47
    eight_bit_unsupported,  // FAULTS 44
    smtputf8_unsupported,   // FAULTS 45
    bad_sender,          // an address no command may carry
    bad_recipient,
    // DNS.
    dns_temporary,          // SERVFAIL, timeout, REFUSED (FAULTS 78)
    dns_no_domain,          // NXDOMAIN (FAULTS 79)
    dns_no_address,         // MX exist, none has an address; no MX and no address (FAULTS 80, 81)
    dns_address_temporary,  // MX exist, their addresses fail to resolve (FAULTS 81)
    null_mx,                // FAULTS 82
    no_usable_address,      // every address is prohibited or a literal (FAULTS 83)
    // Ourselves.
    shutting_down,
    no_descriptors,  // EMFILE, ENFILE (FAULTS 95)
    no_memory,       // ENOMEM, ENOBUFS
    no_ports,        // EADDRNOTAVAIL
    no_such_pool,    // x-pool names none of the configuration's
    file_changed,    // FAULTS 51
    file_unreadable, // FAULTS 52
};
inline constexpr auto kTroubleCount = static_cast<size_t>(Trouble::file_unreadable) + 1;

struct Verdict {
    OutcomeKind kind = OutcomeKind::transient;
    Scope scope = Scope::recipient;
    uint16_t code = 0;
    EnhancedCode enhanced;
    std::string_view text;  // static
};

// The fate of a recipient that this trouble leaves unsettled, before its final dot.
const Verdict& judge(Trouble trouble);
// The same as an outcome of the phase; of `detail`, where and what exactly, the first 200 octets are told.
Outcome outcome_of(Trouble trouble, Phase phase, std::string_view detail = {});
// The same once the dot may have been seen: ambiguous, in the words of this trouble (FAULTS 1).
Verdict judge_in_flight(Trouble trouble);

// A refusal, read by the phase it answers: kind and scope (code, enhanced code and text are the reply's own).
struct Refusal {
    OutcomeKind kind = OutcomeKind::transient;
    Scope scope = Scope::recipient;
    bool ends_session = false;
};

enum class Answer : uint8_t {
    accepted,     // go on
    refused,      // judge_refusal() tells
    out_of_step,  // this reply cannot answer this command
};

// Whether a reply accepts the command of this phase. The first digit decides (RFC 5321 4.2.1), but a code of another
// command is no answer: a 221 is never a delivery (FAULTS 16), a 250 never starts a content (FAULTS 12).
Answer answer(Phase phase, const Reply& reply);

// `reused`: the session has carried a transaction before (FAULTS 28). Only for answer() == refused.
Refusal judge_refusal(Phase phase, const Reply& reply, bool reused);

// 452, or 552 read as 452 (RFC 5321 4.5.3.1.10), said of the number of recipients, not of a mailbox: with others
// accepted the recipient is requeued without penalty (FAULTS 23, 24).
bool too_many_recipients(const Reply& rcpt);

// Come again from the same address: 450 or 451 that says 4.7.1, or "greylisted" by one of its spellings (RFC 6647).
bool is_greylisting(const Outcome& outcome);

// FAULTS 31: this refusal of EHLO leaves HELO worth trying.
bool helo_may_help(const Reply& ehlo);

// errno of connect, recv or send -> trouble; `connecting` while no connection was established.
Trouble trouble_of_errno(int error, bool connecting);

std::string_view name_of(Trouble trouble);

}  // namespace postrider
