// The connections of a site worker, from the lease to the end: a turn at the address, another site's connection at rest or
// a dial and a session of its own, carrying and resting, and what a failure to open means for the site.
#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "engine/core/check.h"
#include "engine/egress/pooled_connection.h"
#include "engine/net/dial.h"

namespace postrider {
namespace {

constexpr uint32_t kFruitlessMost = 3;       // sessions in a row that took nothing, until the site is parked
constexpr DurationMs kOpenAgainMs = 1'000;   // after a connection could not be opened beside living ones
constexpr DurationMs kLocalFaultMs = 1'000;  // no descriptors, no memory, no ports
constexpr DurationMs kIdleBesideOpeningMs = 1'000;

constexpr DurationMs kLookAgainMs = 100;
constexpr DurationMs kFullDiskMs = 100;  // between looks whether outcomes can be recorded again
constexpr size_t kBouncesAtOnce = 200;

// Counts SYNs against max_connection_rate; the slots of the counts are the leases'.
class SlotsOfRate final : public DialSlots {
  public:
    SlotsOfRate(const Reactor& reactor, RateLimit* rate) : reactor_(reactor), rate_(rate) {}
    bool take(const SocketAddress&, bool) override { return !rate_ || rate_->take(reactor_.now_ns()); }
    void give_back() override {}

  private:
    const Reactor& reactor_;
    RateLimit* rate_;
};

TlsUse tls_use(TlsPolicy policy) {
    switch (policy) {
        case TlsPolicy::Disabled: return TlsUse::off;
        case TlsPolicy::Required:
        case TlsPolicy::RequiredInsecure: return TlsUse::required;
        default: return TlsUse::opportunistic;
    }
}

SessionOptions session_options(PooledConnection& pooled, EgressContext& context, const std::string& host) {
    const EffectiveShaping& shaping = pooled.shaping();
    SessionOptions options;
    options.hostname = pooled.source().hostname;
    options.tap = &pooled;
    options.tls = tls_use(shaping.enable_tls.value);
    options.tls_context = shaping.enable_tls.value == TlsPolicy::Required ? context.verified_tls : &context.tls;
    options.peer_name = host;
    const Dialogue most = shaping.pipeline_depth.value > 1 ? Dialogue::bdat : Dialogue::message;
    options.dialogue = shaping.pipelining.value == Pipelining::message ? most
                       : shaping.pipelining.value == Pipelining::group ? Dialogue::group
                                                                       : Dialogue::none;
    options.dialogue = std::min(options.dialogue, context.hosts.most(host, context.reactor.now_ms()));
    options.pipeline_depth = shaping.pipeline_depth.value;
    auto set = [&](Phase phase, DurationMs value) { options.timeouts_ms[static_cast<size_t>(phase)] = value; };
    set(Phase::greeting, shaping.banner_timeout.value);
    set(Phase::ehlo, shaping.ehlo_timeout.value);
    set(Phase::helo, shaping.ehlo_timeout.value);
    set(Phase::starttls, shaping.starttls_timeout.value);
    set(Phase::mail, shaping.mail_from_timeout.value);
    set(Phase::rcpt, shaping.rcpt_to_timeout.value);
    set(Phase::data, shaping.data_timeout.value);
    set(Phase::dot, shaping.data_dot_timeout.value);
    set(Phase::bdat, shaping.data_dot_timeout.value);
    set(Phase::rset, shaping.rset_timeout.value);
    return options;
}

// Not inlined: its texts would lie in the frame of a coroutine of each connection.
[[gnu::noinline]] void note_attempts(PooledConnection& pooled, std::span<const Candidate> candidates, const std::vector<DialAttempt>& attempts) {
    const EgressSource& source = pooled.source();
    for (size_t i = 0; i < attempts.size() && i < candidates.size(); ++i)
        pooled.note(fmt::format("{} at {}{}: {} after {} ms", candidates[i].host, candidates[i].address.text(),
                                source.address ? " from source " + source.name : "",
                                attempts[i].result ? judge(trouble_of_errno(-attempts[i].result, true)).text : "connected",
                                attempts[i].took_ms));
}

// The handshake failed, or the host fell silent or hung up at STARTTLS.
bool is_tls_failure(const SessionFailure& failure) {
    return failure.trouble == Trouble::tls_failed ||
           (failure.outcome.phase == Phase::starttls && failure.outcome.local &&
            (failure.trouble == Trouble::timeout || failure.trouble == Trouble::lost));
}

}  // namespace

Task<void> SiteWorker::run(PooledConnection& pooled) {
    co_await Yield(context_.reactor);  // the caller holds iterators into what we change
    const bool opened = co_await open(pooled);
    --connecting_;
    if (opened) {
        if (!pooled.reused) {
            ++opened_;
            context_.owner.connection_opened(pooled.connection->secured());
        }
        ++live_;
        turns_.opened(pooled.member);
        co_await serve(pooled);
        --live_;
    }
    turns_.ended(pooled.member);
    std::erase_if(connections_, [&](const auto& each) { return each.get() == &pooled; });
    pump();
}

// Finds a host that takes a session.
Task<bool> SiteWorker::open(PooledConnection& pooled) {
    auto found = co_await candidates(context_.resolver, context_.reactor, view().route, context_.health,
                                     context_.prohibited, context_.port);
    if (found.kind != MailRoute::Kind::hosts) {
        const bool temporary = found.kind == MailRoute::Kind::temporary;
        const Trouble trouble = temporary ? Trouble::dns_address_temporary : Trouble::no_usable_address;
        if (temporary || live_ > 0)  // what is open is of use yet, whatever DNS says now
            could_not_open(pooled, failure_of(trouble, Phase::connect, found.why));
        else
            co_await bounce_all(pooled, outcome_of(trouble, Phase::connect, found.why));
        co_return false;
    }
    if (pooled.for_octets) leave_out_small(pooled, found.list);
    if (found.list.empty()) co_return false;
    auto& address = context_.addresses.at(found.list.front().address, pooled.source_id());
    ++address.users;
    const bool opened = co_await open_at(pooled, address, found.list);
    --address.users;
    co_return opened;
}

// In turn with the others that look for a connection at the address.
Task<bool> SiteWorker::open_at(PooledConnection& pooled, AddressPool::Address& address,
                               const std::vector<Candidate>& list) {
    const Candidate& best = list.front();
    const Turn turn = co_await wait_turn(pooled, best);
    // Who was woken and needs no more passes it on.
    if (!address.resting.empty() || address.may_open()) wake_waiting(address, 1);
    switch (turn) {
        case Turn::taken_over: co_return true;
        case Turn::gives_up: co_return false;
        case Turn::shares_failure:
            pooled.remember_place(best);
            could_not_open(pooled, *address.failure);
            co_return false;
        case Turn::opens: break;
    }
    if (address.open == 0 && address.opening == 0) address.failure.reset();  // of another time: nobody here shares it
    ++address.opening;
    const bool opened = co_await dial_candidates(pooled, list);
    --address.opening;
    // A failure of an address at which nothing is open is everybody's who waits for it.
    wake_waiting(address, opened || address.open > 0 ? 2 : address.waiting.size());
    co_return opened;
}

// Until another site's connection can be taken over, or the pace of the address allows to open one.
Task<SiteWorker::Turn> SiteWorker::wait_turn(PooledConnection& pooled, const Candidate& best) {
    auto& address = context_.addresses.at(best.address, pooled.source_id());
    const int64_t until_ms = context_.reactor.now_ms() + pooled.shaping().connect_timeout.value;
    bool waited = false;
    for (;;) {
        if (no_mail()) co_return Turn::gives_up;  // others have taken the mail meanwhile
        if (take_over(pooled, best)) co_return Turn::taken_over;
        if (waited && address.failure && address.open == 0) co_return Turn::shares_failure;
        if (address.may_open() || context_.reactor.now_ms() >= until_ms) co_return Turn::opens;
        pooled.wait_at(address);
        (void)co_await pooled.wake.wait(until_ms);
        pooled.stop_waiting();
        waited = true;
    }
}

// Every SYN takes an event of max_connection_rate: false when there was none for as long as a connection may take.
Task<bool> SiteWorker::may_dial(PooledConnection& pooled) {
    const int64_t until_ms = context_.reactor.now_ms() + pooled.shaping().connect_timeout.value;
    for (;;) {
        const RateLimit* rate = path(pooled.member).connection_rate;
        const MonoNs at = rate ? rate->ready_at(context_.reactor.now_ns()) : 0;
        if (at == 0) co_return true;
        if (no_mail() || at / kNsPerMs >= until_ms) co_return false;
        const DurationMs wait_ms = (at - context_.reactor.now_ns() + kNsPerMs - 1) / kNsPerMs;
        co_await Sleep(context_.reactor, std::min(wait_ms, kLookAgainMs));
    }
}

// Dials and opens a session with one after the other. On failure everything is told and closed.
Task<bool> SiteWorker::dial_candidates(PooledConnection& pooled, const std::vector<Candidate>& list) {
    auto& best = context_.addresses.at(list.front().address, pooled.source_id());
    SessionFailure failure = failure_of(Trouble::connect_timeout, Phase::connect, "");
    size_t at = 0;
    while (at < list.size() && !draining_) {
        std::vector<SocketAddress> addresses;
        for (size_t i = at; i < list.size(); ++i) addresses.push_back(list[i].address);
        if (!co_await may_dial(pooled)) co_return false;
        SlotsOfRate slots(context_.reactor, path(pooled.member).connection_rate);
        DialOptions options;
        options.slots = &slots;
        options.source = pooled.source().address;
        options.timeout_ms = pooled.shaping().connect_timeout.value;
        options.abort = &pooled.dial_abort;
        auto dialled = co_await dial(context_.reactor, context_.buffers, std::move(addresses), options);
        for (const auto& attempt : dialled.attempts) {
            if (attempt.result == 0)
                context_.health.connected(attempt.address);
            else if (attempt.result != -ECANCELED && attempt.result != -EAGAIN)
                context_.health.connect_failed(attempt.address, -attempt.result, context_.reactor.now_ms());
        }
        if (pooled.listening()) note_attempts(pooled, std::span(list).subspan(at), dialled.attempts);
        if (dialled.error() == -EAGAIN) {  // another shard has taken the event of the rate
            at += static_cast<size_t>(std::ranges::count_if(dialled.attempts, [](const DialAttempt& attempt) { return attempt.result != -EAGAIN; }));
            continue;
        }
        if (!dialled.connection && draining_) break;
        const Candidate& last = list[std::min(at + dialled.attempts.size(), list.size()) - 1];
        if (!dialled.connection) {
            failure = failure_of(trouble_of_errno(-dialled.error(), true), Phase::connect, last.address.text());
            pooled.remember_place(last);
            break;
        }
        at += dialled.attempts.size();
        const auto may_do_without = [&] { return tls_use(pooled.shaping().enable_tls.value) == TlsUse::opportunistic; };
        const bool tls = !may_do_without() || !context_.hosts.tls_failed_lately(last.host, context_.reactor.now_ms());
        auto refusal = co_await open_session(pooled, std::move(dialled.connection), last, tls);
        if (refusal && tls && may_do_without() && is_tls_failure(*refusal)) {
            // FAULTS 62: once more, in clear; and the next ones in clear at once, for a while.
            context_.hosts.tls_failed(last.host, context_.reactor.now_ms());
            if (!co_await may_dial(pooled)) co_return false;
            auto second = co_await dial(context_.reactor, context_.buffers, {last.address}, options);
            if (second.connection && may_do_without()) refusal = co_await open_session(pooled, std::move(second.connection), last, false);
        }
        if (!refusal) {
            context_.health.host_served(last.host);
            pooled.opened_at(context_.addresses.at(last.address, pooled.source_id()));
            co_return true;
        }
        context_.health.host_failed(last.host, context_.reactor.now_ms());
        failure = *refusal;
        if (failure.outcome.scope == Scope::site || failure.outcome.scope == Scope::engine) break;
    }
    best.failure = failure;
    could_not_open(pooled, failure);
    co_return false;
}

// A connection that another site of ours has left at rest at this address, if there is one.
bool SiteWorker::take_over(PooledConnection& pooled, const Candidate& candidate) {
    const TlsPolicy policy = pooled.shaping().enable_tls.value;
    const uint32_t most = pooled.shaping().max_deliveries_per_connection.value;
    for (PooledConnection* other : context_.addresses.at(candidate.address, pooled.source_id()).resting) {
        if (other->deliveries >= most || !other->secure_enough(policy, candidate.host)) continue;
        pooled.take_over_from(*other);
        pooled.remember_place(candidate);
        pooled.session->set_options(session_options(pooled, context_, candidate.host));
        pooled.note("a connection at rest here, opened for another site, goes on for this one");
        return true;
    }
    return false;
}

Task<std::optional<SessionFailure>> SiteWorker::open_session(PooledConnection& pooled,
                                                             std::unique_ptr<Connection> connection,
                                                             const Candidate& candidate, bool tls) {
    pooled.connection = std::move(connection);
    pooled.remember_place(candidate);
    pooled.session_high = context_.reactor.random().next();
    pooled.session_low = context_.reactor.random().next();
    auto options = session_options(pooled, context_, candidate.host);
    const bool verified = pooled.shaping().enable_tls.value == TlsPolicy::Required;
    if (!tls) options.tls = TlsUse::off;
    pooled.session = std::make_unique<Session>(context_.reactor, *pooled.connection, std::move(options));
    pooled.tls_was_off = tls_use(pooled.shaping().enable_tls.value) == TlsUse::off;
    pooled.retiring |= any_contains(context_.prohibited, candidate.address.octets());  // since it was chosen
    pooled.verified_host.clear();
    pooled.opening = true;
    auto failure = co_await pooled.session->open();
    pooled.opening = false;
    if (!failure && verified && pooled.connection->secured()) pooled.verified_host = candidate.host;
    if (failure) {
        if (failure->outcome.local) pooled.note(failure->outcome.text);
        co_await pooled.session->quit(false);
        pooled.session.reset();
        pooled.connection.reset();
    }
    co_return failure;
}

// Carries what there is, rests while there is nothing, until the connection has to go.
Task<void> SiteWorker::serve(PooledConnection& pooled) {
    SessionEnd end;
    for (;;) {
        end = co_await pooled.session->carry(pooled);
        if (!end.reusable || pooled.retiring || draining_) break;
        pooled.rest();
        pump();
        // While others wait for this host's greeting it may be that it takes no more sessions: do not hold one for long.
        const DurationMs patience_ms = pooled.at->opening > 0 ? std::min(kIdleBesideOpeningMs, pooled.shaping().idle_timeout.value)
                                                              : pooled.shaping().idle_timeout.value;
        const bool woken = co_await pooled.wake.wait(context_.reactor.now_ms() + patience_ms);
        pooled.stop_resting();
        if (pooled.taken) co_return;
        if (pooled.connection->peer_closed()) pooled.note("closed by the host while at rest");
        pooled.connection->on_idle_event({});
        // FAULTS 5, 29: what a resting peer says or ends is noticed before MAIL; no attempt is counted.
        if (!woken || pooled.connection->peer_closed() || !pooled.connection->input().empty()) break;
    }
    if (end.stumbled) context_.hosts.stumbled(pooled.host, pooled.session->dialogue(), context_.reactor.now_ms());
    if (pooled.fruitful) fruitless_ = 0;
    if (!end.reusable) {
        connection_window_.failed();
        if (!pooled.fruitful && !pooled.reused) rest_after_fruitless(pooled);
        no_opening_before_ms_ = std::max(no_opening_before_ms_, context_.reactor.now_ms() + (live_ > 1 ? 100 : 0));
    }
    co_await pooled.session->quit(end.may_quit);
    pooled.closed();
    pooled.session.reset();
    pooled.connection.reset();
}

void SiteWorker::could_not_open(PooledConnection& pooled, const SessionFailure& failure) {
    const int64_t now_ms = context_.reactor.now_ms();
    connection_window_.failed();
    if (draining_) return;
    if (pooled.listening()) pooled.note("no connection is opened: " + failure.outcome.text);
    // What may be meant for the one address is answered by the pool's others, one after the other.
    const bool of_source = failure.outcome.phase != Phase::connect || failure.trouble == Trouble::no_ports;
    if (of_source && turns_.refused(pooled.member, now_ms)) return;
    if (pooled.for_octets) settle_large(0, failure.outcome, pooled.place());
    if (failure.outcome.scope == Scope::engine) {  // FAULTS 95: nobody is to blame but us
        const EgressSource& source = pooled.source();
        context_.owner.local_fault(fmt::format("no connection can be opened from source {}{}: {}", source.name,
                                               source.address ? fmt::format(" ({}; is it this machine's?)", source.address->address_text()) : "",
                                               failure.outcome.text));
        no_opening_before_ms_ = now_ms + kLocalFaultMs;
        return;
    }
    // The site serves others of ours, or may do so soon: no more connections for a moment. What fails together is one
    // failure of the site, that of the last (this one still counts as connecting).
    if (live_ > 0 || connecting_ > 1) {
        no_opening_before_ms_ = now_ms + kOpenAgainMs;
        return;
    }
    park_site(pooled, failure);
}

// No host of the site has an address, and none will for this mail: all of it bounces, a slice at a time, as where DNS says so
// of the domain (Dispatcher::bounce_all). What is held back for other reasons is asked for again.
Task<void> SiteWorker::bounce_all(PooledConnection& pooled, Outcome outcome) {
    for (;;) {
        while (!context_.owner.may_send() && !draining_) co_await Sleep(context_.reactor, kFullDiskMs);
        for (size_t i = 0; i < kBouncesAtOnce; ++i) {
            if (draining_) co_return;
            const auto kept = kept_view();
            QueuedMessage* message = next_message(kept->paths[pooled.source_id()], {});
            if (!message) co_return;
            settle_untried(*message, outcome, pooled.place());
        }
        co_await Yield(context_.reactor);
    }
}

// A session that ended before it took anything. Later and later, else such sessions burn the attempts of all mail here; and
// where MAIL itself is refused so, which is how hosts throttle a sender, the site rests as if it were down. What ends a session
// behind that may be this mail's own fault: a greylist that closes, a message that a host cannot bear.
void SiteWorker::rest_after_fruitless(PooledConnection& pooled) {
    ++fruitless_;
    no_opening_before_ms_ = context_.reactor.now_ms() + (kOpenAgainMs << std::min(fruitless_ - 1, 6u));
    if (!home_ || draining_ || pooled.refused_at_mail.empty() || fruitless_ < kFruitlessMost) return;
    // Other connections, of ours or of another shard, may be served.
    if (live_ > 1 || connecting_ > 0 || site_.connections_in_use() > connections_.size()) return;
    park_windows(begin_park(pooled, pooled.refused_at_mail));
}

// From now on nothing of the site is tried, for as long as the answer says, in seconds.
int64_t SiteWorker::begin_park(PooledConnection& pooled, const std::string& why) {
    const int64_t wait_s = context_.owner.retry_wait_s(site_.failed(pool_.id));
    if (pooled.listening()) pooled.note(fmt::format("the site rests for {} s: {}", wait_s, why));
    parked_until_ms_ = context_.reactor.now_ms() + wait_s * kMsPerSecond;
    parked_why_ = why;
    return wait_s;
}

void SiteWorker::park_windows(int64_t wait_s) {
    put_large_back();
    const int64_t until_s = context_.reactor.steady_us() / kUsPerSecond + wait_s;
    while (!rotation_.empty()) {
        const DomainId domain = rotation_[rotation_.size() - 1].window->domain();
        leave_rotation(rotation_.size() - 1, true);
        context_.owner.park(domain, until_s, parked_why_);
    }
}

// The probe's recipient tells why; everything else of the site waits, untouched.
void SiteWorker::park_site(PooledConnection& pooled, const SessionFailure& failure) {
    if (parked_until_ms_ > context_.reactor.now_ms()) return;
    if (!home_) {  // the site's home shard finds out by itself; a helper comes again later
        no_opening_before_ms_ = context_.reactor.now_ms() + (kOpenAgainMs << std::min(fruitless_++, 6u));
        return;
    }
    const int64_t wait_s = begin_park(pooled, failure.outcome.text);
    const auto kept = kept_view();
    if (QueuedMessage* probe = next_message(kept->paths[pooled.source_id()], {})) {
        Outcome outcome = failure.outcome;
        if (outcome.kind == OutcomeKind::bounced && outcome.phase != Phase::connect) outcome.kind = OutcomeKind::transient;
        probe->transaction.settle_unbegun(outcome);
        if (outcome.kind == OutcomeKind::requeued) {
            // DNS: told once, but it burns no attempt (DESIGN 2.2).
            for (size_t i = 0; i < probe->transaction.size(); ++i)
                context_.owner.settle_unsent(probe->transaction.record(i), outcome, false);
        } else {
            for (size_t i = 0; i < probe->transaction.size(); ++i) context_.owner.settle(*probe, i, pooled.place());
        }
        carried_ -= probe->transaction.size();
        give_back(*probe);
    }
    park_windows(wait_s);
}

}  // namespace postrider
