#include "engine/smtp/reply.h"

#include <algorithm>
#include <cstring>

#include "engine/core/limits.h"

namespace postrider {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// 1*3DIGIT at `text`, RFC 3463 2; returns the digits taken, 0 when there are none or too many.
size_t parse_part(std::string_view text, uint16_t& value) {
    size_t n = 0;
    value = 0;
    while (n < text.size() && n < 4 && is_digit(text[n])) {
        value = static_cast<uint16_t>(value * 10 + (text[n] - '0'));
        ++n;
    }
    return n > 3 ? 0 : n;
}

// Octets of the well-formed UTF-8 sequence at `text`, 0 when it is none or a C1 control (RFC 3629 4).
size_t utf8_sequence(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
    for (size_t i = 1; i < size; ++i)
        if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return 0;
    const auto second = static_cast<unsigned char>(text[1]);
    if (lead == 0xC2 && second < 0xA0) return 0;
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return 0;
    if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return 0;
    return size;
}

}  // namespace

EnhancedCode parse_enhanced_code(std::string_view text, std::string_view& rest) {
    rest = text;
    // RFC 3463 2: class "." subject "." detail, class 2, 4 or 5.
    if (text.size() < 5 || text[1] != '.') return {};
    if (text[0] != '2' && text[0] != '4' && text[0] != '5') return {};
    EnhancedCode code;
    code.class_ = static_cast<uint8_t>(text[0] - '0');
    const size_t subject = parse_part(text.substr(2), code.subject);
    const size_t dot = 2 + subject;
    if (subject == 0 || dot >= text.size() || text[dot] != '.') return {};
    const size_t detail = parse_part(text.substr(dot + 1), code.detail);
    const size_t end = dot + 1 + detail;
    if (detail == 0 || (end < text.size() && text[end] != ' ')) return {};
    rest = text.substr(std::min(end + 1, text.size()));
    return code;
}

std::string_view name_of(ReplyFault fault) {
    switch (fault) {
        case ReplyFault::none: return "none";
        case ReplyFault::not_a_reply: return "not an SMTP reply";
        case ReplyFault::different_codes: return "a multi-line reply changes its code";
        case ReplyFault::too_long: return "a reply without end";
    }
    return "";
}

void ReplyParser::reset() {
    finished_ = false;
    fault_ = ReplyFault::none;
    start();
}

void ReplyParser::start() {
    reply_.code = 0;
    reply_.enhanced = {};
    reply_.text.clear();
    line_.clear();
    total_ = 0;
    finished_ = false;
}

ReplyParser::Progress ReplyParser::bad(ReplyFault fault, size_t consumed) {
    fault_ = fault;
    return {consumed, ReplyState::bad};
}

ReplyParser::Progress ReplyParser::feed(std::string_view block) {
    if (fault_ != ReplyFault::none) return {0, ReplyState::bad};
    if (block.empty()) return {0, ReplyState::partial};
    if (finished_) start();
    size_t at = 0;
    while (at < block.size()) {
        // A reply is too long when its first kReplyTotal octets do not hold its end (FAULTS 19): the same
        // answer however the octets are cut.
        const size_t room = std::min(block.size() - at, limits::kReplyTotal - total_);
        if (room == 0) return bad(ReplyFault::too_long, at);
        const char* begin = block.data() + at;
        const auto* end = static_cast<const char*>(std::memchr(begin, '\n', room));
        const size_t size = end == nullptr ? room : static_cast<size_t>(end - begin);
        at += size + (end != nullptr);
        total_ += size + (end != nullptr);
        if (end == nullptr) {
            line_.append(begin, std::min(size, limits::kReplyLine - line_.size()));
            continue;
        }
        std::string_view text(begin, std::min(size, limits::kReplyLine));
        if (!line_.empty()) {  // it began in an earlier block
            line_.append(begin, std::min(size, limits::kReplyLine - line_.size()));
            text = line_;
        }
        if (text.ends_with('\r')) text.remove_suffix(1);  // RFC 5321 2.3.8; a bare LF ends a line too (FAULTS 20)
        const ReplyState state = line(text);
        line_.clear();
        if (state == ReplyState::bad) return bad(fault_, at);
        if (state == ReplyState::complete) {
            total_ = 0;
            finished_ = true;
            return {at, state};
        }
    }
    return {at, ReplyState::partial};
}

// One line without its end: Reply-code [ SP / "-" text ], RFC 5321 4.2.
ReplyState ReplyParser::line(std::string_view text) {
    if (text.size() < 3 || text[0] < '2' || text[0] > '5' || !is_digit(text[1]) ||
        !is_digit(text[2]) || (text.size() > 3 && text[3] != ' ' && text[3] != '-')) {
        fault_ = ReplyFault::not_a_reply;
        return ReplyState::bad;
    }
    const auto code =
        static_cast<uint16_t>((text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0'));
    const bool first = reply_.code == 0;
    if (!first && code != reply_.code) {  // RFC 5321 4.2.1: the same code on every line
        fault_ = ReplyFault::different_codes;
        return ReplyState::bad;
    }
    reply_.code = code;
    const bool more = text.size() > 3 && text[3] == '-';
    text.remove_prefix(std::min<size_t>(text.size(), 4));
    if (!reply_.enhanced.present() && code / 100 != 3) {
        std::string_view rest;
        reply_.enhanced = parse_enhanced_code(text, rest);
    }
    if (!first && reply_.text.size() < limits::kReplyKept) reply_.text += '\n';
    reply_.text.append(text.substr(0, limits::kReplyKept - reply_.text.size()));
    return more ? ReplyState::partial : ReplyState::complete;
}

void append_printable(std::string_view line, std::string& out) {
    while (!line.empty() && out.size() < limits::kReplyLogged) {
        const size_t room = std::min(line.size(), limits::kReplyLogged - out.size());
        size_t run = 0;
        while (run < room && line[run] >= 0x20 && line[run] < 0x7F) ++run;
        if (run > 0) {
            out.append(line, 0, run);
            line.remove_prefix(run);
            continue;
        }
        const size_t size = static_cast<unsigned char>(line[0]) < 0x80 ? 0 : utf8_sequence(line);
        if (size > room) return;  // no half sequence at the bound
        if (size == 0) out += '?';
        out.append(line, 0, size);
        line.remove_prefix(std::max<size_t>(size, 1));
    }
}

void log_text(const Reply& reply, std::string& out) {
    out.clear();
    std::string_view text = reply.text;
    while (!text.empty() && out.size() < limits::kReplyLogged) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (reply.enhanced.present()) (void)parse_enhanced_code(line, line);
        if (!out.empty() && !line.empty()) out += ' ';
        append_printable(line, out);
    }
}

}  // namespace postrider
