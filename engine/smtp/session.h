// A session over one connection: the coroutine that carries octets between the connection and the pure code of this room.
//
//   open():  greeting -> EHLO (or HELO) -> [STARTTLS -> handshake -> EHLO]          RFC 5321 3.1, 3.2; RFC 3207
//   carry(): MAIL RCPT DATA ... content . ... until the feed has nothing more        RFC 5321 3.3; RFC 2920
//   quit():  QUIT, the peer's 221, close                                             RFC 5321 4.1.1.10
//
// In the `message` dialogue the session holds two transactions: the one whose content it sends, and the next, whose
// envelope leaves in the same flight behind the dot. Replies are routed in order.
//
// Failure policy: what a reply or a trouble means is trouble.h's decision and the transaction's state; the session hands
// every recipient back settled, and says whether the connection may be used again.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "engine/io/reactor.h"
#include "engine/net/connection.h"
#include "engine/smtp/capabilities.h"
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
    Trouble trouble_of(IoStatus status) const;
    bool begin(OutgoingMessage& message);
    void prefetch(SessionFeed& feed);
    bool read_small(OutgoingMessage& message);
    Task<std::optional<Trouble>> stream_content(OutgoingMessage& message, SessionFeed& feed);
    bool finish_content(OutgoingMessage& message, SessionFeed& feed);
    void settle(SessionFeed& feed, OutgoingMessage*& message);
    SessionEnd lose(SessionFeed& feed, Trouble trouble, std::string_view detail = {});
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
    OutgoingMessage* current_ = nullptr;
    OutgoingMessage* next_ = nullptr;  // its envelope is in flight behind the dot of current_
    uint32_t transactions_ = 0;        // ended with the session in step
    bool reset_first_ = false;
    bool overlapped_ = false;  // the envelope of current_ left behind another's dot
};

}  // namespace postrider
