#include "tools/sink/dns_answer.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "engine/core/hash.h"

namespace postrider::sink {

namespace {

constexpr size_t kHeader = 12;
constexpr size_t kPlainUdp = 512;      // RFC 1035 4.2.1
constexpr size_t kCnameChain = 8;
constexpr uint16_t kClassIn = 1;

uint16_t get16(std::string_view bytes, size_t at) {
    return static_cast<uint16_t>(static_cast<unsigned char>(bytes[at]) << 8 |
                                 static_cast<unsigned char>(bytes[at + 1]));
}

void put16(std::string& out, size_t value) {
    out += static_cast<char>(value >> 8 & 255);
    out += static_cast<char>(value & 255);
}

void put32(std::string& out, uint32_t value) {
    put16(out, value >> 16);
    put16(out, value & 0xffff);
}

std::string lowered(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
}

// Labels without compression (RFC 1035 3.1).
void put_name(std::string& out, std::string_view name) {
    while (!name.empty()) {
        const size_t dot = name.find('.');
        const std::string_view label = name.substr(0, dot).substr(0, 63);
        out += static_cast<char>(label.size());
        out += label;
        if (dot == std::string_view::npos) break;
        name.remove_prefix(dot + 1);
    }
    out += '\0';
}

struct Question {
    std::string name;   // lower case, without final dot
    std::string_view wire;  // name, type and class as asked: echoed with its case (0x20)
    uint16_t type = 0;
    bool edns = false;
    size_t payload = kPlainUdp;
};

// False: not a query with one question.
bool parse_query(std::string_view query, Question& question) {
    if (query.size() < kHeader || (query[2] & '\x80') != 0 || get16(query, 4) != 1) return false;
    size_t at = kHeader;
    while (true) {
        if (at >= query.size()) return false;
        const size_t size = static_cast<unsigned char>(query[at++]);
        if (size == 0) break;
        if (size > 63 || at + size > query.size()) return false;
        if (!question.name.empty()) question.name += '.';
        question.name += lowered(query.substr(at, size));
        at += size;
    }
    if (at + 4 > query.size()) return false;
    question.type = get16(query, at);
    question.wire = query.substr(kHeader, at + 4 - kHeader);
    at += 4;
    // An OPT record of the root, if it is the first additional one, tells the size the client takes (RFC 6891).
    if (get16(query, 10) > 0 && at + 11 <= query.size() && query[at] == 0 &&
        get16(query, at + 1) == static_cast<uint16_t>(DnsType::OPT)) {
        question.edns = true;
        question.payload = std::max<size_t>(get16(query, at + 3), kPlainUdp);
    }
    return true;
}

std::string record_data(const DnsRecord& record) {
    std::string data;
    switch (record.type) {
        case DnsType::MX:
            put16(data, record.preference);
            put_name(data, record.value);
            break;
        case DnsType::CNAME: put_name(data, record.value); break;
        case DnsType::TXT:
            for (size_t at = 0; at == 0 || at < record.value.size(); at += 255) {
                const std::string part = record.value.substr(at, 255);
                data += static_cast<char>(part.size());
                data += part;
            }
            break;
        default: data = record.value;
    }
    return data;
}

std::string_view next_word(std::string_view& line) {
    while (!line.empty() && (line[0] == ' ' || line[0] == '\t')) line.remove_prefix(1);
    const size_t end = std::min(line.find_first_of(" \t"), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end);
    return word;
}

std::string without_final_dot(std::string_view name) {
    if (name.ends_with('.')) name.remove_suffix(1);
    return std::string(name);
}

std::string address_bytes(uint32_t address) {
    std::string out;
    put32(out, address);
    return out;
}

}  // namespace

uint32_t site_address(uint32_t k) { return 0x7f000100u + k; }

Result<void> DnsZone::add_line(std::string_view line) {
    const std::string_view whole = line;
    const auto wrong = [&](std::string_view why) {
        return fail(fmt::format("DNS map line '{}': {}", whole, why));
    };
    line = line.substr(0, line.find_first_of(";#\r"));
    const std::string name = lowered(without_final_dot(next_word(line)));
    if (name.empty()) return {};
    const std::string kind = lowered(next_word(line));
    Entry& entry = entries_[name];
    if (kind == "nxdomain") return entry.fault = DnsFault::nxdomain, Result<void>();
    if (kind == "servfail") return entry.fault = DnsFault::servfail, Result<void>();
    if (kind == "refused") return entry.fault = DnsFault::refused, Result<void>();
    if (kind == "nodata") return entry.fault = DnsFault::nodata, Result<void>();
    if (kind == "timeout") return entry.fault = DnsFault::timeout, Result<void>();
    if (kind == "truncate") return entry.fault = DnsFault::truncate, Result<void>();
    DnsRecord record;
    if (kind == "mx") {
        record.type = DnsType::MX;
        const std::string_view preference = next_word(line);
        const auto [end, error] = std::from_chars(preference.data(), preference.data() + preference.size(),
                                                  record.preference);
        if (error != std::errc() || end != preference.data() + preference.size())
            return wrong("MX needs a preference and a host");
    } else if (kind == "a") {
        record.type = DnsType::A;
    } else if (kind == "aaaa") {
        record.type = DnsType::AAAA;
    } else if (kind == "cname") {
        record.type = DnsType::CNAME;
    } else if (kind == "txt") {
        record.type = DnsType::TXT;
    } else {
        return wrong("a type is one of A, AAAA, MX, CNAME, TXT, NXDOMAIN, SERVFAIL, REFUSED, NODATA, "
                     "TIMEOUT, TRUNCATE");
    }
    std::string value(next_word(line));
    if (value.empty()) return wrong("a value is missing");
    if (record.type == DnsType::A || record.type == DnsType::AAAA) {
        const bool v4 = record.type == DnsType::A;
        char bytes[16];
        if (inet_pton(v4 ? AF_INET : AF_INET6, value.c_str(), bytes) != 1) return wrong("no address");
        value.assign(bytes, v4 ? 4 : 16);
    } else if (record.type != DnsType::TXT) {
        value = without_final_dot(value);
    }
    record.value = std::move(value);
    entry.records.push_back(std::move(record));
    return {};
}

const DnsZone::Entry* DnsZone::find(const std::string& name) const {
    if (const auto exact = entries_.find(name); exact != entries_.end()) return &exact->second;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1))
        if (const auto wild = entries_.find("*" + name.substr(dot)); wild != entries_.end())
            return &wild->second;
    return nullptr;
}

std::vector<DnsRecord> DnsZone::catch_all(const std::string& name, DnsType type) const {
    if (type == DnsType::MX) {
        if (rules_.sites == 0) return {{DnsType::MX, 10, "mx." + name}};
        return {{DnsType::MX, 10, fmt::format("mx{}.sink.test", 1 + hash64(name) % rules_.sites)}};
    }
    if (type == DnsType::A) {
        uint32_t address = rules_.address, k = 0;
        if (rules_.spread && name.starts_with("mx") && name.ends_with(".sink.test")) {
            const char* const end = name.data() + name.size() - std::string_view(".sink.test").size();
            const auto [stop, error] = std::from_chars(name.data() + 2, end, k);
            if (error == std::errc() && stop == end && k >= 1 && k <= rules_.sites) address = site_address(k);
        }
        return {{DnsType::A, 0, address_bytes(address)}};
    }
    if (type == DnsType::AAAA && rules_.ipv6) return {{DnsType::AAAA, 0, std::string(15, '\0') + '\1'}};
    return {};
}

std::string DnsZone::answer(std::string_view query, bool udp) const {
    Question question;
    if (!parse_query(query, question)) return {};
    const auto type = static_cast<DnsType>(question.type);
    std::string records;
    size_t count = 0;
    DnsFault fault = DnsFault::none;
    std::string name = question.name;
    for (size_t hop = 0; hop < kCnameChain; ++hop) {
        const Entry* const entry = find(name);
        std::vector<DnsRecord> found;
        const DnsRecord* alias = nullptr;
        bool addresses_listed = false;
        if (entry != nullptr) {
            fault = entry->fault;
            for (const DnsRecord& record : entry->records) {
                if (record.type == type) found.push_back(record);
                if (record.type == DnsType::CNAME) alias = &record;
                addresses_listed |= record.type == DnsType::A || record.type == DnsType::AAAA;
            }
        }
        if (fault != DnsFault::none && fault != DnsFault::nodata && fault != DnsFault::truncate) break;
        if (alias != nullptr && type != DnsType::CNAME) found = {*alias};
        const bool address = type == DnsType::A || type == DnsType::AAAA;
        if (found.empty() && fault != DnsFault::nodata && !(address && addresses_listed))
            found = catch_all(name, type);
        for (const DnsRecord& record : found) {
            if (hop == 0) records += "\xc0\x0c";  // the question's name (RFC 1035 4.1.4)
            else put_name(records, name);
            put16(records, static_cast<uint16_t>(record.type));
            put16(records, kClassIn);
            put32(records, rules_.ttl_s);
            const std::string data = record_data(record);
            put16(records, data.size());
            records += data;
            ++count;
        }
        if (alias == nullptr || type == DnsType::CNAME) break;
        name = lowered(alias->value);
    }
    if (fault == DnsFault::timeout) return {};

    const size_t opt = question.edns ? 11 : 0;
    const size_t size = kHeader + question.wire.size() + records.size() + opt;
    const bool truncated = udp && (fault == DnsFault::truncate || size > question.payload);
    const size_t code = fault == DnsFault::nxdomain ? 3 : fault == DnsFault::servfail ? 2
                        : fault == DnsFault::refused ? 5 : 0;
    std::string out(query.substr(0, 2));
    // Response, the query's opcode and RD; authoritative, recursion available.
    out += static_cast<char>(0x84 | (query[2] & 0x79) | (truncated ? 2 : 0));
    out += static_cast<char>(0x80 | code);
    put16(out, 1);
    put16(out, truncated ? 0 : count);
    put16(out, 0);
    put16(out, question.edns ? 1 : 0);
    out += question.wire;
    if (!truncated) out += records;
    if (question.edns) {
        out += '\0';
        put16(out, static_cast<uint16_t>(DnsType::OPT));
        put16(out, 1232);
        put32(out, 0);
        put16(out, 0);
    }
    return out;
}

}  // namespace postrider::sink
