// An IPv4 or IPv6 address with a port, in the kernel's own form. A value: it copies, compares,
// hashes and prints. The default one is unspecified (no family) and is no destination.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider {

class SocketAddress {
  public:
    SocketAddress() = default;
    // Octets in network order, the port in host order.
    static SocketAddress v4(std::span<const uint8_t, 4> octets, uint16_t port);
    static SocketAddress v6(std::span<const uint8_t, 16> octets, uint16_t port, uint32_t scope = 0);
    static SocketAddress from(const in_addr& address, uint16_t port);
    static SocketAddress from(const in6_addr& address, uint16_t port);
    // What accept, getsockname or a resolver returned; unspecified for a family that is neither.
    static SocketAddress from(const sockaddr* address, socklen_t size);

    // The address alone: "192.0.2.1", "2001:db8::1", also in brackets.
    static Result<SocketAddress> parse(std::string_view address, uint16_t port);
    // Address and port: "192.0.2.1:25", "[2001:db8::1]:25".
    static Result<SocketAddress> parse(std::string_view address_and_port);

    bool specified() const { return family() != AF_UNSPEC; }
    int family() const { return any_.sa_family; }
    bool is_v4() const { return family() == AF_INET; }
    bool is_v6() const { return family() == AF_INET6; }
    uint16_t port() const;
    void set_port(uint16_t port);
    SocketAddress with_port(uint16_t port) const {
        SocketAddress copy = *this;
        copy.set_port(port);
        return copy;
    }
    // The octets of the address in network order: 4, 16 or none. They point into this object.
    std::span<const uint8_t> octets() const;

    const sockaddr* data() const { return &any_; }
    socklen_t size() const;

    std::string address_text() const;  // "192.0.2.1", "2001:db8::1"; "" when unspecified
    std::string text() const;          // "192.0.2.1:25", "[2001:db8::1]:25"

    // The same address, whatever the port.
    bool same_address(const SocketAddress& other) const;
    bool operator==(const SocketAddress& other) const {
        return same_address(other) && port() == other.port();
    }
    uint64_t hash() const;

  private:
    union {
        sockaddr any_ = {};
        sockaddr_in v4_;
        sockaddr_in6 v6_;
    };
};

}  // namespace postrider

template <>
struct std::hash<postrider::SocketAddress> {
    size_t operator()(const postrider::SocketAddress& address) const noexcept {
        return address.hash();
    }
};
