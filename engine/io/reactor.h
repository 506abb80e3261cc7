// The turn of a shard. Everything a shard does happens inside turn(), in this order:
//
//   1. drain the mailboxes      2. expire timers      3. run what is ready
//   4. the hooks before submission (the journal writes this turn's intents here: they precede the turn's sends)
//   5. submit, and wait when there is nothing to run      6. copy completions out, then run them
//
// No coroutine is resumed while the completion queue is walked. `now` is read once a turn, after the wait. No globals
// and no thread_local: N reactors can run on one thread, turn by turn.
#pragma once

#include <array>
#include <coroutine>
#include <functional>
#include <memory>
#include <vector>

#include "engine/io/clock.h"
#include "engine/io/mailbox.h"
#include "engine/io/ring.h"
#include "engine/io/task.h"
#include "engine/io/timer_wheel.h"

namespace postrider {

class Reactor {
  public:
    using MailHandler = std::function<void(const Mail&)>;
    static constexpr size_t kMailKinds = 32;

    // `exchange` outlives the reactor. Must be made on the thread that turns it.
    static Result<std::unique_ptr<Reactor>> make(ShardId shard, MailExchange& exchange,
                                                 const Ring::Options& options);
    ~Reactor();

    ShardId shard() const { return shard_; }
    MonoNs now_ns() const { return now_ns_; }
    int64_t now_ms() const { return now_ns_ / kNsPerMs; }
    // The wall clock, for logs and for times that people give.
    WallUs wall_us() const { return wall_us_; }
    // The spool's time-line (engine/core/time_line.h), or else the wall clock as it was when the reactor was made, and the time
    // since (FAULTS 96): for claims, ages and retries, which a step of the wall clock must not move.
    WallUs steady_us() const { return steady_at_zero_us_ + now_ns_ / 1000; }
    // What it was when the monotonic clock was at zero; before anything is stamped.
    void set_steady(WallUs at_zero_us) { steady_at_zero_us_ = at_zero_us; }
    Ring& ring() { return *ring_; }
    Random& random() { return random_; }

    void arm(Timer& timer, int64_t deadline_ms) { timers_.arm(timer, deadline_ms); }
    void arm_after(Timer& timer, DurationMs delay_ms) { timers_.arm(timer, now_ms() + delay_ms); }

    // Resumed in step 3 of this turn or the next; the caller's frame is not re-entered.
    void make_ready(std::coroutine_handle<> handle) { ready_.push_back(handle); }
    // Called once in step 3 of this turn or the next.
    void defer(std::function<void()> call) { deferred_.push_back(std::move(call)); }

    void on_mail(uint16_t kind, MailHandler handler);
    // To another shard, or to this one (then delivered in the next turn).
    void post(ShardId to, const Mail& mail);

    // Step 4, in the order of registration.
    void before_submit(std::function<void()> hook) { hooks_.push_back(std::move(hook)); }
    // Slices of background work (the intake): called once a turn; true when there is more to do at once.
    void each_turn(std::function<bool()> slice) { slices_.push_back(std::move(slice)); }

    // From a slice of work that can wait: when this turn has submitted, whoever else wants the core goes first.
    void give_way() { gives_way_ = true; }

    // One turn. Waits at most until `latest_ns` when there is nothing to run (0: never waits).
    void turn(MonoNs latest_ns);

    // Turns run since the start: for the metrics.
    uint64_t turns() const { return turns_; }
    // The share of its time, 0 to 1, that the shard lately spent working rather than waiting.
    double busy() const { return busy_; }

  private:
    Reactor(ShardId shard, MailExchange& exchange, std::unique_ptr<Ring> ring);
    void drain_mail();
    bool run_ready();
    void read_clock();
    void account(MonoNs waited_ns);

    ShardId shard_;
    MailExchange& exchange_;
    std::unique_ptr<Ring> ring_;
    MonoNs now_ns_;
    WallUs wall_us_;
    WallUs steady_at_zero_us_;  // of the monotonic clock
    TimerWheel timers_;
    Random random_;
    std::vector<std::coroutine_handle<>> ready_, running_;
    std::vector<std::function<void()>> deferred_, deferred_running_;
    std::vector<std::function<void()>> hooks_;
    std::vector<std::function<bool()>> slices_;
    std::array<MailHandler, kMailKinds> handlers_;
    bool gives_way_ = false;
    uint64_t turns_ = 0;
    MonoNs account_from_ns_, waited_ns_ = 0;
    double busy_ = 0;
};

// co_await Sleep(reactor, 100): at least so many milliseconds.
class Sleep final : public Timer {
  public:
    Sleep(Reactor& reactor, DurationMs delay_ms) : reactor_(reactor), delay_ms_(delay_ms) {}
    bool await_ready() const { return delay_ms_ <= 0; }
    void await_suspend(std::coroutine_handle<> handle) {
        handle_ = handle;
        reactor_.arm_after(*this, delay_ms_);
    }
    void await_resume() const {}
    void on_timer() override { handle_.resume(); }

  private:
    Reactor& reactor_;
    DurationMs delay_ms_;
    std::coroutine_handle<> handle_;
};

// co_await Yield(reactor): lets the others run; goes on in step 3.
class Yield {
  public:
    explicit Yield(Reactor& reactor) : reactor_(reactor) {}
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> handle) { reactor_.make_ready(handle); }
    void await_resume() const {}

  private:
    Reactor& reactor_;
};

// One coroutine waits, others notify; a notification without a waiter is kept (once). With a deadline the wait ends
// with false. Resumption happens in step 3, never inside notify().
class Event final : private Timer {
  public:
    explicit Event(Reactor& reactor) : reactor_(reactor) {}
    void notify() {
        if (waiter_) {
            Timer::unlink();
            notified_ = true;
            reactor_.make_ready(std::exchange(waiter_, {}));
        } else {
            pending_ = true;
        }
    }
    // Awaitable: true when notified, false when `deadline_ms` (reactor clock) came first.
    auto wait(int64_t deadline_ms) {
        struct Awaiter {
            Event& event;
            int64_t deadline_ms;
            bool await_ready() {
                event.notified_ = std::exchange(event.pending_, false);
                return event.notified_;
            }
            void await_suspend(std::coroutine_handle<> handle) {
                event.waiter_ = handle;
                if (deadline_ms != TimerWheel::kNever) event.reactor_.arm(event, deadline_ms);
            }
            bool await_resume() { return event.notified_; }
        };
        return Awaiter{*this, deadline_ms};
    }
    bool has_waiter() const { return static_cast<bool>(waiter_); }
    void clear() { pending_ = false; }

  private:
    void on_timer() override {
        notified_ = false;
        std::exchange(waiter_, {}).resume();
    }

    Reactor& reactor_;
    std::coroutine_handle<> waiter_;
    bool pending_ = false;
    bool notified_ = false;
};

}  // namespace postrider
