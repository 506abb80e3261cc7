// Sockets, output, input, waits and closing; TLS is in connection_tls.cc.
#include "engine/net/connection.h"

#include <algorithm>
#include <cstring>

#include "engine/core/check.h"
#include "engine/net/socket_calls.h"
#include "engine/net/tls_engine.h"

namespace postrider {

Connection::Connection(Reactor& reactor, BufferPool& buffers)
    : reactor_(reactor),
      connect_(*this, &Connection::connect_done),
      send_(*this, &Connection::send_done),
      receive_(*this, &Connection::received),
      deadline_(*this),
      sending_(buffers),
      gathering_(buffers),
      plain_(buffers),
      input_(buffers) {}

Connection::~Connection() {
    POSTRIDER_CHECK(fd_ < 0 && !waiter_, "a connection is closed before it is destroyed");
    POSTRIDER_CHECK(!connect_.in_flight && !send_.in_flight && !receive_.in_flight,
                    "nothing of a closed connection is in flight");
}

Task<int> Connection::connect(SocketAddress to, std::optional<SocketAddress> source,
                              int64_t deadline_ms) {
    POSTRIDER_CHECK(state_ == State::fresh, "a connection connects once");
    const int fd = sockets::open(to.family(), source);
    if (fd < 0) co_return fd;
    fd_ = fd;
    state_ = State::connecting;
    peer_ = to;
    connect_.in_flight = true;
    reactor_.ring().connect(fd_, peer_.data(), peer_.size(), &connect_);
    if (co_await wait_for(Waiting::For::connected, deadline_ms) == IoStatus::timeout) {
        reactor_.ring().cancel(&connect_);
        co_await wait_for(Waiting::For::joined, TimerWheel::kNever);
        if (connect_result_ == -ECANCELED) connect_result_ = -ETIMEDOUT;
    }
    if (connect_result_ < 0) {
        close_socket();
        state_ = State::fresh;
        co_return connect_result_;
    }
    state_ = State::open;
    local_ = sockets::local_address(fd_);
    arm_receive();
    co_return 0;
}

void Connection::abort_connect() {
    if (connect_.in_flight) reactor_.ring().cancel(&connect_);
}

void Connection::connect_done(int result, std::span<const char>) {
    connect_result_ = result;
    wake();
}

// ---- Output ----

void Connection::append(std::string_view octets) {
    if (octets.empty()) return;
    const auto room = reserve(octets.size());
    std::memcpy(room.data(), octets.data(), octets.size());
    commit(octets.size());
}

std::span<char> Connection::reserve(size_t size) {
    POSTRIDER_CHECK(tls_state_ != Tls::handshake, "the handshake has the connection to itself");
    POSTRIDER_CHECK(!reserved_, "commit() comes before the next append");
    reserved_ = true;
    return (tls_state_ == Tls::none ? gathering_ : plain_).reserve(size);
}

void Connection::make_room(size_t size) {
    (void)reserve(size);
    commit(0);
}

void Connection::commit(size_t size) {
    POSTRIDER_CHECK(reserved_, "commit() follows reserve()");
    reserved_ = false;
    (tls_state_ == Tls::none ? gathering_ : plain_).commit(size);
    if (output_failed_) {
        lost_ += size;
        gathering_.release();
        plain_.release();
    } else {
        send_next();  // a send may have ended while the buffer had to stay in its place
    }
}

void Connection::flush() {
    POSTRIDER_CHECK(!reserved_, "commit() comes before flush()");
    if (output_failed_) return;
    if (tls_state_ != Tls::none) encrypt();
    flushed_ = gathering_.size();
    send_next();
}

size_t Connection::unsent() const {
    return sending_.size() + gathering_.size() + plain_.size() + lost_;
}

void Connection::send_next() {
    if (send_.in_flight || output_failed_ || flushed_ + sending_.size() == 0) return;
    if (state_ != State::open && state_ != State::closing) return;
    if (sending_.empty()) {
        if (reserved_ && tls_state_ == Tls::none) return;
        sending_.swap(gathering_);
        if (sending_.size() > flushed_) {  // appended after the flush: it waits for its own
            gathering_.append(sending_.view().substr(flushed_));
            sending_.drop_behind(flushed_);
        }
        flushed_ = 0;
    }
    send_.in_flight = true;
    reactor_.ring().send(fd_, sending_.data(), sending_.size(), &send_);
}

void Connection::send_done(int result, std::span<const char>) {
    if (result >= 0) {
        sending_.consume(static_cast<size_t>(result));
        if (sending_.empty()) sending_.release();
        send_next();
    } else if (result == -EINTR || result == -EAGAIN) {
        send_next();
    } else {
        fail_output(-result);
    }
    wake();
}

// What could not be sent stays counted. The input is left to run dry: what the peer said before it
// closed outranks the failed send (FAULTS 4, 7); shutting the socket down makes sure that its end
// comes.
void Connection::fail_output(int error) {
    if (output_failed_) return;
    output_failed_ = true;
    if (error_ == 0) error_ = error;
    lost_ = unsent();
    sending_.release();
    if (!reserved_) {
        gathering_.release();
        plain_.release();
    } else {  // the caller is still writing there: commit() releases it
        gathering_.drop_behind(0);
        plain_.drop_behind(0);
    }
    flushed_ = 0;
    if (state_ == State::open || state_ == State::closing) sockets::shutdown_both(fd_);
}

// ---- Input ----

std::string_view Connection::input() const {
    seen_ = received_;
    return input_.view();
}

void Connection::consume(size_t size) {
    input_.consume(size);
    if (input_.empty()) seen_ = received_;
}

void Connection::arm_receive() {
    receive_.in_flight = true;
    reactor_.ring().receive(fd_, &receive_);
}

void Connection::received(int result, std::span<const char> octets) {
    if (result > 0) {
        take_input(octets);
    } else if (result != -ENOBUFS && result != -EAGAIN && result != -EINTR) {
        stream_ended_ = true;
        // Under TLS the end is announced; without that somebody may have cut the stream (RFC
        // 8446 6.1).
        truncated_ = !ended_ && (tls_state_ == Tls::secured || tls_state_ == Tls::handshake);
        end_input(-result);
    }
    // The kernel disarms a receive when its buffers run out; they are back by now.
    if (!receive_.in_flight && !stream_ended_ &&
        (state_ == State::open || state_ == State::closing)) {
        arm_receive();
    }
    wake();
    if (idle_event_ && (unseen() || ended_)) {
        const auto call = std::exchange(idle_event_, nullptr);
        call();  // may destroy the connection: nothing follows
    }
}

void Connection::take_input(std::span<const char> octets) {
    if (ended_ || state_ != State::open) return;
    const std::string_view view(octets.data(), octets.size());
    if (tls_state_ == Tls::handshake) {
        take_handshake(view);
    } else if (tls_state_ == Tls::secured) {
        take_records(view);
    } else {
        input_.append(view);
        received_ += view.size();
    }
    if (input_.size() > kUnreadMax) end_input(EMSGSIZE);  // whatever follows is dropped
}

void Connection::end_input(int error) {
    if (ended_) return;
    ended_ = true;
    if (error_ == 0) error_ = error;
}

void Connection::on_idle_event(std::function<void()> call) {
    if (input_.empty()) input_.release();
    idle_event_ = std::move(call);
    if (idle_event_ && (unseen() || ended_)) {
        const auto now = std::exchange(idle_event_, nullptr);
        now();
    }
}

std::string Connection::error_text() const {
    if (tls_ && !tls_->error_text().empty()) return tls_->error_text();
    return error_ == 0 ? std::string() : std::strerror(error_);
}

// ---- Waits ----

Connection::Waiting Connection::drained(size_t at_most, int64_t deadline_ms) {
    return {*this, Waiting::For::drained, at_most, deadline_ms};
}

Connection::Waiting Connection::more_input(int64_t deadline_ms) {
    return wait_for(Waiting::For::input, deadline_ms);
}

// What a wait would end with now; nothing: it goes on.
std::optional<IoStatus> Connection::judge(const Waiting& waiting) const {
    const auto when = [](bool met) { return met ? std::optional(IoStatus::ok) : std::nullopt; };
    const IoStatus end = error_ == 0 ? IoStatus::closed : IoStatus::error;
    switch (waiting.what_) {
        case Waiting::For::input:
            if (unseen()) return IoStatus::ok;
            return ended_ ? std::optional(end) : std::nullopt;
        case Waiting::For::drained:
            if (unseen()) return IoStatus::input;
            if (ended_) return end;
            // A failed send waits for the end of the input, which is near.
            return when(!output_failed_ && unsent() <= waiting.at_most_);
        case Waiting::For::secured:
            if (tls_state_ != Tls::handshake) return when(true);
            return ended_ ? std::optional(end) : std::nullopt;
        case Waiting::For::connected:
            return when(!connect_.in_flight);
        case Waiting::For::sent:
            return when(unsent() == 0 || output_failed_ || stream_ended_);
        case Waiting::For::ended:
            return when(stream_ended_);
        case Waiting::For::joined:
            return when(!connect_.in_flight && !send_.in_flight && !receive_.in_flight);
    }
    return std::nullopt;
}

void Connection::suspend(const Waiting& waiting, std::coroutine_handle<> handle) {
    POSTRIDER_CHECK(!waiter_, "one coroutine waits on a connection at a time");
    waiter_ = handle;
    waiting_ = &waiting;
    if (input_.empty()) input_.release();
    if (waiting.deadline_ms_ != TimerWheel::kNever) reactor_.arm(deadline_, waiting.deadline_ms_);
}

void Connection::wake() {
    if (waiter_ && judge(*waiting_)) resume_waiter();
}

// The waiter goes on in step 3 of the turn, so that all completions of this turn count as one
// wake-up and no coroutine runs inside a completion.
void Connection::resume_waiter() {
    deadline_.unlink();
    waiting_ = nullptr;
    reactor_.make_ready(std::exchange(waiter_, {}));
}

// ---- Closing ----

Task<void> Connection::close(bool polite) {
    POSTRIDER_CHECK(!waiter_ && state_ != State::connecting && state_ != State::closing,
                    "who waits on a connection closes it");
    if (state_ == State::open) {
        idle_event_ = nullptr;
        reserved_ = false;
        state_ = State::closing;
        if (polite && !output_failed_ && !stream_ended_) co_await end_politely();
        state_ = State::terminating;
        if (send_.in_flight) reactor_.ring().cancel(&send_);
        if (receive_.in_flight) reactor_.ring().cancel(&receive_);
        co_await wait_for(Waiting::For::joined, TimerWheel::kNever);
        lost_ = unsent();
        sending_.release();
        gathering_.release();
        plain_.release();
        input_.release();
        tls_.reset();
        close_socket();
    }
    state_ = State::closed;
}

Task<void> Connection::end_politely() {
    const int64_t now_ms = reactor_.now_ms();
    const int64_t deadline_ms = now_ms + kPoliteCloseMs;
    input_.release();
    flush();
    if (tls_state_ == Tls::secured) {
        tls_->close_notify(gathering_);
        flush();
    }
    if (co_await wait_for(Waiting::For::sent, deadline_ms) == IoStatus::timeout) co_return;
    if (co_await wait_for(Waiting::For::ended, now_ms + kPeerFirstMs) == IoStatus::ok) co_return;
    sockets::shutdown_write(fd_);
    co_await wait_for(Waiting::For::ended, deadline_ms);
}

void Connection::close_socket() {
    sockets::close(fd_);
    fd_ = -1;
}

}  // namespace postrider
