#include "engine/smtp/commands.h"

#include <charconv>

namespace postrider {
namespace {

bool is_control(char c) {
    const auto octet = static_cast<unsigned char>(c);
    return octet < 0x20 || octet == 0x7F;
}

void append_number(std::string& out, uint64_t value) {
    char digits[20];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    out.append(digits, static_cast<size_t>(end - digits));
}

bool append_hello(std::string& out, std::string_view verb, std::string_view hostname) {
    if (hostname.empty() || !safe_in_word(hostname)) return false;
    out.append(verb).append(hostname).append("\r\n");
    return true;
}

}  // namespace

bool safe_in_path(std::string_view path) {
    bool quoted = false;
    bool escaped = false;
    for (const char c : path) {
        if (is_control(c)) return false;
        if (escaped) {
            escaped = false;  // quoted-pair, RFC 5321 4.1.2
        } else if (quoted && c == '\\') {
            escaped = true;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted && (c == ' ' || c == '<' || c == '>')) {
            return false;
        }
    }
    return !quoted;
}

bool safe_in_word(std::string_view word) {
    for (const char c : word)
        if (is_control(c) || c == ' ') return false;
    return true;
}

bool safe_in_parameters(std::string_view parameters) {
    for (const char c : parameters)
        if (is_control(c)) return false;
    return true;
}

bool append_ehlo(std::string& out, std::string_view hostname) {
    return append_hello(out, "EHLO ", hostname);
}

bool append_helo(std::string& out, std::string_view hostname) {
    return append_hello(out, "HELO ", hostname);
}

bool append_mail(std::string& out, std::string_view sender, const MailParameters& parameters) {
    if (!safe_in_path(sender) || !safe_in_word(parameters.envid)) return false;
    out.append("MAIL FROM:<").append(sender).append(">");
    if (parameters.size != 0) {
        out.append(" SIZE=");  // RFC 1870 6
        append_number(out, parameters.size);
    }
    if (parameters.body_8bitmime) out.append(" BODY=8BITMIME");  // RFC 6152 2
    if (parameters.smtputf8) out.append(" SMTPUTF8");            // RFC 6531 3.4
    if (parameters.ret == DsnReturn::full) out.append(" RET=FULL");  // RFC 3461 4.3
    if (parameters.ret == DsnReturn::headers) out.append(" RET=HDRS");
    if (!parameters.envid.empty()) out.append(" ENVID=").append(parameters.envid);
    out.append("\r\n");
    return true;
}

bool append_rcpt(std::string& out, std::string_view recipient, std::string_view dsn) {
    if (recipient.empty() || !safe_in_path(recipient) || !safe_in_parameters(dsn)) return false;
    out.append("RCPT TO:<").append(recipient).append(">");
    if (!dsn.empty()) out.append(" ").append(dsn);
    out.append("\r\n");
    return true;
}

void append_bdat_last(std::string& out, uint64_t octets) {
    out.append("BDAT ");
    append_number(out, octets);
    out.append(" LAST\r\n");
}

void append_starttls(std::string& out) { out.append("STARTTLS\r\n"); }
void append_data(std::string& out) { out.append("DATA\r\n"); }
void append_dot(std::string& out) { out.append(".\r\n"); }
void append_rset(std::string& out) { out.append("RSET\r\n"); }
void append_quit(std::string& out) { out.append("QUIT\r\n"); }

}  // namespace postrider
