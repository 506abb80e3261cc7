#include "tools/sink/dns_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "tools/sink/sockets.h"

namespace postrider::sink {

namespace {

constexpr size_t kStreams = 64;      // TCP clients at a time
constexpr int kPortAttempts = 20;    // a UDP port found free may be taken for TCP

void close_fd(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
}

}  // namespace

Result<std::unique_ptr<DnsServer>> DnsServer::start(const std::string& address, DnsZone zone,
                                                    std::atomic<uint64_t>* words) {
    auto wanted = parse_socket_address(address);
    if (!wanted) return std::unexpected(wanted.error());
    std::unique_ptr<DnsServer> server(new DnsServer(std::move(zone), words));
    const int attempts = wanted->port() == 0 ? kPortAttempts : 1;
    for (int attempt = 1;; ++attempt) {
        const auto udp = bind_socket(*wanted, SOCK_DGRAM, false);
        if (!udp) return std::unexpected(udp.error());
        server->udp_ = *udp;
        const SocketAddress bound = bound_address(*udp);
        const auto tcp = bind_socket(bound, SOCK_STREAM, false);
        if (tcp) {
            server->tcp_ = *tcp;
            server->address_ = bound.text();
            server->port_ = bound.port();
            break;
        }
        close_fd(server->udp_);
        if (attempt == attempts) return std::unexpected(tcp.error());
    }
    server->stop_ = eventfd(0, EFD_CLOEXEC);
    if (server->stop_ < 0) return fail_errno("eventfd");
    server->thread_ = std::thread([self = server.get()] { self->serve(); });
    return server;
}

DnsServer::~DnsServer() {
    if (thread_.joinable()) {
        eventfd_write(stop_, 1);
        thread_.join();
    }
    close_fd(udp_);
    close_fd(tcp_);
    close_fd(stop_);
}

void DnsServer::count_query() {
    words_[static_cast<size_t>(Counter::dns_queries)].fetch_add(1, std::memory_order_relaxed);
}

void DnsServer::serve_datagrams() {
    std::array<char, 4096> buffer;
    for (int i = 0; i < 256; ++i) {
        SocketAddress peer;
        peer.size = sizeof peer.storage;
        const ssize_t n = recvfrom(udp_, buffer.data(), buffer.size(), 0, peer.get(), &peer.size);
        if (n < 0) return;
        count_query();
        const std::string answer = zone_.answer({buffer.data(), static_cast<size_t>(n)}, true);
        if (!answer.empty())
            sendto(udp_, answer.data(), answer.size(), MSG_NOSIGNAL, peer.get(), peer.size);
    }
}

bool DnsServer::serve_stream(Stream& stream) {
    std::array<char, 4096> buffer;
    const ssize_t n = recv(stream.fd, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    stream.in.append(buffer.data(), static_cast<size_t>(n));
    // Each message has its length before it (RFC 1035 4.2.2).
    while (stream.in.size() >= 2) {
        const size_t size = static_cast<size_t>(static_cast<unsigned char>(stream.in[0]) << 8 |
                                                static_cast<unsigned char>(stream.in[1]));
        if (stream.in.size() < 2 + size) break;
        count_query();
        const std::string answer = zone_.answer(std::string_view(stream.in).substr(2, size), false);
        stream.in.erase(0, 2 + size);
        if (answer.empty()) continue;
        std::string framed = {static_cast<char>(answer.size() >> 8), static_cast<char>(answer.size() & 255)};
        framed += answer;
        // An answer is smaller than a socket's buffer: a peer that does not read loses its connection.
        if (send(stream.fd, framed.data(), framed.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(framed.size()))
            return false;
    }
    return true;
}

void DnsServer::serve() {
    std::vector<Stream> streams;
    std::vector<pollfd> polled;
    while (true) {
        polled = {{stop_, POLLIN, 0}, {udp_, POLLIN, 0}, {tcp_, POLLIN, 0}};
        for (const Stream& stream : streams) polled.push_back({stream.fd, POLLIN, 0});
        if (poll(polled.data(), polled.size(), -1) < 0) continue;
        if (polled[0].revents != 0) break;
        if (polled[1].revents != 0) serve_datagrams();
        for (size_t i = polled.size(); i-- > 3;) {
            if (polled[i].revents == 0 || serve_stream(streams[i - 3])) continue;
            ::close(streams[i - 3].fd);
            streams.erase(streams.begin() + static_cast<long>(i - 3));
        }
        if (polled[2].revents != 0) {
            const int fd = accept4(tcp_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd >= 0 && streams.size() >= kStreams) ::close(fd);
            else if (fd >= 0) streams.push_back({fd, {}});
        }
    }
    for (const Stream& stream : streams) ::close(stream.fd);
}

}  // namespace postrider::sink
