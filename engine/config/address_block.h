// A block of IP addresses in CIDR form, for prohibited_hosts. IPv4 and IPv6 do not mix, except that
// an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) is judged as the IPv4 address it stands for:
// otherwise
// ::ffff:127.0.0.1 would pass a ban of 127.0.0.0/8.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/result.h"

namespace postrider {

class AddressBlock {
  public:
    // "127.0.0.0/8", "::1/128", or a bare address, which is a block of one.
    static Result<AddressBlock> parse(std::string_view text);

    // `address`: 4 or 16 octets in network order; another length is in no block.
    bool contains(std::span<const uint8_t> address) const;

    std::string to_string() const;
    bool operator==(const AddressBlock&) const = default;

  private:
    std::array<uint8_t, 16> octets_{};
    uint8_t size_ = 4;    // octets of an address: 4 or 16
    uint8_t prefix_ = 0;  // bits
};

bool any_contains(const std::vector<AddressBlock>& blocks, std::span<const uint8_t> address);

// True for a literal IPv4 or IPv6 address without brackets or zone.
bool is_ip_address(std::string_view text);

}  // namespace postrider
