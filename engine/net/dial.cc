#include "engine/net/dial.h"

#include <algorithm>

namespace postrider {
namespace {

// Lives in the frame of dial(), which does not end before its attempts have.
class Race {
  public:
    Race(Reactor& reactor, BufferPool& buffers, std::vector<SocketAddress> addresses,
         const DialOptions& options)
        : reactor_(reactor),
          buffers_(buffers),
          addresses_(std::move(addresses)),
          options_(options),
          progress_(reactor),
          deadline_ms_(reactor.now_ms() + options.timeout_ms) {
        attempts_.reserve(addresses_.size());
    }

    Task<DialResult> run();

  private:
    struct Attempt {
        std::unique_ptr<Connection> connection;
        DialAttempt told;
        bool under_way = false;
    };

    void start_due();
    bool start(const SocketAddress& to);
    Task<void> attempt(size_t index);
    bool last_address() const { return attempts_.size() == addresses_.size(); }

    Reactor& reactor_;
    BufferPool& buffers_;
    std::vector<SocketAddress> addresses_;
    const DialOptions& options_;
    Event progress_;
    Gate gate_;
    std::vector<Attempt> attempts_;
    int64_t deadline_ms_;
    int64_t next_ms_ = 0;  // the next address is not due before
    size_t under_way_ = 0;
    size_t winner_ = SIZE_MAX;
};

// The first is due at once, the next `stagger_ms` later or when an attempt has failed (RFC 8305 5).
void Race::start_due() {
    while (winner_ == SIZE_MAX && !last_address() && under_way_ < options_.max_parallel &&
           (under_way_ == 0 || reactor_.now_ms() >= next_ms_)) {
        if (reactor_.now_ms() >= deadline_ms_) return;
        next_ms_ = reactor_.now_ms() + options_.stagger_ms;
        if (!start(addresses_[attempts_.size()])) return;
    }
}

// False: no slot for a surplus attempt; it is asked for again.
bool Race::start(const SocketAddress& to) {
    const bool surplus = under_way_ > 0;
    const bool granted = !options_.slots || options_.slots->take(to, surplus);
    if (!granted && surplus) return false;
    attempts_.push_back(Attempt{nullptr, DialAttempt{to, -EAGAIN, 0}});
    if (!granted) return true;
    Attempt& fresh = attempts_.back();
    fresh.connection = std::make_unique<Connection>(reactor_, buffers_);
    fresh.under_way = true;
    ++under_way_;
    spawn(gate_, attempt(attempts_.size() - 1));
    return true;
}

Task<void> Race::attempt(size_t index) {
    const int64_t started_ms = reactor_.now_ms();
    // An address that is not the last must leave time for the others.
    const int64_t deadline_ms =
        last_address() ? deadline_ms_ : std::min(deadline_ms_, started_ms + options_.attempt_ms);
    Connection& connection = *attempts_[index].connection;
    const int result =
        co_await connection.connect(attempts_[index].told.address, options_.source, deadline_ms);
    Attempt& mine = attempts_[index];
    mine.told.result = result;
    mine.told.took_ms = reactor_.now_ms() - started_ms;
    if (result == 0 && winner_ == SIZE_MAX) {
        winner_ = index;
    } else if (result == 0) {
        mine.told.result = -ECANCELED;
        co_await mine.connection->close(false);
    }
    mine.under_way = false;
    // The last one's slot is the caller's own.
    if (index != winner_ && --under_way_ > 0 && options_.slots) options_.slots->give_back();
    if (index != winner_ && winner_ == SIZE_MAX) next_ms_ = reactor_.now_ms();
    progress_.notify();
}

Task<DialResult> Race::run() {
    const DialAbortable abortable(options_.abort, progress_);
    while (!abortable.asked()) {
        start_due();
        if (winner_ != SIZE_MAX || under_way_ == 0) break;
        const bool more = !last_address() && under_way_ < options_.max_parallel;
        co_await progress_.wait(more ? std::max(next_ms_, reactor_.now_ms() + 1)
                                     : deadline_ms_ + 1);
    }
    for (Attempt& loser : attempts_) {
        if (loser.under_way) loser.connection->abort_connect();
    }
    while (!gate_.empty()) co_await progress_.wait(TimerWheel::kNever);
    DialResult result;
    for (Attempt& attempt : attempts_) result.attempts.push_back(attempt.told);
    if (winner_ != SIZE_MAX) result.connection = std::move(attempts_[winner_].connection);
    co_return result;
}

}  // namespace

int DialResult::error() const {
    if (connection) return 0;
    return attempts.empty() ? -EADDRNOTAVAIL : attempts.back().result;
}

Task<DialResult> dial(Reactor& reactor, BufferPool& buffers, std::vector<SocketAddress> addresses,
                      DialOptions options) {
    Race race(reactor, buffers, std::move(addresses), options);
    co_return co_await race.run();
}

void alternate_families(std::vector<SocketAddress>& addresses) {
    if (addresses.empty()) return;
    const int first = addresses.front().family();
    std::vector<SocketAddress> ours, others, mixed;
    for (const auto& address : addresses) {
        (address.family() == first ? ours : others).push_back(address);
    }
    for (size_t i = 0; i < std::max(ours.size(), others.size()); ++i) {
        if (i < ours.size()) mixed.push_back(ours[i]);
        if (i < others.size()) mixed.push_back(others[i]);
    }
    addresses = std::move(mixed);
}

}  // namespace postrider
