#include "engine/io/reactor.h"

#include <sched.h>

#include <algorithm>
#include <utility>

namespace postrider {

Result<std::unique_ptr<Reactor>> Reactor::make(ShardId shard, MailExchange& exchange,
                                               const Ring::Options& options) {
    auto ring = Ring::make(options);
    if (!ring) return std::unexpected(ring.error());
    return std::unique_ptr<Reactor>(new Reactor(shard, exchange, std::move(*ring)));
}

Reactor::Reactor(ShardId shard, MailExchange& exchange, std::unique_ptr<Ring> ring)
    : shard_(shard),
      exchange_(exchange),
      ring_(std::move(ring)),
      now_ns_(read_mono_clock()),
      wall_us_(read_wall_clock()),
      steady_at_zero_us_(wall_us_ - now_ns_ / 1000),
      timers_(now_ns_ / kNsPerMs),
      random_(random_seed()),
      account_from_ns_(now_ns_) {
    exchange_.set_ring(shard_, ring_.get());
    ring_->before_early_submit([this] {
        for (auto& hook : hooks_) hook();
    });
}

Reactor::~Reactor() { exchange_.set_ring(shard_, nullptr); }

void Reactor::on_mail(uint16_t kind, MailHandler handler) {
    POSTRIDER_CHECK(kind < kMailKinds && !handlers_[kind], "a mail kind has one handler");
    handlers_[kind] = std::move(handler);
}

void Reactor::post(ShardId to, const Mail& mail) { exchange_.post(shard_, to, mail, *ring_); }

void Reactor::read_clock() {
    now_ns_ = std::max(now_ns_, read_mono_clock());
    wall_us_ = read_wall_clock();
}

void Reactor::drain_mail() {
    Mail mail;
    // Bounded, so that a flood of mail does not starve this shard's connections.
    for (size_t i = 0; i < limits::kMailboxSlots && exchange_.take(shard_, mail); ++i) {
        POSTRIDER_CHECK(mail.kind < kMailKinds && handlers_[mail.kind], "mail of a known kind");
        handlers_[mail.kind](mail);
    }
}

bool Reactor::run_ready() {
    running_.swap(ready_);
    for (auto handle : running_) handle.resume();
    running_.clear();
    deferred_running_.swap(deferred_);
    for (auto& call : deferred_running_) call();
    deferred_running_.clear();
    bool more = false;
    for (auto& slice : slices_) more |= slice();
    return more;
}

// Half of the old value and half of the last 10 ms or more.
void Reactor::account(MonoNs waited_ns) {
    waited_ns_ += waited_ns;
    const MonoNs span_ns = now_ns_ - account_from_ns_;
    if (span_ns < 10 * kNsPerMs) return;
    const double share = 1.0 - static_cast<double>(waited_ns_) / static_cast<double>(span_ns);
    busy_ = (busy_ + std::clamp(share, 0.0, 1.0)) / 2;
    account_from_ns_ = now_ns_;
    waited_ns_ = 0;
}

void Reactor::turn(MonoNs latest_ns) {
    ++turns_;
    drain_mail();
    timers_.advance(now_ms());
    bool busy = run_ready();
    for (auto& hook : hooks_) hook();
    busy |= !ready_.empty() || !deferred_.empty();
    busy |= !exchange_.flush(shard_, *ring_);
    MonoNs until_ns = 0;
    if (!busy && exchange_.fall_asleep(shard_)) {
        const int64_t next_ms = timers_.next_ms();
        until_ns = next_ms == TimerWheel::kNever ? latest_ns
                                                 : std::min(latest_ns, next_ms * kNsPerMs);
    }
    const MonoNs before_ns = until_ns > now_ns_ ? read_mono_clock() : 0;
    const auto events = ring_->wait(now_ns_, until_ns);
    if (std::exchange(gives_way_, false)) ::sched_yield();
    exchange_.wake_up(shard_);
    read_clock();
    account(before_ns ? now_ns_ - before_ns : 0);
    for (const auto& event : events) ring_->run(event);
}

}  // namespace postrider
