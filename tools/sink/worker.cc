#include "tools/sink/worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "engine/core/check.h"
#include "tools/sink/sockets.h"

namespace postrider::sink {

namespace {

constexpr size_t kRead = 256 * 1024;
constexpr size_t kUnsentMost = 1 << 20;      // more unsent replies: the peer is not read until it reads
constexpr int kReadsInTurn = 4;              // full reads of one connection before others have their turn
constexpr int64_t kLingerUs = 2'000'000;
constexpr int64_t kSlowUs = 1'000'000, kSplitUs = 2'000;
constexpr int64_t kLogUs = 100'000, kIdleSweepUs = 50'000;

}  // namespace

uint32_t OpenByAddress::opened(const std::string& local) {
    const std::lock_guard lock(mutex_);
    return ++open_[local];
}

void OpenByAddress::closed(const std::string& local) {
    const std::lock_guard lock(mutex_);
    --open_[local];
}

Worker::Worker(const WorkerContext& context, unsigned index, std::vector<int> listeners)
    : context_(context),
      machine_context_{context.options, context.rules, nullptr, context.tls != nullptr},
      tally_(context.options, context.ledger, index),
      input_(kRead),
      plain_(context.tls != nullptr ? kRead : 0) {
    machine_context_.handler = &tally_;
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    stop_.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    POSTRIDER_CHECK(epoll_ >= 0 && stop_.fd >= 0, "a worker needs an epoll set and an eventfd");
    for (const int fd : listeners) listeners_.push_back({fd, true});
    epoll_event stop_event{EPOLLIN, {.ptr = &stop_}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, stop_.fd, &stop_event);
    for (Watched& listener : listeners_) {
        epoll_event event{EPOLLIN, {.ptr = &listener}};
        epoll_ctl(epoll_, EPOLL_CTL_ADD, listener.fd, &event);
    }
}

Worker::~Worker() {
    for (const Watched& listener : listeners_) ::close(listener.fd);
    ::close(stop_.fd);
    ::close(epoll_);
}

void Worker::stop() { eventfd_write(stop_.fd, 1); }

void Worker::run() {
    std::array<epoll_event, 256> events;
    while (true) {
        const int n = epoll_wait(epoll_, events.data(), events.size(), timeout_ms());
        for (int i = 0; i < n; ++i) {
            auto* watched = static_cast<Watched*>(events[i].data.ptr);
            if (watched == &stop_) {
                while (!connections_.empty()) destroy(*connections_.back(), "sink stopped");
                tally_.flush_log();
                return;
            }
            if (!watched->listener) on_event(static_cast<Connection&>(*watched), events[i].events);
        }
        // Who has ended before a new one came is counted out before it is counted in: the client freed its slot first.
        for (int i = 0; i < n; ++i) {
            auto* watched = static_cast<Watched*>(events[i].data.ptr);
            if (std::ranges::any_of(listeners_, [&](const Watched& each) { return &each == watched; }))
                accept_from(watched->fd);
        }
        if (!delayed_.empty()) run_delayed();
        if (!timed_.empty()) run_timed();
        if (context_.options.idle_close_ms > 0) close_idle();
        if (tally_.log_pending()) {
            const int64_t now = mono_us();
            if (n == 0 || now - log_flushed_us_ > kLogUs) {
                tally_.flush_log();
                log_flushed_us_ = now;
            }
        }
    }
}

int Worker::timeout_ms() {
    int64_t wait_us = INT64_MAX;
    const int64_t now = delayed_.empty() && timed_.empty() ? 0 : mono_us();
    if (!delayed_.empty()) wait_us = delayed_.front().due_us - now;
    for (const Connection* connection : timed_) wait_us = std::min(wait_us, connection->due_us - now);
    if (tally_.log_pending()) wait_us = std::min(wait_us, kLogUs);
    if (context_.options.idle_close_ms > 0) wait_us = std::min(wait_us, kIdleSweepUs);
    if (wait_us == INT64_MAX) return -1;
    return static_cast<int>(std::max<int64_t>(0, (wait_us + 999) / 1000));
}

void Worker::accept_from(int listener) {
    for (int i = 0; i < 64; ++i) {
        SocketAddress peer;
        peer.size = sizeof peer.storage;
        const int fd = accept4(listener, peer.get(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        auto made = std::make_unique<Connection>(machine_context_, context_.ledger.next_connection(),
                                                 peer.text(), bound_address(fd).text());
        Connection& connection = *made;
        connection.fd = fd;
        connection.index = connections_.size();
        connection.heard_us = mono_us();
        connections_.push_back(std::move(made));
        if (context_.open_by_address != nullptr)
            connection.open_here = context_.open_by_address->opened(std::string(connection.machine.local()));
        tally_.add(Counter::connections, 1);
        context_.ledger.connection_opened();
        tally_.connection_event("open", connection.machine, {});
        connection.events = EPOLLIN;
        epoll_event event{EPOLLIN, {.ptr = static_cast<Watched*>(&connection)}};
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
        const int64_t latency_ms = context_.options.latency_ms;
        if (latency_ms > 0)
            delayed_.push_back({connection.heard_us + latency_ms * 1000, &connection, Late::greeting, {}});
        else
            greet(connection);
    }
}

bool Worker::greet(Connection& connection) {
    const Flow flow = connection.machine.greet(connection.open_here, connection.out);
    count(connection.machine);
    return carry_on(connection, flow);
}

void Worker::on_event(Connection& connection, uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !flush(connection)) return;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some(connection);
}

bool Worker::read_some(Connection& connection) {
    const int64_t latency_us = context_.options.latency_ms * 1000;
    for (int i = 0; i < kReadsInTurn; ++i) {
        const ssize_t n = recv(connection.fd, input_.data(), input_.size(), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        now_us_ = mono_us();
        connection.heard_us = now_us_;
        const bool discard = connection.closing || connection.hung;
        if (n <= 0) {
            if (n == 0 && latency_us > 0 && !discard) {
                delayed_.push_back({now_us_ + latency_us, &connection, Late::end, {}});
                connection.input_ended = true;
                watch(connection, 0);
                return true;
            }
            return destroy(connection, n == 0 ? "end of stream" : "reset by peer");
        }
        const std::string_view bytes(input_.data(), static_cast<size_t>(n));
        if (discard) {
        } else if (latency_us > 0) {
            delayed_.push_back({now_us_ + latency_us, &connection, Late::input, std::string(bytes)});
        } else if (!process(connection, bytes)) {
            return false;
        }
        if (bytes.size() < input_.size()) return true;
    }
    return true;
}

bool Worker::process(Connection& connection, std::string_view bytes) {
    Flow flow;
    if (connection.tls) {
        flow = feed_secure(connection, bytes);
        if (connection.tls->status() == TlsServer::Status::failed) {
            tally_.add(Counter::tls_failures, 1);
            connection.closing = true;
        }
    } else {
        flow = connection.machine.feed(bytes, connection.out, now_us_);
    }
    count(connection.machine);
    return carry_on(connection, flow);
}

Flow Worker::feed_secure(Connection& connection, std::string_view bytes) {
    TlsServer& tls = *connection.tls;
    tls.receive(bytes);
    if (tls.status() == TlsServer::Status::handshaking) {
        if (tls.handshake(connection.out) != TlsServer::Status::open) return Flow::go_on;
        tally_.add(Counter::tls_connections, 1);
        if (tls.resumed()) tally_.add(Counter::resumed_sessions, 1);
        connection.machine.secured(tls.version());
    }
    Flow flow = Flow::go_on;
    replies_.clear();
    while (flow == Flow::go_on) {
        const size_t size = tls.read(plain_.data(), plain_.size(), connection.out);
        if (size == 0) break;
        flow = connection.machine.feed({plain_.data(), size}, replies_, now_us_);
    }
    tls.write(replies_, connection.out);
    if (flow == Flow::go_on && tls.status() == TlsServer::Status::closed) flow = Flow::close;
    return flow;
}

bool Worker::carry_on(Connection& connection, Flow flow) {
    switch (flow) {
        case Flow::go_on: break;
        case Flow::starttls: connection.tls = std::make_unique<TlsServer>(*context_.tls); break;
        case Flow::close:
        case Flow::drop:
            connection.closing = true;
            if (connection.tls) connection.tls->close_notify(connection.out);
            break;
        case Flow::reset: connection.closing = connection.reset = true; break;
        case Flow::hang: connection.hung = true; break;
    }
    return flush(connection);
}

bool Worker::flush(Connection& connection) {
    std::string& out = connection.out;
    const Pace pace = connection.machine.pace();
    while (connection.sent < out.size()) {
        size_t size = out.size() - connection.sent;
        if (pace != Pace::whole) {
            if (connection.due_us > now_us_) return true;
            size = 1;
        }
        const ssize_t n = send(connection.fd, out.data() + connection.sent, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return destroy(connection, "send failed");
        if (n < 0) {
            const bool full = out.size() - connection.sent > kUnsentMost;
            watch(connection, (full || connection.input_ended ? 0u : EPOLLIN) | EPOLLOUT);
            return true;
        }
        connection.sent += static_cast<size_t>(n);
        if (pace != Pace::whole && connection.sent < out.size()) {
            set_due(connection, mono_us() + (pace == Pace::slow ? kSlowUs : kSplitUs));
            return true;
        }
    }
    return flushed(connection);
}

bool Worker::flushed(Connection& connection) {
    connection.out.clear();
    connection.sent = 0;
    if (!connection.input_ended) watch(connection, EPOLLIN);
    if (!connection.closing || connection.fin_sent) return true;
    if (connection.reset) {
        const linger at_once{1, 0};
        setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        return destroy(connection, "reset by rule");
    }
    connection.fin_sent = true;
    connection.machine.lost(mono_us());
    // As a server that closes its socket would: from here on the client may count the connection as gone.
    session_ended(connection, "closed");
    if (connection.input_ended || shutdown(connection.fd, SHUT_WR) != 0)
        return destroy(connection, "closed");
    set_due(connection, mono_us() + kLingerUs);
    return true;
}

// The session is over for both sides: it is no longer open for limits, counters and log.
void Worker::session_ended(Connection& connection, std::string_view why) {
    if (std::exchange(connection.ended, true)) return;
    tally_.connection_event("close", connection.machine, why);
    context_.ledger.connection_closed();
    if (context_.open_by_address != nullptr)
        context_.open_by_address->closed(std::string(connection.machine.local()));
}

bool Worker::destroy(Connection& connection, std::string_view why) {
    connection.machine.lost(mono_us());
    count(connection.machine);
    session_ended(connection, why);
    for (Delayed& delayed : delayed_)
        if (delayed.connection == &connection) delayed.connection = nullptr;
    std::erase(timed_, &connection);
    ::close(connection.fd);
    const size_t index = connection.index;
    if (index + 1 < connections_.size()) {
        std::swap(connections_[index], connections_.back());
        connections_[index]->index = index;
    }
    connections_.pop_back();
    return false;
}

void Worker::watch(Connection& connection, uint32_t events) {
    if (connection.events == events) return;
    connection.events = events;
    epoll_event event{events, {.ptr = static_cast<Watched*>(&connection)}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
}

void Worker::count(SmtpMachine& machine) {
    if (const uint64_t n = machine.take_violations()) tally_.add(Counter::violations, n);
    if (const uint64_t n = machine.take_rules_applied()) tally_.add(Counter::rules_applied, n);
    if (const uint64_t n = machine.take_limited()) tally_.add(Counter::limited_connections, n);
}

void Worker::set_due(Connection& connection, int64_t at_us) {
    if (std::find(timed_.begin(), timed_.end(), &connection) == timed_.end()) timed_.push_back(&connection);
    connection.due_us = at_us;
}

void Worker::run_delayed() {
    now_us_ = mono_us();
    while (!delayed_.empty() && delayed_.front().due_us <= now_us_) {
        const Delayed late = std::move(delayed_.front());
        delayed_.pop_front();
        if (late.connection == nullptr) continue;
        Connection& connection = *late.connection;
        if (late.what == Late::greeting) greet(connection);
        else if (late.what == Late::end) destroy(connection, "end of stream");
        else if (!connection.closing && !connection.hung) process(connection, late.bytes);
    }
}

void Worker::run_timed() {
    now_us_ = mono_us();
    // A due connection leaves the list; flush() puts it back when it has more to say.
    const std::vector<Connection*> timed = timed_;
    for (Connection* connection : timed) {
        if (connection->due_us > now_us_) continue;
        std::erase(timed_, connection);
        connection->due_us = 0;
        if (connection->fin_sent) destroy(*connection, "no end of stream from peer");
        else flush(*connection);
    }
}

void Worker::close_idle() {
    const int64_t now = mono_us();
    if (now - idle_checked_us_ < kIdleSweepUs) return;
    idle_checked_us_ = now;
    for (size_t i = connections_.size(); i-- > 0;) {
        Connection& connection = *connections_[i];
        if (connection.closing || now - connection.heard_us < context_.options.idle_close_ms * 1000) continue;
        connection.closing = true;
        flush(connection);
    }
}

}  // namespace postrider::sink
