// The steps of a session: the word each has in the log, the section that sets its shortest timeout, our default.
// The table at the end of FAULTS is this file's source; an operator changes the values in the shaping file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/core/time.h"

namespace postrider {

enum class Phase : uint8_t {
    connect,
    greeting,
    ehlo,
    helo,
    starttls,  // the command and the handshake
    mail,
    rcpt,
    data,     // DATA until 354
    content,  // each block of the content
    dot,      // the final dot until its reply
    bdat,     // the last octet of BDAT ... LAST until its reply
    rset,
    quit,
    idle,  // a pooled connection at rest
};

struct PhaseInfo {
    Phase phase;
    std::string_view name;     // for the log
    std::string_view section;  // empty: no section sets one
    DurationMs timeout_ms;
};

inline constexpr std::array<PhaseInfo, 14> kPhases{{
    {Phase::connect, "connect", "", 30'000},
    {Phase::greeting, "greeting", "RFC 5321 4.5.3.2.1", 300'000},
    {Phase::ehlo, "EHLO", "", 300'000},
    {Phase::helo, "HELO", "", 300'000},
    {Phase::starttls, "STARTTLS", "", 120'000},
    {Phase::mail, "MAIL FROM", "RFC 5321 4.5.3.2.2", 300'000},
    {Phase::rcpt, "RCPT TO", "RFC 5321 4.5.3.2.3", 300'000},
    {Phase::data, "DATA", "RFC 5321 4.5.3.2.4", 120'000},
    {Phase::content, "content", "RFC 5321 4.5.3.2.5", 180'000},
    {Phase::dot, "end of data", "RFC 5321 4.5.3.2.6", 600'000},
    {Phase::bdat, "BDAT LAST", "RFC 5321 4.5.3.2.6", 600'000},
    {Phase::rset, "RSET", "", 20'000},
    {Phase::quit, "QUIT", "", 5'000},
    {Phase::idle, "idle", "", 30'000},
}};

// For all commands of one transaction together: a host that answers each of a hundred just in time must hold neither the mail
// nor a connection for hours (FAULTS 34). Far above what recipients' callouts take.
inline constexpr DurationMs kEnvelopeMs = 1'800'000;

constexpr const PhaseInfo& info_of(Phase phase) { return kPhases[static_cast<size_t>(phase)]; }
constexpr std::string_view name_of(Phase phase) { return info_of(phase).name; }

// The content and the reply to its end.
constexpr bool is_final(Phase phase) {
    return phase == Phase::content || phase == Phase::dot || phase == Phase::bdat;
}

// FAULTS 2: a shorter wait for the final reply makes duplicates.
static_assert(info_of(Phase::dot).timeout_ms >= 600'000 && info_of(Phase::bdat).timeout_ms >= 600'000);
static_assert([] {
    for (size_t i = 0; i < kPhases.size(); ++i)
        if (kPhases[i].phase != static_cast<Phase>(i)) return false;
    return true;
}());

}  // namespace postrider
