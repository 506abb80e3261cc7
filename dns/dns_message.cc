#include "dns/dns_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/core/limits.h"

namespace postrider {
namespace {

constexpr uint16_t kClassInternet = 1;
constexpr size_t kNameWireSize = 255;  // RFC 1035 2.3.4
constexpr size_t kAliasesKept = 2 * limits::kCnameChain;

void append_label_octet(std::string& text, uint8_t octet) {
    if (octet >= 'A' && octet <= 'Z') {
        text += static_cast<char>(octet + 32);
    } else if (octet <= ' ' || octet >= 127 || octet == '.' || octet == '\\') {
        fmt::format_to(std::back_inserter(text), "\\{:03}", octet);  // RFC 1035 5.1
    } else {
        text += static_cast<char>(octet);
    }
}

// A cursor over the message. After the first step over an edge everything it reads is zero and
// `bad()` holds.
class Reader {
  public:
    explicit Reader(std::span<const uint8_t> message) : message_(message) {}

    bool bad() const { return bad_; }
    size_t position() const { return position_; }
    void seek(size_t position) { position_ = position; }
    std::span<const uint8_t> take(size_t size) {
        if (bad_ || size > message_.size() - position_) {
            bad_ = true;
            return {};
        }
        position_ += size;
        return message_.subspan(position_ - size, size);
    }
    uint16_t u16() {
        const auto octets = take(2);
        return octets.empty() ? uint16_t{0} : static_cast<uint16_t>(octets[0] << 8 | octets[1]);
    }
    uint32_t u32() {
        const uint32_t high = u16();
        return high << 16 | u16();
    }
    // Text form, lower case, without the final dot; the root is empty.
    void name(std::string& text);
    void skip_name() {
        std::string ignored;
        name(ignored);
    }

  private:
    std::span<const uint8_t> message_;
    size_t position_ = 0;
    bool bad_ = false;
};

void Reader::name(std::string& text) {
    text.clear();
    size_t at = position_;
    size_t lowest =
        position_;   // a pointer must lead below the start of the part it ends (RFC 1035 4.1.4)
    size_t end = 0;  // behind the first pointer, where reading goes on
    size_t wire_size = 1;
    while (!bad_) {
        if (at >= message_.size()) break;
        const uint8_t size = message_[at];
        if (size == 0) {
            position_ = end ? end : at + 1;
            return;
        }
        if (size >= 0xC0) {
            if (at + 1 >= message_.size()) break;
            const size_t target = static_cast<size_t>(size & 0x3F) << 8 | message_[at + 1];
            if (!end) end = at + 2;
            if (target >= lowest) break;
            at = lowest = target;
            continue;
        }
        wire_size += size + 1U;
        if (size > 63 || wire_size > kNameWireSize || at + 1 + size > message_.size()) break;
        if (!text.empty()) text += '.';
        for (const uint8_t octet : message_.subspan(at + 1, size)) append_label_octet(text, octet);
        at += size + 1U;
    }
    bad_ = true;
}

struct Record {
    std::string owner;
    uint16_t type = 0;
    uint32_t ttl_s = 0;
    size_t data = 0;  // position of RDATA
    size_t size = 0;
};

// RFC 2181 8.
uint32_t sane_ttl(uint32_t ttl_s) { return ttl_s > 0x7FFFFFFF ? 0 : ttl_s; }

bool read_record(Reader& reader, Record& record) {
    reader.name(record.owner);
    record.type = reader.u16();
    const uint16_t record_class = reader.u16();
    record.ttl_s = sane_ttl(reader.u32());
    record.size = reader.u16();
    record.data = reader.position();
    reader.take(record.size);
    if (record_class != kClassInternet) record.type = 0;
    return !reader.bad();
}

struct Alias {
    std::string owner, target;
    uint32_t ttl_s;
};

struct Header {
    uint16_t flags, questions, answers, authorities;
    bool is_answer() const { return (flags & 0xF800) == 0x8000; }  // QR, opcode QUERY
    bool authoritative() const { return flags & 0x0400; }
    bool truncated() const { return flags & 0x0200; }
    bool recursive() const { return flags & 0x0080; }
    int code() const { return flags & 0x000F; }
};

std::string_view code_name(int code) {
    static constexpr std::string_view kNames[] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                                  "NXDOMAIN", "NOTIMP",  "REFUSED"};
    return code < static_cast<int>(std::size(kNames)) ? kNames[code] : "an unknown error code";
}

class AnswerParser {
  public:
    AnswerParser(std::span<const uint8_t> message, RecordType type)
        : reader_(message), message_(message), type_(type) {}
    DnsAnswer parse(std::string_view name);

  private:
    bool open(std::string_view name);
    bool read_aliases();
    bool follow_aliases();
    bool read_records();
    bool read_data(const Record& record);
    bool read_authority();
    DnsAnswer fail(std::string why) { return failed_answer(std::move(why)); }

    Reader reader_;
    std::span<const uint8_t> message_;
    RecordType type_;
    Header header_{};
    size_t answers_at_ = 0;
    std::vector<Alias> aliases_;
    bool has_soa_ = false, has_ns_ = false;
    uint32_t negative_ttl_s_ = 0;
    uint32_t ttl_s_ = limits::kTtlMaxS;
    DnsAnswer answer_;
};

// Header and question. The question must be ours: c-ares compares it too, but an answer decides
// over mail.
bool AnswerParser::open(std::string_view name) {
    reader_.u16();  // id
    header_.flags = reader_.u16();
    header_.questions = reader_.u16();
    header_.answers = reader_.u16();
    header_.authorities = reader_.u16();
    reader_.u16();  // additional records are not read
    if (reader_.bad() || !header_.is_answer()) {
        answer_.why = "malformed answer";
        return false;
    }
    std::string question;
    if (header_.questions == 1) reader_.name(question);
    const uint16_t type = reader_.u16();
    const uint16_t question_class = reader_.u16();
    if (header_.questions != 1 || reader_.bad() || question != name ||
        type != std::to_underlying(type_) || question_class != kClassInternet) {
        // Some servers leave the question out of an error.
        const bool error = header_.code() != 0 && header_.code() != 3;
        answer_.why =
            error ? std::string(code_name(header_.code())) : "an answer to another question";
        return false;
    }
    answers_at_ = reader_.position();
    return true;
}

bool AnswerParser::read_aliases() {
    Record record;
    for (int i = 0; i < header_.answers; ++i) {
        if (!read_record(reader_, record)) return false;
        if (record.type != std::to_underlying(RecordType::cname) || aliases_.size() == kAliasesKept)
            continue;
        Reader data(message_);
        data.seek(record.data);
        Alias alias{record.owner, {}, record.ttl_s};
        data.name(alias.target);
        if (data.bad() || data.position() != record.data + record.size) return false;
        aliases_.push_back(std::move(alias));
    }
    return true;
}

// False: a loop, or too long a chain.
bool AnswerParser::follow_aliases() {
    while (true) {
        const auto next = std::ranges::find(aliases_, answer_.name, &Alias::owner);
        if (next == aliases_.end()) return true;
        if (++answer_.aliases > limits::kCnameChain) return false;
        ttl_s_ = std::min(ttl_s_, next->ttl_s);
        answer_.name = next->target;
    }
}

bool AnswerParser::read_data(const Record& record) {
    const auto data = message_.subspan(record.data, record.size);
    if (type_ == RecordType::a) {
        if (data.size() != 4) return false;
        if (answer_.addresses.size() < limits::kAddressesPerHost)
            answer_.addresses.push_back(SocketAddress::v4(data.first<4>(), 0));
    } else if (type_ == RecordType::aaaa) {
        if (data.size() != 16) return false;
        if (answer_.addresses.size() < limits::kAddressesPerHost)
            answer_.addresses.push_back(SocketAddress::v6(data.first<16>(), 0));
    } else {
        Reader reader(message_);
        reader.seek(record.data);
        MxHost host;
        host.preference = reader.u16();
        reader.name(host.name);
        if (reader.bad() || reader.position() != record.data + record.size) return false;
        answer_.mx.push_back(std::move(host));
    }
    return true;
}

// The second pass over the answers: the records at the end of the chain.
bool AnswerParser::read_records() {
    reader_.seek(answers_at_);
    Record record;
    for (int i = 0; i < header_.answers; ++i) {
        if (!read_record(reader_, record)) return false;
        if (record.type != std::to_underlying(type_) || record.owner != answer_.name) continue;
        ttl_s_ = std::min(ttl_s_, record.ttl_s);
        if (!read_data(record)) return false;
    }
    return true;
}

// RFC 2308 5: a negative answer lives as long as the lesser of the SOA's TTL and its MINIMUM.
bool AnswerParser::read_authority() {
    Record record;
    for (int i = 0; i < header_.authorities; ++i) {
        if (!read_record(reader_, record)) return false;
        if (record.type == std::to_underlying(RecordType::ns)) has_ns_ = true;
        if (record.type != std::to_underlying(RecordType::soa)) continue;
        Reader data(message_);
        data.seek(record.data);
        data.skip_name();
        data.skip_name();
        data.take(16);  // serial, refresh, retry, expire
        const uint32_t minimum_s = sane_ttl(data.u32());
        if (data.bad() || data.position() != record.data + record.size) return false;
        has_soa_ = true;
        negative_ttl_s_ = std::min(record.ttl_s, minimum_s);
    }
    return true;
}

DnsAnswer AnswerParser::parse(std::string_view name) {
    if (!open(name)) return std::move(answer_);
    if (header_.code() != 0 && header_.code() != 3)
        return fail(std::string(code_name(header_.code())));
    if (header_.truncated())
        return fail("truncated answer");  // c-ares has asked by TCP: nothing better will come
    answer_.name = name;
    if (!read_aliases()) return fail("malformed answer");
    if (!follow_aliases())
        return fail(fmt::format("a loop or more than {} aliases", limits::kCnameChain));
    if (!read_records() || !read_authority()) return fail("malformed answer");
    if (!answer_.mx.empty() || !answer_.addresses.empty()) {
        answer_.kind = DnsAnswer::Kind::records;
    } else if (header_.code() == 3) {
        answer_.kind = DnsAnswer::Kind::no_such_name;  // of the chain's end (RFC 2308 2.1)
    } else if (answer_.aliases > 0 && !has_soa_) {
        answer_.kind = DnsAnswer::Kind::alias;
    } else if (has_ns_ && !has_soa_ && !header_.authoritative() && !header_.recursive()) {
        return fail("a referral instead of an answer");  // RFC 2308 2.2
    } else {
        answer_.kind = DnsAnswer::Kind::no_data;
    }
    const bool negative =
        answer_.kind == DnsAnswer::Kind::no_data || answer_.kind == DnsAnswer::Kind::no_such_name;
    answer_.ttl_s = clamp_ttl(negative ? std::min(ttl_s_, negative_ttl_s_) : ttl_s_);
    return std::move(answer_);
}

}  // namespace

std::string_view record_type_name(RecordType type) {
    switch (type) {
        case RecordType::a:
            return "A";
        case RecordType::ns:
            return "NS";
        case RecordType::cname:
            return "CNAME";
        case RecordType::soa:
            return "SOA";
        case RecordType::mx:
            return "MX";
        case RecordType::aaaa:
            return "AAAA";
    }
    return "?";
}

DnsAnswer failed_answer(std::string why) {
    DnsAnswer answer;
    answer.why = std::move(why);
    return answer;
}

uint32_t clamp_ttl(uint32_t ttl_s) {
    return std::clamp(sane_ttl(ttl_s), limits::kTtlMinS, limits::kTtlMaxS);
}

DnsAnswer parse_answer(std::span<const uint8_t> message, std::string_view name, RecordType type) {
    return AnswerParser(message, type).parse(name);
}

}  // namespace postrider
