// The commands of RFC 5321 4.1.1 with the extensions the sink offers: PIPELINING (2920), 8BITMIME (6152), SIZE
// (1870), CHUNKING (3030), DSN (3461), SMTPUTF8 (6531), STARTTLS (3207), LIMITS (9422).
#include <charconv>

#include <fmt/format.h>

#include "tools/sink/smtp_machine.h"

namespace postrider::sink {

namespace {

constexpr uint32_t verb(const char (&name)[5]) {
    uint32_t word = 0;
    for (size_t i = 0; i < 4; ++i) word = word << 8 | static_cast<unsigned char>(name[i]);
    return word;
}

uint32_t verb_of(std::string_view line) {
    if (line.size() < 4) return 0;
    uint32_t word = 0;
    for (size_t i = 0; i < 4; ++i) word = word << 8 | (static_cast<unsigned char>(line[i]) & 0xdf);
    return word;
}

bool same(std::string_view text, std::string_view upper) {
    if (text.size() != upper.size()) return false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i] >= 'a' && text[i] <= 'z' ? static_cast<char>(text[i] - 32) : text[i];
        if (c != upper[i]) return false;
    }
    return true;
}

struct PathArgument {
    std::string_view path;        // without angle brackets
    std::string_view parameters;  // behind it
};

// "<path> parameters"; a quoted local part may hold ">" (RFC 5321 4.1.2). False: a syntax error.
bool parse_path(std::string_view text, PathArgument& argument) {
    if (text.empty() || text[0] != '<') return false;
    bool quoted = false;
    size_t i = 1;
    for (; i < text.size() && (quoted || text[i] != '>'); ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        if (c < 32 || c == 127 || (c == ' ' && !quoted) || (c == '<' && !quoted)) return false;
        if (c == '"') quoted = !quoted;
        if (c == '\\' && quoted) ++i;
    }
    if (i >= text.size()) return false;
    argument.path = text.substr(1, i - 1);
    argument.parameters = text.substr(i + 1);
    if (!argument.parameters.empty()) {
        if (argument.parameters[0] != ' ') return false;
        argument.parameters.remove_prefix(1);
    }
    return argument.path.size() <= 320;
}

bool is_mailbox(std::string_view path) {
    const size_t at = path.rfind('@');
    return at != std::string_view::npos && at > 0 && at + 1 < path.size();
}

std::string_view next_word(std::string_view& text) {
    const size_t end = text.find(' ');
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return word;
}

bool has_eight_bit(std::string_view text) {
    for (const char c : text)
        if (static_cast<unsigned char>(c) >= 128) return true;
    return false;
}

}  // namespace

void SmtpMachine::command_line(std::string_view line, std::string_view& rest, std::string& out) {
    switch (verb_of(line)) {
        case verb("MAIL"): return mail(line, out);
        case verb("RCPT"): return rcpt(line, out);
        case verb("DATA"):
            if (line.size() == 4) return data(rest, out);
            break;
        case verb("BDAT"): return bdat(line, out);
        case verb("EHLO"): case verb("HELO"):
            // What the server can is not known yet, so nothing may follow in the same flight (RFC 2920 3.1).
            if (!rest.empty()) ++violations_;
            return helo(line, (line[0] | 0x20) == 'e', out);
        case verb("RSET"):
            if (line.size() == 4) return rset(out);
            break;
        case verb("NOOP"): return put("250 2.0.0 Ok\r\n", out);
        case verb("VRFY"): return put("252 2.1.5 Cannot verify\r\n", out);
        case verb("HELP"): return put("214 2.0.0 RFC 5321\r\n", out);
        case verb("QUIT"):
            if (line.size() == 4) return quit(rest, out);
            break;
        case verb("STAR"):
            if (same(line, "STARTTLS")) return starttls(rest, out);
            break;
    }
    violation("500 5.5.2 Command not recognized\r\n", out);
}

void SmtpMachine::helo(std::string_view line, bool extended, std::string& out) {
    if (line.size() < 6 || line[4] != ' ') return violation("501 5.5.4 A name is missing\r\n", out);
    if (mail_open_) tell("aborted", false);
    candidate_ = line.substr(5);
    const SinkOptions& o = context_.options;
    std::string usual = "250 " + o.hostname + "\r\n";
    if (extended) {
        std::vector<std::string> keywords = {o.hostname};
        if (o.pipelining) keywords.push_back("PIPELINING");
        keywords.push_back(o.size_limit > 0 ? fmt::format("SIZE {}", o.size_limit) : "SIZE");
        if (o.eight_bit_mime) keywords.push_back("8BITMIME");
        if (o.chunking) keywords.push_back("CHUNKING");
        if (o.dsn) keywords.push_back("DSN");
        if (o.smtputf8) keywords.push_back("SMTPUTF8");
        if (o.enhanced_status_codes) keywords.push_back("ENHANCEDSTATUSCODES");
        if (o.recipients_limit > 0 || o.mail_limit > 0) {
            std::string limits = "LIMITS";
            if (o.mail_limit > 0) limits += fmt::format(" MAILMAX={}", o.mail_limit);
            if (o.recipients_limit > 0) limits += fmt::format(" RCPTMAX={}", o.recipients_limit);
            keywords.push_back(std::move(limits));
        }
        if (context_.tls_available && tls_.empty()) keywords.push_back("STARTTLS");
        usual.clear();
        for (size_t i = 0; i < keywords.size(); ++i)
            usual += fmt::format("250{}{}\r\n", i + 1 < keywords.size() ? '-' : ' ', keywords[i]);
    }
    if (answer(Point::ehlo, usual, out)) {
        helo_ = candidate_;
        extended_ = extended;
    }
}

void SmtpMachine::starttls(std::string_view& rest, std::string& out) {
    if (!context_.tls_available || !tls_.empty())
        return violation("502 5.5.1 STARTTLS is not offered\r\n", out);
    // What a client, or someone between, puts behind the command in clear must not reach the secure session.
    if (!rest.empty()) ++violations_;
    candidate_ = local_.substr(0, local_.rfind(':'));  // the address without the port, as at connect
    if (answer(Point::starttls, "220 2.0.0 Ready to start TLS\r\n", out) && flow_ == Flow::go_on) {
        rest = {};
        flow_ = Flow::starttls;
    }
}

void SmtpMachine::mail(std::string_view line, std::string& out) {
    if (helo_.empty()) return violation("503 5.5.1 EHLO first\r\n", out);
    if (mail_open_ || spoiled_) return violation("503 5.5.1 A transaction is open\r\n", out);
    const SinkOptions& o = context_.options;
    if (o.require_tls && tls_.empty())
        return put("530 5.7.0 Must issue a STARTTLS command first\r\n", out);  // RFC 3207 4
    PathArgument argument;
    if (line.size() < 12 || !same(line.substr(0, 10), "MAIL FROM:") ||
        !parse_path(line.substr(10), argument) ||
        !(argument.path.empty() || is_mailbox(argument.path)))
        return violation("501 5.1.7 Bad sender address syntax\r\n", out);
    if (!argument.parameters.empty() && !good_mail_parameters(argument.parameters, out)) return;
    if (o.mail_limit > 0 && mails_ >= o.mail_limit)
        return violation("452 4.5.3 Too many messages in this session\r\n", out);
    candidate_ = argument.path;
    if (!answer(Point::mail, "250 2.1.0 Ok\r\n", out)) return;
    ++mails_;
    mail_open_ = true;
    mail_us_ = now_us_;
    sender_ = argument.path;
    mail_parameters_ = argument.parameters;
}

bool SmtpMachine::good_mail_parameters(std::string_view parameters, std::string& out) {
    const SinkOptions& o = context_.options;
    while (!parameters.empty()) {
        const std::string_view word = next_word(parameters);
        const size_t equals = word.find('=');
        const std::string_view name = word.substr(0, equals);
        const std::string_view value =
            equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
        bool good = false;
        if (same(name, "SIZE")) {
            uint64_t size = 0;
            const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
            good = error == std::errc() && end == value.data() + value.size();
            if (good && o.size_limit > 0 && size > o.size_limit) {
                put("552 5.3.4 Message too big\r\n", out);  // RFC 1870 6.1
                return false;
            }
        } else if (same(name, "BODY")) {
            good = o.eight_bit_mime && (same(value, "7BIT") || same(value, "8BITMIME"));
        } else if (same(name, "SMTPUTF8")) {
            good = o.smtputf8 && equals == std::string_view::npos;
        } else if (same(name, "RET")) {
            good = o.dsn && (same(value, "FULL") || same(value, "HDRS"));
        } else if (same(name, "ENVID")) {
            good = o.dsn && !value.empty();
        }
        if (!good || !extended_) {
            violation("555 5.5.4 MAIL parameter not recognized\r\n", out);
            return false;
        }
    }
    return true;
}

bool SmtpMachine::good_rcpt_parameters(std::string_view parameters) const {
    if (!context_.options.dsn || !extended_) return false;
    while (!parameters.empty()) {
        const std::string_view word = next_word(parameters);
        const size_t equals = word.find('=');
        if (equals == std::string_view::npos || equals + 1 == word.size()) return false;
        const std::string_view name = word.substr(0, equals);
        if (!same(name, "NOTIFY") && !same(name, "ORCPT")) return false;
    }
    return true;
}

void SmtpMachine::rcpt(std::string_view line, std::string& out) {
    // Behind a refused MAIL in one flight this is what a correct client meets: no violation.
    if (!mail_open_) return put("503 5.5.1 MAIL first\r\n", out);
    PathArgument argument;
    if (line.size() < 10 || !same(line.substr(0, 8), "RCPT TO:") ||
        !parse_path(line.substr(8), argument) ||
        !(is_mailbox(argument.path) || same(argument.path, "POSTMASTER")))
        return violation("501 5.1.3 Bad recipient address syntax\r\n", out);
    if (!argument.parameters.empty() && !good_rcpt_parameters(argument.parameters))
        return violation("555 5.5.4 RCPT parameter not recognized\r\n", out);
    if (has_eight_bit(argument.path) && mail_parameters_.find("SMTPUTF8") == std::string::npos)
        return violation("553 5.6.7 SMTPUTF8 is needed for this address\r\n", out);  // RFC 6531 3.5
    const uint32_t limit = context_.options.recipients_limit;
    if (limit > 0 && recipient_ends_.size() >= limit) {
        ++refused_recipients_;
        return put("452 4.5.3 Too many recipients\r\n", out);
    }
    candidate_ = argument.path;
    if (!answer(Point::rcpt, "250 2.1.5 Ok\r\n", out)) {
        ++refused_recipients_;
        return;
    }
    recipients_ += argument.path;
    recipient_ends_.push_back(recipients_.size());
}

void SmtpMachine::data(std::string_view rest, std::string& out) {
    // The content may go only after the 354 was seen (RFC 2920 3.1), and it is not sent yet.
    if (!rest.empty()) ++violations_;
    if (!mail_open_) return put("503 5.5.1 MAIL first\r\n", out);
    if (by_bdat_) return violation("503 5.5.1 DATA and BDAT do not mix\r\n", out);  // RFC 3030 2
    if (recipient_ends_.empty()) return put("554 5.5.1 No valid recipients\r\n", out);
    // A rule may answer 250 where 354 is due: then no content is taken (RFC 5321 4.3.2).
    if (!answer(Point::data, "354 End data with <CR><LF>.<CR><LF>\r\n", out)) return;
    scanner_.reset();
    content_.reset();
    state_ = State::data;
}

void SmtpMachine::bdat(std::string_view line, std::string& out) {
    if (!context_.options.chunking) return violation("500 5.5.1 BDAT is not offered\r\n", out);
    std::string_view words = line.substr(4);
    if (!words.empty()) words.remove_prefix(1);
    const std::string_view count = next_word(words);
    uint64_t size = 0;
    const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), size);
    if (count.empty() || error != std::errc() || end != count.data() + count.size() ||
        !(words.empty() || same(words, "LAST"))) {
        // How many octets follow is unknown: nothing behind this can be understood (RFC 3030 2).
        violation("501 5.5.4 BDAT syntax\r\n", out);
        flow_ = Flow::close;
        return;
    }
    chunk_left_ = size;
    chunk_last_ = !words.empty();
    chunk_wanted_ = mail_open_ && !recipient_ends_.empty();
    if (chunk_wanted_ && !by_bdat_) {
        content_.reset();
        by_bdat_ = true;
    }
    if (size > 0) state_ = State::chunk;
    else end_of_chunk(out);
}

void SmtpMachine::rset(std::string& out) {
    if (!answer(Point::rset, "250 2.0.0 Ok\r\n", out)) return;
    if (mail_open_) tell("aborted", false);
    clear_transaction();
}

void SmtpMachine::quit(std::string_view& rest, std::string& out) {
    if (!rest.empty()) ++violations_;
    rest = {};
    if (mail_open_) tell("aborted", false);
    answer(Point::quit, "221 2.0.0 Bye\r\n", out);
    if (flow_ == Flow::go_on) flow_ = Flow::close;
}

}  // namespace postrider::sink
