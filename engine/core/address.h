// Mailboxes and paths as RFC 5321 4.1.2 writes them, with RFC 6531's octets above 127. Pure and
// free of allocation until something is wrong; every view points into the caller's text.
//
// What passes: dot-strings with dots anywhere (Japanese carriers hand out "a..b." and ".a"), quoted
// local parts, `[192.0.2.1]` and `[IPv6:2001:db8::1]`, one dot behind a domain, domains in UTF-8.
// All of them are carried byte for byte. What is refused: CR, LF, NUL and every other control (an
// address is a line of a dialogue), a local part over 64 or a domain over 255 octets, and the rest
// that the grammar does not know.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider {

struct Mailbox {
    std::string_view local;  // as written, a quoted one with its quotes
    std::string_view
        domain;  // as written: case, a trailing dot and the brackets of a literal are kept
    bool needs_smtputf8 =
        false;  // the local part has octets above 127; a domain can go as A-labels instead
    bool utf8_domain = false;  // the domain has octets above 127: see domain_to_ascii
};

// The whole text is local@domain, without angle brackets and without white space around it.
Result<Mailbox> parse_mailbox(std::string_view text);

// A path stands at the start of a text and ends at its ">".
struct Path {
    std::string_view address;  // local@domain; empty for the null reverse-path <>
    Mailbox mailbox;           // empty for <>
    size_t size = 0;           // octets of the path, both brackets included
};

// `text` begins with "<"; a source route in front of the mailbox is skipped (RFC 5321 appendix C).
Result<Path> parse_path(std::string_view text);

// ASCII lower case, without one trailing dot. The form in which domains are compared.
std::string normalise_domain(std::string_view domain);
void normalise_domain(std::string_view domain, std::string& out);

// The name to ask DNS for: normalised, U-labels as A-labels (IDNA 2008, RFC 5891). Literals as they
// are.
Result<std::string> domain_to_ascii(std::string_view domain);
// local@domain as it goes out: the domain as A-labels, unless the local part needs SMTPUTF8 anyway. A view of `address`, or of
// `room` where it differs.
std::string_view address_to_ascii(std::string_view address, std::string& room);

inline bool is_address_literal(std::string_view domain) {
    return !domain.empty() && domain.front() == '[';
}

// Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629 4).
bool is_utf8(std::string_view text);

}  // namespace postrider
