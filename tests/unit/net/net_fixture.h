// What the tests of a connection stand on: a shard with its reactor, and peers that are plain
// blocking sockets in a thread of their own, free to misbehave. Everything on loopback, on ports
// the kernel chooses.
#pragma once

#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "engine/core/socket_address.h"
#include "engine/io/reactor.h"
#include "engine/net/buffer_pool.h"
#include "engine/net/connection.h"

namespace postrider::test {

struct Shard {
    MailExchange exchange{1};
    std::unique_ptr<Reactor> reactor;
    BufferPool buffers;
    Gate gate;

    explicit Shard(Ring::Options options = {
                       .entries = 256, .receive_buffers = 16, .receive_buffer_size = 4096}) {
        auto made = Reactor::make(0, exchange, options);
        POSTRIDER_CHECK(made.has_value(), "the machine has io_uring");
        reactor = std::move(*made);
    }
    ~Shard() { EXPECT_EQ(buffers.bytes_in_use(), 0u); }

    int64_t in_ms(int64_t delay_ms) const { return reactor->now_ms() + delay_ms; }

    // Turns until `task` and all that was spawned has ended.
    void run(Task<void> task) {
        reactor->turn(0);  // the clock may be old
        spawn(gate, std::move(task));
        const MonoNs give_up_ns = read_mono_clock() + 60 * kNsPerSecond;
        while (!gate.empty()) {
            reactor->turn(read_mono_clock() + 2 * kNsPerMs);
            POSTRIDER_CHECK(read_mono_clock() < give_up_ns, "a test task hangs");
        }
        EXPECT_EQ(reactor->ring().in_flight(), 0u);
    }
};

// A listening socket on 127.0.0.1 and a thread that hands `serve` one accepted socket after the
// other.
class Peer {
  public:
    explicit Peer(std::function<void(int fd)> serve, int connections = 1, int receive_buffer = 0)
        : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        if (receive_buffer > 0)
            ::setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        const auto any = *SocketAddress::parse("127.0.0.1:0");
        POSTRIDER_CHECK(::bind(listener_, any.data(), any.size()) == 0, "loopback is there");
        POSTRIDER_CHECK(::listen(listener_, 64) == 0, "it listens");
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&storage), &size);
        address = SocketAddress::from(reinterpret_cast<sockaddr*>(&storage), size);
        thread_ = std::thread([this, serve = std::move(serve), connections] {
            for (int i = 0; i < connections; ++i) {
                const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                if (fd < 0) return;
                const int on = 1;
                ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                serve(fd);
                ::close(fd);
            }
        });
    }
    ~Peer() {
        ::shutdown(listener_, SHUT_RDWR);
        if (thread_.joinable()) thread_.join();
        ::close(listener_);
    }
    void join() { thread_.join(); }

    SocketAddress address;

  private:
    int listener_;
    std::thread thread_;
};

// A listening socket whose queue is full: the kernel drops further SYNs, so that a connect hangs.
class DeafListener {
  public:
    DeafListener() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const auto any = *SocketAddress::parse("127.0.0.1:0");
        POSTRIDER_CHECK(::bind(listener_, any.data(), any.size()) == 0, "loopback is there");
        POSTRIDER_CHECK(::listen(listener_, 0) == 0, "it listens");
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&storage), &size);
        address = SocketAddress::from(reinterpret_cast<sockaddr*>(&storage), size);
        for (int& fd : fillers_) {
            fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            ::connect(fd, address.data(), address.size());
            ::usleep(2'000);
        }
    }
    ~DeafListener() {
        for (const int fd : fillers_) ::close(fd);
        ::close(listener_);
    }

    SocketAddress address;

  private:
    int listener_;
    int fillers_[4];
};

inline void put(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
        if (n <= 0) return;
        text.remove_prefix(static_cast<size_t>(n));
    }
}

// Exactly `size` octets, fewer at the end of the stream.
inline std::string get(int fd, size_t size) {
    std::string text(size, '\0');
    size_t have = 0;
    while (have < size) {
        const ssize_t n = ::recv(fd, text.data() + have, size - have, 0);
        if (n <= 0) break;
        have += static_cast<size_t>(n);
    }
    text.resize(have);
    return text;
}

inline std::string get_all(int fd) {
    std::string text;
    char chunk[65536];
    for (ssize_t n; (n = ::recv(fd, chunk, sizeof chunk, 0)) > 0;)
        text.append(chunk, static_cast<size_t>(n));
    return text;
}

// The next close() of `fd` sends RST.
inline void close_with_reset(int fd) {
    const linger hard{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

// Sends until the kernel takes no more.
inline Task<IoStatus> fill(Shard& shard, Connection& connection) {
    IoStatus status = IoStatus::ok;
    while (status == IoStatus::ok) {
        connection.append(std::string(60'000, 'x'));
        connection.flush();
        status = co_await connection.drained(0, shard.in_ms(40));
    }
    co_return status;
}

inline std::string pattern(size_t size, uint32_t seed) {
    std::string text(size, '\0');
    uint32_t state = seed * 2654435761U + 1;
    for (char& c : text) {
        state = state * 1664525U + 1013904223U;
        c = static_cast<char>(state >> 24);
    }
    return text;
}

}  // namespace postrider::test
