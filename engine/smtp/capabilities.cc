#include "engine/smtp/capabilities.h"

#include <algorithm>
#include <limits>
#include <optional>

namespace postrider {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

bool same_word(std::string_view a, std::string_view lower_case) {
    return std::ranges::equal(a, lower_case, {}, lower);
}

// Cuts the next word off `text`; empty at the end.
std::string_view next_word(std::string_view& text) {
    const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
    text.remove_prefix(begin);
    const size_t end = std::min(text.find_first_of(" \t"), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end);
    return word;
}

// Digits only, saturated; nothing else is a number (FAULTS 48).
std::optional<uint64_t> parse_number(std::string_view word) {
    constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
    if (word.empty()) return std::nullopt;
    uint64_t value = 0;
    for (const char c : word) {
        if (c < '0' || c > '9') return std::nullopt;
        const auto digit = static_cast<uint64_t>(c - '0');
        value = value > (most - digit) / 10 ? most : value * 10 + digit;
    }
    return value;
}

template <class T>
void keep_smaller(T& limit, uint64_t value) {
    const T bounded = static_cast<T>(std::min<uint64_t>(value, std::numeric_limits<T>::max()));
    if (bounded != 0) limit = limit == 0 ? bounded : std::min(limit, bounded);
}

// RFC 9422 4: LIMITS SP name "=" value ...; unknown names and malformed values are ignored, a value of 0
// (which the syntax excludes) too.
void parse_limits(std::string_view rest, Capabilities& out) {
    for (auto word = next_word(rest); !word.empty(); word = next_word(rest)) {
        const size_t equals = word.find('=');
        if (equals == std::string_view::npos) continue;
        const auto value = parse_number(word.substr(equals + 1));
        if (!value) continue;
        const std::string_view name = word.substr(0, equals);
        if (same_word(name, "mailmax")) keep_smaller(out.mail_max, *value);
        if (same_word(name, "rcptmax")) keep_smaller(out.rcpt_max, *value);
        if (same_word(name, "rcptdomainmax")) keep_smaller(out.rcpt_domain_max, *value);
    }
}

struct Keyword {
    std::string_view name;
    bool Capabilities::* flag;
};

constexpr Keyword kKeywords[] = {
    {"pipelining", &Capabilities::pipelining},
    {"chunking", &Capabilities::chunking},
    {"binarymime", &Capabilities::binarymime},
    {"8bitmime", &Capabilities::eight_bit_mime},
    {"smtputf8", &Capabilities::smtputf8},
    {"starttls", &Capabilities::starttls},
    {"enhancedstatuscodes", &Capabilities::enhanced_status_codes},
    {"dsn", &Capabilities::dsn},
    {"requiretls", &Capabilities::require_tls},
    {"auth", &Capabilities::auth},
    {"size", &Capabilities::size},
};

void parse_line(std::string_view line, Capabilities& out) {
    std::string_view keyword = next_word(line);
    if (keyword.size() > 5 && same_word(keyword.substr(0, 5), "auth=")) keyword = "auth";
    for (const Keyword& known : kKeywords) {
        if (!same_word(keyword, known.name)) continue;
        out.*known.flag = true;
        break;
    }
    if (same_word(keyword, "limits")) parse_limits(line, out);
    if (same_word(keyword, "size")) {
        // RFC 1870 4: no number or 0 means no fixed limit.
        if (const auto value = parse_number(next_word(line))) keep_smaller(out.size_limit, *value);
    }
}

}  // namespace

Capabilities parse_capabilities(const Reply& ehlo) {
    Capabilities out;
    std::string_view text = ehlo.text;
    bool greeting = true;  // RFC 5321 4.1.1.1: the first line carries the domain, no keyword
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        if (!greeting) parse_line(text.substr(0, end), out);
        greeting = false;
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
}

}  // namespace postrider
