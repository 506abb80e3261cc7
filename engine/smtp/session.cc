#include "engine/smtp/session.h"

#include <algorithm>

#include "engine/core/check.h"
#include "engine/smtp/commands.h"

namespace postrider {
namespace {

// Content up to this size is read whole into the buffer it is sent from; more is streamed.
constexpr uint64_t kWhole = 60 * 1024;
constexpr size_t kStreamBlock = 64 * 1024;
constexpr size_t kStreamUnsent = 64 * 1024;
constexpr size_t kNextNeeds = kStreamUnsent / 4;  // at most, of that, for another to be begun
constexpr size_t kEnvelope = 512;  // about, of a transaction's commands

// co_await: the first message whose file has changed, or null; together with the others of the turn where the messages can.
class Checked {
  public:
    explicit Checked(std::span<OutgoingMessage* const> messages) : messages_(messages) {}
    bool await_ready() const { return messages_.empty(); }
    bool await_suspend(std::coroutine_handle<> handle) {
        bool later = false;
        for (OutgoingMessage* message : messages_) later = message->check_later(message == messages_.back() ? handle : nullptr);
        return later;
    }
    OutgoingMessage* await_resume() {
        OutgoingMessage* changed = nullptr;
        for (OutgoingMessage* message : messages_)  // each is asked: an answer left with it would be that of its next content
            if (!message->unchanged() && !changed) changed = message;
        return changed;
    }

  private:
    std::span<OutgoingMessage* const> messages_;
};

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
    if (progress.state == ReplyState::partial) return Parsed::nothing;
    if (traced()) tell_reply(*options_.tap, parser_);
    return progress.state == ReplyState::bad ? Parsed::bad : Parsed::reply;
}

// The commands gathered in out_.
void Session::put_out() {
    if (!out_.empty() && traced()) options_.tap->tell(TraceKind::sent, out_);
    connection_.append(out_);
    out_.clear();
}

void Session::tell_tls() {
    if (traced()) options_.tap->tell(TraceKind::note, tls_.version + ", " + tls_.cipher + (tls_.resumed ? ", resumed" : ""));
}

void Session::tell_content(const OutgoingMessage& message) {
    if (traced()) options_.tap->tell(TraceKind::note, "content: " + std::to_string(message.content.wire_size) + " octets");
}

Trouble Session::trouble_of(IoStatus status) const {
    if (status == IoStatus::timeout) return Trouble::timeout;
    return connection_.error_code() ? trouble_of_errno(connection_.error_code(), false) : Trouble::lost;
}

// Sends what out_ holds and awaits the one reply to it.
Task<Session::Answered> Session::command(Phase phase) {
    if (!connection_.input().empty() && phase != Phase::greeting)
        co_return Answered{nullptr, Trouble::premature_reply};  // FAULTS 14
    put_out();
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
    tell_tls();
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
    // The first transaction of a session shows whether the host is in step, and the first after a rest whether it is still
    // there: only behind them others overlap, and only then a lost connection leaves more than one in doubt.
    const bool proven = transactions_ > 0 && (dialogue() != Dialogue::bdat || warm_);
    const Dialogue most = proven ? dialogue() : std::min(dialogue(), Dialogue::group);
    // RFC 3030 4.2, DESIGN 2.4: one that is sent before the last chunk of the one before is answered begins with RSET.
    const bool behind_chunk = !flight_.empty() && flight_.back()->transaction.dialogue() == Dialogue::bdat;
    const BeginOptions options{.reused_session = transactions_ > 0 || !flight_.empty(),
                               .reset_first = reset_first_ || behind_chunk};
    const auto step = message.transaction.begin(capabilities_, most, options, out_);
    if (step == Transaction::Step::done) return false;
    reset_first_ = false;
    return true;
}

// Takes the next message that the host can take, appends its envelope to out_, and puts it into the flight.
OutgoingMessage* Session::begin_next(SessionFeed& feed) {
    OutgoingMessage* message;
    while ((message = feed.next(capabilities_)) != nullptr && !begin(*message)) feed.settled(*message);
    if (message) flight_.push_back(message);
    return message;
}

// BDAT: everything of a transaction leaves at once, and of as many as pipeline_depth and the buffers allow. The first chunk
// of a session goes alone: a host that answers it twice (FAULTS 38) would put all that is behind it out of step, and without
// a 354 nothing would show it.
Task<std::optional<Trouble>> Session::fill_flight(SessionFeed& feed) {
    const size_t depth = this->depth();
    size_t filled = 0;  // the last so many of the flight: their contents wait in the buffer for a look at their files
    while (!flight_.empty() && flight_.back()->transaction.dialogue() == Dialogue::bdat) {
        OutgoingMessage& last = *flight_.back();
        const size_t size = last.content.stored.size;
        if (!last.transaction.in_flight()) {
            if (size > kWhole) {
                if (!co_await hand_over_filled(filled, 1, feed)) co_return Trouble::file_changed;
                filled = 0;
                put_out();
                connection_.flush();  // those before it were handed over, whatever becomes of this content
                if (auto trouble = co_await stream_content(last, feed)) co_return trouble;
            } else {
                // One block for the whole flight, instead of one twice as large again and again.
                const size_t places = depth + 1 - flight_.size();
                if (filled == 0 && places > 1) connection_.make_room(std::min(kStreamUnsent, places * (size + kEnvelope)));
                put_out();
                if (!read_small(last)) co_return Trouble::file_changed;
                ++filled;
            }
        }
        // Another of a small message's size still fits into the block.
        if (flight_.size() >= depth || connection_.unsent() + std::min(size, kNextNeeds) > kStreamUnsent) break;
        if (!begin_next(feed)) break;
    }
    if (!co_await hand_over_filled(filled, 0, feed)) co_return Trouble::file_changed;
    connection_.flush();
    co_return std::nullopt;
}

// `count` messages of the flight, before the last `behind`. False: a file is not what it was, and nothing of them leaves; its
// message is the last of the flight then.
Task<bool> Session::hand_over_filled(size_t count, size_t behind, SessionFeed& feed) {
    const auto filled = std::span(flight_).subspan(flight_.size() - behind - count, count);
    if (OutgoingMessage* changed = co_await Checked(filled)) {
        for (; flight_.back() != changed; flight_.pop_back()) {
            flight_.back()->transaction.on_session_lost(Trouble::lost, {});
            feed.settled(*flight_.back());
        }
        co_return false;
    }
    for (OutgoingMessage* message : filled) hand_over(*message, feed);
    co_return true;
}

// Reads, stuffs where needed, and appends the whole content with its dot. False: the file is not what it was.
bool Session::read_small(OutgoingMessage& message) {
    const Content& content = message.content;
    const WireForm wire = message.transaction.wire();
    const size_t size = content.stored.size;
    tell_content(message);
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
    finish_content(wire);
    return encoder_.wire_size() == content.wire_size;
}

// What the encoder has kept back; with the dot, of DATA.
void Session::finish_content(WireForm wire) {
    const auto room = connection_.reserve(ContentEncoder::kFinishRoom);
    connection_.commit(encoder_.finish(room));
    if (wire == WireForm::data && traced()) options_.tap->tell(TraceKind::sent, ".");
}

// The duplicate window opens here: intents first, then the bit, then the octets.
void Session::hand_over(OutgoingMessage& message, SessionFeed& feed) {
    const bool overlap = message.transaction.dialogue() == Dialogue::message && transactions_ > 0;
    if (overlap) (void)begin_next(feed);
    feed.before_dot(message);
    message.transaction.content_handed_over();
    put_out();
    // Several chunks leave in one send: who filled the flight flushes.
    if (message.transaction.dialogue() != Dialogue::bdat) connection_.flush();
}

// Content too large for one buffer: never more than a bounded part of it is in memory. A chunk has no dot that could be
// kept back: its last octet stays here until all of it was read, and its file looked at once more.
Task<std::optional<Trouble>> Session::stream_content(OutgoingMessage& message, SessionFeed& feed) {
    const Content& content = message.content;
    const WireForm wire = message.transaction.wire();
    const bool as_it_lies = clean(content, wire);
    const bool chunk = wire == WireForm::bdat;
    encoder_.begin(content, wire);
    tell_content(message);
    uint64_t offset = content.stored.offset;
    const uint64_t end = offset + content.stored.size;
    while (offset < end) {
        const size_t size = std::min<uint64_t>(kStreamBlock, end - offset);
        if (as_it_lies) {
            const auto room = connection_.reserve(size);
            if (!message.read(offset, room.first(size))) co_return Trouble::file_unreadable;
            connection_.commit(size);
        } else {
            stored_.resize(size);
            if (!message.read(offset, stored_)) co_return Trouble::file_unreadable;
            for (size_t taken = 0; taken < size;) {
                const auto room = connection_.reserve(size + 1024);
                const auto progress = encoder_.encode(std::span(stored_).subspan(taken), room);
                connection_.commit(progress.produced);
                taken += progress.consumed;
                if (encoder_.broken()) co_return Trouble::file_changed;
            }
            if (encoder_.wire_size() > content.wire_size) co_return Trouble::file_changed;  // nothing beyond leaves
        }
        offset += size;
        // The whole size may be there before the end is: what follows may be left out (Content::removed).
        if (chunk && (offset == end || (!as_it_lies && encoder_.wire_size() == content.wire_size))) continue;
        connection_.flush();
        // Whatever is said meanwhile, nothing is appended before this has left, and one deadline holds (FAULTS 34, 36).
        const int64_t until_ms = deadline(Phase::content);
        IoStatus status;
        while ((status = co_await connection_.drained(kStreamUnsent, until_ms)) == IoStatus::input)
            if (auto trouble = hear_while_streaming(message, feed)) co_return trouble;
        if (status != IoStatus::ok) co_return trouble_of(status);
    }
    if (!as_it_lies) {
        finish_content(wire);
        if (encoder_.wire_size() != content.wire_size) co_return Trouble::file_changed;
    } else if (wire == WireForm::data) {
        append_dot(out_);
    }
    if (!message.unchanged()) co_return Trouble::file_changed;
    hand_over(message, feed);
    if (chunk) connection_.flush();
    co_return std::nullopt;
}

// Replies that come while a content is streamed: of the transactions before it, or, of a chunk, to its own envelope. To a
// content behind DATA none may come (RFC 5321 4.2.5): the transaction judges an early one (FAULTS 13).
std::optional<Trouble> Session::hear_while_streaming(OutgoingMessage& message, SessionFeed& feed) {
    for (;;) {
        const Parsed parsed = parse();
        if (parsed == Parsed::nothing) return std::nullopt;
        if (parsed == Parsed::bad) return Trouble::bad_reply;
        const bool may_come = message.transaction.dialogue() == Dialogue::bdat;
        next_reply_ = true;
        const Transaction::Step step = flight_.front()->transaction.on_reply(parser_.reply(), out_);
        if (step == Transaction::Step::end_session || !may_come) return Trouble::out_of_step;
        if (step != Transaction::Step::need_reply) done(feed, step);
    }
}

// The front of the flight is settled with the session in step.
void Session::done(SessionFeed& feed, Transaction::Step step) {
    ++transactions_;
    warm_ = true;
    chunked_ |= flight_.front()->transaction.dialogue() == Dialogue::bdat;
    reset_first_ = step == Transaction::Step::done_reset_first;
    settle_front(feed);
    overlapped_ = !flight_.empty();
}

void Session::settle_front(SessionFeed& feed) {
    OutgoingMessage* message = flight_.front();
    flight_.erase(flight_.begin());
    envelope_until_ms_ = 0;
    feed.settled(*message);
}

// The session ends here, and not by a refusal.
SessionEnd Session::lose(SessionFeed& feed, Trouble trouble, std::string_view detail) {
    if (traced()) options_.tap->tell(TraceKind::note, outcome_of(trouble, Phase::idle, detail).text);
    return abandon(feed, trouble, detail);
}

// Every transaction in flight is settled by what is known of it.
SessionEnd Session::abandon(SessionFeed& feed, Trouble trouble, std::string_view detail) {
    SessionEnd end;
    const bool out_of_step = trouble == Trouble::bad_reply || trouble == Trouble::out_of_step ||
                             trouble == Trouble::premature_reply;
    // A host that throws away what follows the dot never answers the MAIL that was there.
    const Phase awaits = flight_.empty() ? Phase::idle : flight_.front()->transaction.awaits();
    const bool unheard =
        trouble == Trouble::timeout && overlapped_ && (awaits == Phase::mail || awaits == Phase::rset);
    const bool chunk = !flight_.empty() && flight_.front()->transaction.dialogue() == Dialogue::bdat;
    end.stumbled = unheard || (out_of_step && (flight_.size() > 1 || overlapped_ || chunk));
    // A file fails the message whose content is being sent: the last in flight. The others have lost their session.
    const bool of_file = trouble == Trouble::file_changed || trouble == Trouble::file_unreadable;
    while (!flight_.empty()) {
        const bool its_own = !of_file || flight_.size() == 1;
        flight_.front()->transaction.on_session_lost(its_own ? trouble : Trouble::lost, detail);
        settle_front(feed);
    }
    return end;
}

Task<SessionEnd> Session::carry(SessionFeed& feed) {
    using Step = Transaction::Step;
    warm_ = false;
    next_reply_ = true;
    int64_t until_ms = 0;
    for (;;) {
        if (flight_.empty()) {
            overlapped_ = false;
            if (!begin_next(feed)) co_return SessionEnd{.reusable = true, .may_quit = true};
            // FAULTS 14, 29: nothing may stand here before we have spoken.
            if (!connection_.input().empty() || !parser_.idle()) {
                (void)parse();
                co_return lose(feed, Trouble::lost);
            }
            if (flight_.back()->transaction.dialogue() != Dialogue::bdat) {
                put_out();
                connection_.flush();
            }
        }
        const Parsed parsed = parse();
        if (parsed == Parsed::nothing) {
            // All that has come is heard: what takes the places of those that ended leaves in one send.
            bool for_room = false;
            if (flight_.back()->transaction.dialogue() == Dialogue::bdat) {
                if (auto trouble = co_await fill_flight(feed)) co_return lose(feed, *trouble, connection_.error_text());
                // Behind a streamed content the next waits for room, not for a reply.
                for_room = flight_.size() < depth() && flight_.back()->content.stored.size > kWhole &&
                           connection_.unsent() > kStreamUnsent - kNextNeeds;
            }
            // One deadline for a reply, however many pieces it comes in, and one for all before the content (FAULTS 34).
            const Phase phase = flight_.front()->transaction.awaits();
            const bool envelope = !is_final(phase);
            if (std::exchange(next_reply_, false)) {
                if (envelope_until_ms_ == 0) envelope_until_ms_ = reactor_.now_ms() + options_.envelope_ms;
                until_ms = envelope ? std::min(deadline(phase), envelope_until_ms_) : deadline(phase);
            }
            const IoStatus status = co_await (for_room ? connection_.drained(kStreamUnsent - kNextNeeds, until_ms)
                                                       : connection_.more_input(until_ms));
            if (status == IoStatus::timeout && envelope && reactor_.now_ms() >= envelope_until_ms_)
                co_return lose(feed, Trouble::too_slow);
            if (status != IoStatus::ok && status != IoStatus::input)
                co_return lose(feed, trouble_of(status), connection_.error_text());
            continue;
        }
        next_reply_ = true;
        if (parsed == Parsed::bad) co_return lose(feed, Trouble::bad_reply, name_of(parser_.fault()));
        OutgoingMessage& current = *flight_.front();
        const Step step = current.transaction.on_reply(parser_.reply(), out_);
        switch (step) {
            case Step::need_reply:
                break;
            case Step::send_more:
            case Step::send_dot_only:
                if (!connection_.input().empty()) co_return lose(feed, Trouble::premature_reply);
                put_out();
                connection_.flush();
                break;
            case Step::send_content: {
                OutgoingMessage* const flight[] = {&current};
                if (!connection_.input().empty()) co_return lose(feed, Trouble::premature_reply);
                put_out();
                if (current.content.stored.size > kWhole) {
                    if (auto trouble = co_await stream_content(current, feed))
                        co_return lose(feed, *trouble, connection_.error_text());
                } else if (!read_small(current) || co_await Checked(flight)) {
                    co_return lose(feed, Trouble::file_changed);
                } else {
                    hand_over(current, feed);
                }
                break;
            }
            case Step::done:
            case Step::done_reset_first:
                done(feed, step);
                break;
            case Step::end_session: {
                const bool may_quit = current.transaction.may_quit() && flight_.size() == 1;
                const bool refused = parser_.reply().transient() || parser_.reply().permanent();
                // A MAIL refused in a flight of chunks left the others in doubt: not so deep again with this host.
                const bool refused_flight = current.transaction.may_quit() && flight_.size() > 1;
                SessionEnd end = refused ? abandon(feed, Trouble::lost) : lose(feed, Trouble::out_of_step);
                end.may_quit = may_quit;
                end.stumbled |= refused_flight && chunked_;
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
