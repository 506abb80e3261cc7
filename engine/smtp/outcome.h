// What one attempt did to one recipient: what the journal records and the delivery log tells.
#pragma once

#include <cstdint>
#include <string>

#include "engine/smtp/reply.h"
#include "engine/smtp/timeouts.h"

namespace postrider {

enum class OutcomeKind : uint8_t {
    delivered,
    transient,  // retry by the schedule; the attempt counts
    bounced,    // permanent
    ambiguous,  // the receiver may have it: retry by the schedule, flagged as possible duplicate
    requeued,   // untouched: no attempt counted, ready again as soon as what `scope` condemns is not in the way
};

// What a failure condemns: the narrowest thing that must not be used the same way again.
enum class Scope : uint8_t {
    recipient,    // this forward-path
    transaction,  // this message here
    session,      // this connection: close it
    host,         // this MX host: another of the site may do better, tried first
    site,         // every host of the site: no other MX is tried now
    engine,       // ourselves: nothing is said about the receiver
};

struct Outcome {
    OutcomeKind kind = OutcomeKind::requeued;
    Scope scope = Scope::recipient;
    Phase phase = Phase::connect;  // name_of(phase): the command for the log
    uint16_t code = 0;
    EnhancedCode enhanced;
    std::string text;   // one printable line, at most limits::kReplyLogged octets
    bool local = true;  // code and text are ours, not the peer's
    bool possible_duplicate = false;
};

}  // namespace postrider
