// A TCP connection, in clear or under TLS, of one shard. It knows no mail.
//
//   fresh -> connecting -> open -> closing (polite) -> terminating -> closed
//   open: in clear -> handshake -> secured (or failed)
//
// One coroutine waits on a connection at a time, with one deadline, which is one timer in the
// shard's wheel. Output and input are independent of each other:
// * A recv stays armed from connect to close, also while sending, so two ends that both send cannot
// block each other
//   (FAULTS 36). What was received is handed out before the error or the end of stream behind it
//   (FAULTS 4, 7); a failed send is judged only after the input has ended too.
// * One send is in flight at a time (FAULTS 53); what is appended meanwhile gathers in a second
// buffer and leaves
//   with the next send.
// Closing is terminate, join, close: a connection with an operation in flight is never destroyed;
// the destructor checks it. Buffers are held only while something is in them.
#pragma once

#include <coroutine>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/core/socket_address.h"
#include "engine/io/reactor.h"
#include "engine/io/task.h"
#include "engine/net/buffer_pool.h"

namespace postrider {

class TlsContext;
class TlsEngine;

enum class IoStatus : uint8_t {
    ok,
    timeout,
    closed,  // the peer ended its stream
    error,   // the connection broke: error_code(), error_text()
    input,   // drained() only: something was received that input() has not shown yet
};

struct TlsResult {
    bool ok = false;
    bool timed_out = false;
    bool resumed = false;
    std::string error;  // one line, when not ok
    std::string version, cipher;
};

class Connection {
  public:
    // More unread input than this ends the connection (EMSGSIZE): its reader reads, or the peer is
    // hostile.
    static constexpr size_t kUnreadMax = 256 << 10;
    // So much unsent when TLS answers by itself ends it too: a peer asks for new keys again and again and reads nothing
    // (FAULTS 76). A caller's own share, which drained() bounds, is less than half of it.
    static constexpr size_t kAnswersMax = 512 << 10;
    static constexpr DurationMs kPoliteCloseMs = 5'000;
    // A peer that was told to end gets so long to close first: the side that closes first pays with
    // TIME_WAIT, and here it would pay in local ports.
    static constexpr DurationMs kPeerFirstMs = 1'000;

    class Waiting;  // below

    Connection(Reactor& reactor, BufferPool& buffers);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // 0, or -errno (-ETIMEDOUT at the deadline, -ECANCELED after abort_connect); after a failure
    // the connection is fresh again. `source`: local address, or nothing for the kernel's choice.
    Task<int> connect(SocketAddress to, std::optional<SocketAddress> source, int64_t deadline_ms);
    void abort_connect();
    // Who waits for input gets an error now (ECANCELED): the session is not to go on.
    void give_up() {
        end_input(ECANCELED);
        wake();
    }

    // Output.
    void append(std::string_view octets);
    // To read a file straight into the buffer it is sent from: at least `size` octets; commit()
    // says how many were written. Nothing else is appended in between.
    std::span<char> reserve(size_t size);
    void commit(size_t size);
    void make_room(size_t size);  // what is appended next is about so much
    void flush();           // hands what was appended to the next send; never waits
    size_t unsent() const;  // octets not yet taken by the kernel; after a failed send, never 0
    bool all_handed_over() const { return unsent() == 0; }  // exact when the connection is closed
    // co_await: until at most `at_most` octets are unsent. Ends early with `input` as long as
    // something received has not been shown by input() (an early reply must be seen while a body is
    // being sent), then with `closed` or `error`.
    Waiting drained(size_t at_most, int64_t deadline_ms);

    // Input: what was received and not consumed. The view is good until the next co_await.
    std::string_view input() const;
    void consume(size_t size);
    // co_await: until something was received that input() has not shown yet. `closed` and `error`
    // only when there is no such thing.
    Waiting more_input(int64_t deadline_ms);

    // TLS as a client; `host` goes into SNI and names the session to resume. Fails when input() is
    // not empty: what stands behind the reply to STARTTLS must not be carried into TLS (FAULTS 59).
    // After a failure the connection can only be closed.
    Task<TlsResult> start_tls(TlsContext& context, std::string host, int64_t deadline_ms);
    bool secured() const;
    std::string_view tls_version() const;  // "TLSv1.3"; empty in clear
    std::string_view tls_cipher() const;

    bool peer_closed() const {
        return ended_;
    }  // end of stream or error seen; input() may still hold octets
    bool truncated() const { return truncated_; }  // ended under TLS without close_notify
    int error_code() const {
        return error_;
    }  // errno value of what broke the connection, 0: nothing did
    std::string error_text() const;

    // For a connection that rests in a pool: `call` runs once, when something arrives or the peer
    // closes; at once when that has happened already. An empty one takes it back. It may close and
    // destroy the connection.
    void on_idle_event(std::function<void()> call);

    // Ends everything in flight and closes the socket; afterwards the connection may be destroyed.
    // Politely: what was appended and the close_notify are sent first, and the peer's end of stream
    // is awaited, at most kPoliteCloseMs; input meanwhile is dropped. No other coroutine waits on
    // the connection.
    Task<void> close(bool polite);

    const SocketAddress& peer() const { return peer_; }
    const SocketAddress& local() const { return local_; }

    // The awaitable of every wait on a connection.
    class Waiting {
      public:
        enum class For : uint8_t { input, drained, connected, secured, sent, ended, joined };
        Waiting(Connection& connection, For what, size_t at_most, int64_t deadline_ms)
            : connection_(connection), at_most_(at_most), deadline_ms_(deadline_ms), what_(what) {}
        bool await_ready() const { return connection_.judge(*this).has_value(); }
        void await_suspend(std::coroutine_handle<> handle) { connection_.suspend(*this, handle); }
        IoStatus await_resume() const {
            return connection_.judge(*this).value_or(IoStatus::timeout);
        }

      private:
        friend class Connection;
        Connection& connection_;
        size_t at_most_;
        int64_t deadline_ms_;
        For what_;
    };

  private:
    enum class State : uint8_t { fresh, connecting, open, closing, terminating, closed };
    enum class Tls : uint8_t { none, handshake, secured, failed };

    // One operation of the ring and where its completion goes.
    class Slot final : public Operation {
      public:
        using Handler = void (Connection::*)(int result, std::span<const char> buffer);
        Slot(Connection& connection, Handler handler)
            : connection_(connection), handler_(handler) {}
        void complete(int result, bool more, std::span<const char> buffer) override {
            in_flight = more;
            (connection_.*handler_)(result, buffer);
        }
        bool in_flight = false;

      private:
        Connection& connection_;
        Handler handler_;
    };
    class Deadline final : public Timer {
      public:
        explicit Deadline(Connection& connection) : connection_(connection) {}
        void on_timer() override { connection_.resume_waiter(); }

      private:
        Connection& connection_;
    };

    void connect_done(int result, std::span<const char>);
    void send_done(int result, std::span<const char>);
    void received(int result, std::span<const char> octets);
    void take_input(std::span<const char> octets);
    void take_handshake(std::string_view octets);
    void take_records(std::string_view octets);
    void arm_receive();
    void send_next();
    void encrypt();
    void fail_output(int error);
    void end_input(int error);
    void tls_failed();

    std::optional<IoStatus> judge(const Waiting& waiting) const;
    void suspend(const Waiting& waiting, std::coroutine_handle<> handle);
    void wake();
    void resume_waiter();
    bool unseen() const { return received_ != seen_; }
    Waiting wait_for(Waiting::For what, int64_t deadline_ms) {
        return {*this, what, 0, deadline_ms};
    }
    Task<void> end_politely();
    void close_socket();

    Reactor& reactor_;
    State state_ = State::fresh;
    Tls tls_state_ = Tls::none;
    bool reserved_ = false;  // gathering_ must stay where it is
    bool output_failed_ = false;
    bool ended_ = false;         // no more input for the caller
    bool stream_ended_ = false;  // no more octets from the socket
    bool truncated_ = false;
    int fd_ = -1;
    int error_ = 0;
    int connect_result_ = 0;
    Slot connect_, send_, receive_;
    Deadline deadline_;
    std::coroutine_handle<> waiter_;
    const Waiting* waiting_ = nullptr;
    Buffer sending_;    // wire octets of the send in flight
    Buffer gathering_;  // wire octets behind it
    Buffer plain_;      // under TLS: appended and not yet encrypted
    Buffer input_;
    size_t flushed_ = 0;         // octets of gathering_ that may leave
    size_t lost_ = 0;            // octets that a failed send left behind
    uint64_t received_ = 0;      // octets for the caller since the beginning
    mutable uint64_t seen_ = 0;  // received_ when input() was last called
    std::function<void()> idle_event_;
    std::unique_ptr<TlsEngine> tls_;
    SocketAddress peer_, local_;
};

}  // namespace postrider
