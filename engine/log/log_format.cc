// The hand-tuned half of the delivery log: one record to one line. The line is laid out in the buffer's own memory, for
// which room for the worst case (every octet escaped) is made first; nothing else is allocated.
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>

#include "engine/core/limits.h"
#include "engine/log/delivery_log.h"

namespace postrider {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {
    "Delivery", "TransientFailure", "Bounce", "Expiration", "AdminBounce", "Rejection", "Reception"};

constexpr size_t kFixedPart = 1024;  // names, numbers and punctuation of a line; a test holds it
constexpr size_t kEscapedAtMost = 6;  // octets for one of a string: \u00xx

// 1: a plain octet; 0: needs a look.
constexpr auto kPlain = [] {
    std::array<uint8_t, 256> plain{};
    for (int c = 0x20; c < 0x7f; ++c) plain[c] = c != '"' && c != '\\';
    return plain;
}();

constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint64_t kHighs = 0x8080808080808080;

// True when all eight octets are plain; may be false for ones that are (DEL's neighbours), which costs time only.
bool all_plain(uint64_t word) {
    const uint64_t quote = word ^ (kOnes * '"');
    const uint64_t backslash = word ^ (kOnes * '\\');
    const uint64_t del = word ^ (kOnes * 0x7f);
    const uint64_t control = word - kOnes * 0x20;
    return ((word | control | (quote - kOnes) | (backslash - kOnes) | (del - kOnes)) & kHighs) == 0;
}

// Octets of the well-formed UTF-8 sequence at `text` (RFC 3629 4); 0: none begins there.
size_t utf8_size(const unsigned char* text, size_t left) {
    const auto tail = [&](size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
        return i < left && text[i] >= low && text[i] <= high;
    };
    const unsigned first = text[0];
    if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        const unsigned low = first == 0xe0 ? 0xa0 : 0x80;    // no overlong forms
        const unsigned high = first == 0xed ? 0x9f : 0xbf;   // no surrogates
        return tail(1, low, high) && tail(2) ? 3 : 0;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        const unsigned low = first == 0xf0 ? 0x90 : 0x80;
        const unsigned high = first == 0xf4 ? 0x8f : 0xbf;   // nothing above U+10FFFF
        return tail(1, low, high) && tail(2) && tail(3) ? 4 : 0;
    }
    return 0;
}

class LineWriter {
  public:
    explicit LineWriter(char* at) : at_(at) {}
    char* at() const { return at_; }

    // Names and punctuation, known to need no escape.
    void raw(std::string_view text) {
        std::memcpy(at_, text.data(), text.size());
        at_ += text.size();
    }

    void number(uint64_t value) { at_ = std::to_chars(at_, at_ + 20, value).ptr; }
    void number_signed(int64_t value) { at_ = std::to_chars(at_, at_ + 20, value).ptr; }

    void hex(uint64_t value, int digits) {
        static constexpr char kDigits[] = "0123456789abcdef";
        for (int i = digits - 1; i >= 0; --i) *at_++ = kDigits[(value >> (4 * i)) & 15];
    }

    void micros(uint32_t value) {
        for (int i = 5; i >= 0; --i) {
            at_[i] = static_cast<char>('0' + value % 10);
            value /= 10;
        }
        at_ += 6;
    }

    void string(std::string_view text) {
        *at_++ = '"';
        const auto* from = reinterpret_cast<const unsigned char*>(text.data());
        const auto* const end = from + text.size();
        while (from < end) {
            if (end - from >= 8) {
                uint64_t word;
                std::memcpy(&word, from, 8);
                if (all_plain(word)) {
                    std::memcpy(at_, &word, 8);
                    at_ += 8;
                    from += 8;
                    continue;
                }
            }
            if (kPlain[*from])
                *at_++ = static_cast<char>(*from++);
            else
                from += escape(from, static_cast<size_t>(end - from));
        }
        *at_++ = '"';
    }

    void string_or_null(std::string_view text) {
        if (text.empty())
            raw("null");
        else
            string(text);
    }

  private:
    // One character that is not plain; returns the octets it had.
    size_t escape(const unsigned char* from, size_t left) {
        const unsigned first = *from;
        if (first == '"' || first == '\\') {
            *at_++ = '\\';
            *at_++ = static_cast<char>(first);
            return 1;
        }
        if (first < 0x80) {
            raw("\\u");
            hex(first, 4);
            return 1;
        }
        const size_t size = utf8_size(from, left);
        if (size == 0) {
            raw("\xEF\xBF\xBD");
            return 1;
        }
        if (size == 2 && first == 0xc2 && from[1] < 0xa0) {  // C1 controls move a terminal's cursor
            raw("\\u");
            hex(from[1], 4);
            return 2;
        }
        std::memcpy(at_, from, size);
        at_ += size;
        return size;
    }

    char* at_;
};

// The longest beginning that fits and does not cut a character in two.
std::string_view bounded(std::string_view text) {
    if (text.size() <= limits::kReplyLogged) return text;
    size_t size = limits::kReplyLogged;
    for (int i = 0; i < 3 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80; ++i) --size;
    return text.substr(0, size);
}

void write_response(LineWriter& line, const LoggedResponse& response) {
    line.raw(R"(,"response":{"code":)");
    line.number(response.code);
    if (response.enhanced_class != 0) {
        line.raw(R"(,"enhanced_code":{"class":)");
        line.number(response.enhanced_class);
        line.raw(R"(,"subject":)");
        line.number(response.enhanced_subject);
        line.raw(R"(,"detail":)");
        line.number(response.enhanced_detail);
        line.raw("}");
    } else {
        line.raw(R"(,"enhanced_code":null)");
    }
    line.raw(R"(,"content":)");
    line.string(bounded(response.content));
    line.raw(R"(,"command":)");
    line.string_or_null(bounded(response.command));
    line.raw("}");
}

void write_connection(LineWriter& line, const LogRecord& record) {
    line.raw(R"(,"bounce_classification":)");
    line.string(record.bounce_classification.empty() ? "Uncategorized"
                                                     : record.bounce_classification);
    line.raw(R"(,"egress_pool":)");
    line.string_or_null(record.egress_pool);
    line.raw(R"(,"egress_source":)");
    line.string_or_null(record.egress_source);
    line.raw(R"(,"source_address":)");
    if (record.source_address.empty()) {
        line.raw("null");
    } else {
        line.raw(R"({"address":)");
        line.string(record.source_address);
        line.raw("}");
    }
    line.raw(R"(,"delivery_protocol":)");
    line.string_or_null(record.delivery_protocol);
    if (!record.tls_cipher.empty()) {
        line.raw(R"(,"tls_cipher":)");
        line.string(record.tls_cipher);
    }
    if (!record.tls_protocol_version.empty()) {
        line.raw(R"(,"tls_protocol_version":)");
        line.string(record.tls_protocol_version);
    }
    if ((record.session_high | record.session_low) != 0) {
        line.raw(R"(,"session_id":")");
        line.hex(record.session_high >> 32, 8);
        line.raw("-");
        line.hex(record.session_high >> 16, 4);
        line.raw("-");
        line.hex(record.session_high, 4);
        line.raw("-");
        line.hex(record.session_low >> 48, 4);
        line.raw("-");
        line.hex(record.session_low, 12);
        line.raw("\"");
    }
    if (record.possible_duplicate) line.raw(R"(,"possible_duplicate":true)");
}

void write_meta(LineWriter& line, const LogRecord& record) {
    bool first = true;
    const auto member = [&](std::string_view name, std::string_view value) {
        if (value.empty()) return;
        line.raw(first ? R"(")" : R"(,")");
        line.raw(name);
        line.raw(R"(":)");
        line.string(value);
        first = false;
    };
    line.raw(R"(,"meta":{)");
    member("campaign", record.campaign);
    member("tenant", record.tenant);
    member("job", record.job);
    member("envid", record.envid);
    member("file", record.file);
    line.raw("}}\n");
}

size_t worst_case(const LogRecord& r) {
    const std::string_view all[] = {
        r.sender,        r.recipient,      r.queue,         r.site,
        r.peer_name,     r.peer_address,   r.egress_pool,   r.bounce_classification,
        r.egress_source, r.source_address, r.tls_cipher,    r.delivery_protocol,
        r.campaign,      r.tenant,         r.job,           r.tls_protocol_version,
        r.envid,         r.file};
    size_t octets = bounded(r.response.content).size() + bounded(r.response.command).size();
    for (const auto text : all) octets += text.size();
    return kFixedPart + kEscapedAtMost * octets;
}

}  // namespace

void LogFormatter::set_second(int64_t second) {
    second_ = second;
    const time_t when = second;
    tm utc{};
    gmtime_r(&when, &utc);
    const auto digits = [&](size_t at, int value, int count) {
        for (int i = count - 1; i >= 0; --i) {
            date_time_[at + static_cast<size_t>(i)] = static_cast<char>('0' + value % 10);
            value /= 10;
        }
    };
    std::memcpy(date_time_, "0000-00-00T00:00:00.", 20);
    digits(0, utc.tm_year + 1900, 4);
    digits(5, utc.tm_mon + 1, 2);
    digits(8, utc.tm_mday, 2);
    digits(11, utc.tm_hour, 2);
    digits(14, utc.tm_min, 2);
    digits(17, utc.tm_sec, 2);
}

void LogFormatter::append(const LogRecord& record, std::string& out) {
    int64_t second = record.event_us / kUsPerSecond;
    int64_t micros = record.event_us % kUsPerSecond;
    if (micros < 0) {  // a clock before 1970
        --second;
        micros += kUsPerSecond;
    }
    if (second != second_) set_second(second);
    const size_t used = out.size();
    out.resize_and_overwrite(used + worst_case(record), [&](char* data, size_t) {
        LineWriter line(data + used);
        line.raw(R"({"type":")");
        line.raw(kTypes[static_cast<size_t>(record.type)]);
        line.raw(R"(","id":")");
        line.hex(record.id.file, 16);
        line.hex(record.id.place, 16);
        line.raw(R"(","sender":)");
        line.string(record.sender);
        line.raw(R"(,"recipient":)");
        line.string(record.recipient);
        line.raw(R"(,"queue":)");
        line.string(record.queue);
        line.raw(R"(,"site":)");
        line.string(record.site);
        line.raw(R"(,"size":)");
        line.number(record.size);
        write_response(line, record.response);
        line.raw(R"(,"peer_address":)");
        if (record.peer_address.empty()) {
            line.raw("null");
        } else {
            line.raw(R"({"name":)");
            line.string(record.peer_name);
            line.raw(R"(,"addr":)");
            line.string(record.peer_address);
            line.raw("}");
        }
        line.raw(R"(,"timestamp":)");
        line.number_signed(second);
        line.raw(R"(,"created":)");
        line.number_signed(record.created_s);
        line.raw(R"(,"event_time":")");
        line.raw({date_time_, sizeof date_time_});
        line.micros(static_cast<uint32_t>(micros));
        line.raw(R"(Z","num_attempts":)");
        line.number(record.num_attempts);
        write_connection(line, record);
        write_meta(line, record);
        return static_cast<size_t>(line.at() - data);
    });
}

}  // namespace postrider
