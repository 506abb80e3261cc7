// The plain system calls on sockets that do not go through the ring, in one place: a simulation
// links its own socket_calls.cc. Results are the kernel's: >= 0, or -errno.
//
// Sockets are in blocking mode: the ring parks an operation that cannot proceed, while O_NONBLOCK
// would make it answer EAGAIN.
#pragma once

#include <optional>

#include "engine/core/socket_address.h"

namespace postrider::sockets {

// A TCP socket, bound to `source` when there is one, without Nagle's delay.
int open(int family, const std::optional<SocketAddress>& source);
void shutdown_write(int fd);
void shutdown_both(int fd);
void close(int fd);
SocketAddress local_address(int fd);

}  // namespace postrider::sockets
