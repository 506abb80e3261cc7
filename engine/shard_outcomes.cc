// What becomes of a recipient: an outcome turns into a log line, then a journal record, then the next state of the record. What
// the intake refuses has its line too.
// A file whose recipients are all settled, durably, is removed.
#include <fmt/format.h>

#include "engine/io/crash_points.h"
#include "engine/shard.h"

namespace postrider {
namespace {

constexpr size_t kRepliesKept = 4'096, kReplyKeptOctets = 300;
constexpr size_t kDoomedAtOnce = 64;  // of each kind; each may read from the disk
constexpr DurationMs kUnreadAgainMs = 1'000;

constexpr uint32_t kWithoutPlace = 0x80000000u;  // in the id of a message that is in no index

// As KumoMTA tells it. Nothing: no command was answered.
std::string_view command_of(Phase phase) {
    switch (phase) {
        case Phase::connect:
        case Phase::greeting:
        case Phase::content:
        case Phase::idle: return {};
        case Phase::dot: return ".";
        default: return name_of(phase);
    }
}

LoggedResponse logged(const Outcome& outcome) {
    LoggedResponse response;
    response.code = outcome.code;
    response.enhanced_class = outcome.enhanced.class_;
    response.enhanced_subject = outcome.enhanced.subject;
    response.enhanced_detail = outcome.enhanced.detail;
    response.content = outcome.text;
    response.command = command_of(outcome.phase);
    return response;
}

}  // namespace

bool Shard::expired(RecordId id) {
    return schedule_.expired(shared_.files[shared_.arena[id].file].created_s, now_s());
}

void Shard::before_dot(QueuedMessage& message) {
    const Transaction& transaction = message.transaction;
    for (size_t i = 0; i < transaction.size(); ++i) {
        if (!transaction.awaits_final(i)) continue;
        const Record& record = shared_.arena[transaction.record(i)];
        journal_->intent({.file = message.loaded.file().id, .place = record.place, .recipient = record.recipient,
                          .attempt = static_cast<uint16_t>(record.attempts + 1)});
    }
    POSTRIDER_CRASH_POINT("intent.gathered");
}

void Shard::remember_reply(DomainId domain, const Outcome& outcome, std::string_view host) {
    if (last_replies_.size() >= kRepliesKept && !last_replies_.contains(domain)) last_replies_.erase(last_replies_.begin());
    LastReply& last = last_replies_[domain];
    last.at_s = reactor_->wall_us() / kUsPerSecond;
    last.code = outcome.code;
    const auto& enhanced = outcome.enhanced;
    last.enhanced.clear();
    if (enhanced.present()) last.enhanced = fmt::format("{}.{}.{}", enhanced.class_, enhanced.subject, enhanced.detail);
    last.text.assign(outcome.text, 0, kReplyKeptOctets);
    last.host.assign(host);
    last.said = !outcome.local;
}

Task<void> Shard::answer_route(std::string domain, RouteAnswer answer) {
    answer->set_value(co_await resolver_->route(std::move(domain)));
}

void Shard::log(const Settled& settled) {
    const Record& record = shared_.arena[settled.id];
    const FileEntry& file = shared_.files[record.file];
    const std::string name = settled.message ? std::string() : shared_.files.name(record.file);
    LogRecord line;
    line.type = settled.type;
    line.possible_duplicate = record.possible_duplicate || settled.outcome->possible_duplicate;
    line.num_attempts = record.attempts;
    line.id = message_id(file.id, record.place);
    line.recipient = settled.recipient;
    line.queue = shared_.domain_name(record.domain);
    if (settled.message) {
        const Envelope& envelope = settled.message->envelope;
        line.sender = envelope.sender;
        line.size = settled.message->content.wire_size;
        line.job = envelope.job;
        line.envid = envelope.envid;
        line.egress_pool = envelope.pool;
    }
    line.campaign = shared_.labels.name(record.campaign);
    line.tenant = shared_.labels.name(record.tenant);
    line.file = settled.message ? std::string_view(settled.message->file().name) : name;
    line.response = logged(*settled.outcome);
    line.event_us = reactor_->wall_us();
    line.created_s = shared_.time_line.wall_s(file.created_s);
    if (settled.place) {
        const AttemptPlace& place = *settled.place;
        line.site = place.site;
        line.peer_name = place.host;
        line.peer_address = place.address;
        line.egress_source = place.source;
        line.source_address = place.source_address;
        if (place.session_high != 0 || place.session_low != 0) line.delivery_protocol = "ESMTP";
        line.tls_cipher = place.tls_cipher;
        line.tls_protocol_version = place.tls_version;
        line.session_high = place.session_high;
        line.session_low = place.session_low;
    }
    log_->append(line);
    POSTRIDER_CRASH_POINT("result.logged");
}

// The recipient is final: the result, and with its commit one hold less on the file.
void Shard::finish(RecordId id, RecordKind kind, uint16_t attempt) {
    const Record& record = shared_.arena[id];
    journal_->result({.file = shared_.files[record.file].id, .place = record.place, .recipient = record.recipient,
                      .attempt = attempt, .kind = kind, .time_s = static_cast<uint32_t>(now_s())});
    POSTRIDER_CRASH_POINT("result.gathered");
    commit_->when_durable({.b = record.file});
    supply_.give(id);
}

void Shard::settle(QueuedMessage& message, size_t index, const AttemptPlace& place) {
    const Outcome& outcome = message.transaction.outcome(index);
    const RecordId id = message.transaction.record(index);
    if (outcome.kind == OutcomeKind::requeued) return put_back(id);
    Record& record = shared_.arena[id];
    if (record.attempts < UINT16_MAX) ++record.attempts;
    Settled settled{.id = id, .message = &message.loaded, .recipient = message.transaction.address(index),
                    .outcome = &outcome, .place = &place};
    if (outcome.kind == OutcomeKind::delivered || outcome.kind == OutcomeKind::bounced) {
        const bool delivered = outcome.kind == OutcomeKind::delivered;
        settled.type = delivered ? LogType::delivery : LogType::bounce;
        log(settled);
        (delivered ? metrics_.delivered : metrics_.bounced).add();
        if (!delivered) remember_reply(record.domain, outcome, place.host);
        if (delivered) metrics_.octets.add(message.loaded.content.wire_size);
        return finish(id, delivered ? RecordKind::delivered : RecordKind::bounced, record.attempts);
    }
    settled.type = LogType::transient_failure;
    log(settled);
    if (shared_.config.sources.size() > 1) choose_queue(record, message.loaded.envelope, outcome, place);
    remember_reply(record.domain, outcome, place.host);
    metrics_.attempts_deferred.add();
    if (outcome.kind == OutcomeKind::ambiguous) {
        record.possible_duplicate = true;
        metrics_.possible_duplicates.add();
    }
    defer(id);
}

// A full disk: what would come of it could not be recorded. A slow one: what came of the rest waits to be.
bool Shard::may_send() {
    return !commit_->holding() && !journal_->space_out() && !log_->space_out() && !journal_->many_gathered();
}

// No transaction was begun: the address is read for the log alone. False: nothing was logged, because a fault that passes
// keeps the address of a recipient that would be final from being read. EIO may stay for ever: then the line has its domain.
bool Shard::log_unsent(RecordId id, const Outcome& outcome, LogType type) {
    const Record& record = shared_.arena[id];
    Settled settled{.id = id, .recipient = shared_.domain_name(record.domain), .outcome = &outcome, .type = type};
    auto read = reader_.load(record, scratch_);
    const bool loaded = read.has_value();
    if (loaded) {
        settled.message = &scratch_;
        read = reader_.recipient(scratch_, record.recipient, scratch_recipient_);
        if (read) settled.recipient = scratch_recipient_.address;
    }
    const bool passes = !read && is_local_fault(read.error().code) && read.error().code != EIO;
    const bool tells = !passes || type == LogType::transient_failure;
    if (tells) log(settled);
    if (loaded) reader_.unload(scratch_);
    return tells;
}

std::string Shard::recipient_address(const Record& record) {
    std::string address("?@");
    address += shared_.domain_name(record.domain);
    if (!reader_.load(record, scratch_)) return address;
    if (reader_.recipient(scratch_, record.recipient, scratch_recipient_)) address = scratch_recipient_.address;
    reader_.unload(scratch_);
    return address;
}

// What was greylisted comes again from the address that the receiver remembers: it waits in the queue of its source, which is a
// pool of itself. After any other answer it is its pool's again. A restart forgets it.
void Shard::choose_queue(Record& record, const Envelope& envelope, const Outcome& outcome, const AttemptPlace& place) {
    const EgressPool* pool = shared_.pools.find(envelope.pool);
    const bool stays = is_greylisting(outcome) && pool && pool->members.size() > 1;
    const std::string_view wanted = stays ? place.source : std::string_view(envelope.pool);
    if (pool_or_default(wanted) == pool_or_default(shared_.pool_name(record.domain))) return;
    std::string queue(shared_.domain_name(record.domain));
    append_pool(queue, wanted);
    record.domain = shared_.domains.intern(queue);
}

// The record waits for its time; log lines come before.
void Shard::defer(RecordId id) {
    Record& record = shared_.arena[id];
    record.due_s = due_after(retry_wait_s(std::max<uint32_t>(record.attempts, 1)));
    journal_->result({.file = shared_.files[record.file].id, .place = record.place, .recipient = record.recipient,
                      .attempt = record.attempts,
                      .kind = record.possible_duplicate ? RecordKind::deferred_in_doubt : RecordKind::deferred,
                      .time_s = static_cast<uint32_t>(now_s()), .due_s = record.due_s});
    RecordChain chain;
    shared_.arena.append(chain, id);
    to_home(chain, record.domain);
}

// Without an attempt. False: not now, it cannot be told whose fate it is.
bool Shard::give_up(RecordId id, const Outcome& outcome, LogType type, RecordKind kind) {
    if (!log_unsent(id, outcome, type)) return false;
    finish(id, kind, shared_.arena[id].attempts);
    return true;
}

void Shard::settle_unsent(RecordId id, const Outcome& outcome, bool counts) {
    Record& record = shared_.arena[id];
    const uint16_t attempts = record.attempts;
    if (counts && record.attempts < UINT16_MAX) ++record.attempts;
    const bool bounced = outcome.kind == OutcomeKind::bounced;
    if (!log_unsent(id, outcome, bounced ? LogType::bounce : LogType::transient_failure)) {
        record.attempts = attempts;
        return defer(id);  // and bounces then
    }
    remember_reply(record.domain, outcome, {});
    if (bounced) {
        metrics_.bounced.add();
        return finish(id, RecordKind::bounced, record.attempts);
    }
    metrics_.attempts_deferred.add();
    if (!counts) return put_back(id);
    defer(id);
}

void Shard::put_off(RecordId id, const Outcome& outcome) {
    log_unsent(id, outcome, LogType::transient_failure);
    defer(id);
}

bool Shard::settle_aged(RecordId id) {
    Outcome outcome;
    outcome.code = 551;
    outcome.enhanced = {5, 4, 7};  // RFC 3463 3.5: delivery time expired
    outcome.text = "message is older than [retry] max_age";
    if (!give_up(id, outcome, LogType::expiration, RecordKind::expired)) return false;
    metrics_.expired.add();
    return true;
}

bool Shard::settle_cancelled(RecordId id) {
    const Record& record = shared_.arena[id];
    const Hold* by = nullptr;
    if (holds_) by = holds_->of(record.domain, record.campaign, record.tenant).cancelled_by;
    Outcome outcome;
    outcome.code = 551;
    outcome.enhanced = {5, 7, 1};  // RFC 3463 3.8: not authorized, message refused; as KumoMTA's AdminBounce
    outcome.text = "cancelled by the operator";
    if (by) outcome.text = "cancelled by " + by->cancelled_by.who;
    if (by && !by->cancelled_by.reason.empty()) outcome.text += ": " + by->cancelled_by.reason;
    if (!give_up(id, outcome, LogType::admin_bounce, RecordKind::cancelled)) return false;
    metrics_.cancelled.add();
    return true;
}

// A slice of what is cancelled or too old; true when there is more. Of millions, no more than can be recorded: on a full disk
// their lines and results would be held in memory.
bool Shard::settle_doomed() {
    if ((doomed_.empty() && aged_.empty()) || reactor_->now_ms() < settle_again_ms_ || !may_send()) return false;
    auto settle_some = [&](RecordChain& chain, auto settle) {
        for (size_t some = std::min<size_t>(kDoomedAtOnce, chain.count); some > 0; --some) {
            const RecordId id = shared_.arena.pop(chain);
            if ((this->*settle)(id)) continue;
            shared_.arena.append(chain, id);
            settle_again_ms_ = reactor_->now_ms() + kUnreadAgainMs;
        }
    };
    settle_some(doomed_, &Shard::settle_cancelled);
    settle_some(aged_, &Shard::settle_aged);
    return (!doomed_.empty() || !aged_.empty()) && reactor_->now_ms() >= settle_again_ms_;
}

void Shard::on_durable(std::span<const Release> releases) {
    for (const Release& release : releases) {
        FileEntry& file = shared_.files[release.b];
        if (file.pending.fetch_sub(1, std::memory_order_acq_rel) == 1) file_settled(release.b);
    }
}

// Every recipient's fate is durable: the file may go.
void Shard::file_settled(FileSlot slot) {
    const FileEntry& file = shared_.files[slot];
    const FileId id = file.id;
    reader_.forget(slot);
    POSTRIDER_CRASH_POINT("remove.index.before");
    if (file.indexed) (void)shared_.spool->remove_active(id, kIndexSuffix);
    POSTRIDER_CRASH_POINT("remove.file.before");
    auto removed = shared_.spool->remove_active(id, "");
    if (!removed) trouble(removed.error());
    POSTRIDER_CRASH_POINT("remove.file.after");
    shared_.files.remove(slot);
    // A file that could not be removed is found at the next start: its records must be there to say that all is done.
    if (removed || removed.error().code == ENOENT) forget(slot, id);
}

// The file is gone: segments that speak of it, and descriptors that keep its disk space, may be any shard's.
void Shard::forget(FileSlot slot, FileId id) {
    journal_->forget(id);
    for (ShardId to = 0; to < shared_.shards; ++to)
        if (to != reactor_->shard()) reactor_->post(to, Mail{kForget, 0, slot, id, 0});
}

// ---- what the intake refused

void Shard::refused_recipient(const RefusedRecipient& refused) {
    metrics_.refused_recipients.add();
    LogRecord record;
    record.type = LogType::bounce;
    record.id = message_id(refused.file->id, refused.place.value_or(refused.number | kWithoutPlace));
    record.recipient = refused.text;
    if (refused.envelope) {
        record.sender = refused.envelope->sender;
        record.campaign = refused.envelope->campaign;
        record.tenant = refused.envelope->tenant;
        record.job = refused.envelope->job;
        record.envid = refused.envelope->envid;
        record.egress_pool = refused.envelope->pool;
    }
    record.response = {.code = 550, .enhanced_class = 5, .enhanced_subject = 1, .enhanced_detail = 3,
                       .content = refused.why};
    record.event_us = reactor_->wall_us();
    record.created_s = shared_.time_line.wall_s(refused.file->created_s);
    record.file = refused.file->name;
    log_->append(record);
}

void Shard::refused_message(const SpoolFile& file, const RefusedMessage& refused, const std::string& bad_name) {
    LogRecord record;
    record.type = LogType::rejection;
    record.id = message_id(file.id, refused.number | kWithoutPlace);
    record.sender = refused.sender;
    record.size = refused.size;
    record.response = {.code = 554, .enhanced_class = 5, .enhanced_subject = 6, .enhanced_detail = 0,
                       .content = refused.why.text};
    record.event_us = reactor_->wall_us();
    record.created_s = shared_.time_line.wall_s(file.created_s);
    record.file = bad_name;
    log_->append(record);
}

void Shard::refused_file(FileId id, const std::string& name, uint64_t size, const std::string& why) {
    LogRecord record;
    record.type = LogType::rejection;
    record.id = {id, mix64(id ? id : static_cast<uint64_t>(reactor_->wall_us()), hash64(name))};
    record.size = size;
    record.response = {.code = 554, .enhanced_class = 5, .enhanced_subject = 6, .enhanced_detail = 0, .content = why};
    record.event_us = reactor_->wall_us();
    record.created_s = record.event_us / kUsPerSecond;
    record.file = name;
    log_->append(record);
    log_->write_early();  // it lies in bad/ already: no restart tells it again
    if (id) forget(0, id);  // no shard has sent from it
}

}  // namespace postrider
