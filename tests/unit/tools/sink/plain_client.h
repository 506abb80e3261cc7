// A blocking client for tests: lines out, replies in, on 127.0.0.1.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace postrider::sink {

class PlainClient {
  public:
    explicit PlainClient(uint16_t port, const char* host = "127.0.0.1", int type = SOCK_STREAM) {
        fd_ = socket(AF_INET, type | SOCK_CLOEXEC, 0);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        inet_pton(AF_INET, host, &to.sin_addr);
        connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    }
    ~PlainClient() { close(fd_); }
    PlainClient(const PlainClient&) = delete;
    PlainClient& operator=(const PlainClient&) = delete;

    bool connected() const { return connected_; }
    int fd() const { return fd_; }
    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) return;
            bytes.remove_prefix(static_cast<size_t>(n));
        }
    }
    // One recv within the time; sets ended() or broken() when there is nothing more to come.
    std::string receive(int timeout_ms = 5000) {
        pollfd p{fd_, POLLIN, 0};
        if (poll(&p, 1, timeout_ms) <= 0) return {};
        char buffer[65536];
        const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
        ended_ = n == 0;
        broken_ = n < 0;
        return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::string();
    }
    // Until `lines` lines have come, the stream ends, or the time is over.
    std::string lines(size_t wanted, int timeout_ms = 5000) {
        while (true) {
            size_t end = 0, count = 0;
            while (count < wanted && (end = in_.find('\n', end)) != std::string::npos) ++end, ++count;
            if (count == wanted) {
                std::string out = in_.substr(0, end);
                in_.erase(0, end);
                return out;
            }
            const std::string more = receive(timeout_ms);
            if (more.empty()) return std::exchange(in_, {});
            in_ += more;
        }
    }
    bool ended() const { return ended_; }
    bool broken() const { return broken_; }
    // Greeting and EHLO's answer; returns the latter.
    std::string hello() {
        lines(1);
        send("EHLO me.test\r\n");
        std::string offer, line;
        do offer += line = lines(1);
        while (line.size() > 3 && line[3] == '-');
        return offer;
    }

  private:
    int fd_ = -1;
    bool connected_ = false, ended_ = false, broken_ = false;
    std::string in_;
};

}  // namespace postrider::sink
