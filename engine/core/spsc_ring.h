// Bounded single-producer single-consumer queue (Lamport 1983), indices cached on each side so that the other
// core's line is read only when the queue looks full or empty.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "engine/core/check.h"

namespace postrider {

template <class T>
class SpscRing {
  public:
    explicit SpscRing(size_t capacity) : mask_(capacity - 1), slots_(new T[capacity]) {
        POSTRIDER_CHECK(capacity >= 2 && (capacity & mask_) == 0, "a power of two");
    }

    // Producer side. False: full.
    bool push(const T& value) {
        const size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_seen_ > mask_) {
            head_seen_ = head_.load(std::memory_order_acquire);
            if (tail - head_seen_ > mask_) return false;
        }
        slots_[tail & mask_] = value;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    // Consumer side. False: empty.
    bool pop(T& value) {
        const size_t head = head_.load(std::memory_order_relaxed);
        if (head == tail_seen_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);
            if (head == tail_seen_) return false;
        }
        value = slots_[head & mask_];
        head_.store(head + 1, std::memory_order_release);
        return true;
    }

    // Consumer side.
    bool empty() const {
        return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_acquire);
    }

  private:
    alignas(64) std::atomic<size_t> tail_{0};
    size_t head_seen_ = 0;  // the producer's
    alignas(64) std::atomic<size_t> head_{0};
    size_t tail_seen_ = 0;  // the consumer's
    alignas(64) const size_t mask_;
    std::unique_ptr<T[]> slots_;
};

}  // namespace postrider
