// The grammar is walked by hand, one table look-up an octet: the intake reads every address of a
// batch here.
#include "engine/core/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <idn2.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/core/limits.h"

namespace postrider {
namespace {

enum : uint8_t {
    kAtext = 1,  // RFC 5321 4.1.2 Atom, the dot included: misplaced dots pass
    kQtext = 2,  // inside quotes without a backslash: qtextSMTP
    kLabel = 4,  // letter or digit of a domain
    kHigh = 8,   // above 127: RFC 6531 3.3 adds UTF8-non-ascii to all three
};

constexpr std::array<uint8_t, 256> make_classes() {
    std::array<uint8_t, 256> classes{};
    for (int c = 0; c < 256; ++c) {
        const bool alnum =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        uint8_t kind = 0;
        if (alnum) kind |= kAtext | kLabel;
        if (c >= 32 && c <= 126 && c != '"' && c != '\\') kind |= kQtext;
        if (c >= 128) kind = kAtext | kQtext | kLabel | kHigh;
        classes[static_cast<size_t>(c)] = kind;
    }
    for (const char c : std::string_view(".!#$%&'*+-/=?^_`{|}~"))
        classes[static_cast<uint8_t>(c)] |= kAtext;
    return classes;
}

constexpr std::array<uint8_t, 256> kClasses = make_classes();

uint8_t class_of(char c) { return kClasses[static_cast<uint8_t>(c)]; }

// Addresses in errors may hold anything: they are shown bounded and without controls.
std::string shown(std::string_view text) {
    std::string out;
    const bool cut = text.size() > 80;
    for (const char c : text.substr(0, 80)) {
        const auto octet = static_cast<uint8_t>(c);
        if (octet < 32 || octet == 127) {
            out += fmt::format("\\x{:02x}", octet);
        } else {
            out += c;
        }
    }
    if (!is_utf8(out)) {
        for (char& c : out) c = static_cast<uint8_t>(c) >= 128 ? '?' : c;
    }
    return cut ? out + "..." : out;
}

std::unexpected<Error> bad(std::string_view text, std::string_view why) {
    return fail(fmt::format("address \"{}\": {}", shown(text), why));
}

// U+0080 to U+009F: NEL is among them, which some take for a line end.
bool has_c1_control(std::string_view utf8) {
    for (size_t i = 0; i + 1 < utf8.size(); ++i) {
        if (utf8[i] == '\xc2' && static_cast<uint8_t>(utf8[i + 1]) < 0xA0) return true;
    }
    return false;
}

// Octets of the local part at the start of `text`, 0 when there is none. `high` gathers octets
// above 127.
size_t scan_quoted(std::string_view text, uint8_t& high) {
    for (size_t i = 1; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') return i + 1;
        if (c == '\\') {
            // quoted-pairSMTP: a backslash and any graphic or space (RFC 5321 4.1.2).
            if (++i == text.size() || text[i] < 32 || text[i] > 126) return 0;
            continue;
        }
        if ((class_of(c) & kQtext) == 0) return 0;
        high |= class_of(c);
    }
    return 0;
}

size_t scan_dot_string(std::string_view text, uint8_t& high) {
    size_t i = 0;
    for (; i < text.size() && (class_of(text[i]) & kAtext) != 0; ++i) high |= class_of(text[i]);
    return i;
}

// RFC 5321 4.1.3. Octets of the literal at the start of `text`, 0 when it is not one.
size_t scan_literal(std::string_view text) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos || end > 64) return 0;
    std::string inside(text.substr(1, end - 1));
    unsigned char address[16];
    constexpr std::string_view kTag = "IPv6:";
    bool six = inside.size() > kTag.size();
    for (size_t i = 0; six && i < kTag.size(); ++i) six = (inside[i] | 0x20) == (kTag[i] | 0x20);
    if (inside.find('\0') != std::string::npos) return 0;
    if (six) return inet_pton(AF_INET6, inside.c_str() + kTag.size(), address) == 1 ? end + 1 : 0;
    return inet_pton(AF_INET, inside.c_str(), address) == 1 ? end + 1 : 0;
}

// Octets of the domain name at the start of `text`; `why` is set when it is not one.
size_t scan_name(std::string_view text, uint8_t& high, const char*& why) {
    size_t i = 0, label = 0;  // `label`: where the current label begins
    uint8_t label_high = 0;
    const auto label_is_wrong = [&] {
        if (i == label) return why = "the domain has an empty label", true;
        if (text[i - 1] == '-') return why = "a label of the domain ends in a hyphen", true;
        // A U-label is measured as the A-label it becomes: libidn2 does that (RFC 5890 2.3.2.1).
        if (i - label > 63 && label_high == 0)
            return why = "a label of the domain is over 63 octets", true;
        return false;
    };
    for (; i < text.size(); ++i) {
        const uint8_t kind = class_of(text[i]);
        if ((kind & kLabel) != 0) {
            label_high |= kind & kHigh;
        } else if (text[i] == '.') {
            if (label_is_wrong()) return 0;
            high |= label_high;
            label = i + 1;
            label_high = 0;
        } else if (text[i] != '-' || i == label) {
            break;
        }
    }
    if (i < text.size() && text[i] == '-')
        return why = "a label of the domain begins with a hyphen", 0;
    const bool trailing_dot = i > 0 && i == label;
    if (!trailing_dot && label_is_wrong()) return 0;
    high |= label_high;
    return i;
}

// The mailbox at the start of `text`; it ends where the domain's characters do.
Result<Mailbox> scan_mailbox(std::string_view text) {
    uint8_t local_high = 0, domain_high = 0;
    const bool quoted = !text.empty() && text.front() == '"';
    const size_t local = quoted ? scan_quoted(text, local_high) : scan_dot_string(text, local_high);
    if (local == 0)
        return bad(text, quoted ? "the quoted local part is not well formed" : "no local part");
    if (local == text.size()) return bad(text, "no @ and domain");
    if (text[local] != '@')
        return bad(text, "a character that an address cannot have before the @");
    if (local > limits::kLocalPart) return bad(text, "the local part is over 64 octets");

    const std::string_view rest = text.substr(local + 1);
    if (rest.empty()) return bad(text, "no domain");
    size_t domain = 0;
    if (rest.front() == '[') {
        domain = scan_literal(rest);
        if (domain == 0)
            return bad(text, "the address literal is neither [a.b.c.d] nor [IPv6:...]");
    } else {
        const char* why = "a character that a domain cannot have";
        domain = scan_name(rest, domain_high, why);
        if (domain == 0) return bad(text, why);
    }
    if (domain > limits::kDomain) return bad(text, "the domain is over 255 octets");
    Mailbox mailbox{text.substr(0, local), rest.substr(0, domain), (local_high & kHigh) != 0,
                    (domain_high & kHigh) != 0};
    for (const std::string_view part : {mailbox.local, mailbox.domain}) {
        if (!mailbox.needs_smtputf8 && !mailbox.utf8_domain) break;
        if (!is_utf8(part)) return bad(text, "not UTF-8");
        if (has_c1_control(part)) return bad(text, "a control character");
    }
    return mailbox;
}

}  // namespace

Result<Mailbox> parse_mailbox(std::string_view text) {
    auto mailbox = scan_mailbox(text);
    if (!mailbox) return mailbox;
    if (mailbox->local.size() + 1 + mailbox->domain.size() != text.size()) {
        return bad(text, "a character that a domain cannot have");
    }
    return mailbox;
}

Result<Path> parse_path(std::string_view text) {
    if (text.empty() || text.front() != '<') return bad(text, "a path begins with <");
    if (text.size() > 1 && text[1] == '>') return Path{{}, {}, 2};
    size_t start = 1;
    if (text.size() > 1 && text[1] == '@') {
        // A-d-l ":" is accepted and ignored (RFC 5321 4.1.1.3, appendix C).
        for (start = 2; start < text.size(); ++start) {
            const char c = text[start];
            if (c == ':') break;
            if ((class_of(c) & kLabel) == 0 && c != '.' && c != '-' && c != '@' && c != ',') {
                return bad(text, "the source route is not well formed");
            }
        }
        if (start >= limits::kPath || start == text.size()) {
            return bad(text, "the source route is not well formed");
        }
        ++start;
    }
    auto mailbox = scan_mailbox(text.substr(start));
    if (!mailbox) return std::unexpected(std::move(mailbox.error()));
    const size_t size = mailbox->local.size() + 1 + mailbox->domain.size();
    if (start + size >= text.size() || text[start + size] != '>') {
        return bad(text, "no > behind the domain");
    }
    return Path{text.substr(start, size), *mailbox, start + size + 1};
}

void normalise_domain(std::string_view domain, std::string& out) {
    if (!domain.empty() && domain.back() == '.') domain.remove_suffix(1);
    out.assign(domain);
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    }
}

std::string normalise_domain(std::string_view domain) {
    std::string out;
    normalise_domain(domain, out);
    return out;
}

Result<std::string> domain_to_ascii(std::string_view domain) {
    std::string name = normalise_domain(domain);
    bool ascii = true;
    for (const char c : name) ascii = ascii && (class_of(c) & kHigh) == 0;
    if (ascii) return name;
    if (!is_utf8(name)) return bad(domain, "not UTF-8");
    char* converted = nullptr;
    const int code = idn2_lookup_u8(reinterpret_cast<const uint8_t*>(name.c_str()),
                                    reinterpret_cast<uint8_t**>(&converted),
                                    IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (code != IDN2_OK) {
        return bad(domain,
                   fmt::format("no internationalised domain name: {}", idn2_strerror(code)));
    }
    std::string out(converted);
    idn2_free(converted);
    out = normalise_domain(out);
    // The mapping (UTS 46) may have dropped or made dots: what came of it must be a name again.
    uint8_t high = 0;
    const char* why = nullptr;
    if (out.size() > limits::kDomain || scan_name(out, high, why) != out.size() || high != 0) {
        return bad(domain, "no internationalised domain name");
    }
    return out;
}

std::string_view address_to_ascii(std::string_view address, std::string& room) {
    const auto high = [](char c) { return (class_of(c) & kHigh) != 0; };
    const size_t domain_at = address.rfind('@') + 1;
    if (std::ranges::none_of(address, high) || std::ranges::any_of(address.substr(0, domain_at), high)) return address;
    auto domain = domain_to_ascii(address.substr(domain_at));
    if (!domain) return address;
    room.assign(address.substr(0, domain_at)).append(*domain);
    return room;
}

bool is_utf8(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
        const auto lead = static_cast<uint8_t>(text[i++]);
        if (lead < 0x80) continue;
        // The second octet's range shuts out overlong forms, surrogates and what lies above
        // U+10FFFF.
        size_t more = 0;
        uint8_t low = 0x80, high = 0xBF;
        if (lead >= 0xC2 && lead <= 0xDF) {
            more = 1;
        } else if (lead >= 0xE0 && lead <= 0xEF) {
            more = 2;
            if (lead == 0xE0) low = 0xA0;
            if (lead == 0xED) high = 0x9F;
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            more = 3;
            if (lead == 0xF0) low = 0x90;
            if (lead == 0xF4) high = 0x8F;
        } else {
            return false;
        }
        for (; more > 0; --more, ++i) {
            if (i == text.size()) return false;
            const auto next = static_cast<uint8_t>(text[i]);
            if (next < low || next > high) return false;
            low = 0x80;
            high = 0xBF;
        }
    }
    return true;
}

}  // namespace postrider
