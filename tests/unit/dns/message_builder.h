// Builds DNS messages octet by octet, well-formed ones and others.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dns/dns_message.h"

namespace postrider::dns_test {

using Octets = std::vector<uint8_t>;

inline constexpr uint16_t kAnswerFlags = 0x8180;  // QR, RD, RA
inline constexpr uint16_t kAuthoritativeFlags = 0x8400;

inline void put16(Octets& out, uint32_t value) {
    out.push_back(static_cast<uint8_t>(value >> 8));
    out.push_back(static_cast<uint8_t>(value));
}
inline void put32(Octets& out, uint32_t value) {
    put16(out, value >> 16);
    put16(out, value & 0xFFFF);
}
// "a.b" in wire form, uncompressed; "" is the root.
inline void put_name(Octets& out, std::string_view name) {
    while (!name.empty()) {
        const auto dot = name.find('.');
        const auto label = name.substr(0, dot);
        out.push_back(static_cast<uint8_t>(label.size()));
        out.insert(out.end(), label.begin(), label.end());
        name = dot == std::string_view::npos ? std::string_view{} : name.substr(dot + 1);
    }
    out.push_back(0);
}
inline Octets wire_name(std::string_view name) {
    Octets out;
    put_name(out, name);
    return out;
}
inline Octets mx_data(uint16_t preference, std::string_view host) {
    Octets out;
    put16(out, preference);
    put_name(out, host);
    return out;
}
inline Octets soa_data(uint32_t minimum_s) {
    Octets out;
    put_name(out, "ns.test");
    put_name(out, "admin.test");
    for (int i = 0; i < 4; ++i) put32(out, 1);
    put32(out, minimum_s);
    return out;
}

class MessageBuilder {
  public:
    MessageBuilder(std::string_view name, RecordType type, uint16_t flags = kAnswerFlags,
                   uint16_t id = 7) {
        put16(octets_, id);
        put16(octets_, flags);
        put16(octets_, 1);
        for (int i = 0; i < 3; ++i) put16(octets_, 0);
        put_name(octets_, name);
        put16(octets_, static_cast<uint16_t>(type));
        put16(octets_, 1);
    }
    // Answers first, then authorities.
    MessageBuilder& answer(const Octets& owner, RecordType type, uint32_t ttl_s,
                           const Octets& data) {
        return record(6, owner, type, ttl_s, data);
    }
    MessageBuilder& answer(std::string_view owner, RecordType type, uint32_t ttl_s,
                           const Octets& data) {
        return record(6, wire_name(owner), type, ttl_s, data);
    }
    MessageBuilder& authority(std::string_view owner, RecordType type, uint32_t ttl_s,
                              const Octets& data) {
        return record(8, wire_name(owner), type, ttl_s, data);
    }
    size_t size() const { return octets_.size(); }
    const Octets& octets() const { return octets_; }
    operator const Octets&() const { return octets_; }
    operator std::span<const uint8_t>() const { return octets_; }

  private:
    MessageBuilder& record(size_t count_at, const Octets& owner, RecordType type, uint32_t ttl_s,
                           const Octets& data) {
        const int count = (octets_[count_at] << 8 | octets_[count_at + 1]) + 1;
        octets_[count_at] = static_cast<uint8_t>(count >> 8);
        octets_[count_at + 1] = static_cast<uint8_t>(count);
        octets_.insert(octets_.end(), owner.begin(), owner.end());
        put16(octets_, static_cast<uint16_t>(type));
        put16(octets_, 1);
        put32(octets_, ttl_s);
        put16(octets_, static_cast<uint32_t>(data.size()));
        octets_.insert(octets_.end(), data.begin(), data.end());
        return *this;
    }

    Octets octets_;
};

}  // namespace postrider::dns_test
