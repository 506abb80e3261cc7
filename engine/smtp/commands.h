// SMTP commands as text, appended to the caller's buffer. Every argument is checked before anything is appended:
// a control character, or in a path an unquoted space or angle bracket, would let an address write commands of
// its own (FAULTS 49). False means refused, with `out` untouched.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "queue/message.h"

namespace postrider {

// Octets that may stand between "<" and ">": no controls, no unquoted space, "<" or ">".
bool safe_in_path(std::string_view path);
// Octets that may stand in one parameter's value or a host name: no controls, no space.
bool safe_in_word(std::string_view word);
// Octets that may stand in a parameter list: no controls.
bool safe_in_parameters(std::string_view parameters);

// Parameters of MAIL; what is unset is not written.
struct MailParameters {
    uint64_t size = 0;  // RFC 1870; 0: none
    bool body_8bitmime = false;
    bool smtputf8 = false;
    DsnReturn ret = DsnReturn::none;
    std::string_view envid;  // xtext
};

[[nodiscard]] bool append_ehlo(std::string& out, std::string_view hostname);
[[nodiscard]] bool append_helo(std::string& out, std::string_view hostname);
[[nodiscard]] bool append_mail(std::string& out, std::string_view sender, const MailParameters& parameters);
// `dsn`: "NOTIFY=... ORCPT=..." or empty (RFC 3461 4.1, 4.2).
[[nodiscard]] bool append_rcpt(std::string& out, std::string_view recipient, std::string_view dsn);
void append_bdat_last(std::string& out, uint64_t octets);  // RFC 3030 2
void append_starttls(std::string& out);
void append_data(std::string& out);
void append_dot(std::string& out);  // end of data alone
void append_rset(std::string& out);
void append_quit(std::string& out);

}  // namespace postrider
