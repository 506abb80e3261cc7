#include "engine/smtp/session.h"

#include <algorithm>

#include "engine/core/check.h"
#include "engine/smtp/commands.h"

namespace postrider {
namespace {

// Content up to this size is read whole into the buffer it is sent from; more is streamed.
constexpr uint64_t kWhole = 60 * 1024;
constexpr size_t kStreamBlock = 32 * 1024;
constexpr size_t kStreamUnsent = 64 * 1024;

bool clean(const Content& content, WireForm wire) {
    return wire == WireForm::bdat ? content.clean_for_bdat() : content.clean_for_data();
}

}  // namespace

Session::Session(Reactor& reactor, Connection& connection, SessionOptions options)
    : reactor_(reactor), connection_(connection), options_(std::move(options)) {}

// ---- opening

// Of a reply that does not accept: a refusal, or the answer to another command (a greeting of 250, a 354 to EHLO).
SessionFailure Session::refused(Phase phase, const Reply& reply) {
    if (answer(phase, reply) != Answer::refused) {
        std::string said;
        log_text(reply, said);
        return failure_of(Trouble::out_of_step, phase, said);
    }
    const Refusal refusal = judge_refusal(phase, reply, false);
    SessionFailure failure{Trouble::lost, {}};
    failure.outcome.kind = refusal.kind;
    failure.outcome.scope = refusal.scope;
    failure.outcome.phase = phase;
    failure.outcome.code = reply.code;
    failure.outcome.enhanced = reply.enhanced;
    failure.outcome.local = false;
    log_text(reply, failure.outcome.text);
    return failure;
}

Session::Parsed Session::parse() {
    const std::string_view input = connection_.input();
    if (input.empty()) return Parsed::nothing;
    const auto progress = parser_.feed(input);
    connection_.consume(progress.consumed);
    if (progress.state == ReplyState::bad) return Parsed::bad;
    return progress.state == ReplyState::complete ? Parsed::reply : Parsed::nothing;
}

Trouble Session::trouble_of(IoStatus status) const {
    if (status == IoStatus::timeout) return Trouble::timeout;
    return connection_.error_code() ? trouble_of_errno(connection_.error_code(), false) : Trouble::lost;
}

// Sends what out_ holds and awaits the one reply to it.
Task<Session::Answered> Session::command(Phase phase) {
    if (!connection_.input().empty() && phase != Phase::greeting)
        co_return Answered{nullptr, Trouble::premature_reply};  // FAULTS 14
    connection_.append(out_);
    out_.clear();
    connection_.flush();
    const int64_t until_ms = deadline(phase);
    for (;;) {
        const Parsed parsed = parse();
        if (parsed == Parsed::bad) co_return Answered{nullptr, Trouble::bad_reply};
        if (parsed == Parsed::reply) co_return Answered{&parser_.reply(), {}};
        const IoStatus status = co_await connection_.more_input(until_ms);
        if (status != IoStatus::ok) co_return Answered{nullptr, trouble_of(status)};
    }
}

Task<std::optional<SessionFailure>> Session::open() {
    // RFC 5321 3.1: the server speaks first.
    const Answered greeting = co_await command(Phase::greeting);
    if (!greeting.reply) co_return failure_of(greeting.trouble, Phase::greeting, connection_.error_text());
    if (answer(Phase::greeting, *greeting.reply) != Answer::accepted)
        co_return refused(Phase::greeting, *greeting.reply);
    if (auto failure = co_await say_ehlo()) co_return failure;
    if (options_.tls == TlsUse::off) co_return std::nullopt;
    if (!capabilities_.starttls) {
        if (options_.tls == TlsUse::required) co_return failure_of(Trouble::tls_not_offered, Phase::starttls);
        co_return std::nullopt;
    }
    if (auto failure = co_await start_tls()) co_return failure;
    co_return std::nullopt;
}

Task<std::optional<SessionFailure>> Session::say_ehlo() {
    capabilities_ = {};
    if (!append_ehlo(out_, options_.hostname)) co_return failure_of(Trouble::bad_sender, Phase::ehlo);
    Answered ehlo = co_await command(Phase::ehlo);
    if (!ehlo.reply) co_return failure_of(ehlo.trouble, Phase::ehlo, connection_.error_text());
    if (answer(Phase::ehlo, *ehlo.reply) == Answer::accepted) {
        capabilities_ = parse_capabilities(*ehlo.reply);
        co_return std::nullopt;
    }
    // RFC 5321 3.2: an old host may know HELO only. Under TLS it has said EHLO before.
    if (!helo_may_help(*ehlo.reply) || connection_.secured()) co_return refused(Phase::ehlo, *ehlo.reply);
    if (!append_helo(out_, options_.hostname)) co_return failure_of(Trouble::bad_sender, Phase::helo);
    ehlo = co_await command(Phase::helo);
    if (!ehlo.reply) co_return failure_of(ehlo.trouble, Phase::helo, connection_.error_text());
    if (answer(Phase::helo, *ehlo.reply) != Answer::accepted) co_return refused(Phase::helo, *ehlo.reply);
    co_return std::nullopt;
}

Task<std::optional<SessionFailure>> Session::start_tls() {
    if (!options_.tls_context) co_return failure_of(Trouble::tls_failed, Phase::starttls, "no root certificates here");
    append_starttls(out_);
    const Answered go = co_await command(Phase::starttls);
    if (!go.reply) co_return failure_of(go.trouble, Phase::starttls, connection_.error_text());
    const Answer said = answer(Phase::starttls, *go.reply);
    if (said != Answer::accepted) {
        // RFC 3207 4: refused; go on in clear if the policy lets us (FAULTS 60).
        if (options_.tls == TlsUse::required || go.reply->code == 421 || said == Answer::out_of_step)
            co_return refused(Phase::starttls, *go.reply);
        co_return std::nullopt;
    }
    if (!connection_.input().empty()) co_return failure_of(Trouble::tls_injection, Phase::starttls);  // FAULTS 59
    parser_.reset();
    tls_ = co_await connection_.start_tls(*options_.tls_context, options_.peer_name, deadline(Phase::starttls));
    if (!tls_.ok) co_return failure_of(Trouble::tls_failed, Phase::starttls, tls_.error);
    // RFC 3207 4.2: what was known before the handshake is forgotten.
    auto failure = co_await say_ehlo();
    if (failure) {  // FAULTS 63: as if the handshake had failed, and no bounce
        failure->trouble = Trouble::tls_failed;
        if (failure->outcome.kind == OutcomeKind::bounced) failure->outcome.kind = OutcomeKind::transient;
    }
    co_return failure;
}

// ---- carrying

// False when the host cannot take anything of it: every recipient is settled already.
bool Session::begin(OutgoingMessage& message) {
    // The first transaction of a session shows whether the host is in step; only then two overlap.
    const Dialogue most = transactions_ > 0 || options_.dialogue < Dialogue::message ? options_.dialogue
                                                                                    : Dialogue::group;
    const BeginOptions options{.reused_session = transactions_ > 0 || current_ != &message,
                               .reset_first = reset_first_};
    const auto step = message.transaction.begin(capabilities_, most, options, out_);
    if (step == Transaction::Step::done) return false;
    reset_first_ = false;
    return true;
}

// Takes the next message and appends its envelope flight to out_.
void Session::prefetch(SessionFeed& feed) {
    const bool overlap = current_->transaction.dialogue() == Dialogue::message && transactions_ > 0;
    if (!overlap) return;
    while ((next_ = feed.next(capabilities_)) != nullptr && !begin(*next_)) settle(feed, next_);
}

// Reads, stuffs where needed, and appends the whole content with its dot. False: the file is not what it was.
bool Session::read_small(OutgoingMessage& message) {
    const Content& content = message.content;
    const WireForm wire = message.transaction.wire();
    const size_t size = content.stored.size;
    if (clean(content, wire)) {
        const auto room = connection_.reserve(size);
        if (!message.read(content.stored.offset, room.first(size))) return false;
        connection_.commit(size);
        if (wire == WireForm::data) append_dot(out_);
        return true;
    }
    stored_.resize(size);
    if (!message.read(content.stored.offset, stored_)) return false;
    encoder_.begin(content, wire);
    size_t taken = 0;
    while (taken < size) {
        const auto room = connection_.reserve(size - taken + size / 16 + 64);
        const auto progress = encoder_.encode(std::span(stored_).subspan(taken), room);
        connection_.commit(progress.produced);
        taken += progress.consumed;
        if (encoder_.broken()) return false;
    }
    const auto room = connection_.reserve(ContentEncoder::kFinishRoom);
    connection_.commit(encoder_.finish(room));
    return encoder_.wire_size() == content.wire_size;
}

// The duplicate window opens here: intents first, then the bit, then the octets.
bool Session::finish_content(OutgoingMessage& message, SessionFeed& feed) {
    if (!message.unchanged()) return false;
    prefetch(feed);
    feed.before_dot(message);
    message.transaction.content_handed_over();
    connection_.append(out_);
    out_.clear();
    connection_.flush();
    return true;
}

// Content too large for one buffer: never more than a bounded part of it is in memory.
Task<std::optional<Trouble>> Session::stream_content(OutgoingMessage& message, SessionFeed& feed) {
    const Content& content = message.content;
    const WireForm wire = message.transaction.wire();
    const bool as_it_lies = clean(content, wire);
    encoder_.begin(content, wire);
    uint64_t offset = content.stored.offset;
    const uint64_t end = offset + content.stored.size;
    while (offset < end) {
        const size_t size = std::min<uint64_t>(kStreamBlock, end - offset);
        stored_.resize(size);
        if (!message.read(offset, stored_)) co_return Trouble::file_unreadable;
        offset += size;
        if (as_it_lies) {
            connection_.append(stored_);
        } else {
            for (size_t taken = 0; taken < size;) {
                const auto room = connection_.reserve(size + 1024);
                const auto progress = encoder_.encode(std::span(stored_).subspan(taken), room);
                connection_.commit(progress.produced);
                taken += progress.consumed;
                if (encoder_.broken()) co_return Trouble::file_changed;
            }
        }
        connection_.flush();
        const IoStatus status = co_await connection_.drained(kStreamUnsent, deadline(Phase::content));
        if (status == IoStatus::input) {
            // RFC 5321 4.2.5 knows no reply here: the transaction judges an early one (FAULTS 13).
            const Parsed parsed = parse();
            if (parsed == Parsed::bad) co_return Trouble::bad_reply;
            if (parsed == Parsed::reply) {
                (void)message.transaction.on_reply(parser_.reply(), out_);
                co_return Trouble::out_of_step;  // settled by the early reply where it could be
            }
        } else if (status != IoStatus::ok) {
            co_return trouble_of(status);
        }
    }
    if (!as_it_lies) {
        const auto room = connection_.reserve(ContentEncoder::kFinishRoom);
        connection_.commit(encoder_.finish(room));
        if (encoder_.wire_size() != content.wire_size) co_return Trouble::file_changed;
    } else if (wire == WireForm::data) {
        append_dot(out_);
    }
    if (!finish_content(message, feed)) co_return Trouble::file_changed;
    co_return std::nullopt;
}

void Session::settle(SessionFeed& feed, OutgoingMessage*& message) {
    feed.settled(*std::exchange(message, nullptr));
}

// The session ends here; both transactions are settled by what is known of each.
SessionEnd Session::lose(SessionFeed& feed, Trouble trouble, std::string_view detail) {
    SessionEnd end;
    const bool out_of_step = trouble == Trouble::bad_reply || trouble == Trouble::out_of_step ||
                             trouble == Trouble::premature_reply;
    // A host that throws away what follows the dot never answers the MAIL that was there.
    const bool unheard = trouble == Trouble::timeout && overlapped_ && current_ &&
                         current_->transaction.awaits() == Phase::mail;
    end.stumbled = unheard || (out_of_step && (next_ || overlapped_));
    for (OutgoingMessage** message : {&current_, &next_}) {
        if (!*message) continue;
        (*message)->transaction.on_session_lost(trouble, detail);
        settle(feed, *message);
    }
    return end;
}

Task<SessionEnd> Session::carry(SessionFeed& feed) {
    using Step = Transaction::Step;
    for (;;) {
        if (!current_) {
            overlapped_ = false;
            while ((current_ = feed.next(capabilities_)) != nullptr && !begin(*current_)) settle(feed, current_);
            if (!current_) co_return SessionEnd{.reusable = true, .may_quit = true};
            // FAULTS 14, 29: nothing may stand here before we have spoken.
            if (!connection_.input().empty() || !parser_.idle()) {
                (void)parse();
                co_return lose(feed, Trouble::lost);
            }
            connection_.append(out_);
            out_.clear();
            connection_.flush();
        }
        // One reply, and what it asks for.
        const int64_t until_ms = deadline(current_->transaction.awaits());
        Parsed parsed;
        while ((parsed = parse()) == Parsed::nothing) {
            const IoStatus status = co_await connection_.more_input(until_ms);
            if (status != IoStatus::ok) co_return lose(feed, trouble_of(status), connection_.error_text());
        }
        if (parsed == Parsed::bad) co_return lose(feed, Trouble::bad_reply, name_of(parser_.fault()));
        const Step step = current_->transaction.on_reply(parser_.reply(), out_);
        switch (step) {
            case Step::need_reply:
                break;
            case Step::send_more:
            case Step::send_dot_only:
                if (!connection_.input().empty()) co_return lose(feed, Trouble::premature_reply);
                connection_.append(out_);
                out_.clear();
                connection_.flush();
                break;
            case Step::send_content: {
                if (!connection_.input().empty()) co_return lose(feed, Trouble::premature_reply);
                connection_.append(out_);
                out_.clear();
                if (current_->content.stored.size > kWhole) {
                    if (auto trouble = co_await stream_content(*current_, feed))
                        co_return lose(feed, *trouble, connection_.error_text());
                } else if (!read_small(*current_) || !finish_content(*current_, feed)) {
                    co_return lose(feed, Trouble::file_changed);
                }
                break;
            }
            case Step::done:
            case Step::done_reset_first:
                ++transactions_;
                reset_first_ = step == Step::done_reset_first;
                settle(feed, current_);
                current_ = std::exchange(next_, nullptr);
                overlapped_ = current_ != nullptr;
                break;
            case Step::end_session: {
                const bool may_quit = current_->transaction.may_quit() && !next_;
                const bool refused = parser_.reply().transient() || parser_.reply().permanent();
                settle(feed, current_);
                SessionEnd end = lose(feed, refused ? Trouble::lost : Trouble::out_of_step);
                end.may_quit = may_quit;
                co_return end;
            }
        }
    }
}

Task<void> Session::quit(bool polite) {
    if (polite && !connection_.peer_closed()) {
        append_quit(out_);
        // Whatever comes back, nothing is lost any more (RFC 5321 4.1.1.10, FAULTS 30).
        (void)co_await command(Phase::quit);
    }
    co_await connection_.close(polite);
}

}  // namespace postrider
