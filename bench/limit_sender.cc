// The limit of one core: an SMTP sender with no queue, no DNS and no disk, its message in memory. What the engine costs
// above this is the engine's; what this costs is the kernel's and the dialogue's.
//
// A connection keeps the replies it still expects, in order, and each reply moves it on:
//   lock   MAIL | RCPT | DATA | content and dot               one command at a time
//   group  MAIL RCPT DATA | content and dot                   RFC 2920 3.1
//   next   content, dot and the next MAIL RCPT DATA           one flight a message
//   bdat   [RSET] MAIL RCPT BDAT n LAST content               RFC 3030, --depth transactions in flight; RSET when the
//                                                             one before is not answered yet
// Any reply of another class than expected ends the connection; its unanswered messages count as failed.
// One JSON line is printed at the end. Exit code 0: all acknowledged.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/compile.h>
#include <fmt/format.h>

namespace {

enum class Dialogue { lock, group, next, bdat };

struct Settings {
    std::string to = "127.0.0.1:2525";
    uint64_t messages = 100'000;
    unsigned connections = 16;
    uint64_t size = 10'240;
    uint64_t domains = 1000;
    uint64_t reconnect = 0;  // messages a connection; 0: no end
    unsigned depth = 1;
    bool tls = false;
    Dialogue dialogue = Dialogue::next;
};

// A reply that is due, named for the command it answers.
enum class Due : uint8_t { greeting, ehlo, starttls, rset, mail, rcpt, data, dot, quit };

constexpr unsigned kDepthMost = 16;
constexpr size_t kTextRoom = 512;
constexpr size_t kDueRoom = 128;  // a power of two, more than 4 replies of each transaction in flight
static_assert(kDueRoom > kDepthMost * 4 + 8);

double seconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Commands and header of one message, made in place.
struct Text {
    std::array<char, kTextRoom> bytes;
    size_t size = 0;
    std::string_view view() const { return {bytes.data(), size}; }
};

// TLS over memory on the client's side.
class TlsClient {
  public:
    explicit TlsClient(WOLFSSL_CTX* context) : ssl_(wolfSSL_new(context)) {
        wolfSSL_SetIOReadCtx(ssl_, this);
        wolfSSL_SetIOWriteCtx(ssl_, this);
    }
    ~TlsClient() { wolfSSL_free(ssl_); }
    TlsClient(const TlsClient&) = delete;
    TlsClient& operator=(const TlsClient&) = delete;

    static int on_read(WOLFSSL*, char* buffer, int size, void* context) {
        auto& in = static_cast<TlsClient*>(context)->in;
        const size_t n = std::min(in.size(), static_cast<size_t>(size));
        if (n == 0) return WOLFSSL_CBIO_ERR_WANT_READ;
        std::memcpy(buffer, in.data(), n);
        in.remove_prefix(n);
        return static_cast<int>(n);
    }
    static int on_write(WOLFSSL*, char* buffer, int size, void* context) {
        static_cast<TlsClient*>(context)->out.append(buffer, static_cast<size_t>(size));
        return size;
    }
    // 1 done, 0 more is needed, -1 failed.
    int handshake() {
        const int result = wolfSSL_connect(ssl_);
        if (result == WOLFSSL_SUCCESS) return 1;
        return wolfSSL_get_error(ssl_, result) == WOLFSSL_ERROR_WANT_READ ? 0 : -1;
    }
    int read(char* buffer, int size) { return wolfSSL_read(ssl_, buffer, size); }
    bool write(std::string_view plain) {
        return wolfSSL_write(ssl_, plain.data(), static_cast<int>(plain.size())) > 0;
    }

    std::string_view in;
    std::string out, flight;
    bool secure = false;

  private:
    WOLFSSL* ssl_;
};

struct Connection {
    int fd = -1;
    std::array<Due, kDueRoom> due;
    unsigned due_head = 0, due_tail = 0;
    unsigned in_flight = 0;      // transactions whose last reply is due
    uint64_t sent = 0;           // messages begun on this connection
    bool quitting = false, armed_out = false;
    std::array<Text, kDepthMost> heads, envelopes;
    unsigned slot = 0;           // of the message begun last
    bool next_begun = false;     // its MAIL RCPT DATA went with the content before
    std::vector<iovec> pending;  // from `pending_at` on, not sent yet
    size_t pending_at = 0;
    std::array<char, 8192> in;
    size_t in_size = 0;
    std::unique_ptr<TlsClient> tls;
};

class Sender {
  public:
    Sender(const Settings& settings, const sockaddr_storage& to, socklen_t to_size)
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

    int run();

  private:
    void make_body();
    bool begin_message(Connection& c);
    void expect(Connection& c, Due due) { c.due[c.due_tail++ % kDueRoom] = due; }
    void add(Connection& c, std::string_view bytes) {
        c.pending.push_back({const_cast<char*>(bytes.data()), bytes.size()});
    }
    bool dial(Connection& c);
    bool start(Connection& c);
    bool fill(Connection& c);
    bool quit(Connection& c);
    bool content(Connection& c);
    bool flush(Connection& c);
    bool send_pending(Connection& c);
    bool on_reply(Connection& c, char kind);
    bool on_input(Connection& c);
    bool on_lines(Connection& c);
    void end(Connection& c);
    bool may_begin(const Connection& c) const {
        return issued_ < settings_.messages && (settings_.reconnect == 0 || c.sent < settings_.reconnect);
    }
    void arm(Connection& c, bool out);

    const Settings& settings_;
    sockaddr_storage to_;
    socklen_t to_size_;
    WOLFSSL_CTX* tls_ = nullptr;
    std::string body_;
    int epoll_ = -1;
    unsigned live_ = 0;
    uint64_t issued_ = 0, acked_ = 0, failed_ = 0, dialled_ = 0;
};

void Sender::make_body() {
    static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t header = 240;  // about what begin_message writes
    const size_t want = settings_.size > header + 2 ? settings_.size - header : 2;
    uint64_t x = 88172645463325252ULL;
    for (size_t column = 0; body_.size() + 2 < want; ++column) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        if (column % 77 == 76) body_ += "\r\n";
        else body_ += kLetters[x & 63];
    }
    body_ += "\r\n";
}

// Takes the next number and writes its header and envelope.
bool Sender::begin_message(Connection& c) {
    if (!may_begin(c)) return false;
    const uint64_t number = issued_++;
    const uint64_t domain = number % settings_.domains + 1;
    c.slot = (c.slot + 1) % kDepthMost;
    Text& head = c.heads[c.slot];
    Text& envelope = c.envelopes[c.slot];
    char* end = fmt::format_to(head.bytes.data(),
        FMT_COMPILE("From: <bulk@sender.test>\r\nTo: <u{}@d{:04}.test>\r\nSubject: message {}\r\n"
                    "Message-ID: <{}.bench@sender.test>\r\nDate: Mon, 23 Nov 2026 14:00:00 +0000\r\n"
                    "X-Seq: {:016x}\r\n\r\n"),
        number, domain, number, number, number * 0x9E3779B97F4A7C15ULL);
    head.size = static_cast<size_t>(end - head.bytes.data());
    end = envelope.bytes.data();
    // A refused chunk would leave the server inside the transaction before this one: RSET keeps them apart.
    if (settings_.dialogue == Dialogue::bdat && c.in_flight > 0) {
        end = std::copy_n("RSET\r\n", 6, end);
        expect(c, Due::rset);
    }
    end = fmt::format_to(end, FMT_COMPILE("MAIL FROM:<bulk@sender.test>\r\nRCPT TO:<u{}@d{:04}.test>\r\n"),
                         number, domain);
    if (settings_.dialogue == Dialogue::bdat)
        end = fmt::format_to(end, FMT_COMPILE("BDAT {} LAST\r\n"), head.size + body_.size());
    else
        end = std::copy_n("DATA\r\n", 6, end);
    envelope.size = static_cast<size_t>(end - envelope.bytes.data());
    ++c.sent;
    ++c.in_flight;
    return true;
}

bool Sender::dial(Connection& c) {
    c = Connection();
    c.fd = socket(to_.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c.fd < 0) return false;
    const int one = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c.fd, reinterpret_cast<const sockaddr*>(&to_), to_size_) != 0 && errno != EINPROGRESS) {
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
    for (const iovec& part : c.pending) tls.flight.append(static_cast<char*>(part.iov_base), part.iov_len);
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

bool Sender::quit(Connection& c) {
    c.quitting = true;
    add(c, "QUIT\r\n");
    expect(c, Due::quit);
    return flush(c);
}

// A transaction from its beginning, when none is open.
bool Sender::start(Connection& c) {
    if (settings_.dialogue == Dialogue::bdat) return fill(c);
    if (!begin_message(c)) return quit(c);
    const std::string_view envelope = c.envelopes[c.slot].view();
    expect(c, Due::mail);
    if (settings_.dialogue == Dialogue::lock) {
        add(c, envelope.substr(0, envelope.find('\n') + 1));
    } else {
        add(c, envelope);
        expect(c, Due::rcpt);
        expect(c, Due::data);
    }
    return flush(c);
}

bool Sender::fill(Connection& c) {
    while (c.in_flight < settings_.depth && c.pending.empty() && (!c.tls || c.tls->out.empty())) {
        if (!begin_message(c)) break;
        add(c, c.envelopes[c.slot].view());
        add(c, c.heads[c.slot].view());
        add(c, body_);
        expect(c, Due::mail);
        expect(c, Due::rcpt);
        expect(c, Due::dot);
        if (!flush(c)) return false;
    }
    return c.in_flight > 0 || c.quitting || quit(c);
}

// Behind the 354: content, dot, and with `next` the envelope that follows.
bool Sender::content(Connection& c) {
    add(c, c.heads[c.slot].view());
    add(c, body_);
    add(c, ".\r\n");
    expect(c, Due::dot);
    c.next_begun = settings_.dialogue == Dialogue::next && begin_message(c);
    if (c.next_begun) {
        add(c, c.envelopes[c.slot].view());
        for (const Due due : {Due::mail, Due::rcpt, Due::data}) expect(c, due);
    }
    return flush(c);
}

bool Sender::on_reply(Connection& c, char kind) {
    if (c.due_head == c.due_tail) return false;  // a reply nobody asked for
    const Due due = c.due[c.due_head++ % kDueRoom];
    if (kind != (due == Due::data ? '3' : '2')) return false;
    const bool lock = settings_.dialogue == Dialogue::lock;
    const std::string_view envelope = c.envelopes[c.slot].view();
    switch (due) {
        case Due::greeting:
            add(c, "EHLO sender.test\r\n");
            expect(c, Due::ehlo);
            return flush(c);
        case Due::ehlo:
            if (tls_ == nullptr || c.tls) return start(c);
            add(c, "STARTTLS\r\n");
            expect(c, Due::starttls);
            return flush(c);
        case Due::starttls:
            c.tls = std::make_unique<TlsClient>(tls_);
            return c.tls->handshake() >= 0 && send_pending(c);
        case Due::mail:
            if (!lock) return true;
            add(c, envelope.substr(envelope.find('\n') + 1, envelope.size() - envelope.find('\n') - 7));
            expect(c, Due::rcpt);
            return flush(c);
        case Due::rcpt:
            if (!lock) return true;
            add(c, "DATA\r\n");
            expect(c, Due::data);
            return flush(c);
        case Due::data: return content(c);
        case Due::dot:
            ++acked_;
            --c.in_flight;
            if (settings_.dialogue == Dialogue::bdat) return fill(c);
            return c.next_begun || start(c);
        case Due::rset: return true;
        case Due::quit: return false;
    }
    return false;
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
        const int got = tls.read(c.in.data() + c.in_size, static_cast<int>(c.in.size() - c.in_size));
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
    while (live_ > 0 && failed_ <= failures_most && dialled_ <= settings_.messages + settings_.connections) {
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
    fmt::print(R"({{"acked":{},"failed":{},"connections":{},"secs":{:.3f},"msg_s":{:.0f},"cpu_us_msg":{:.2f},)"
               R"("user_us":{:.2f},"sys_us":{:.2f},"maxrss_kb":{}}})" "\n",
               acked_, failed_, dialled_, secs, static_cast<double>(acked_) / secs,
               us(usage.ru_utime) + us(usage.ru_stime), us(usage.ru_utime), us(usage.ru_stime), usage.ru_maxrss);
    return acked_ == settings_.messages ? 0 : 1;
}

bool parse_address(const std::string& text, sockaddr_storage& storage, socklen_t& size) {
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos) return false;
    std::string host = text.substr(0, colon);
    const auto port = htons(static_cast<uint16_t>(std::atoi(text.c_str() + colon + 1)));
    if (!host.empty() && host[0] == '[') {
        auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
        in6.sin6_family = AF_INET6;
        in6.sin6_port = port;
        size = sizeof in6;
        return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &in6.sin6_addr) == 1;
    }
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = port;
    size = sizeof in;
    return inet_pton(AF_INET, host.c_str(), &in.sin_addr) == 1;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("The limit of one core: SMTP from memory, no queue, no DNS, no disk", "limit-sender");
    app.footer("Example:\n  limit-sender --to 127.0.0.1:2525 --dialogue next --messages 200000 --size 10240");
    Settings settings;
    std::string dialogue = "next";
    app.add_option("--to", settings.to, "receiver")->capture_default_str();
    app.add_option("--dialogue", dialogue, "lock, group, next or bdat")
        ->check(CLI::IsMember({"lock", "group", "next", "bdat"}))->capture_default_str();
    app.add_option("--messages", settings.messages)->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--connections", settings.connections)->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--size", settings.size, "octets of a message")->capture_default_str();
    app.add_option("--domains", settings.domains)->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--depth", settings.depth, "bdat: transactions in flight")
        ->check(CLI::Range(1u, kDepthMost))->capture_default_str();
    app.add_option("--reconnect", settings.reconnect, "messages a connection; 0: as many as come");
    app.add_flag("--tls", settings.tls, "STARTTLS, the certificate is not checked");
    CLI11_PARSE(app, argc, argv);
    settings.dialogue = dialogue == "lock"    ? Dialogue::lock
                        : dialogue == "group" ? Dialogue::group
                        : dialogue == "bdat"  ? Dialogue::bdat
                                              : Dialogue::next;
    sockaddr_storage to{};
    socklen_t to_size = 0;
    if (!parse_address(settings.to, to, to_size)) {
        std::fputs("limit-sender: --to is written 127.0.0.1:2525 or [::1]:2525\n", stderr);
        return 2;
    }
    return Sender(settings, to, to_size).run();
}
