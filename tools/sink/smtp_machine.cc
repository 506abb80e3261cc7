// The flow of a session: lines, content, chunks, and what a rule makes of a reply. The commands themselves are in
// smtp_commands.cc.
#include "tools/sink/smtp_machine.h"

#include <algorithm>
#include <cstring>

namespace postrider::sink {

namespace {

// RFC 5321 4.5.3.1.4 asks for 512; extensions add to it, and a long ENVID or ORCPT with them.
constexpr size_t kCommandLine = 4096;

bool has_enhanced_code(std::string_view line) {
    return line.size() > 9 && line[5] == '.' && line[4] >= '2' && line[4] <= '5';
}

}  // namespace

SmtpMachine::SmtpMachine(const MachineContext& context, uint64_t connection, std::string peer,
                         std::string local)
    : context_(context),
      connection_(connection),
      peer_(std::move(peer)),
      local_(std::move(local)),
      content_(context.options.keep_content || !context.options.store.empty(), context.options.hash) {}

Flow SmtpMachine::greet(uint32_t open_here, std::string& out) {
    const SinkOptions& options = context_.options;
    if (options.connections_per_mx > 0 && open_here > options.connections_per_mx) {
        ++limited_;
        state_ = State::ended;
        out += "421 4.7.0 Too many connections\r\n";
        return Flow::close;
    }
    const std::string greeting = "220 " + options.hostname + " ESMTP postrider sink\r\n";
    if (context_.rules == nullptr || !context_.rules->has(Point::connect)) {
        out += greeting;
        return Flow::go_on;
    }
    candidate_ = local_.substr(0, local_.rfind(':'));
    const Verdict verdict =
        context_.rules->match(Point::connect, {candidate_, local_}, connection_, open_here);
    if (verdict.action == Action::reply && verdict.reply.starts_with("421")) ++limited_;
    if (verdict.action == Action::none) {
        out += greeting;
        return Flow::go_on;
    }
    carry_out(verdict, greeting, out);
    return std::exchange(flow_, Flow::go_on);
}

Flow SmtpMachine::feed(std::string_view in, std::string& out, int64_t now_us) {
    now_us_ = now_us;
    while (!in.empty() && state_ != State::ended && flow_ == Flow::go_on) {
        if (state_ == State::data) {
            if (!scanner_.feed(in, [this](std::string_view piece) { content_.feed(piece); })) break;
            end_of_content(out);
            if (!context_.options.pipelining && !in.empty()) ++violations_;
            continue;
        }
        if (state_ == State::chunk) {
            chunk(in, out);
            continue;
        }
        const auto* lf = static_cast<const char*>(std::memchr(in.data(), '\n', in.size()));
        const size_t size = lf == nullptr ? in.size() : static_cast<size_t>(lf - in.data()) + 1;
        std::string_view line = in.substr(0, size);
        in.remove_prefix(size);
        if (lf == nullptr || !partial_.empty()) {
            if (partial_.size() + line.size() > kCommandLine) overlong_ = true;
            else partial_.append(line);
            line = partial_;
        }
        if (lf == nullptr) break;
        if (overlong_ || line.size() > kCommandLine) {
            violation("500 5.5.2 Line too long\r\n", out);
        } else if (line.size() < 2 || line[line.size() - 2] != '\r') {
            violation("500 5.5.2 A line ends in CRLF\r\n", out);  // RFC 5321 2.3.8
        } else {
            line.remove_suffix(2);
            command_line(line, in, out);
            if (!context_.options.pipelining && !in.empty() && state_ == State::command) ++violations_;
        }
        partial_.clear();
        overlong_ = false;
    }
    return std::exchange(flow_, Flow::go_on);
}

void SmtpMachine::secured(std::string_view version) {
    tls_ = version;
    helo_.clear();
    extended_ = false;
    partial_.clear();
    clear_transaction();
}

void SmtpMachine::lost(int64_t now_us) {
    now_us_ = now_us;
    if (mail_open_ && state_ != State::ended) tell("aborted", false);
    state_ = State::ended;
}

void SmtpMachine::chunk(std::string_view& in, std::string& out) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(chunk_left_, in.size()));
    if (chunk_wanted_) content_.feed(in.substr(0, size));
    in.remove_prefix(size);
    chunk_left_ -= size;
    if (chunk_left_ > 0) return;
    state_ = State::command;
    end_of_chunk(out);
    if (!context_.options.pipelining && !in.empty()) ++violations_;
}

void SmtpMachine::end_of_chunk(std::string& out) {
    if (!chunk_wanted_) put("503 5.5.1 No transaction for this chunk\r\n", out);  // RFC 3030 2
    else if (chunk_last_) end_of_content(out);
    else put("250 2.0.0 Ok\r\n", out);
}

void SmtpMachine::end_of_content(std::string& out) {
    state_ = State::command;
    content_.finish();
    violations_ += content_.bare_line_ends() > 0;
    const SinkOptions& options = context_.options;
    if (options.size_limit > 0 && content_.size() > options.size_limit) {
        put("552 5.3.4 Message too big\r\n", out);
        tell("552 5.3.4 Message too big", false);
        return;
    }
    reply_line_.clear();
    answer(Point::dot, "250 2.0.0 Ok\r\n", out);
    std::string_view verdict = reply_line_.empty() ? "250 2.0.0 Ok" : std::string_view(reply_line_);
    verdict = verdict.substr(0, verdict.find('\r'));
    const bool accepted = verdict[0] == '2';
    // After a refused chunk nothing but RSET is good (RFC 3030 2); a MAIL sent ahead without it is caught here.
    const bool spoiled = by_bdat_ && !accepted;
    tell(verdict, accepted);
    spoiled_ = spoiled;
}

bool SmtpMachine::answer(Point point, std::string_view usual, std::string& out) {
    if (context_.rules == nullptr || !context_.rules->has(point)) [[likely]] {
        put(usual, out);
        return true;
    }
    const Verdict verdict = context_.rules->match(point, subjects(point), connection_);
    if (verdict.action == Action::none) {
        put(usual, out);
        return true;
    }
    return carry_out(verdict, usual, out);
}

bool SmtpMachine::carry_out(const Verdict& verdict, std::string_view usual, std::string& out) {
    ++rules_applied_;
    reply_line_ = verdict.reply;
    const bool mute = verdict.action == Action::close || verdict.action == Action::reset ||
                      verdict.action == Action::hang;
    if (mute) {
        // With `reply="250 ..."` at the dot the message counts as kept: its 250 is what is lost.
        if (reply_line_.empty()) reply_line_ = "unanswered";
        flow_ = verdict.action == Action::close   ? Flow::drop
                : verdict.action == Action::reset ? Flow::reset
                                                  : Flow::hang;
        return false;
    }
    if (reply_line_.empty()) reply_line_ = usual.substr(0, usual.rfind('\r'));
    if (verdict.action == Action::slow) pace_ = Pace::slow;
    if (verdict.action == Action::reply_split) pace_ = Pace::split;
    if (verdict.action == Action::garbage) out += "*** this is no reply ***\r\n";
    out += reply_line_;
    out += "\r\n";
    if (verdict.action == Action::close_after_reply || reply_line_.starts_with("421"))
        flow_ = Flow::close;  // RFC 5321 3.8
    return reply_line_[0] == usual[0];
}

std::vector<std::string_view> SmtpMachine::subjects(Point point) const {
    if (point != Point::data && point != Point::dot) {
        return {point == Point::rset || point == Point::quit ? std::string_view(helo_)
                                                             : std::string_view(candidate_)};
    }
    std::vector<std::string_view> all;
    size_t begin = 0;
    for (const size_t end : recipient_ends_) {
        all.push_back(std::string_view(recipients_).substr(begin, end - begin));
        begin = end;
    }
    return all;
}

void SmtpMachine::put(std::string_view reply, std::string& out) const {
    if (context_.options.enhanced_status_codes || !has_enhanced_code(reply)) [[likely]] {
        out += reply;
        return;
    }
    out += reply.substr(0, 4);
    out += reply.substr(reply.find(' ', 4) + 1);
}

void SmtpMachine::violation(std::string_view reply, std::string& out) {
    ++violations_;
    put(reply, out);
}

void SmtpMachine::clear_transaction() {
    mail_open_ = false;
    by_bdat_ = false;
    spoiled_ = false;
    sender_.clear();
    mail_parameters_.clear();
    recipients_.clear();
    recipient_ends_.clear();
    refused_recipients_ = 0;
}

void SmtpMachine::tell(std::string_view verdict, bool accepted) {
    SinkTransaction& t = told_;
    t.connection = connection_;
    t.peer = peer_;
    t.local = local_;
    t.helo = helo_;
    t.tls = tls_;
    t.mail_parameters = mail_parameters_;
    t.sender = sender_;
    t.recipients.clear();
    size_t begin = 0;
    for (const size_t end : recipient_ends_) {
        t.recipients.push_back(std::string_view(recipients_).substr(begin, end - begin));
        begin = end;
    }
    t.refused_recipients = refused_recipients_;
    t.size = content_.size();
    t.bdat = by_bdat_;
    t.message_id = content_.message_id();
    t.x_seq = content_.x_seq();
    t.canaries = content_.canaries();
    t.content = content_.kept();
    t.sha256 = content_.sha256();
    t.verdict = verdict;
    t.accepted = accepted;
    t.mail_us = mail_us_;
    t.end_us = now_us_;
    context_.handler->on_transaction(t);
    content_.reset();
    clear_transaction();
}

}  // namespace postrider::sink
