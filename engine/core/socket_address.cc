#include "engine/core/socket_address.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "engine/core/hash.h"

namespace postrider {

SocketAddress SocketAddress::v4(std::span<const uint8_t, 4> octets, uint16_t port) {
    in_addr address;
    std::memcpy(&address, octets.data(), octets.size());
    return from(address, port);
}

SocketAddress SocketAddress::v6(std::span<const uint8_t, 16> octets, uint16_t port,
                                uint32_t scope) {
    in6_addr address;
    std::memcpy(&address, octets.data(), octets.size());
    SocketAddress result = from(address, port);
    result.v6_.sin6_scope_id = scope;
    return result;
}

SocketAddress SocketAddress::from(const in_addr& address, uint16_t port) {
    SocketAddress result;
    result.v4_ = {};
    result.v4_.sin_family = AF_INET;
    result.v4_.sin_addr = address;
    result.v4_.sin_port = htons(port);
    return result;
}

SocketAddress SocketAddress::from(const in6_addr& address, uint16_t port) {
    SocketAddress result;
    result.v6_ = {};
    result.v6_.sin6_family = AF_INET6;
    result.v6_.sin6_addr = address;
    result.v6_.sin6_port = htons(port);
    return result;
}

SocketAddress SocketAddress::from(const sockaddr* address, socklen_t size) {
    SocketAddress result;
    if (address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
        std::memcpy(&result.v4_, address, sizeof(sockaddr_in));
    } else if (address->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
        std::memcpy(&result.v6_, address, sizeof(sockaddr_in6));
    }
    return result;
}

Result<SocketAddress> SocketAddress::parse(std::string_view address, uint16_t port) {
    std::string_view bare = address;
    if (bare.size() > 2 && bare.front() == '[' && bare.back() == ']') {
        bare = bare.substr(1, bare.size() - 2);
    }
    const std::string text(bare);
    in_addr v4_address;
    if (bare.size() == address.size() && inet_pton(AF_INET, text.c_str(), &v4_address) == 1) {
        return from(v4_address, port);
    }
    in6_addr v6_address;
    if (inet_pton(AF_INET6, text.c_str(), &v6_address) == 1) return from(v6_address, port);
    return fail("'" + std::string(address) + "' is not an IPv4 or IPv6 address");
}

Result<SocketAddress> SocketAddress::parse(std::string_view address_and_port) {
    const size_t colon = address_and_port.rfind(':');
    const std::string whole(address_and_port);
    if (colon == std::string_view::npos) return fail("'" + whole + "' lacks a port (address:port)");
    const std::string_view address = address_and_port.substr(0, colon);
    const std::string_view digits = address_and_port.substr(colon + 1);
    // "2001:db8::1" must not be read as the address 2001:db8: and the port 1.
    if (address.find(':') != std::string_view::npos && address.front() != '[') {
        return fail("'" + whole + "': write an IPv6 address with a port as [address]:port");
    }
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size()) {
        return fail("'" + whole + "': the port is a number up to 65535");
    }
    return parse(address, port);
}

uint16_t SocketAddress::port() const {
    if (is_v4()) return ntohs(v4_.sin_port);
    return is_v6() ? ntohs(v6_.sin6_port) : 0;
}

void SocketAddress::set_port(uint16_t port) {
    if (is_v4()) v4_.sin_port = htons(port);
    if (is_v6()) v6_.sin6_port = htons(port);
}

std::span<const uint8_t> SocketAddress::octets() const {
    if (is_v4()) return {reinterpret_cast<const uint8_t*>(&v4_.sin_addr), sizeof(in_addr)};
    if (is_v6()) return {reinterpret_cast<const uint8_t*>(&v6_.sin6_addr), sizeof(in6_addr)};
    return {};
}

socklen_t SocketAddress::size() const {
    if (is_v4()) return sizeof(sockaddr_in);
    return is_v6() ? sizeof(sockaddr_in6) : 0;
}

std::string SocketAddress::address_text() const {
    char buffer[INET6_ADDRSTRLEN] = "";
    if (specified()) inet_ntop(family(), octets().data(), buffer, sizeof buffer);
    return buffer;
}

std::string SocketAddress::text() const {
    if (!specified()) return {};
    const std::string address = address_text();
    return (is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(port());
}

bool SocketAddress::same_address(const SocketAddress& other) const {
    if (family() != other.family()) return false;
    if (is_v6() && v6_.sin6_scope_id != other.v6_.sin6_scope_id) return false;
    const auto a = octets(), b = other.octets();
    return a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0;
}

uint64_t SocketAddress::hash() const {
    const auto bytes = octets();
    return hash64({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                  static_cast<uint64_t>(family()) << 16 | port());
}

}  // namespace postrider
