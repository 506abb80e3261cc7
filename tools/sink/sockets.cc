#include "tools/sink/sockets.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <charconv>

#include <fmt/format.h>

namespace postrider::sink {

uint16_t SocketAddress::port() const {
    return ntohs(family() == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port
                                      : reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

void SocketAddress::set_port(uint16_t port) {
    if (family() == AF_INET6) reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
    else reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
}

std::string SocketAddress::text() const {
    char host[INET6_ADDRSTRLEN] = "";
    if (family() == AF_INET6) {
        inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, host, sizeof host);
        return fmt::format("[{}]:{}", host, port());
    }
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, host, sizeof host);
    return fmt::format("{}:{}", host, port());
}

Result<SocketAddress> parse_socket_address(std::string_view text) {
    const auto wrong = [&] {
        return fail(fmt::format("'{}' is no address: write 127.0.0.1:2525 or [::1]:2525", text));
    };
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return wrong();
    const std::string_view digits = text.substr(colon + 1);
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return wrong();
    std::string host(text.substr(0, colon));
    SocketAddress address;
    if (host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
        auto* in6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
        in6->sin6_family = AF_INET6;
        address.size = sizeof *in6;
        if (inet_pton(AF_INET6, host.c_str(), &in6->sin6_addr) != 1) return wrong();
    } else {
        auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
        in->sin_family = AF_INET;
        address.size = sizeof *in;
        if (inet_pton(AF_INET, host.c_str(), &in->sin_addr) != 1) return wrong();
    }
    address.set_port(port);
    return address;
}

SocketAddress ipv4_address(uint32_t host, uint16_t port) {
    SocketAddress address;
    auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(host);
    in->sin_port = htons(port);
    address.size = sizeof *in;
    return address;
}

SocketAddress bound_address(int fd) {
    SocketAddress address;
    address.size = sizeof address.storage;
    getsockname(fd, address.get(), &address.size);
    return address;
}

Result<int> bind_socket(const SocketAddress& address, int type, bool share_port) {
    const int fd = socket(address.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail_errno("socket");
    const int one = 1;
    if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (share_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (address.family() == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    // Accepted sockets inherit it: replies of one read go out at once.
    if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, address.get(), address.size) != 0 || (type == SOCK_STREAM && listen(fd, 4096) != 0)) {
        const int code = errno;
        ::close(fd);
        return fail_errno("listen on " + address.text(), code);
    }
    return fd;
}

}  // namespace postrider::sink
