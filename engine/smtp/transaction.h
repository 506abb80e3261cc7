// One mail transaction (RFC 5321 3.3), pure: commands out, replies in, outcomes out. No I/O, no clock.
//
//   begin() -> [send_content] -> on_reply()... -> done | done_reset_first | end_session
//
// The caller appends what begin() and on_reply() wrote to the connection, routes the replies of the connection in
// order to the transactions that still await some, and obeys the Step each answers:
//
//   need_reply        wait for the next reply
//   send_more         send `out`, then wait. A reply already received behind this one is premature (FAULTS 14):
//                     on_session_lost(Trouble::premature_reply).
//   send_content      send `out` if it holds something, then the content (WireForm wire()), then for DATA the dot;
//                     call content_handed_over() before the send that carries the last octet
//   send_dot_only     `out` holds the dot: nobody was accepted, nothing is delivered (RFC 2920 3.1)
//   done              every recipient is settled; the session is clean
//   done_reset_first  the same, but RSET must be sent before the next MAIL: begin the next with reset_first
//   end_session       every recipient is settled; no further transaction here. may_quit() tells if QUIT is polite.
//
// Dialogues (the session chooses by host; begin() falls back to what the host offered, see dialogue()):
//   none      one command at a time
//   group     MAIL, RCPT..., DATA in one flight
//   message   the same octets, but sent behind the content and dot of the transaction before: the caller holds two,
//             begins the second when it sends the content of the first, and routes replies to the first until it
//             is done
//   bdat      [RSET] MAIL RCPT... BDAT n LAST and the content in one flight; several may be in flight. One sent before
//             the LAST of the one before is answered begins with RSET (reset_first), else a refused chunk could leave
//             the server in the old transaction and mix two messages.
//
// When a transaction says end_session, or the connection breaks, call on_session_lost() on every transaction that
// is not done(): each settles its own recipients (requeued, transient or ambiguous).
//
// An object is used again for the next message: reset() keeps all capacity, so the steady state allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/smtp/capabilities.h"
#include "engine/smtp/outcome.h"
#include "engine/smtp/reply.h"
#include "engine/smtp/transparency.h"
#include "engine/smtp/trouble.h"
#include "queue/message.h"

namespace postrider {

enum class Dialogue : uint8_t { none, group, message, bdat };

// What MAIL must know of the message before its body is read.
struct MessageFacts {
    uint64_t wire_size = 0;  // Content::wire_size
    bool eight_bit = false;  // Content::eight_bit
    bool smtputf8 = false;   // headers need it, or the producer said so; addresses are looked at here
    DsnReturn ret = DsnReturn::none;
    std::string_view envid;  // copied
};

struct BeginOptions {
    bool reused_session = false;  // the session has carried a transaction before, or has one in flight
    bool reset_first = false;     // RSET opens this flight
};

class Transaction {
  public:
    enum class Step : uint8_t {
        need_reply,
        send_more,
        send_content,
        send_dot_only,
        done,
        done_reset_first,
        end_session,
    };

    // Forgets the message, keeps the capacity.
    void reset();
    void set_message(std::string_view sender, const MessageFacts& facts);
    // `address` as it goes to the wire: the domain as A-label unless the local part needs SMTPUTF8 anyway.
    // `record` is the caller's own. Returns the recipient's index.
    size_t add_recipient(RecordId record, std::string_view address, std::string_view dsn = {});

    // Settles what the host cannot take (SIZE, 8-bit, SMTPUTF8, RCPTMAX), appends the first flight for the rest.
    // done: nothing is left to send, `out` is untouched (a RSET that was due still is). send_content: bdat.
    Step begin(const Capabilities& capabilities, Dialogue wanted, const BeginOptions& options, std::string& out);
    Step on_reply(const Reply& reply, std::string& out);

    // The duplicate window opens (promise 2): from now to the final reply a lost session is ambiguous.
    void content_handed_over() { in_flight_ = true; }
    bool in_flight() const { return in_flight_ && !done_; }

    // The session broke, or another transaction of it ended it. Settles every unsettled recipient: requeued if nothing
    // was sent, or MAIL is unanswered on a session that carried mail before; ambiguous if in_flight(); else by
    // judge(trouble). `detail`: what the system said, for the log; may be empty. No effect when done().
    void on_session_lost(Trouble trouble, std::string_view detail = {});

    // Never begun: no host could be reached. Every recipient fares as `outcome` says.
    void settle_unbegun(const Outcome& outcome);

    // Makes every recipient unsettled again, for another host or connection: only when all were requeued, or none of
    // the settled ones is worth recording (Scope::host with another MX left).
    void restart();

    Dialogue dialogue() const { return dialogue_; }  // as begun
    WireForm wire() const { return dialogue_ == Dialogue::bdat ? WireForm::bdat : WireForm::data; }
    bool done() const { return done_; }
    bool begins_with_reset() const { return reset_first_; }
    // After end_session: the peer is in step, QUIT may be sent if no other transaction awaits replies.
    bool may_quit() const { return may_quit_; }
    // What the next reply answers: its timeout (info_of) and its word for the log. While content is being sent
    // Phase::content, until content_handed_over().
    Phase awaits() const;
    // Replies still to come.
    size_t replies_due() const;

    std::string_view sender() const { return sender_; }
    size_t size() const { return count_; }
    std::string_view address(size_t index) const { return recipients_[index].address; }
    RecordId record(size_t index) const { return recipients_[index].record; }
    // Every recipient's fate, to be read once done(), until reset().
    const Outcome& outcome(size_t index) const { return recipients_[index].outcome; }
    size_t accepted() const { return accepted_; }  // RCPT answered 2xx
    // The final reply may decide this recipient, which wants an intent before the last octet of content: RCPT was
    // answered 2xx or, in a bdat flight, is not answered yet.
    bool awaits_final(size_t index) const {
        const Recipient& to = recipients_[index];
        return to.state == State::accepted ||
               (dialogue_ == Dialogue::bdat && to.sent && to.state == State::waiting);
    }

  private:
    enum class State : uint8_t {
        waiting,   // nothing known; the RCPT may be in flight
        accepted,  // RCPT 2xx: the final reply decides
        surplus,   // 452 or 552: requeued if others are accepted, else its reply holds (FAULTS 23, 24)
        settled,
    };
    struct Recipient {
        RecordId record = 0;
        State state = State::waiting;
        bool ascii = true;
        bool sent = false;  // a RCPT of this attempt names it
        std::string address;
        std::string dsn;
        Outcome outcome;
    };
    // What the next reply answers.
    enum class Expect : uint8_t { nothing, rset, mail, rcpt, data, dot, dot_alone, bdat };

    void refuse_locally();
    void begin_flight();
    void append_mail_command(std::string& out) const;
    void append_rcpt_command(size_t index, std::string& out) const;
    size_t next_sent(size_t from) const;
    Step on_rset(const Reply& reply, std::string& out);
    Step on_mail(const Reply& reply, std::string& out);
    Step on_rcpt(const Reply& reply, std::string& out);
    Step after_last_rcpt(std::string& out);
    Step on_data(const Reply& reply, std::string& out);
    Step on_final(const Reply& reply);
    Step on_dot_alone(const Reply& reply);
    Step on_closing(const Reply& reply);
    Step finish(Step step);
    Step break_session(Trouble trouble);
    void settle(Recipient& recipient, Trouble trouble, std::string_view detail = {});
    void settle(Recipient& recipient, const Verdict& verdict, std::string_view detail);
    void settle(Recipient& recipient, OutcomeKind kind, Scope scope, const Reply& reply);
    void settle_accepted(OutcomeKind kind, Scope scope, const Reply& reply);
    void settle_surplus();

    std::vector<Recipient> recipients_;  // the first count_ are this message's
    size_t count_ = 0;
    std::string sender_;
    std::string envid_;
    MessageFacts facts_;
    Capabilities offered_;
    Dialogue dialogue_ = Dialogue::none;
    Expect expect_ = Expect::nothing;
    size_t next_rcpt_ = 0;  // recipient whose RCPT reply is due
    size_t rcpts_due_ = 0;  // RCPT replies still to come
    size_t accepted_ = 0;
    bool reused_ = false;
    bool reset_first_ = false;
    bool mail_refused_ = false;
    bool end_after_ = false;  // the session must not carry another transaction
    bool in_flight_ = false;  // the duplicate window
    bool done_ = false;
    bool may_quit_ = false;
};

}  // namespace postrider
