// How many connections a shard keeps to a site (decision 0015). Pure: times in, a number out.
//
// Rounds of transactions are compared: at least one for each connection, all of them open. The mean of a round says
//
//   far       it is near the best there was, and long: most of it is the way there and back. The window doubles
//   queueing  it is over one and a half of the best: the receiver is busy, one more connection would only wait there
//
// else the window opens by one. While the whole engine has fewer than kFew connections the mail that waits decides alone: a
// handful is cheap, and with one only, receiver and sender wait for each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/core/time.h"

namespace postrider {

class ConnectionWindow {
  public:
    // A further connection costs a few round trips and its set-up: only for mail that keeps the others busy for longer.
    static constexpr double kWorthwhileMs = 200;
    static constexpr uint32_t kFew = 16;
    static constexpr double kFarMs = 5;
    static constexpr double kQueueing = 1.5;
    static constexpr size_t kNearRound = 16, kFarRound = 2;  // transactions at least: short times scatter

    uint32_t size() const { return window_; }

    // A connection's time for one transaction, from end to end. `first`: of its session, which takes more round trips; it
    // counts only where sessions carry no other.
    void took(double ms, bool first) {
        if (first && overlapped_) return;
        if (!first && !overlapped_) {
            overlapped_ = true;
            count_ = 0;
            sum_ms_ = best_ms_ = 0;
        }
        ++count_;
        sum_ms_ += ms;
        if (service_ms_ == 0) service_ms_ = ms;
    }

    // A transaction was taken. True when a round has ended and it is time to ask whether more connections are worthwhile.
    bool round_ended(size_t connections, size_t live, int64_t now_ms) {
        if (3 * live < 2 * connections) {  // what the new ones change is to be seen first
            count_ = 0;
            sum_ms_ = 0;
            return false;
        }
        if (count_ < std::max(connections, service_ms_ < kFarMs ? kNearRound : kFarRound)) return false;
        service_ms_ = sum_ms_ / static_cast<double>(count_);
        count_ = 0;
        sum_ms_ = 0;
        if (best_ms_ == 0 || service_ms_ < best_ms_) best_ms_ = service_ms_;
        queueing_ = service_ms_ > kQueueing * best_ms_;
        if (queueing_) doubling_ = false;
        // The best is forgotten slowly, by the clock: a host that has moved away is not taken for a busy one for ever.
        if (now_ms - crept_ms_ >= kMsPerSecond) {
            best_ms_ *= 1.01;
            crept_ms_ = now_ms;
        }
        return window_ <= connections;
    }

    // Would `mail` keep `connections` busy for long, and the receiver serve one more as fast? `in_all`: connections of the
    // whole engine.
    bool worthwhile(uint64_t mail, size_t connections, uint32_t in_all) const {
        return service_ms_ > 0 && (in_all < kFew || !queueing_) &&
               static_cast<double>(mail) * service_ms_ > kWorthwhileMs * static_cast<double>(connections);
    }
    void open_more() { window_ = doubling_ && service_ms_ >= kFarMs ? 2 * window_ : window_ + 1; }
    void failed() {
        window_ = std::max(1u, window_ / 2);
        doubling_ = false;
    }

  private:
    uint32_t window_ = 1;
    size_t count_ = 0;  // of this round
    double sum_ms_ = 0;
    double service_ms_ = 0;  // mean of the last round; 0: not known yet
    double best_ms_ = 0;
    int64_t crept_ms_ = 0;
    bool overlapped_ = false;
    bool queueing_ = false;
    bool doubling_ = true;
};

}  // namespace postrider
