// Whether the DNS servers as a whole are alive (FAULTS 88). Pure.
//
//   up       every look-up may ask; kSilent queries in a row without a word from a server: down
//   down     nobody may ask until the back-off has passed; then the first one is the probe
//   probing  nobody else may ask; silence: down again with twice the back-off, any word at all: up
#pragma once

#include <algorithm>
#include <cstdint>

namespace postrider {

class ServerHealth {
  public:
    static constexpr uint32_t kSilent = 8;
    static constexpr int64_t kFirstBackoffMs = 1'000;
    static constexpr int64_t kLongestBackoffMs = 60'000;

    bool admit(int64_t now_ms) {
        if (state_ == State::up) return true;
        if (state_ == State::probing || now_ms < until_ms_) return false;
        state_ = State::probing;
        return true;
    }

    // Any answer, SERVFAIL too.
    void answered() {
        state_ = State::up;
        silent_ = 0;
        backoff_ms_ = kFirstBackoffMs;
    }

    void silent(int64_t now_ms) {
        ++silent_;
        if (state_ == State::down || (state_ == State::up && silent_ < kSilent)) return;
        state_ = State::down;
        until_ms_ = now_ms + backoff_ms_;
        backoff_ms_ = std::min(2 * backoff_ms_, kLongestBackoffMs);
    }

    // The query ended without telling anything of the servers: a probe is to be repeated.
    void inconclusive(int64_t now_ms) {
        if (state_ != State::probing) return;
        state_ = State::down;
        until_ms_ = now_ms;
    }

    bool up() const { return state_ == State::up; }
    // When a look-up that was not admitted should come again.
    int64_t retry_ms(int64_t now_ms) const { return std::max(until_ms_, now_ms + kFirstBackoffMs); }

  private:
    enum class State : uint8_t { up, down, probing };
    State state_ = State::up;
    uint32_t silent_ = 0;
    int64_t until_ms_ = 0;
    int64_t backoff_ms_ = kFirstBackoffMs;
};

}  // namespace postrider
