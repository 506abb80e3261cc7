// The limit's sender: connections, each with the replies it still expects, in order. One thread,
// one epoll set.
//
//   dialogue.cc    what is said, and what each reply sets off
//   transport.cc   sockets, TLS, octets in and out, the loop
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/limit/tls_client.h"

namespace postrider::limit {

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
constexpr size_t kDueRoom =
    128;  // a power of two, more than 4 replies of each transaction in flight
static_assert(kDueRoom > kDepthMost * 4 + 8);

// Commands and header of one message, made in place.
struct Text {
    std::array<char, kTextRoom> bytes;
    size_t size = 0;
    std::string_view view() const { return {bytes.data(), size}; }
};

struct Connection {
    int fd = -1;
    std::array<Due, kDueRoom> due;
    unsigned due_head = 0, due_tail = 0;
    unsigned in_flight = 0;  // transactions whose last reply is due
    uint64_t sent = 0;       // messages begun on this connection
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
    Sender(const Settings& settings, const sockaddr_storage& to, socklen_t to_size);
    ~Sender();
    Sender(const Sender&) = delete;
    Sender& operator=(const Sender&) = delete;

    // Sends everything and prints the line. 0: all acknowledged.
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
        return issued_ < settings_.messages &&
               (settings_.reconnect == 0 || c.sent < settings_.reconnect);
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

}  // namespace postrider::limit
