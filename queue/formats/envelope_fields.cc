#include "queue/formats/envelope_fields.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>

#include "engine/core/address.h"
#include "engine/core/limits.h"

namespace postrider {
namespace {

constexpr size_t kEnvid = 100;  // RFC 3461 4.4
constexpr size_t kOrcpt = 500;  // RFC 3461 4.2

struct Named {
    std::string_view text;
    BlockName name;
};
constexpr std::array<Named, 10> kNames = {{
    {"x-sender", BlockName::sender},
    {"x-receiver", BlockName::receiver},
    {"x-envid", BlockName::envid},
    {"x-job", BlockName::job},
    {"x-virtual-mta", BlockName::virtual_mta},
    {"x-campaign", BlockName::campaign},
    {"x-tenant", BlockName::tenant},
    {"x-priority", BlockName::priority},
    {"x-pool", BlockName::pool},
    {"x-not-before", BlockName::not_before},
}};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool is_hex_upper(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); }

// RFC 3461 4: xchar is any from "!" to "~" but "+" and "="; hexchar is "+" and two upper-case
// digits.
bool is_xtext(std::string_view text) {
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '+') {
            if (i + 2 >= text.size() || !is_hex_upper(text[i + 1]) || !is_hex_upper(text[i + 2]))
                return false;
            i += 2;
        } else if (c < '!' || c > '~' || c == '=') {
            return false;
        }
    }
    return true;
}

// The next word of `text` split at "="; false at the end.
bool next_parameter(std::string_view& text, std::string_view& key, std::string_view& value) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    if (text.empty()) return false;
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(word.size());
    const size_t equals = word.find('=');
    key = word.substr(0, equals);
    value = equals == std::string_view::npos ? std::string_view{} : word.substr(equals + 1);
    return true;
}

std::unexpected<Error> bad_value(std::string_view key, std::string_view wanted) {
    return fail(fmt::format("bad value of {}; give {}", key, wanted));
}

std::unexpected<Error> unknown_parameter(std::string_view command, std::string_view key,
                                         std::string_view known) {
    std::string shown;
    for (const char c : key.substr(0, 40)) shown += c >= 32 && c < 127 ? c : '?';
    return fail(
        fmt::format("{} has the parameter \"{}\"; only {} are known", command, shown, known));
}

bool is_notify(std::string_view value) {
    if (equal_ignoring_case(value, "NEVER")) return true;
    while (true) {
        const size_t comma = value.find(',');
        const std::string_view word = value.substr(0, comma);
        if (!equal_ignoring_case(word, "SUCCESS") && !equal_ignoring_case(word, "FAILURE") &&
            !equal_ignoring_case(word, "DELAY")) {
            return false;
        }
        if (comma == std::string_view::npos) return true;
        value.remove_prefix(comma + 1);
    }
}

bool is_orcpt(std::string_view value) {
    const size_t semicolon = value.find(';');
    if (semicolon == std::string_view::npos || semicolon == 0 || value.size() > kOrcpt)
        return false;
    for (const char c : value.substr(0, semicolon)) {
        const char l = lower(c);
        if (!(l >= 'a' && l <= 'z') && !(l >= '0' && l <= '9') && l != '-') return false;
    }
    const std::string_view address = value.substr(semicolon + 1);
    return !address.empty() && is_xtext(address);
}

// Digits of a fixed width at the start of `text`, taken away.
bool take_digits(std::string_view& text, size_t width, int& out) {
    if (text.size() < width) return false;
    out = 0;
    for (size_t i = 0; i < width; ++i) {
        if (text[i] < '0' || text[i] > '9') return false;
        out = out * 10 + (text[i] - '0');
    }
    text.remove_prefix(width);
    return true;
}

bool take_char(std::string_view& text, char wanted) {
    if (text.empty() || lower(text.front()) != wanted) return false;
    text.remove_prefix(1);
    return true;
}

bool parse_rfc3339(std::string_view text, int64_t& seconds) {
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
    if (!take_digits(text, 4, year) || !take_char(text, '-') || !take_digits(text, 2, month) ||
        !take_char(text, '-') || !take_digits(text, 2, day)) {
        return false;
    }
    if (!take_char(text, 't') && !take_char(text, ' ')) return false;
    if (!take_digits(text, 2, hour) || !take_char(text, ':') || !take_digits(text, 2, minute) ||
        !take_char(text, ':') || !take_digits(text, 2, second)) {
        return false;
    }
    if (take_char(text, '.')) {
        int digit = 0;
        if (!take_digits(text, 1, digit)) return false;
        while (take_digits(text, 1, digit)) {
        }
    }
    const std::chrono::year_month_day date{std::chrono::year(year),
                                           std::chrono::month(static_cast<unsigned>(month)),
                                           std::chrono::day(static_cast<unsigned>(day))};
    if (!date.ok() || hour > 23 || minute > 59 || second > 60) return false;
    seconds = int64_t{std::chrono::sys_days(date).time_since_epoch().count()} * 86'400 +
              hour * 3600 + minute * 60 + second;
    if (take_char(text, 'z')) return text.empty();
    const bool ahead = take_char(text, '+');
    if (!ahead && !take_char(text, '-')) return false;
    if (!take_digits(text, 2, hour) || !take_char(text, ':') || !take_digits(text, 2, minute))
        return false;
    if (!text.empty() || hour > 23 || minute > 59) return false;
    seconds -= (ahead ? 1 : -1) * (hour * 3600 + minute * 60);
    return true;
}

Result<void> take_sender(std::string_view value, Envelope& envelope) {
    if (value == "<>") {
        envelope.sender.clear();
        return {};
    }
    if (value.size() >= 2 && value.front() == '<' && value.back() == '>') {
        value = value.substr(1, value.size() - 2);
    }
    auto mailbox = parse_mailbox(value);
    if (!mailbox) return std::unexpected(std::move(mailbox.error()));
    envelope.sender.assign(value);
    envelope.smtputf8 |= mailbox->needs_smtputf8;
    return {};
}

Result<void> take_label(std::string_view value, std::string& out) {
    if (auto ok = check_label(value); !ok) return ok;
    out.assign(value);
    return {};
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
        if (lower(a[i]) != lower(b[i])) return false;
    }
    return true;
}

BlockLine split_block_line(std::string_view line) {
    if (line.size() < 2 || lower(line[0]) != 'x' || line[1] != '-') return {};
    const size_t colon = line.substr(0, 16).find(':');
    if (colon == std::string_view::npos) return {};
    for (const Named& named : kNames) {
        if (!equal_ignoring_case(line.substr(0, colon), named.text)) continue;
        size_t begin = colon + 1, end = line.size();
        while (begin < end && (line[begin] == ' ' || line[begin] == '\t')) ++begin;
        while (end > begin && (line[end - 1] == ' ' || line[end - 1] == '\t')) --end;
        return {named.name, line.substr(begin, end - begin), begin};
    }
    return {};
}

bool may_open_data(BlockName name) {
    return name == BlockName::campaign || name == BlockName::tenant ||
           name == BlockName::priority || name == BlockName::pool ||
           name == BlockName::virtual_mta || name == BlockName::not_before;
}

Result<void> EnvelopeFields::take(BlockName name, std::string_view value, Envelope& envelope) {
    // x-virtual-mta is PowerMTA's word for a pool: both together would be two answers.
    if (name == BlockName::virtual_mta) name = BlockName::pool;
    if (seen(name)) return fail("given twice; keep one of the lines");
    seen_ |= 1u << static_cast<unsigned>(name);
    switch (name) {
        case BlockName::sender:
            return take_sender(value, envelope);
        case BlockName::job:
            return take_label(value, envelope.job);
        case BlockName::campaign:
            return take_label(value, envelope.campaign);
        case BlockName::tenant:
            return take_label(value, envelope.tenant);
        case BlockName::pool:
            return take_label(value, envelope.pool);
        case BlockName::envid:
            if (auto ok = check_label(value); !ok) return ok;
            envelope.envid.clear();
            append_xtext(value, envelope.envid);
            if (envelope.envid.size() > kEnvid) return fail("over 100 octets as xtext; shorten it");
            return {};
        case BlockName::priority:
            if (equal_ignoring_case(value, "high")) {
                envelope.priority = Priority::high;
            } else if (!equal_ignoring_case(value, "normal")) {
                return fail("no such priority; give high or normal");
            }
            return {};
        case BlockName::not_before: {
            auto seconds = parse_not_before(value);
            if (!seconds) return std::unexpected(std::move(seconds.error()));
            envelope.not_before_s = *seconds;
            return {};
        }
        case BlockName::none:
        case BlockName::receiver:
        case BlockName::virtual_mta:
            break;
    }
    return fail("no single-valued line");
}

Result<void> take_mail_parameters(std::string_view parameters, Envelope& envelope) {
    std::string_view key, value;
    unsigned seen = 0;
    while (next_parameter(parameters, key, value)) {
        unsigned bit = 0;
        if (equal_ignoring_case(key, "SIZE")) {
            bit = 1;  // the size is measured, what is claimed does not matter
        } else if (equal_ignoring_case(key, "BODY")) {
            bit = 2;
            if (!equal_ignoring_case(value, "7BIT") && !equal_ignoring_case(value, "8BITMIME")) {
                return bad_value("BODY", "7BIT or 8BITMIME");
            }
        } else if (equal_ignoring_case(key, "SMTPUTF8")) {
            bit = 4;
            if (!value.empty()) return bad_value("SMTPUTF8", "none");
            envelope.smtputf8 = true;
        } else if (equal_ignoring_case(key, "RET")) {
            bit = 8;
            const bool full = equal_ignoring_case(value, "FULL");
            if (!full && !equal_ignoring_case(value, "HDRS"))
                return bad_value("RET", "FULL or HDRS");
            envelope.ret = full ? DsnReturn::full : DsnReturn::headers;
        } else if (equal_ignoring_case(key, "ENVID")) {
            bit = 16;
            if (value.empty() || value.size() > kEnvid || !is_xtext(value)) {
                return bad_value("ENVID", "1 to 100 octets of xtext (RFC 3461 4)");
            }
            envelope.envid.assign(value);
        } else {
            return unknown_parameter("MAIL", key, "SIZE, BODY, SMTPUTF8, RET and ENVID");
        }
        // RFC 5321 4.1.1.11: a parameter comes once.
        if ((seen & bit) != 0) return fail("MAIL has a parameter twice; keep one");
        seen |= bit;
    }
    return {};
}

Result<void> check_rcpt_parameters(std::string_view parameters) {
    std::string_view key, value;
    unsigned seen = 0;
    while (next_parameter(parameters, key, value)) {
        unsigned bit = 0;
        if (equal_ignoring_case(key, "NOTIFY")) {
            bit = 1;
            if (!is_notify(value))
                return bad_value("NOTIFY", "NEVER, or a list of SUCCESS, FAILURE, DELAY");
        } else if (equal_ignoring_case(key, "ORCPT")) {
            bit = 2;
            if (!is_orcpt(value))
                return bad_value("ORCPT", "type;xtext, e.g. rfc822;a@b (RFC 3461 4.2)");
        } else {
            return unknown_parameter("RCPT", key, "NOTIFY and ORCPT");
        }
        if ((seen & bit) != 0) return fail("RCPT has a parameter twice; keep one");
        seen |= bit;
    }
    return {};
}

Result<int64_t> parse_not_before(std::string_view value) {
    constexpr int64_t kFarthest = 253'402'300'799;  // the last second of the year 9999
    int64_t seconds = 0;
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), seconds);
    bool ok = code == std::errc{} && end == value.data() + value.size() && !value.empty();
    if (!ok) ok = parse_rfc3339(value, seconds);
    if (!ok || seconds < 0 || seconds > kFarthest) {
        return fail("no time; give seconds since 1970 or RFC 3339 like 2026-11-23T18:00:00Z");
    }
    return seconds;
}

Result<void> check_label(std::string_view value) {
    if (value.empty()) return fail("no value; give one or drop the line");
    if (value.size() > limits::kLabelValue) return fail("over 255 octets; shorten it");
    for (const char c : value) {
        const auto octet = static_cast<uint8_t>(c);
        if (octet < 32 || octet == 127) return fail("a control character; remove it");
    }
    if (!is_utf8(value)) return fail("not UTF-8");
    return {};
}

void append_xtext(std::string_view value, std::string& out) {
    for (const char c : value) {
        if (c >= '!' && c <= '~' && c != '+' && c != '=') {
            out += c;
        } else {
            fmt::format_to(std::back_inserter(out), "+{:02X}", static_cast<uint8_t>(c));
        }
    }
}

}  // namespace postrider
