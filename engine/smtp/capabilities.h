// What the last EHLO offered (RFC 5321 4.1.1.1). Knowledge from before STARTTLS is thrown away by the caller
// (FAULTS 32, 64): it parses the new reply into a new struct.
#pragma once

#include <cstdint>

#include "engine/smtp/reply.h"

namespace postrider {

struct Capabilities {
    bool pipelining = false;             // RFC 2920
    bool chunking = false;               // RFC 3030
    bool binarymime = false;             // RFC 3030
    bool eight_bit_mime = false;         // RFC 6152
    bool smtputf8 = false;               // RFC 6531
    bool starttls = false;               // RFC 3207
    bool enhanced_status_codes = false;  // RFC 2034
    bool dsn = false;                    // RFC 3461
    bool require_tls = false;            // RFC 8689
    bool auth = false;                   // RFC 4954, also the old form "AUTH="
    bool size = false;                   // RFC 1870: SIZE= may be given on MAIL
    uint64_t size_limit = 0;             // octets; 0: none said
    uint32_t mail_max = 0;               // RFC 9422: transactions a session; 0: none said
    uint32_t rcpt_max = 0;               // RFC 9422: recipients a transaction; 0: none said
    uint32_t rcpt_domain_max = 0;        // RFC 9422: domains a transaction; 0: none said

    bool operator==(const Capabilities&) const = default;
};

// Of a positive EHLO reply. Its first line is the greeting; keywords are case-insensitive; of numbers said twice the
// smaller holds. A host that knows only HELO has Capabilities{}.
Capabilities parse_capabilities(const Reply& ehlo);

}  // namespace postrider
