// Task<T>: a coroutine that starts when it is awaited and resumes its awaiter when it ends (symmetric transfer).
// A task lives on one shard. A detached one is started by `spawn` and frees itself; whoever spawns it keeps a
// Gate open until it has ended, so that what it borrows outlives it.
//
// Rules (STYLE.md): no coroutine lambda with captures; parameters by value, or references to what the shard owns.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "engine/core/check.h"

namespace postrider {

template <class T>
class Task;

namespace detail {

struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) const noexcept {
        return self.promise().continuation;
    }
    void await_resume() const noexcept {}
};

struct PromiseBase {
    std::coroutine_handle<> continuation = std::noop_coroutine();
    std::suspend_always initial_suspend() const noexcept { return {}; }
    FinalAwaiter final_suspend() const noexcept { return {}; }
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
};

template <class T>
struct Promise : PromiseBase {
    std::optional<T> value;
    Task<T> get_return_object();
    void return_value(T v) { value.emplace(std::move(v)); }
};

template <>
struct Promise<void> : PromiseBase {
    Task<void> get_return_object();
    void return_void() const noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
  public:
    using promise_type = detail::Promise<T>;
    using Handle = std::coroutine_handle<promise_type>;

    explicit Task(Handle handle) : handle_(handle) {}
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    Task& operator=(Task&&) = delete;
    ~Task() {
        if (handle_) handle_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiter) noexcept {
        handle_.promise().continuation = awaiter;
        return handle_;
    }
    T await_resume() {
        if constexpr (!std::is_void_v<T>) return std::move(*handle_.promise().value);
    }

  private:
    Handle handle_;
};

template <class T>
Task<T> detail::Promise<T>::get_return_object() {
    return Task<T>(Task<T>::Handle::from_promise(*this));
}
inline Task<void> detail::Promise<void>::get_return_object() {
    return Task<void>(Task<void>::Handle::from_promise(*this));
}

// Counts what must end before its owner may: connections, look-ups, writes in flight.
class Gate {
  public:
    Gate() = default;
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    ~Gate() { POSTRIDER_CHECK(holders_ == 0, "a gate outlives its holders"); }

    class Holder {
      public:
        explicit Holder(Gate& gate) : gate_(&gate) { ++gate.holders_; }
        Holder(Holder&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
        Holder& operator=(Holder&&) = delete;
        ~Holder() {
            if (gate_) --gate_->holders_;
        }

      private:
        Gate* gate_;
    };

    Holder hold() { return Holder(*this); }
    size_t holders() const { return holders_; }
    bool empty() const { return holders_ == 0; }

  private:
    size_t holders_ = 0;
};

namespace detail {
struct Detached {
    struct promise_type {
        Detached get_return_object() const noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
    };
};

inline Detached detach(Task<void> task, Gate::Holder holder) { co_await task; }
}  // namespace detail

// Runs `task` on its own, from here to its first suspension at once; `gate` stays held until it ends.
inline void spawn(Gate& gate, Task<void> task) { detail::detach(std::move(task), gate.hold()); }

}  // namespace postrider
