#include "engine/egress/site_worker.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/core/address.h"
#include "engine/core/check.h"
#include "engine/egress/pooled_connection.h"

namespace postrider {
namespace {

constexpr DurationMs kLocalFaultMs = 1'000;  // no descriptors, no memory, no ports
constexpr DurationMs kInviteEveryMs = 5;
constexpr double kBusy = 0.85;  // of the shard's time
constexpr size_t kWindowsLookedAt = 64;
constexpr size_t kHeldAtOnce = 1'000;
// Of an envelope, which goes out in one piece: far below what a connection holds unsent.
constexpr size_t kEnvelopeOctets = 256 * 1024;
constexpr size_t kRcptOctets = sizeof("RCPT TO:<> \r\n");  // beside the address and its parameters

}  // namespace

SiteWorker::SiteWorker(EgressContext& context, Site& site, const EgressPool& pool, bool home)
    : context_(context), site_(site), pool_(pool), home_(home), turns_(pool.members), shares_(pool.members.size()) {
    binding_version_ = context_.shaping.binding_version();
}

SiteWorker::~SiteWorker() {
    POSTRIDER_CHECK(connections_.empty(), "a site worker outlives its connections");
    while (!rotation_.empty()) leave_rotation(rotation_.size() - 1, true);
    stop_waiting_for_limits();
    take_part(false);
}

// One of those who share the site's limits, or not.
void SiteWorker::take_part(bool part) {
    if (std::exchange(takes_part_, part) == part) return;
    if (part)
        site_.join(pool_);
    else
        site_.part(pool_);
}

const SiteView& SiteWorker::view() {
    if (view_ && view_->version == site_.version()) return *view_;
    view_ = site_.view(context_.reactor.now_ns());
    // A provider that came with the change counts what is open too, or its limit would not hold for those.
    for (auto& pooled : connections_) pooled->lease.adopt(view_->paths[pooled->source_id()]);
    return *view_;
}

// ---- windows

void SiteWorker::attach(ReadyWindow& window, int64_t expires_ms) {
    // A helper is asked every few milliseconds; it serves a window once.
    if (Rotation::Place* held = home_ ? nullptr : rotation_.find(window)) {
        held->expires_ms = expires_ms;
        window.drop_reference();
        return;
    }
    take_part(true);
    const size_t index = rotation_.add(window, expires_ms);
    if (window.priority() == Priority::high) tell_urgent();
    if (parked_until_ms_ > context_.reactor.now_ms()) {
        leave_rotation(index, true);
        const int64_t wait_s = (parked_until_ms_ - context_.reactor.now_ms() + 999) / 1000;
        context_.owner.park(window.domain(), context_.reactor.steady_us() / kUsPerSecond + wait_s, parked_why_);
        return;
    }
    pump();
}

// `abandon`: the mail stays in the window and its domain's home is told otherwise; else only an empty one leaves.
void SiteWorker::leave_rotation(size_t index, bool abandon) {
    ReadyWindow& window = *rotation_[index].window;
    const bool urgent = window.priority() == Priority::high;
    if (!home_)
        window.drop_reference();
    else if (abandon)
        window.abandon();
    else if (!window.leave())
        return;
    rotation_.remove(index);
    if (urgent) tell_urgent();
}

uint64_t SiteWorker::waiting() const {
    uint64_t sum = 0;
    const size_t looked_at = std::min(rotation_.size(), kWindowsLookedAt);
    for (size_t i = 0; i < looked_at; ++i) sum += rotation_[i].window->waiting();
    return sum;
}

// The next message of the domain whose turn it is; null when nothing waits, or the limits of the path grant none now.
QueuedMessage* SiteWorker::pull(size_t member, const Taker& taker) {
    if (!context_.owner.may_send()) return nullptr;
    if (turns_.ahead(member, context_.reactor.now_ms())) return nullptr;
    QueuedMessage* message = pull_within_limits(member, taker);
    if (message) turns_.took(member, context_.reactor.now_ms());
    return message;
}

QueuedMessage* SiteWorker::next_message(const PathView& path, const Taker& taker) {
    if (gives_way()) return nullptr;
    // FAULTS 60, 74: a demand made since, live or by a domain that came to the site, holds before the next MAIL.
    if (taker.connection && !taker.connection->secure_enough(path.shaping.enable_tls.value, taker.connection->host)) {
        taker.connection->retiring = true;
        return nullptr;
    }
    if (context_.holds && context_.owner.suspended(site_)) return nullptr;
    if (!large_.empty()) {
        if (QueuedMessage* large = large_for(taker)) return large;
        if (taker.connection && taker.connection->retiring) return nullptr;
    }
    size_t held = 0;
    if (const uint64_t now = context_.shaping.binding_version(); now != binding_version_) {
        binding_version_ = now;
        for (size_t i = 0; i < rotation_.size(); ++i) rotation_[i].expires_ms = 0;  // by new rules they may belong elsewhere
    }
    while (!rotation_.empty() && no_loading_before_ms_ <= context_.reactor.now_ms()) {
        const size_t index = rotation_.at_turn();
        ReadyWindow& window = *rotation_[index].window;
        if (rotation_[index].expires_ms <= context_.reactor.now_ms()) {
            const DomainId domain = window.domain();  // its MX may have changed: bind it again
            leave_rotation(index, true);
            if (home_) context_.owner.refill(domain);
            continue;
        }
        const RecordId id = window.pull();
        if (window.wants_refill()) context_.owner.refill(window.domain());
        if (!id) {
            const size_t before = rotation_.size();
            leave_rotation(index, false);
            if (rotation_.size() == before) rotation_.pass();  // mail has come meanwhile
            continue;
        }
        if (context_.holds && context_.owner.take_held(id, &site_)) {
            if (++held == kHeldAtOnce) return nullptr;  // tick() goes on
            continue;
        }
        if (context_.owner.expired(id)) {
            context_.owner.expire(id);
            continue;
        }
        auto message = spare();
        const bool filled = fill(*message, id, window, path, taker.rcpt_max);
        rotation_.served(std::max<size_t>(1, message->transaction.size()));
        if (filled) {
            carried_ += message->transaction.size();
            if (taker.size_limit && message->content.wire_size > taker.size_limit && set_apart(*message, taker)) {
                (void)message.release();
                if (taker.connection->retiring) return nullptr;
                continue;
            }
            return message.release();
        }
        spares_.push_back(std::move(message));
    }
    return nullptr;
}

std::unique_ptr<QueuedMessage> SiteWorker::spare() {
    if (spares_.empty()) return std::make_unique<QueuedMessage>(context_.reader, context_.checks);
    auto message = std::move(spares_.back());
    spares_.pop_back();
    return message;
}

// Loads the message and gathers its recipients of this domain. False: nothing is left of it to send.
bool SiteWorker::fill(QueuedMessage& message, RecordId first, ReadyWindow& window, const PathView& path,
                      uint32_t rcpt_max) {
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
            const Outcome outcome = outcome_of(trouble, Phase::content, loaded.error().text);
            if (trouble == Trouble::file_unreadable)
                context_.owner.put_off(first, outcome);
            else
                context_.owner.settle_unsent(first, outcome, true);
        }
        return false;
    }
    const LoadedMessage& loaded = message.loaded;
    message.content = loaded.content;
    message.campaign = record.campaign;
    message.tenant = record.tenant;
    transaction.set_message(address_to_ascii(loaded.envelope.sender, ascii_),
                            {.wire_size = loaded.content.wire_size, .eight_bit = loaded.content.eight_bit,
                             .smtputf8 = loaded.envelope.smtputf8, .ret = loaded.envelope.ret,
                             .envid = loaded.envelope.envid});
    const uint32_t batch = path.shaping.max_recipients_per_batch.value;
    const uint32_t most = rcpt_max ? std::min(batch, rcpt_max) : batch;
    const uint32_t tag = ReadyWindow::message_tag(record);
    size_t octets = add_recipient(message, first);
    bool refilled = false;  // once without a find: what is first in the window then is another message
    while (transaction.size() < most && octets < kEnvelopeOctets && path.acquire_recipient(context_.reactor.now_ns())) {
        const RecordId id = window.pull_same(tag);
        if (!id) {
            path.give_back_recipient();
            // The rest of a long list may still be on its way into the window.
            if (refilled || loaded.recipients <= ReadyWindow::kCells || !window.wants_refill()) break;
            context_.owner.refill(window.domain());
            refilled = true;
            continue;
        }
        refilled = false;
        if (!context_.arena[id].same_message(record)) {  // tags are hashes
            path.give_back_recipient();
            context_.owner.put_back(id);
            break;
        }
        octets += add_recipient(message, id);
    }
    if (transaction.size() > 0) return true;
    context_.reader.unload(message.loaded);
    return false;
}

size_t SiteWorker::add_recipient(QueuedMessage& message, RecordId id) {
    const Record& record = context_.arena[id];
    auto read = context_.reader.recipient(message.loaded, record.recipient, text_);
    if (!read) {
        context_.owner.settle_unsent(id, outcome_of(Trouble::file_changed, Phase::rcpt, read.error().text), true);
        return 0;
    }
    const std::string_view address = address_to_ascii(text_.address, ascii_);
    message.transaction.add_recipient(id, address, text_.dsn);
    return address.size() + text_.dsn.size() + kRcptOctets;
}

void SiteWorker::taken_one() {
    if (connection_window_.round_ended(connections_.size(), live_, context_.reactor.now_ms()) &&
        connection_window_.size() < allowed_at_most() && context_.reactor.busy() < kBusy && worthwhile(waiting()))
        connection_window_.open_more();
}

void SiteWorker::settle_all(QueuedMessage& message, const AttemptPlace& place) {
    bool taken = false;
    for (size_t i = 0; i < message.transaction.size(); ++i) {
        taken |= message.transaction.outcome(i).kind == OutcomeKind::delivered;
        context_.owner.settle(message, i, place);
    }
    carried_ -= message.transaction.size();
    give_back(message);
    if (taken) taken_one();
    pump();
}

// Of a message for which there is no connection.
void SiteWorker::settle_untried(QueuedMessage& message, const Outcome& outcome, const AttemptPlace& place) {
    message.transaction.settle_unbegun(outcome);
    for (size_t i = 0; i < message.transaction.size(); ++i) context_.owner.settle(message, i, place);
    carried_ -= message.transaction.size();
    give_back(message);
}

void SiteWorker::give_back(QueuedMessage& message) {
    context_.reader.unload(message.loaded);
    spares_.emplace_back(&message);
}

// ---- connections

void SiteWorker::pump() {
    const int64_t now_ms = context_.reactor.now_ms();
    if (no_mail() || gives_way() || parked_until_ms_ > now_ms || no_loading_before_ms_ > now_ms) return;
    drop_held_large();
    if (!context_.owner.may_send() || (context_.holds && context_.owner.suspended(site_))) return;
    if (!large_.empty()) (void)open_for_large();
    open_for_wanting();
    const bool may_open = now_ms >= no_opening_before_ms_ && connections_.size() < connection_window_.size() &&
                          connections_.size() < allowed_at_most();
    const bool may_invite = home_ && now_ms - invited_ms_ >= kInviteEveryMs && context_.reactor.busy() >= kBusy;
    if (idle_.empty() && !may_open && !may_invite) return;  // after each message: cheap when nothing is to do
    const uint64_t mail = wake_resting(waiting());
    if (mail == 0) return;
    if (may_invite) {
        invited_ms_ = now_ms;
        for (size_t i = 0; i < rotation_.size(); ++i)
            context_.owner.invite(site_, *rotation_[i].window, rotation_[i].expires_ms);
    }
    if (may_open) open_more(mail);
    wait_for_limits();
}

// The members of the pool, least served first.
std::span<const size_t> SiteWorker::opening_order() {
    opening_order_.resize(turns_.size());
    std::iota(opening_order_.begin(), opening_order_.end(), size_t{0});
    std::ranges::sort(opening_order_, {}, [&](size_t member) { return turns_.standing_with_open(member); });
    return opening_order_;
}

// False: a limit of the path does not let one more be opened now, or the source was refused a moment ago.
bool SiteWorker::open_one(size_t member) {
    const PathView& path = this->path(member);
    if (!turns_.may_open(member, context_.reactor.now_ms())) return false;
    if (path.connection_rate && path.connection_rate->available(context_.reactor.now_ns()) <= connecting_) return false;
    auto lease = ConnectionLease::take(path);
    if (!lease) return false;
    add_connection(std::move(lease), member);
    return true;
}

PooledConnection& SiteWorker::add_connection(ConnectionLease lease, size_t member) {
    connections_.push_back(std::make_unique<PooledConnection>(*this, std::move(lease), member));
    turns_.opening(member);
    ++connecting_;
    spawn(context_.gate, run(*connections_.back()));  // begins in the next turn
    return *connections_.back();
}

// Without a connection nobody pulls, and nobody sees that others have emptied the windows held here: the domains could
// not be forgotten, and a helper would keep its share of the site's connections from those who need it.
void SiteWorker::tick() {
    const int64_t now_ms = context_.reactor.now_ms();
    for (size_t i = connections_.empty() ? rotation_.size() : 0; i-- > 0;)
        if (rotation_[i].window->empty() || (!home_ && rotation_[i].expires_ms <= now_ms)) leave_rotation(i, !home_);
    if (unused()) take_part(false);  // what others leave is theirs who have mail
    if (!connections_.empty()) {
        (void)view();  // a change reaches the limits also while there is no mail
        shed();
    }
    if (!limit_timer_.armed())
        for (LimitShare& share : shares_) share.leave_if_content(context_.reactor.now_ns());
    pump();
}

void SiteWorker::drain() {
    draining_ = true;
    stop_waiting_for_limits();
    put_large_back();
    for (auto& pooled : connections_) {
        if (pooled->waits_at) {
            pooled->stop_waiting();
            pooled->wake.notify();
        }
        // Neither a connect nor a greeting is waited for: nothing of a message is under way there.
        pooled->dial_abort.ask();
        if (pooled->opening) pooled->connection->give_up();
    }
    // Windows are their home shards' own, which end in any order: none is kept for longer than it is served.
    while (!rotation_.empty()) leave_rotation(rotation_.size() - 1, true);
    while (!idle_.empty()) {
        PooledConnection* pooled = idle_.back();
        pooled->stop_resting();
        pooled->wake.notify();
    }
}

}  // namespace postrider
