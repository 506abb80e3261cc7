// One connection over several addresses of a host. With `max_parallel` 1 they are tried in turn, a
// dead one costing `attempt_ms`; with more, the next is started `stagger_ms` after the last (RFC
// 8305 5, Happy Eyeballs) as long as the caller grants a further slot, and the first to connect
// wins. Every SYN is announced to the caller, so that none escapes its limits; the losers are
// closed before dial() returns.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/core/socket_address.h"
#include "engine/net/connection.h"

namespace postrider {

// The caller's limits. The caller holds one connection slot before it dials: it serves the first of
// the attempts under way, and the winner keeps it.
class DialSlots {
  public:
    virtual ~DialSlots() = default;
    // Before every SYN. `surplus`: another attempt is under way, so a further slot is needed.
    // False: not now; a surplus attempt is asked for again later, an only one ends as -EAGAIN.
    virtual bool take(const SocketAddress& to, bool surplus) = 0;
    // A further slot is free again: the socket it stood for is closed, or is the only one left.
    virtual void give_back() = 0;
};

// The caller's way to end a dial before its time: what is under way is given up, as -ECANCELED.
class DialAbort {
  public:
    void ask() {
        asked_ = true;
        if (progress_) progress_->notify();
    }
    bool asked() const { return asked_; }

  private:
    friend class DialAbortable;
    bool asked_ = false;
    Event* progress_ = nullptr;  // of the dial under way
};

// Held by a dial while it can be ended.
class DialAbortable {
  public:
    DialAbortable(DialAbort* abort, Event& progress) : abort_(abort) {
        if (abort_) abort_->progress_ = &progress;
    }
    ~DialAbortable() {
        if (abort_) abort_->progress_ = nullptr;
    }
    DialAbortable(const DialAbortable&) = delete;
    DialAbortable& operator=(const DialAbortable&) = delete;
    bool asked() const { return abort_ && abort_->asked_; }

  private:
    DialAbort* abort_;
};

struct DialOptions {
    std::optional<SocketAddress> source;
    size_t max_parallel = 1;
    DurationMs stagger_ms = 250;     // RFC 8305 8: "Connection Attempt Delay"
    DurationMs attempt_ms = 5'000;   // an attempt ends then, unless it is the last address
    DurationMs timeout_ms = 30'000;  // all together
    DialSlots* slots = nullptr;      // none: nothing is counted
    DialAbort* abort = nullptr;      // none: it takes its time
};

struct DialAttempt {
    SocketAddress address;
    int result = 0;  // 0: won; -errno; -ECANCELED: another was faster; -EAGAIN: no slot
    DurationMs took_ms = 0;
};

struct DialResult {
    std::unique_ptr<Connection> connection;  // empty: every attempt failed
    std::vector<DialAttempt> attempts;  // in the order they were started; the rest were not tried
    // The winner's address, or unspecified.
    SocketAddress address() const { return connection ? connection->peer() : SocketAddress(); }
    // Why nothing connected: the last attempt's result; 0 when connected, -EADDRNOTAVAIL without
    // addresses.
    int error() const;
};

// `addresses` in the order of preference.
Task<DialResult> dial(Reactor& reactor, BufferPool& buffers, std::vector<SocketAddress> addresses,
                      DialOptions options);

// Alternates the families, beginning with the first address's (RFC 8305 4); keeps the order within
// a family.
void alternate_families(std::vector<SocketAddress>& addresses);

}  // namespace postrider
