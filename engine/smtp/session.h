// A session over one connection: the coroutine that carries octets between the connection and the pure code of this room.
//
//   open():  greeting -> EHLO (or HELO) -> [STARTTLS -> handshake -> EHLO]          RFC 5321 3.1, 3.2; RFC 3207
//   carry(): MAIL RCPT DATA ... content . ... until the feed has nothing more        RFC 5321 3.3; RFC 2920
//   quit():  QUIT, the peer's 221, close                                             RFC 5321 4.1.1.10
//
// The flight holds the transactions that await replies, which are routed in order. In the `message` dialogue these are two:
// the one whose content is sent, and the next, whose envelope leaves in the same send behind the dot. In the `bdat` dialogue
// they are up to pipeline_depth whole ones, each but the first with RSET in front.
//
// Failure policy: what a reply or a trouble means is trouble.h's decision and the transaction's state; the session hands
// every recipient back settled, and says whether the connection may be used again.
#pragma once

#include <array>
#include <coroutine>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/reactor.h"
#include "engine/net/connection.h"
#include "engine/smtp/capabilities.h"
#include "engine/smtp/trace.h"
#include "engine/smtp/transaction.h"

namespace postrider {

// A message with its transaction; the content is read when it is sent.
class OutgoingMessage {
  public:
    virtual ~OutgoingMessage() = default;
    // Stored octets of the content's file from `offset`.
    virtual Result<void> read(uint64_t offset, std::span<char> into) = 0;
    // The file is still what was claimed; asked after the last read and before the dot (FAULTS 51).
    virtual bool unchanged() = 0;
    // The same for all messages that are ready in this turn, at the price of one look at each file: true when `reader`, if
    // it is not null, is resumed later in this turn, to ask unchanged() then. False: ask at once.
    virtual bool check_later(std::coroutine_handle<> /*reader*/) { return false; }

    Transaction transaction;
    Content content;
};

// Where a session gets its work, and to whom it hands it back.
class SessionFeed {
  public:
    virtual ~SessionFeed() = default;
    // The next message, its recipients added, not yet begun; null when there is none now, or the session must end.
    virtual OutgoingMessage* next(const Capabilities& capabilities) = 0;
    // The last octet of the content is about to go: intents are journalled before this turn's sends.
    virtual void before_dot(OutgoingMessage& message) = 0;
    // Every recipient is settled; the feed has the message back.
    virtual void settled(OutgoingMessage& message) = 0;
};

enum class TlsUse : uint8_t { off, opportunistic, required };

struct SessionOptions {
    std::string hostname;                    // EHLO name
    TlsUse tls = TlsUse::opportunistic;
    TlsContext* tls_context = nullptr;
    std::string peer_name;                   // the MX host: SNI
    Dialogue dialogue = Dialogue::message;   // the most that is wanted; less is used where less is offered
    size_t pipeline_depth = 1;               // transactions in flight in the bdat dialogue
    TraceTap* tap = nullptr;                 // null: nothing is told
    DurationMs envelope_ms = kEnvelopeMs;    // from the turn of a transaction to the last reply before its content
    std::array<DurationMs, kPhases.size()> timeouts_ms = default_timeouts();

    static constexpr std::array<DurationMs, kPhases.size()> default_timeouts() {
        std::array<DurationMs, kPhases.size()> timeouts{};
        for (const auto& info : kPhases) timeouts[static_cast<size_t>(info.phase)] = info.timeout_ms;
        return timeouts;
    }
    DurationMs timeout_ms(Phase phase) const { return timeouts_ms[static_cast<size_t>(phase)]; }
};

// Why a session could not be opened, in the form of a recipient's outcome.
struct SessionFailure {
    Trouble trouble = Trouble::lost;
    Outcome outcome;
};

inline SessionFailure failure_of(Trouble trouble, Phase phase, std::string_view detail = {}) {
    return {trouble, outcome_of(trouble, phase, detail)};
}

struct SessionEnd {
    bool reusable = false;   // nothing is outstanding: idle, may carry more later
    bool may_quit = false;   // QUIT is polite
    bool stumbled = false;   // replies were out of step: use a simpler dialogue with this host
};

class Session {
  public:
    Session(Reactor& reactor, Connection& connection, SessionOptions options);

    Task<std::optional<SessionFailure>> open();
    // Until the feed answers null or the session ends.
    Task<SessionEnd> carry(SessionFeed& feed);
    Task<void> quit(bool polite);

    // Between two calls of carry(): another site's options for a connection that passes to it.
    void set_options(SessionOptions options) { options_ = std::move(options); }

    const Capabilities& capabilities() const { return capabilities_; }
    const TlsResult& tls() const { return tls_; }
    uint32_t transactions() const { return transactions_; }
    // The most that is used with this host.
    Dialogue dialogue() const {
        const bool chunks = capabilities_.chunking || options_.dialogue != Dialogue::bdat;
        return chunks ? options_.dialogue : Dialogue::message;
    }

  private:
    // A reply, or the trouble instead of it.
    struct Answered {
        const Reply* reply = nullptr;
        Trouble trouble = Trouble::lost;
    };
    Task<Answered> command(Phase phase);
    Task<std::optional<SessionFailure>> say_ehlo();
    Task<std::optional<SessionFailure>> start_tls();
    SessionFailure refused(Phase phase, const Reply& reply);

    enum class Parsed : uint8_t { nothing, reply, bad };
    Parsed parse();
    void put_out();
    bool traced() const { return options_.tap && options_.tap->listening(); }
    // Not inlined, as lose(): what is made to be told would lie in the coroutines' frames, and they in each connection.
    [[gnu::noinline]] void tell_content(const OutgoingMessage& message);
    [[gnu::noinline]] void tell_tls();
    Trouble trouble_of(IoStatus status) const;
    bool begin(OutgoingMessage& message);
    OutgoingMessage* begin_next(SessionFeed& feed);
    Task<std::optional<Trouble>> fill_flight(SessionFeed& feed);
    Task<bool> hand_over_filled(size_t count, size_t behind, SessionFeed& feed);
    bool read_small(OutgoingMessage& message);
    void finish_content(WireForm wire);
    void hand_over(OutgoingMessage& message, SessionFeed& feed);
    Task<std::optional<Trouble>> stream_content(OutgoingMessage& message, SessionFeed& feed);
    std::optional<Trouble> hear_while_streaming(OutgoingMessage& message, SessionFeed& feed);
    void done(SessionFeed& feed, Transaction::Step step);
    void settle_front(SessionFeed& feed);
    [[gnu::noinline]] SessionEnd lose(SessionFeed& feed, Trouble trouble, std::string_view detail = {});
    SessionEnd abandon(SessionFeed& feed, Trouble trouble, std::string_view detail = {});
    size_t depth() const { return chunked_ ? options_.pipeline_depth : 1; }  // transactions in flight by BDAT
    int64_t deadline(Phase phase) const { return reactor_.now_ms() + options_.timeout_ms(phase); }

    Reactor& reactor_;
    Connection& connection_;
    SessionOptions options_;
    ReplyParser parser_;
    Capabilities capabilities_;
    TlsResult tls_;
    std::string out_;       // commands of one flight
    std::string stored_;    // stored octets on their way through the encoder
    ContentEncoder encoder_;
    int64_t envelope_until_ms_ = 0;  // of the first in flight; 0: its turn has not begun
    std::vector<OutgoingMessage*> flight_;  // begun and not settled, in the order of their replies
    uint32_t transactions_ = 0;             // ended with the session in step
    bool reset_first_ = false;
    bool warm_ = false;        // a transaction has ended in step since carry() was called
    bool next_reply_ = true;   // a reply was complete: the next has a deadline of its own
    bool chunked_ = false;     // a chunk was answered in step
    bool overlapped_ = false;  // the envelope of the first in flight left behind another's content
};

}  // namespace postrider
