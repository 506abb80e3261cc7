// Octets of the limit's connections, and the loop that moves them.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "bench/limit/sender.h"

namespace postrider::limit {

namespace {

double seconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

Sender::Sender(const Settings& settings, const sockaddr_storage& to, socklen_t to_size)
    : settings_(settings), to_(to), to_size_(to_size) {
    make_body();
    if (settings.tls) {
        wolfSSL_Init();
        tls_ = wolfSSL_CTX_new(wolfSSLv23_client_method());
        wolfSSL_CTX_set_verify(tls_, WOLFSSL_VERIFY_NONE, nullptr);
        wolfSSL_CTX_SetIORecv(tls_, &TlsClient::on_read);
        wolfSSL_CTX_SetIOSend(tls_, &TlsClient::on_write);
    }
}

Sender::~Sender() { wolfSSL_CTX_free(tls_); }

bool Sender::dial(Connection& c) {
    c = Connection();
    c.fd = socket(to_.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c.fd < 0) return false;
    const int one = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c.fd, reinterpret_cast<const sockaddr*>(&to_), to_size_) != 0 &&
        errno != EINPROGRESS) {
        close(c.fd);
        return false;
    }
    ++dialled_;
    ++live_;
    expect(c, Due::greeting);
    epoll_event event{EPOLLIN, {.ptr = &c}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event);
    return true;
}

void Sender::arm(Connection& c, bool out) {
    if (c.armed_out == out) return;
    c.armed_out = out;
    epoll_event event{EPOLLIN | (out ? EPOLLOUT : 0u), {.ptr = &c}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
}

bool Sender::flush(Connection& c) {
    if (!c.tls || !c.tls->secure) return send_pending(c);
    TlsClient& tls = *c.tls;
    tls.flight.clear();
    for (const iovec& part : c.pending)
        tls.flight.append(static_cast<char*>(part.iov_base), part.iov_len);
    c.pending.clear();
    const bool unsent = !tls.out.empty();
    if (!tls.flight.empty() && !tls.write(tls.flight)) return false;
    return unsent || send_pending(c);
}

bool Sender::send_pending(Connection& c) {
    if (c.tls) {
        std::string& out = c.tls->out;
        while (!out.empty()) {
            const ssize_t n = send(c.fd, out.data(), out.size(), MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) return false;
            if (n < 0) return arm(c, true), true;
            out.erase(0, static_cast<size_t>(n));
        }
        arm(c, false);
        return true;
    }
    while (c.pending_at < c.pending.size()) {
        msghdr message{};
        message.msg_iov = c.pending.data() + c.pending_at;
        message.msg_iovlen = c.pending.size() - c.pending_at;
        ssize_t n = sendmsg(c.fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        if (n < 0) return arm(c, true), true;
        for (; n > 0; ++c.pending_at) {
            iovec& part = c.pending[c.pending_at];
            if (static_cast<size_t>(n) < part.iov_len) {
                part.iov_base = static_cast<char*>(part.iov_base) + n;
                part.iov_len -= static_cast<size_t>(n);
                break;
            }
            n -= static_cast<ssize_t>(part.iov_len);
        }
    }
    c.pending.clear();
    c.pending_at = 0;
    arm(c, false);
    return true;
}

bool Sender::on_lines(Connection& c) {
    char* at = c.in.data();
    char* const end = at + c.in_size;
    while (true) {
        auto* lf = static_cast<char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
        if (lf == nullptr) break;
        const bool last = lf - at >= 4 && at[3] != '-';
        const char kind = *at;
        at = lf + 1;
        if (last && !on_reply(c, kind)) return false;
    }
    c.in_size = static_cast<size_t>(end - at);
    std::memmove(c.in.data(), at, c.in_size);
    return c.in_size < c.in.size();
}

bool Sender::on_input(Connection& c) {
    if (!c.tls) {
        const ssize_t n = recv(c.fd, c.in.data() + c.in_size, c.in.size() - c.in_size, 0);
        if (n < 0) return errno == EAGAIN;
        if (n == 0) return false;
        c.in_size += static_cast<size_t>(n);
        return on_lines(c);
    }
    std::array<char, 16'384> cipher;
    const ssize_t n = recv(c.fd, cipher.data(), cipher.size(), 0);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    TlsClient& tls = *c.tls;
    tls.in = {cipher.data(), static_cast<size_t>(n)};
    if (!tls.secure) {
        const int result = tls.handshake();
        if (result < 0 || !send_pending(c)) return false;
        if (result == 0) return true;
        tls.secure = true;
        add(c, "EHLO sender.test\r\n");
        expect(c, Due::ehlo);
        if (!flush(c)) return false;
    }
    while (true) {
        const int got =
            tls.read(c.in.data() + c.in_size, static_cast<int>(c.in.size() - c.in_size));
        if (got <= 0) return true;
        c.in_size += static_cast<size_t>(got);
        if (!on_lines(c)) return false;
    }
}

// The connection is over: what it had begun and got no answer for has failed.
void Sender::end(Connection& c) {
    failed_ += c.in_flight;
    close(c.fd);
    c.fd = -1;
    --live_;
    if (issued_ < settings_.messages) dial(c);
}

int Sender::run() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    std::vector<std::unique_ptr<Connection>> connections;
    const double begun = seconds();
    for (unsigned i = 0; i < settings_.connections; ++i) {
        connections.push_back(std::make_unique<Connection>());
        if (!dial(*connections.back())) {
            std::perror("limit-sender: connect");
            return 1;
        }
    }
    std::array<epoll_event, 256> events;
    uint64_t failures_most = settings_.messages;
    while (live_ > 0 && failed_ <= failures_most &&
           dialled_ <= settings_.messages + settings_.connections) {
        const int n = epoll_wait(epoll_, events.data(), events.size(), 10'000);
        if (n == 0) {
            std::fputs("limit-sender: nothing happened for 10 s\n", stderr);
            break;
        }
        for (int i = 0; i < n; ++i) {
            auto& c = *static_cast<Connection*>(events[i].data.ptr);
            bool good = true;
            if (events[i].events & EPOLLOUT) {
                good = send_pending(c);
                if (good && settings_.dialogue == Dialogue::bdat && c.in_flight > 0) good = fill(c);
            }
            if (good && (events[i].events & ~static_cast<uint32_t>(EPOLLOUT))) good = on_input(c);
            if (!good) end(c);
        }
    }
    const double secs = seconds() - begun;
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto us = [&](const timeval& t) {
        return (static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec)) /
               static_cast<double>(std::max<uint64_t>(acked_, 1));
    };
    fmt::print(
        R"({{"acked":{},"failed":{},"connections":{},"secs":{:.3f},"msg_s":{:.0f},"cpu_us_msg":{:.2f},)"
        R"("user_us":{:.2f},"sys_us":{:.2f},"maxrss_kb":{}}})"
        "\n",
        acked_, failed_, dialled_, secs, static_cast<double>(acked_) / secs,
        us(usage.ru_utime) + us(usage.ru_stime), us(usage.ru_utime), us(usage.ru_stime),
        usage.ru_maxrss);
    return acked_ == settings_.messages ? 0 : 1;
}

}  // namespace postrider::limit
