#include "engine/egress/site_worker.h"

#include <algorithm>

#include "engine/core/address.h"
#include "engine/core/check.h"
#include "engine/egress/pooled_connection.h"
#include "engine/net/dial.h"

namespace postrider {
namespace {

constexpr DurationMs kOpenAgainMs = 1'000;   // after a connection could not be opened beside living ones
constexpr DurationMs kLocalFaultMs = 1'000;  // no descriptors, no memory, no ports
constexpr DurationMs kInviteEveryMs = 5;
constexpr DurationMs kNoTlsMs = 600'000;  // after a failed handshake, where TLS is not demanded
constexpr DurationMs kIdleBesideOpeningMs = 1'000;
constexpr double kBusy = 0.85;  // of the shard's time
constexpr size_t kWindowsLookedAt = 64;

TlsUse tls_use(TlsPolicy policy) {
    switch (policy) {
        case TlsPolicy::Disabled: return TlsUse::off;
        case TlsPolicy::Required:
        case TlsPolicy::RequiredInsecure: return TlsUse::required;
        default: return TlsUse::opportunistic;
    }
}

SessionOptions session_options(const EffectiveShaping& shaping, const std::string& hostname,
                               const EgressContext& context, const std::string& host) {
    SessionOptions options;
    options.hostname = hostname;
    options.tls = tls_use(shaping.enable_tls.value);
    options.tls_context = shaping.enable_tls.value == TlsPolicy::Required ? context.verified_tls : &context.tls;
    options.peer_name = host;
    options.dialogue = shaping.pipelining.value == Pipelining::message ? Dialogue::message
                       : shaping.pipelining.value == Pipelining::group ? Dialogue::group
                                                                       : Dialogue::none;
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

SessionFailure failure_of(Trouble trouble, Phase phase, const std::string& detail) {
    const Verdict& verdict = judge(trouble);
    SessionFailure failure{trouble, {}};
    failure.outcome = {.kind = verdict.kind, .scope = verdict.scope, .phase = phase, .code = verdict.code,
                       .enhanced = verdict.enhanced, .text = std::string(verdict.text), .local = true};
    if (!detail.empty()) failure.outcome.text += ": " + detail;
    return failure;
}

// The handshake failed, or the host fell silent or hung up at STARTTLS.
bool is_tls_failure(const SessionFailure& failure) {
    return failure.trouble == Trouble::tls_failed ||
           (failure.outcome.phase == Phase::starttls && failure.outcome.local &&
            (failure.trouble == Trouble::timeout || failure.trouble == Trouble::lost));
}

}  // namespace

SiteWorker::SiteWorker(EgressContext& context, Site& site, bool home)
    : context_(context), site_(site), home_(home) {
    site_.join();
}

SiteWorker::~SiteWorker() {
    POSTRIDER_CHECK(connections_.empty(), "a site worker outlives its connections");
    while (!rotation_.empty()) leave_rotation(rotation_.size() - 1, true);
    site_.part();
}

// ---- windows

void SiteWorker::attach(ReadyWindow& window, int64_t expires_ms) {
    // A helper is asked every few milliseconds; it serves a window once.
    auto held = home_ ? rotation_.end()
                      : std::ranges::find_if(rotation_, [&](const Attachment& each) { return each.window == &window; });
    if (held != rotation_.end()) {
        held->expires_ms = expires_ms;
        window.drop_reference();
        return;
    }
    rotation_.push_back({&window, expires_ms});
    if (parked_until_ms_ > context_.reactor.now_ms()) {
        leave_rotation(rotation_.size() - 1, true);
        const int64_t wait_s = (parked_until_ms_ - context_.reactor.now_ms() + 999) / 1000;
        context_.owner.park(window.domain(), context_.reactor.wall_us() / kUsPerSecond + wait_s, parked_why_);
        return;
    }
    pump();
}

// `abandon`: the mail stays in the window and its domain's home is told otherwise; else only an empty one leaves.
void SiteWorker::leave_rotation(size_t index, bool abandon) {
    ReadyWindow& window = *rotation_[index].window;
    if (!home_)
        window.drop_reference();
    else if (abandon)
        window.abandon();
    else if (!window.leave())
        return;
    rotation_.erase(rotation_.begin() + static_cast<std::ptrdiff_t>(index));
    if (turn_ > index) --turn_;
}

uint64_t SiteWorker::waiting() const {
    uint64_t sum = 0;
    const size_t looked_at = std::min(rotation_.size(), kWindowsLookedAt);
    for (size_t i = 0; i < looked_at; ++i) sum += rotation_[i].window->waiting();
    return sum;
}

// A further connection costs a few round trips and its set-up: only for mail that would keep the others busy for longer.
// And only while the receiver keeps its pace: when transactions take twice their best time, it is the receiver that queues.
bool SiteWorker::worthwhile(uint64_t mail) const {
    return service_ms_ > 0 && service_ms_ <= 2 * best_service_ms_ &&
           static_cast<double>(mail) * service_ms_ > kWorthwhileMs * static_cast<double>(connections_.size());
}

// The next message of the domain whose turn it is; null when nothing waits.
QueuedMessage* SiteWorker::pull(uint32_t rcpt_max) {
    while (!rotation_.empty() && no_loading_before_ms_ <= context_.reactor.now_ms()) {
        if (turn_ >= rotation_.size()) turn_ = 0;
        Attachment& attachment = rotation_[turn_];
        ReadyWindow& window = *attachment.window;
        if (attachment.expires_ms <= context_.reactor.now_ms()) {
            const DomainId domain = window.domain();  // its MX may have changed: bind it again
            leave_rotation(turn_, true);
            if (home_) context_.owner.refill(domain);
            continue;
        }
        const RecordId id = window.pull();
        if (window.wants_refill()) context_.owner.refill(window.domain());
        if (!id) {
            const size_t before = rotation_.size();
            leave_rotation(turn_, false);
            if (rotation_.size() == before) ++turn_;  // mail has come meanwhile
            continue;
        }
        if (context_.owner.expired(id)) {
            context_.owner.expire(id);
            continue;
        }
        ++turn_;
        auto message = spare();
        if (fill(*message, id, window, rcpt_max)) return message.release();
        spares_.push_back(std::move(message));
    }
    return nullptr;
}

std::unique_ptr<QueuedMessage> SiteWorker::spare() {
    if (spares_.empty()) return std::make_unique<QueuedMessage>(context_.reader);
    auto message = std::move(spares_.back());
    spares_.pop_back();
    return message;
}

// Loads the message and gathers its recipients of this domain. False: nothing is left of it to send.
bool SiteWorker::fill(QueuedMessage& message, RecordId first, ReadyWindow& window, uint32_t rcpt_max) {
    const Record record = context_.arena[first];  // a copy: it may be settled, and used again, before we are done
    Transaction& transaction = message.transaction;
    transaction.reset();
    if (auto loaded = context_.reader.load(record, message.loaded); !loaded) {
        const Trouble trouble = loaded.error().code == ESTALE || loaded.error().code == ENOENT
                                    ? Trouble::file_changed
                                : loaded.error().code == EMFILE || loaded.error().code == ENFILE
                                    ? Trouble::no_descriptors
                                    : Trouble::file_unreadable;
        if (trouble == Trouble::no_descriptors) {
            context_.owner.put_back(first);
            no_loading_before_ms_ = context_.reactor.now_ms() + kLocalFaultMs;
        } else {
            context_.owner.settle_unsent(first, failure_of(trouble, Phase::content, loaded.error().text).outcome, true);
        }
        return false;
    }
    const LoadedMessage& loaded = message.loaded;
    message.content = loaded.content;
    message.campaign = record.campaign;
    message.tenant = record.tenant;
    transaction.set_message(loaded.envelope.sender,
                            {.wire_size = loaded.content.wire_size, .eight_bit = loaded.content.eight_bit,
                             .smtputf8 = loaded.envelope.smtputf8, .ret = loaded.envelope.ret,
                             .envid = loaded.envelope.envid});
    const uint32_t batch = site_.shaping()->max_recipients_per_batch.value;
    const uint32_t most = rcpt_max ? std::min(batch, rcpt_max) : batch;
    const uint32_t tag = ReadyWindow::message_tag(record);
    add_recipient(message, first);
    bool refilled = false;  // once without a find: what is first in the window then is another message
    while (transaction.size() < most) {
        const RecordId id = window.pull_same(tag);
        if (!id) {
            // The rest of a long list may still be on its way into the window.
            if (refilled || loaded.recipients <= ReadyWindow::kCells || !window.wants_refill()) break;
            context_.owner.refill(window.domain());
            refilled = true;
            continue;
        }
        refilled = false;
        if (!context_.arena[id].same_message(record)) {  // tags are hashes
            context_.owner.put_back(id);
            break;
        }
        add_recipient(message, id);
    }
    if (transaction.size() > 0) return true;
    context_.reader.unload(message.loaded);
    return false;
}

void SiteWorker::add_recipient(QueuedMessage& message, RecordId id) {
    const Record& record = context_.arena[id];
    auto read = context_.reader.recipient(message.loaded, record.recipient, text_);
    if (!read) {
        context_.owner.settle_unsent(id, failure_of(Trouble::file_changed, Phase::rcpt, read.error().text).outcome, true);
        return;
    }
    // A domain in UTF-8 goes out as A-labels unless the local part needs SMTPUTF8 anyway (RFC 6531 3.7.4 by FAULTS 45).
    if (!text_.needs_smtputf8 &&
        std::ranges::any_of(text_.address, [](char c) { return static_cast<signed char>(c) < 0; })) {
        if (auto ascii = domain_to_ascii(text_.domain()))
            text_.address.replace(text_.domain_at, std::string::npos, *ascii);
    }
    message.transaction.add_recipient(id, text_.address, text_.dsn);
}

void SiteWorker::served_in(double took_ms) {
    service_ms_ = service_ms_ > 0 ? service_ms_ * 0.9 + took_ms * 0.1 : took_ms;
    best_service_ms_ = best_service_ms_ > 0 ? std::min(best_service_ms_ * 1.0005, service_ms_) : service_ms_;
}

void SiteWorker::settle_all(QueuedMessage& message, const AttemptPlace& place) {
    bool taken = false;
    for (size_t i = 0; i < message.transaction.size(); ++i) {
        taken |= message.transaction.outcome(i).kind == OutcomeKind::delivered;
        context_.owner.settle(message, i, place);
    }
    give_back(message);
    // One more for each round of successes: what the last one changed shows in the time of a transaction first.
    if (taken && ++successes_ >= connections_.size()) {
        successes_ = 0;
        if (window_ < allowed_at_most() && window_ <= connections_.size() && context_.reactor.busy() < kBusy &&
            worthwhile(waiting()))
            ++window_;
    }
    pump();
}

void SiteWorker::give_back(QueuedMessage& message) {
    context_.reader.unload(message.loaded);
    spares_.emplace_back(&message);
}

// ---- connections

uint32_t SiteWorker::allowed_at_most() const {
    const uint32_t limit = site_.shaping()->connection_limit.value * static_cast<uint32_t>(source_count());
    return std::max(1u, limit / site_.participants());
}

size_t SiteWorker::source_count() const {
    return context_.sources.size() > 1 ? context_.sources.size() - 1 : 1;
}

void SiteWorker::pump() {
    const int64_t now_ms = context_.reactor.now_ms();
    if (rotation_.empty() || draining_ || parked_until_ms_ > now_ms || no_loading_before_ms_ > now_ms) return;
    uint64_t mail = waiting();
    while (mail > 0 && !idle_.empty()) {
        PooledConnection* pooled = idle_.back();
        pooled->stop_resting();
        pooled->wake.notify();
        --mail;
    }
    const bool busy = context_.reactor.busy() >= kBusy;
    if (home_ && busy && mail > 0 && now_ms - invited_ms_ >= kInviteEveryMs) {
        invited_ms_ = now_ms;
        for (auto& attachment : rotation_)
            context_.owner.invite(site_, *attachment.window, attachment.expires_ms);
    }
    if (now_ms < no_opening_before_ms_) return;
    const auto most = std::min(window_, allowed_at_most());
    while (mail > connecting_ && connections_.size() < most &&
           (connections_.empty() || worthwhile(mail))) {
        const size_t sources = source_count();
        ConnectionLease lease;
        SourceId source = 0;
        for (size_t tried = 0; tried < sources && !lease; ++tried) {
            source = context_.sources.size() > 1 ? static_cast<SourceId>(1 + next_source_++ % sources) : SourceId{0};
            auto got = ConnectionLease::take(site_, source, site_.shaping()->connection_limit.value, context_.sockets);
            if (got) {
                connections_.push_back(std::make_unique<PooledConnection>(*this, std::move(got), source));
                break;
            }
            if (tried + 1 == sources) return;
        }
        ++connecting_;
        spawn(context_.gate, run(*connections_.back()));
    }
}

// Without a connection nobody pulls, and nobody sees that others have emptied the windows held here: the domains could
// not be forgotten, and a helper would keep its share of the site's connections from those who need it.
void SiteWorker::tick() {
    const int64_t now_ms = context_.reactor.now_ms();
    for (size_t i = connections_.empty() ? rotation_.size() : 0; i-- > 0;)
        if (rotation_[i].window->empty() || (!home_ && rotation_[i].expires_ms <= now_ms)) leave_rotation(i, !home_);
    pump();
}

void SiteWorker::drain() {
    draining_ = true;
    for (auto& pooled : connections_)
        if (pooled->waits_at) {
            pooled->stop_waiting();
            pooled->wake.notify();
        }
    // Windows are their home shards' own, which end in any order: none is kept for longer than it is served.
    while (!rotation_.empty()) leave_rotation(rotation_.size() - 1, true);
    while (!idle_.empty()) {
        PooledConnection* pooled = idle_.back();
        pooled->stop_resting();
        pooled->wake.notify();
    }
}

Task<void> SiteWorker::run(PooledConnection& pooled) {
    co_await Yield(context_.reactor);  // the caller holds iterators into what we change
    pooled.shaping = site_.shaping();
    const bool opened = co_await open(pooled);
    --connecting_;
    if (opened) {
        if (!pooled.reused) {
            ++opened_;
            if (pooled.connection->secured()) ++opened_tls_;
        }
        ++live_;
        co_await serve(pooled);
        --live_;
    }
    std::erase_if(connections_, [&](const auto& each) { return each.get() == &pooled; });
    pump();
}

// Finds a host that takes a session.
Task<bool> SiteWorker::open(PooledConnection& pooled) {
    auto found = co_await candidates(context_.resolver, context_.reactor, site_.route(), context_.health,
                                     context_.prohibited, context_.port);
    if (found.kind != MailRoute::Kind::hosts) {
        const Trouble trouble = found.kind == MailRoute::Kind::temporary ? Trouble::dns_address_temporary
                                                                         : Trouble::no_usable_address;
        could_not_open(pooled, failure_of(trouble, Phase::connect, found.why), nullptr);
        co_return false;
    }
    auto& address = context_.addresses.at(found.list.front().address, pooled.source);
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
            could_not_open(pooled, *address.failure, &best);
            co_return false;
        case Turn::opens: break;
    }
    ++address.opening;
    const bool opened = co_await dial_candidates(pooled, list);
    --address.opening;
    // A failure of an address at which nothing is open is everybody's who waits for it.
    wake_waiting(address, opened || address.open > 0 ? 2 : address.waiting.size());
    co_return opened;
}

// Until another site's connection can be taken over, or the pace of the address allows to open one.
Task<SiteWorker::Turn> SiteWorker::wait_turn(PooledConnection& pooled, const Candidate& best) {
    auto& address = context_.addresses.at(best.address, pooled.source);
    const int64_t until_ms = context_.reactor.now_ms() + pooled.shaping->connect_timeout.value;
    bool waited = false;
    for (;;) {
        if (draining_ || rotation_.empty()) co_return Turn::gives_up;  // others have taken the mail meanwhile
        if (take_over(pooled, best)) co_return Turn::taken_over;
        if (waited && address.failure && address.open == 0) co_return Turn::shares_failure;
        if (address.may_open() || context_.reactor.now_ms() >= until_ms) co_return Turn::opens;
        pooled.wait_at(address);
        (void)co_await pooled.wake.wait(until_ms);
        pooled.stop_waiting();
        waited = true;
    }
}

// Dials and opens a session with one after the other. On failure everything is told and closed.
Task<bool> SiteWorker::dial_candidates(PooledConnection& pooled, const std::vector<Candidate>& list) {
    auto& best = context_.addresses.at(list.front().address, pooled.source);
    SessionFailure failure = failure_of(Trouble::connect_timeout, Phase::connect, "");
    size_t at = 0;
    const Candidate* last = nullptr;
    while (at < list.size() && !draining_) {
        std::vector<SocketAddress> addresses;
        for (size_t i = at; i < list.size(); ++i) addresses.push_back(list[i].address);
        DialOptions options;
        options.source = context_.sources[pooled.source].address;
        options.timeout_ms = pooled.shaping->connect_timeout.value;
        auto dialled = co_await dial(context_.reactor, context_.buffers, std::move(addresses), options);
        for (const auto& attempt : dialled.attempts) {
            if (attempt.result == 0)
                context_.health.connected(attempt.address);
            else if (attempt.result != -ECANCELED && attempt.result != -EAGAIN)
                context_.health.connect_failed(attempt.address, -attempt.result, context_.reactor.now_ms());
        }
        last = &list[std::min(at + dialled.attempts.size(), list.size()) - 1];
        if (!dialled.connection) {
            failure = failure_of(trouble_of_errno(-dialled.error(), true), Phase::connect, last->address.text());
            pooled.remember_place(*last);
            break;
        }
        at += dialled.attempts.size();
        const bool may_do_without = tls_use(pooled.shaping->enable_tls.value) == TlsUse::opportunistic;
        const bool tls = !may_do_without || !tls_failed_lately(last->host);
        auto refusal = co_await open_session(pooled, std::move(dialled.connection), *last, tls);
        if (refusal && tls && may_do_without && is_tls_failure(*refusal)) {
            // FAULTS 62: once more, in clear; and the next ones in clear at once, for a while.
            tls_failed_until_ms_[last->host] = context_.reactor.now_ms() + kNoTlsMs;
            auto second = co_await dial(context_.reactor, context_.buffers, {last->address}, options);
            if (second.connection) refusal = co_await open_session(pooled, std::move(second.connection), *last, false);
        }
        if (!refusal) {
            context_.health.host_served(last->host);
            pooled.opened_at(context_.addresses.at(last->address, pooled.source));
            co_return true;
        }
        context_.health.host_failed(last->host, context_.reactor.now_ms());
        failure = *refusal;
        if (failure.outcome.scope == Scope::site || failure.outcome.scope == Scope::engine) break;
    }
    best.failure = failure;
    could_not_open(pooled, failure, last);
    co_return false;
}

bool SiteWorker::tls_failed_lately(const std::string& host) {
    const auto found = tls_failed_until_ms_.find(host);
    if (found == tls_failed_until_ms_.end()) return false;
    if (found->second > context_.reactor.now_ms()) return true;
    tls_failed_until_ms_.erase(found);
    return false;
}

// A connection that another site of ours has left at rest at this address, if there is one.
bool SiteWorker::take_over(PooledConnection& pooled, const Candidate& candidate) {
    const TlsPolicy policy = pooled.shaping->enable_tls.value;
    const auto strong_enough = [&](const PooledConnection& other) {
        if (policy == TlsPolicy::Required) return other.verified && other.host == candidate.host;
        return tls_use(policy) != TlsUse::required || other.connection->secured();
    };
    const uint32_t most = pooled.shaping->max_deliveries_per_connection.value;
    for (PooledConnection* other : context_.addresses.at(candidate.address, pooled.source).resting) {
        if (other->deliveries >= most || !strong_enough(*other)) continue;
        pooled.take_over_from(*other);
        pooled.remember_place(candidate);
        auto options = session_options(*pooled.shaping, context_.sources[pooled.source].hostname, context_,
                                       candidate.host);
        options.dialogue = std::min(options.dialogue, most_);
        pooled.session->set_options(std::move(options));
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
    auto options = session_options(*pooled.shaping, context_.sources[pooled.source].hostname, context_,
                                   candidate.host);
    if (!tls) options.tls = TlsUse::off;
    options.dialogue = std::min(options.dialogue, most_);
    pooled.session = std::make_unique<Session>(context_.reactor, *pooled.connection, std::move(options));
    auto failure = co_await pooled.session->open();
    pooled.verified = !failure && pooled.connection->secured() &&
                      pooled.shaping->enable_tls.value == TlsPolicy::Required;
    if (failure) {
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
        const DurationMs patience_ms = pooled.at->opening > 0 ? std::min(kIdleBesideOpeningMs, pooled.shaping->idle_timeout.value)
                                                              : pooled.shaping->idle_timeout.value;
        const bool woken = co_await pooled.wake.wait(context_.reactor.now_ms() + patience_ms);
        pooled.stop_resting();
        if (pooled.taken) co_return;
        pooled.connection->on_idle_event({});
        // FAULTS 5, 29: what a resting peer says or ends is noticed before MAIL; no attempt is counted.
        if (!woken || pooled.connection->peer_closed() || !pooled.connection->input().empty()) break;
    }
    if (end.stumbled) most_ = most_ == Dialogue::message ? Dialogue::group : Dialogue::none;
    if (pooled.fruitful) fruitless_ = 0;
    if (!end.reusable) {
        window_ = std::max(1u, window_ / 2);
        // Sessions that end before they take anything: later and later, else they burn the attempts of all mail here.
        if (!pooled.fruitful && !pooled.reused)
            no_opening_before_ms_ = context_.reactor.now_ms() + (kOpenAgainMs << std::min(fruitless_++, 6u));
        no_opening_before_ms_ = std::max(no_opening_before_ms_, context_.reactor.now_ms() + (live_ > 1 ? 100 : 0));
    }
    co_await pooled.session->quit(end.may_quit);
    pooled.closed();
    pooled.session.reset();
    pooled.connection.reset();
}

void SiteWorker::could_not_open(PooledConnection& pooled, const SessionFailure& failure, const Candidate* last) {
    const int64_t now_ms = context_.reactor.now_ms();
    window_ = std::max(1u, window_ / 2);
    if (draining_) return;
    if (failure.outcome.scope == Scope::engine) {  // FAULTS 95: nobody is to blame but us
        no_opening_before_ms_ = now_ms + kLocalFaultMs;
        return;
    }
    if (live_ > 0) {  // the site serves others of ours: no more connections for a moment
        no_opening_before_ms_ = now_ms + kOpenAgainMs;
        return;
    }
    park_site(pooled, failure, last);
}

// The probe's recipient tells why; everything else of the site waits, untouched.
void SiteWorker::park_site(PooledConnection& pooled, const SessionFailure& failure, const Candidate* last) {
    if (!home_) {  // the site's home shard finds out by itself; a helper comes again later
        no_opening_before_ms_ = context_.reactor.now_ms() + (kOpenAgainMs << std::min(fruitless_++, 6u));
        return;
    }
    const uint32_t failures = site_.failed();
    const int64_t wait_s = context_.owner.retry_wait_s(failures);
    parked_until_ms_ = context_.reactor.now_ms() + wait_s * 1000;
    parked_why_ = failure.outcome.text;
    if (last) pooled.remember_place(*last);
    if (QueuedMessage* probe = pull()) {
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
        give_back(*probe);
    }
    const int64_t until_s = context_.reactor.wall_us() / kUsPerSecond + wait_s;
    while (!rotation_.empty()) {
        const DomainId domain = rotation_.back().window->domain();
        leave_rotation(rotation_.size() - 1, true);
        context_.owner.park(domain, until_s, parked_why_);
    }
}

}  // namespace postrider
