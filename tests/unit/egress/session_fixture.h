// What the tests of a session stand on: a real connection on loopback, a feed of messages held in memory, and servers
// that are plain blocking code in a thread of their own: they expect, say, stall, close and reset as the script wants.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/smtp/session.h"
#include "tests/unit/net/net_fixture.h"

namespace postrider::test {

// The server's end of a conversation. What is missing at the end of the stream is an empty line.
class Wire {
  public:
    explicit Wire(int fd) : fd_(fd) {}

    int fd() const { return fd_; }
    void say(std::string_view text) { put(fd_, text); }
    // One octet a send: the receiver sees each boundary.
    void say_split(std::string_view text) {
        for (const char& c : text) {
            put(fd_, {&c, 1});
            ::usleep(300);
        }
    }
    // Without its CRLF.
    std::string line() {
        size_t end;
        while ((end = buffer_.find("\r\n")) == std::string::npos)
            if (!receive()) return {};
        std::string text = buffer_.substr(0, end);
        buffer_.erase(0, end + 2);
        return text;
    }
    void expect(std::string_view start) {
        const std::string got = line();
        EXPECT_TRUE(got.starts_with(start)) << "expected " << start << ", got " << got;
    }
    // Content with its transparency removed (RFC 5321 4.5.2); false when the stream ended before the dot.
    bool content(std::string& out) {
        out.clear();
        while (!buffer_.starts_with(".\r\n") && buffer_.find("\r\n.\r\n", searched_) == std::string::npos) {
            searched_ = buffer_.size() < 4 ? 0 : buffer_.size() - 4;
            if (!receive()) return false;
        }
        const bool empty = buffer_.starts_with(".\r\n");
        const size_t end = empty ? 0 : buffer_.find("\r\n.\r\n", searched_) + 2;
        searched_ = 0;
        for (size_t at = 0; at < end;) {
            const size_t next = buffer_.find("\r\n", at) + 2;
            if (buffer_[at] == '.') ++at;
            out.append(buffer_, at, next - at);
            at = next;
        }
        buffer_.erase(0, end + 3);
        return true;
    }
    // The octets of a chunk (RFC 3030 2); fewer when the stream ended.
    std::string octets(size_t size) {
        while (buffer_.size() < size && receive()) {
        }
        std::string chunk = buffer_.substr(0, size);
        buffer_.erase(0, chunk.size());
        return chunk;
    }
    // One transaction of the bdat dialogue as it comes, with RSET in front or not. Its content; the recipient in `to`.
    std::string chunk(bool reset, std::string* to = nullptr) {
        if (reset) expect("RSET");
        expect("MAIL FROM:");
        const std::string rcpt = line();
        EXPECT_TRUE(rcpt.starts_with("RCPT TO:<")) << rcpt;
        if (to && rcpt.size() > 10) *to = rcpt.substr(9, rcpt.size() - 10);
        const std::string bdat = line();
        EXPECT_TRUE(bdat.starts_with("BDAT ") && bdat.ends_with(" LAST")) << bdat;
        return octets(static_cast<size_t>(std::atoll(bdat.c_str() + 5)));
    }
    // Nothing arrives for so long, and nothing has been received that was not read.
    bool silent(int for_ms) {
        pollfd entry{fd_, POLLIN, 0};
        return buffer_.empty() && ::poll(&entry, 1, for_ms) == 0;
    }
    // Everything to the end of the stream.
    std::string rest() {
        while (receive()) {
        }
        return std::exchange(buffer_, {});
    }
    void read_some(size_t size) {
        while (buffer_.size() < size && receive()) {
        }
    }
    void reset() { close_with_reset(fd_); }
    void half_close() { ::shutdown(fd_, SHUT_WR); }
    void close_now() { ::shutdown(fd_, SHUT_RDWR); }

    void greet(std::string_view extensions = "250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n") {
        say("220 mx.test ready\r\n");
        expect("EHLO ");
        say("250-mx.test\r\n");
        say(extensions);
    }
    // MAIL, one RCPT, DATA, all taken. The recipient is answered.
    std::string envelope() {
        expect("MAIL FROM:");
        std::string rcpt = line();
        EXPECT_TRUE(rcpt.starts_with("RCPT TO:<")) << rcpt;
        expect("DATA");
        say("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n");
        return rcpt.size() > 10 ? rcpt.substr(9, rcpt.size() - 10) : std::string();
    }
    void take_message() {
        envelope();
        std::string ignored;
        EXPECT_TRUE(content(ignored));
        say("250 2.0.0 taken\r\n");
    }
    void end() {
        expect("QUIT");
        say("221 bye\r\n");
    }

  private:
    bool receive() {
        char chunk[65536];
        const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
        if (n <= 0) return false;
        buffer_.append(chunk, static_cast<size_t>(n));
        return true;
    }
    int fd_;
    std::string buffer_;
    size_t searched_ = 0;
};

// What an .eml or .bsmtp holds, what goes to the wire of it, and the facts the intake finds: written down naively here.
class MemoryMessage final : public OutgoingMessage {
  public:
    MemoryMessage(RecordId id, std::string file, StoredForm form = StoredForm::plain) : file_(std::move(file)) {
        std::string_view text = file_;
        const bool stuffed = form != StoredForm::plain;
        bool behind_framing = true;
        content.crlf_only = text.empty() || text.ends_with("\r\n");
        while (!text.empty()) {
            const size_t at = text.find('\n');
            std::string line(text.substr(0, at));
            const bool crlf = at != std::string_view::npos && line.ends_with('\r');
            if (crlf)
                line.pop_back();
            else
                content.crlf_only = false;
            text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
            // Dots are stuffed behind the framing's own line ends only.
            if (stuffed && behind_framing && line.starts_with('.')) line.erase(0, 1);
            behind_framing = crlf || form == StoredForm::stuffed_lf;
            content.dots |= line.starts_with('.');
            content.eight_bit |= std::ranges::any_of(line, [](char c) { return static_cast<signed char>(c) < 0; });
            wire += line;
            wire += "\r\n";
        }
        content.form = form;
        content.stored = {0, file_.size()};
        content.wire_size = wire.size();
        transaction.set_message("sender@test.example",
                                {.wire_size = content.wire_size, .eight_bit = content.eight_bit});
        if (id) transaction.add_recipient(id, "r" + std::to_string(id) + "@test.example");
    }
    Result<void> read(uint64_t offset, std::span<char> into) override {
        ++reads;
        if (fail_read && reads >= fail_read) return fail("input/output error", EIO);
        if (offset + into.size() > file_.size()) return fail("the file is shorter", ESTALE);
        std::copy_n(file_.data() + offset, into.size(), into.data());
        return {};
    }
    bool unchanged() override {
        ++looks;
        return !changed;
    }

    const Outcome& outcome(size_t i = 0) const { return transaction.outcome(i); }
    OutcomeKind kind(size_t i = 0) const { return transaction.outcome(i).kind; }

    std::string wire;
    bool changed = false;
    size_t looks = 0, reads = 0, fail_read = 0;  // 0: never

  private:
    std::string file_;
};

class MemoryFeed final : public SessionFeed {
  public:
    MemoryMessage& add(std::string file = "Subject: x\r\n\r\nhello\r\n", StoredForm form = StoredForm::plain) {
        auto& message = messages.emplace_back(
            std::make_unique<MemoryMessage>(static_cast<RecordId>(messages.size() + 1), std::move(file), form));
        waiting.push_back(message.get());
        return *message;
    }
    OutgoingMessage* next(const Capabilities&) override {
        if (waiting.empty()) return nullptr;
        auto* message = waiting.front();
        waiting.pop_front();
        return message;
    }
    void before_dot(OutgoingMessage& message) override { intents.push_back(&message); }
    void settled(OutgoingMessage& message) override {
        EXPECT_TRUE(message.transaction.done());
        ends.push_back(&message);
    }
    std::vector<OutcomeKind> kinds() const {
        std::vector<OutcomeKind> all;
        for (const auto& message : messages) all.push_back(message->kind());
        return all;
    }

    std::vector<std::unique_ptr<MemoryMessage>> messages;
    std::deque<MemoryMessage*> waiting;
    std::vector<OutgoingMessage*> intents, ends;
};

struct Dialogued {
    std::optional<SessionFailure> failure;
    SessionEnd end;
    Capabilities capabilities;
    uint32_t transactions = 0;
};

inline SessionOptions quick_options() {
    SessionOptions options;
    options.hostname = "client.test";
    options.tls = TlsUse::off;
    options.timeouts_ms.fill(20'000);
    options.timeouts_ms[static_cast<size_t>(Phase::quit)] = 300;
    return options;
}

inline Task<void> converse(Shard& shard, SocketAddress to, SessionOptions options, SessionFeed& feed, Dialogued& out) {
    Connection connection(*shard.reactor, shard.buffers);
    EXPECT_EQ(co_await connection.connect(to, {}, shard.in_ms(5'000)), 0);
    Session session(*shard.reactor, connection, std::move(options));
    out.failure = co_await session.open();
    out.capabilities = session.capabilities();
    if (!out.failure) out.end = co_await session.carry(feed);
    out.transactions = session.transactions();
    co_await session.quit(out.end.may_quit);
}

// One conversation of `feed` with a server that plays `script`.
inline Dialogued talk(MemoryFeed& feed, std::function<void(Wire&)> script, SessionOptions options = quick_options(),
                      int receive_buffer = 0) {
    Shard shard;
    Peer peer(
        [script = std::move(script)](int fd) {
            Wire wire(fd);
            script(wire);
        },
        1, receive_buffer);
    Dialogued out;
    shard.run(converse(shard, peer.address, std::move(options), feed, out));
    peer.join();
    return out;
}

inline SessionOptions with_timeout(Phase phase, DurationMs value, SessionOptions options = quick_options()) {
    options.timeouts_ms[static_cast<size_t>(phase)] = value;
    return options;
}

}  // namespace postrider::test
