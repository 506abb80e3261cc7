#include "engine/io/reactor.h"

#include <algorithm>

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
      timers_(now_ns_ / kNsPerMs),
      random_(random_seed()) {
    exchange_.set_ring(shard_, ring_.get());
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
    const auto events = ring_->wait(now_ns_, until_ns);
    exchange_.wake_up(shard_);
    read_clock();
    for (const auto& event : events) ring_->run(event);
}

}  // namespace postrider
