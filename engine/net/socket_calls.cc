#include "engine/net/socket_calls.h"

#include <netinet/tcp.h>
#include <unistd.h>

namespace postrider::sockets {

int open(int family, const std::optional<SocketAddress>& source) {
    if (source && source->family() != family) return -EAFNOSUPPORT;
    const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) return -errno;
    const int on = 1;
    // Whole flights are sent at once: waiting for an acknowledgement to fill a segment only costs
    // time.
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (source) {
        // The port is chosen at connect, so that one source address has 28 000 ports for each
        // destination and not for all of them together.
        ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (::bind(fd, source->data(), source->size()) != 0) {
            const int error = errno;
            ::close(fd);
            return -error;
        }
    }
    return fd;
}

void shutdown_write(int fd) { ::shutdown(fd, SHUT_WR); }
void shutdown_both(int fd) { ::shutdown(fd, SHUT_RDWR); }
void close(int fd) { ::close(fd); }

SocketAddress local_address(int fd) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
    return SocketAddress::from(reinterpret_cast<const sockaddr*>(&storage), size);
}

}  // namespace postrider::sockets
