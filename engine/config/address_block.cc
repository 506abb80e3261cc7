#include "engine/config/address_block.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace postrider {
namespace {

constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// 4 or 16; 0 when `text` is no address.
uint8_t parse_address(std::string_view text, std::array<uint8_t, 16>& octets) {
    const std::string terminated(text);
    if (terminated.find('\0') != std::string::npos) return 0;  // inet_pton would stop there
    if (inet_pton(AF_INET, terminated.c_str(), octets.data()) == 1) return 4;
    if (inet_pton(AF_INET6, terminated.c_str(), octets.data()) == 1) return 16;
    return 0;
}

bool bit(std::span<const uint8_t> octets, size_t index) {
    return (octets[index / 8] >> (7 - index % 8)) & 1;
}

}  // namespace

Result<AddressBlock> AddressBlock::parse(std::string_view text) {
    const auto wrong = [&](std::string_view why) {
        return fail(std::string(why) +
                    ", allowed: an address or a block such as \"127.0.0.0/8\", \"fe80::/10\"");
    };
    AddressBlock block;
    const auto slash = text.find('/');
    block.size_ = parse_address(text.substr(0, slash), block.octets_);
    if (block.size_ == 0) return wrong("not an address block");
    const auto bits = static_cast<uint8_t>(block.size_ * 8);
    block.prefix_ = bits;
    if (slash != std::string_view::npos) {
        const auto digits = text.substr(slash + 1);
        const auto* const end = digits.data() + digits.size();
        const auto [stop, error] = std::from_chars(digits.data(), end, block.prefix_);
        if (error != std::errc{} || stop != end || block.prefix_ > bits) {
            return wrong("the prefix length is not between 0 and " + std::to_string(bits));
        }
    }
    AddressBlock masked = block;
    for (size_t i = block.prefix_; i < bits; ++i) {
        masked.octets_[i / 8] &= static_cast<uint8_t>(~(0x80U >> (i % 8)));
    }
    if (masked != block)
        return wrong("bits are set beyond the prefix: did you mean " + masked.to_string() + "?");
    return block;
}

bool AddressBlock::contains(std::span<const uint8_t> address) const {
    if (address.size() == 16 && std::ranges::equal(address.first(12), kMappedPrefix)) {
        // A block of ::ffff:0:0/96 itself still bans the form.
        if (size_ == 4) address = address.subspan(12);
    }
    if (address.size() != size_) return false;
    for (size_t i = 0; i < prefix_; ++i) {
        if (bit(address, i) != bit(octets_, i)) return false;
    }
    return true;
}

std::string AddressBlock::to_string() const {
    char text[INET6_ADDRSTRLEN] = {};
    inet_ntop(size_ == 4 ? AF_INET : AF_INET6, octets_.data(), text, sizeof text);
    return std::string(text) + '/' + std::to_string(prefix_);
}

bool any_contains(const std::vector<AddressBlock>& blocks, std::span<const uint8_t> address) {
    return std::ranges::any_of(blocks, [&](const AddressBlock& b) { return b.contains(address); });
}

bool is_ip_address(std::string_view text) {
    std::array<uint8_t, 16> octets;
    return parse_address(text, octets) != 0;
}

}  // namespace postrider
