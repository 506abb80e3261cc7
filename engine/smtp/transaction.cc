#include "engine/smtp/transaction.h"

#include "engine/core/check.h"
#include "engine/smtp/commands.h"

namespace postrider {
namespace {

bool is_ascii(std::string_view text) {
    unsigned char all = 0;
    for (const char c : text) all |= static_cast<unsigned char>(c);
    return all < 0x80;
}

// RFC 2920 3.1: no group without PIPELINING (FAULTS 35). RFC 3030 2: no BDAT without CHUNKING.
Dialogue offered_dialogue(Dialogue wanted, const Capabilities& offered) {
    if (!offered.pipelining) return Dialogue::none;
    if (wanted == Dialogue::bdat && !offered.chunking) return Dialogue::group;
    return wanted;
}

}  // namespace

void Transaction::reset() {
    count_ = 0;
    sender_.clear();
    envid_.clear();
    facts_ = {};
    restart();
}

void Transaction::restart() {
    dialogue_ = Dialogue::none;
    expect_ = Expect::nothing;
    next_rcpt_ = rcpts_due_ = accepted_ = 0;
    reused_ = reset_first_ = mail_refused_ = end_after_ = in_flight_ = done_ = may_quit_ = false;
    for (size_t i = 0; i < count_; ++i) {
        recipients_[i].state = State::waiting;
        recipients_[i].sent = false;
    }
}

void Transaction::set_message(std::string_view sender, const MessageFacts& facts) {
    sender_.assign(sender);
    envid_.assign(facts.envid);
    facts_ = facts;
    facts_.envid = {};
}

size_t Transaction::add_recipient(RecordId record, std::string_view address, std::string_view dsn) {
    if (count_ == recipients_.size()) recipients_.emplace_back();
    Recipient& recipient = recipients_[count_];
    recipient.record = record;
    recipient.state = State::waiting;
    recipient.ascii = is_ascii(address);
    recipient.sent = false;
    recipient.address.assign(address);
    recipient.dsn.assign(dsn);
    return count_++;
}

// ---- Commands

Transaction::Step Transaction::begin(const Capabilities& capabilities, Dialogue wanted,
                                     const BeginOptions& options, std::string& out) {
    POSTRIDER_CHECK(!done_ && expect_ == Expect::nothing, "a transaction begins once");
    offered_ = capabilities;
    dialogue_ = offered_dialogue(wanted, offered_);
    reused_ = options.reused_session;
    refuse_locally();
    begin_flight();
    if (rcpts_due_ == 0) {
        done_ = true;
        return Step::done;
    }
    reset_first_ = options.reset_first;
    expect_ = reset_first_ ? Expect::rset : Expect::mail;
    if (reset_first_) append_rset(out);
    if (!reset_first_ || dialogue_ != Dialogue::none) append_mail_command(out);
    if (dialogue_ == Dialogue::none) return Step::need_reply;
    for (size_t i = next_rcpt_; i < count_; i = next_sent(i + 1)) append_rcpt_command(i, out);
    if (dialogue_ == Dialogue::bdat) {
        append_bdat_last(out, facts_.wire_size);
        return Step::send_content;
    }
    append_data(out);
    return Step::need_reply;
}

// What the host cannot take is settled before anything is sent.
void Transaction::refuse_locally() {
    const bool needs_utf8 = facts_.smtputf8 || !is_ascii(sender_);
    const bool sender_fits = safe_in_path(sender_) && safe_in_word(envid_);
    for (size_t i = 0; i < count_; ++i) {
        Recipient& to = recipients_[i];
        if (!sender_fits) {
            settle(to, Trouble::bad_sender);
        } else if (offered_.size_limit != 0 && facts_.wire_size > offered_.size_limit) {
            settle(to, Trouble::size_exceeded);  // RFC 1870 6.1 (FAULTS 47)
        } else if (facts_.eight_bit && !offered_.eight_bit_mime) {
            settle(to, Trouble::eight_bit_unsupported);  // RFC 6152 3 (FAULTS 44)
        } else if ((needs_utf8 || !to.ascii) && !offered_.smtputf8) {
            settle(to, Trouble::smtputf8_unsupported);  // RFC 6531 3.2 (FAULTS 45)
        } else if (to.address.empty() || !safe_in_path(to.address) || !safe_in_parameters(to.dsn)) {
            settle(to, Trouble::bad_recipient);  // FAULTS 49
        }
    }
}

// Marks the recipients this attempt names, at most RCPTMAX (RFC 9422 4); the rest was not touched.
void Transaction::begin_flight() {
    for (size_t i = 0; i < count_; ++i) {
        Recipient& to = recipients_[i];
        if (to.state != State::waiting) continue;
        if (offered_.rcpt_max != 0 && rcpts_due_ == offered_.rcpt_max) {
            settle(to, {OutcomeKind::requeued, Scope::transaction, 452, {4, 5, 3},
                        "host takes fewer recipients at once (LIMITS)"}, {});
            continue;
        }
        to.sent = true;
        ++rcpts_due_;
    }
    next_rcpt_ = next_sent(0);
}

size_t Transaction::next_sent(size_t from) const {
    while (from < count_ && !recipients_[from].sent) ++from;
    return from;
}

void Transaction::append_mail_command(std::string& out) const {
    MailParameters parameters;
    if (offered_.size) parameters.size = facts_.wire_size;
    parameters.body_8bitmime = facts_.eight_bit;
    parameters.smtputf8 = facts_.smtputf8 || !is_ascii(sender_);
    for (size_t i = 0; i < count_ && !parameters.smtputf8; ++i)
        parameters.smtputf8 = recipients_[i].sent && !recipients_[i].ascii;
    if (offered_.dsn) {  // RFC 3461 4
        parameters.ret = facts_.ret;
        parameters.envid = envid_;
    }
    const bool written = append_mail(out, sender_, parameters);
    POSTRIDER_CHECK(written, "the sender was looked at before");
}

void Transaction::append_rcpt_command(size_t index, std::string& out) const {
    const Recipient& to = recipients_[index];
    const bool written =
        append_rcpt(out, to.address, offered_.dsn ? std::string_view(to.dsn) : std::string_view());
    POSTRIDER_CHECK(written, "the recipient was looked at before");
}

// ---- Replies

Transaction::Step Transaction::on_reply(const Reply& reply, std::string& out) {
    if (expect_ != Expect::nothing && reply.code == 421) return on_closing(reply);
    switch (expect_) {
        case Expect::nothing: return break_session(Trouble::out_of_step);  // nobody asked (FAULTS 14, 38)
        case Expect::rset: return on_rset(reply, out);
        case Expect::mail: return on_mail(reply, out);
        case Expect::rcpt: return on_rcpt(reply, out);
        case Expect::data: return on_data(reply, out);
        case Expect::dot:
        case Expect::bdat: return on_final(reply);
        case Expect::dot_alone: return on_dot_alone(reply);
    }
    return Step::end_session;
}

Transaction::Step Transaction::on_rset(const Reply& reply, std::string& out) {
    if (answer(Phase::rset, reply) != Answer::accepted) return break_session(Trouble::rset_refused);
    expect_ = Expect::mail;
    if (dialogue_ != Dialogue::none) return Step::need_reply;
    append_mail_command(out);
    return Step::send_more;
}

Transaction::Step Transaction::on_mail(const Reply& reply, std::string& out) {
    const Answer said = answer(Phase::mail, reply);
    if (said == Answer::out_of_step) return break_session(Trouble::out_of_step);
    if (said == Answer::refused) {
        const Refusal refusal = judge_refusal(Phase::mail, reply, reused_);
        for (size_t i = 0; i < count_; ++i)
            if (recipients_[i].sent) settle(recipients_[i], refusal.kind, refusal.scope, reply);
        mail_refused_ = true;
        // Content follows a bdat flight whatever MAIL is answered; a host that does not skip it would read it
        // as commands, so nothing after it can be trusted.
        end_after_ = refusal.ends_session || dialogue_ == Dialogue::bdat;
        if (dialogue_ == Dialogue::none) return finish(Step::done);
    }
    expect_ = Expect::rcpt;
    if (dialogue_ != Dialogue::none) return Step::need_reply;
    append_rcpt_command(next_rcpt_, out);
    return Step::send_more;
}

Transaction::Step Transaction::on_rcpt(const Reply& reply, std::string& out) {
    const Answer said = answer(Phase::rcpt, reply);
    if (said == Answer::out_of_step) return break_session(Trouble::out_of_step);
    Recipient& to = recipients_[next_rcpt_];
    if (said == Answer::accepted) {
        // A recipient without a sender: before its content is sent the session ends; behind it (bdat) the
        // host may deliver, and the recipient is open again.
        if (mail_refused_ && dialogue_ != Dialogue::bdat) return break_session(Trouble::out_of_step);
        to.state = State::accepted;
        ++accepted_;
    } else if (!mail_refused_) {
        const Refusal refusal = judge_refusal(Phase::rcpt, reply, reused_);
        settle(to, refusal.kind, refusal.scope, reply);
        if (too_many_recipients(reply)) to.state = State::surplus;
    }
    next_rcpt_ = next_sent(next_rcpt_ + 1);
    if (--rcpts_due_ == 0) return after_last_rcpt(out);
    if (dialogue_ != Dialogue::none) return Step::need_reply;
    append_rcpt_command(next_rcpt_, out);
    return Step::send_more;
}

Transaction::Step Transaction::after_last_rcpt(std::string& out) {
    expect_ = dialogue_ == Dialogue::bdat ? Expect::bdat : Expect::data;
    if (dialogue_ != Dialogue::none) return Step::need_reply;
    if (accepted_ == 0) return finish(Step::done_reset_first);
    append_data(out);
    return Step::send_more;
}

Transaction::Step Transaction::on_data(const Reply& reply, std::string& out) {
    switch (answer(Phase::data, reply)) {
        case Answer::out_of_step: return break_session(Trouble::out_of_step);  // FAULTS 12
        case Answer::refused: {
            const Refusal refusal = judge_refusal(Phase::data, reply, reused_);
            settle_accepted(refusal.kind, refusal.scope, reply);
            return finish(mail_refused_ ? Step::done : Step::done_reset_first);
        }
        case Answer::accepted: break;
    }
    if (accepted_ == 0) {  // RFC 2920 3.1: the host waits for a content that nobody gets (FAULTS 9)
        expect_ = Expect::dot_alone;
        append_dot(out);
        return Step::send_dot_only;
    }
    expect_ = Expect::dot;
    return Step::send_content;
}

// The reply to the final dot, or to BDAT LAST.
Transaction::Step Transaction::on_final(const Reply& reply) {
    const Phase phase = awaits();
    const Answer said = answer(phase, reply);
    if (said == Answer::out_of_step) return break_session(Trouble::out_of_step);  // FAULTS 13, 16
    const bool early = !in_flight_;  // FAULTS 13: the content is still being sent, so no dot can follow
    if (said == Answer::refused) {
        const Refusal refusal = judge_refusal(phase, reply, reused_);
        settle_accepted(refusal.kind, refusal.scope, reply);
        if (early) return finish(Step::end_session);
        return finish(dialogue_ == Dialogue::bdat ? Step::done_reset_first : Step::done);
    }
    if (mail_refused_) {  // a delivery without a sender: nobody knows what was taken
        for (size_t i = 0; i < count_; ++i)
            if (recipients_[i].sent) recipients_[i].state = State::accepted;
    }
    if (early || mail_refused_) {
        settle_accepted(OutcomeKind::ambiguous, Scope::session, reply);
        return finish(Step::end_session);
    }
    if (accepted_ == 0) return finish(Step::end_session);  // a 2xx for nobody: out of step
    settle_accepted(OutcomeKind::delivered, Scope::recipient, reply);
    return finish(Step::done);
}

Transaction::Step Transaction::on_dot_alone(const Reply& reply) {
    const bool in_step = answer(Phase::dot, reply) != Answer::out_of_step;
    return finish(in_step ? Step::done_reset_first : Step::end_session);
}

// RFC 5321 3.8: 421 to any command. Recipients with a final answer keep it (FAULTS 5, 6).
Transaction::Step Transaction::on_closing(const Reply& reply) {
    const Refusal refusal = judge_refusal(awaits(), reply, reused_);
    for (size_t i = 0; i < count_; ++i) {
        Recipient& to = recipients_[i];
        if (to.state == State::waiting || to.state == State::accepted)
            settle(to, refusal.kind, refusal.scope, reply);
    }
    return finish(Step::end_session);
}

// ---- Ends

Transaction::Step Transaction::finish(Step step) {
    settle_surplus();
    expect_ = Expect::nothing;
    rcpts_due_ = 0;
    done_ = true;
    if (end_after_ && step != Step::end_session) {
        may_quit_ = true;
        return Step::end_session;
    }
    return step;
}

Transaction::Step Transaction::break_session(Trouble trouble) {
    on_session_lost(trouble);
    may_quit_ = false;
    return Step::end_session;
}

void Transaction::settle_unbegun(const Outcome& outcome) {
    POSTRIDER_CHECK(expect_ == Expect::nothing && !done_, "nothing was sent");
    for (size_t i = 0; i < count_; ++i) {
        recipients_[i].outcome = outcome;
        recipients_[i].state = State::settled;
    }
    done_ = true;
}

void Transaction::on_session_lost(Trouble trouble, std::string_view detail) {
    if (done_) return;
    Verdict verdict = judge(trouble);
    const bool mail_unread = expect_ == Expect::mail || expect_ == Expect::rset;
    if (in_flight_) {
        verdict = judge_in_flight(trouble);
    } else if (trouble != Trouble::file_changed && trouble != Trouble::file_unreadable &&  // its own file: an attempt
               (expect_ == Expect::nothing || (mail_unread && reused_))) {
        verdict.kind = OutcomeKind::requeued;  // FAULTS 29
    }
    for (size_t i = 0; i < count_; ++i) {
        Recipient& to = recipients_[i];
        if (to.state == State::waiting || to.state == State::accepted) settle(to, verdict, detail);
    }
    finish(Step::end_session);
}

void Transaction::settle(Recipient& recipient, Trouble trouble, std::string_view detail) {
    settle(recipient, judge(trouble), detail);
}

void Transaction::settle(Recipient& recipient, const Verdict& verdict, std::string_view detail) {
    Outcome& outcome = recipient.outcome;
    outcome.kind = verdict.kind;
    outcome.scope = verdict.scope;
    outcome.phase = expect_ == Expect::nothing ? Phase::mail : awaits();
    outcome.code = verdict.code;
    outcome.enhanced = verdict.enhanced;
    outcome.text.assign(verdict.text);
    if (!detail.empty()) {
        outcome.text.append(": ");
        append_printable(detail, outcome.text);
    }
    outcome.local = true;
    outcome.possible_duplicate = verdict.kind == OutcomeKind::ambiguous;
    recipient.state = State::settled;
}

void Transaction::settle(Recipient& recipient, OutcomeKind kind, Scope scope, const Reply& reply) {
    Outcome& outcome = recipient.outcome;
    outcome.kind = kind;
    outcome.scope = scope;
    outcome.phase = awaits();
    outcome.code = reply.code;
    outcome.enhanced = reply.enhanced;
    log_text(reply, outcome.text);
    outcome.local = false;
    outcome.possible_duplicate = kind == OutcomeKind::ambiguous;
    recipient.state = State::settled;
}

void Transaction::settle_accepted(OutcomeKind kind, Scope scope, const Reply& reply) {
    for (size_t i = 0; i < count_; ++i)
        if (recipients_[i].state == State::accepted) settle(recipients_[i], kind, scope, reply);
}

// RFC 5321 4.5.3.1.10: with others accepted the rest is sent in another transaction, unpunished (FAULTS 23, 24);
// alone, the reply means what it says.
void Transaction::settle_surplus() {
    for (size_t i = 0; i < count_; ++i) {
        Recipient& to = recipients_[i];
        if (to.state != State::surplus) continue;
        if (accepted_ > 0) {
            to.outcome.kind = OutcomeKind::requeued;
            to.outcome.scope = Scope::transaction;
        }
        to.state = State::settled;
    }
}

Phase Transaction::awaits() const {
    switch (expect_) {
        case Expect::nothing: return Phase::idle;
        case Expect::rset: return Phase::rset;
        case Expect::mail: return Phase::mail;
        case Expect::rcpt: return Phase::rcpt;
        case Expect::data: return Phase::data;
        case Expect::dot: return in_flight_ ? Phase::dot : Phase::content;
        case Expect::dot_alone: return Phase::dot;
        case Expect::bdat: return in_flight_ ? Phase::bdat : Phase::content;
    }
    return Phase::idle;
}

size_t Transaction::replies_due() const {
    if (expect_ == Expect::nothing) return 0;
    if (dialogue_ == Dialogue::none) return 1;
    const bool before_rcpts = expect_ == Expect::rset || expect_ == Expect::mail;
    const size_t behind_rcpts = 1;  // DATA, the dot, BDAT LAST
    return (expect_ == Expect::rset) + before_rcpts + rcpts_due_ + behind_rcpts;
}

}  // namespace postrider
