#include "queue/formats/address_list.h"

namespace postrider {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// `at` is on "("; returns the index behind the comment, which may hold others (RFC 5322 3.2.2).
size_t skip_comment(std::string_view text, size_t at) {
    size_t depth = 0;
    for (; at < text.size(); ++at) {
        if (text[at] == '\\') {
            ++at;
        } else if (text[at] == '(') {
            ++depth;
        } else if (text[at] == ')' && --depth == 0) {
            return at + 1;
        }
    }
    return text.size();
}

// `at` is on `open`; returns the index behind `close`.
size_t skip_quoted(std::string_view text, size_t at, char close) {
    for (++at; at < text.size(); ++at) {
        if (text[at] == '\\') {
            ++at;
        } else if (text[at] == close) {
            return at + 1;
        }
    }
    return text.size();
}

size_t skip_space(std::string_view text, size_t at) {
    while (at < text.size()) {
        if (is_space(text[at])) {
            ++at;
        } else if (text[at] == '(') {
            at = skip_comment(text, at);
        } else {
            break;
        }
    }
    return at;
}

// Behind the next item of any kind: comment, quoted string, literal or one octet.
size_t skip_item(std::string_view text, size_t at) {
    switch (text[at]) {
        case '(':
            return skip_comment(text, at);
        case '"':
            return skip_quoted(text, at, '"');
        case '[':
            return skip_quoted(text, at, ']');
        default:
            return at + 1;
    }
}

// `at` is on "<"; `end` is set to the index of ">" or the end of the text. A source route is
// passed.
std::string_view inside_angle(std::string_view text, size_t at, size_t& end) {
    size_t begin = skip_space(text, at + 1);
    const bool route = begin < text.size() && text[begin] == '@';
    for (end = begin; end < text.size() && text[end] != '>'; end = skip_item(text, end)) {
        // RFC 5322 4.4 obs-route: domains up to a colon, to be ignored.
        if (route && text[end] == ':' && text[begin] == '@') begin = skip_space(text, end + 1);
    }
    if (end > text.size()) end = text.size();
    size_t last = begin;
    for (size_t i = begin; i < end;) {
        const bool word = !is_space(text[i]) && text[i] != '(';
        i = skip_item(text, i);
        if (word) last = i;
    }
    if (last > end) last = end;
    return text.substr(begin, last - begin);
}

}  // namespace

bool next_address(std::string_view list, size_t& at, ListedAddress& out) {
    while (true) {
        at = skip_space(list, at);
        if (at >= list.size()) return false;
        if (list[at] == ',' || list[at] == ';') {
            ++at;
            continue;
        }
        const size_t begin = at;
        size_t last = begin;  // behind the element's last word
        bool angle = false, group = false;
        out = ListedAddress{};
        while (at < list.size() && list[at] != ',' && list[at] != ';') {
            const char c = list[at];
            if (c == ':' && !angle) {
                ++at;
                group = true;  // what came before is the group's name (RFC 5322 3.4)
                break;
            }
            if (c == '<' && !angle) {
                angle = true;
                size_t end = 0;
                out.raw = inside_angle(list, at, end);
                out.is_null = end < list.size() && out.raw.empty();
                at = end < list.size() ? end + 1 : end;
                // Without its ">" the element has no address: all of it is shown as wrong.
                if (end >= list.size()) {
                    out.raw = list.substr(begin);
                    while (is_space(out.raw.back())) out.raw.remove_suffix(1);
                }
                continue;
            }
            const bool word = !is_space(c) && c != '(';
            at = skip_item(list, at);
            if (word) last = at;
        }
        if (group) continue;
        if (last > list.size()) last = list.size();
        if (!angle) out.raw = list.substr(begin, last - begin);
        return true;
    }
}

Result<void> plain_addr_spec(std::string_view raw, std::string& out) {
    out.clear();
    size_t at = 0;
    while (at < raw.size()) {
        const size_t word = skip_space(raw, at);
        if (word > at) {
            const bool joins = word >= raw.size() || out.empty() || out.back() == '.' ||
                               out.back() == '@' || raw[word] == '.' || raw[word] == '@';
            if (!joins) return fail("white space inside the address; quote the local part");
            at = word;
            continue;
        }
        const size_t end = skip_item(raw, at);
        // A fold inside a quoted string is its line end only (RFC 5322 2.2.3).
        for (; at < end && at < raw.size(); ++at) {
            const bool fold = raw[at] == '\r' || raw[at] == '\n';
            if (!fold) {
                out += raw[at];
            } else if (raw[at] == '\r' && (at + 1 == raw.size() || raw[at + 1] != '\n')) {
                return fail("a CR in the address; remove it");
            }
        }
    }
    return {};
}

}  // namespace postrider
