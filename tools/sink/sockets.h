// Addresses as the options write them ("127.0.0.1:25", "[::1]:25") and the sockets bound to them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider::sink {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    int family() const { return storage.ss_family; }
    uint16_t port() const;
    void set_port(uint16_t port);
    std::string text() const;
};

Result<SocketAddress> parse_socket_address(std::string_view text);
SocketAddress ipv4_address(uint32_t address, uint16_t port);
// The address a socket is bound to.
SocketAddress bound_address(int fd);
// A non-blocking socket bound to `address`, listening when it is a stream.
Result<int> bind_socket(const SocketAddress& address, int type, bool share_port);

}  // namespace postrider::sink
