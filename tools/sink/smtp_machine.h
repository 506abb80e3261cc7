// The receiving side of RFC 5321 as a pure state machine: octets in, replies out, split anywhere.
//
// States: command -> (DATA accepted) data -> command
//                 -> (BDAT) chunk -> command                       RFC 3030
//                 -> (QUIT, 421, a rule) ended: input is ignored
// Strict where a sender's fault could hide: a line ends in CRLF only, no blank behind "FROM:", only offered
// parameters. What a correct sender never does is a violation, counted and answered: a bare LF, an overlong line, an
// unknown command, MAIL before EHLO or inside a transaction, content behind DATA before its 354, anything behind
// EHLO, STARTTLS or QUIT in one read (RFC 2920 3.1, RFC 3207 4.2), two commands in one read without PIPELINING.
//
// The machine knows no socket and no clock: the worker tells the time before each feed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/sink/content_watch.h"
#include "tools/sink/data_scanner.h"
#include "tools/sink/rules.h"
#include "tools/sink/sink.h"

namespace postrider::sink {

class TransactionHandler {
  public:
    virtual ~TransactionHandler() = default;
    virtual void on_transaction(const SinkTransaction& transaction) = 0;
};

// What the worker does after the replies are sent.
enum class Flow : uint8_t {
    go_on,
    starttls,     // the reply in clear, then the handshake, then `secured`
    close,        // replies, then FIN
    drop,         // replies of earlier commands, then FIN
    reset,        // RST
    hang          // answer nothing more
};

// How replies leave from now on.
enum class Pace : uint8_t { whole, split, slow };

struct MachineContext {
    const SinkOptions& options;
    RuleSet* rules = nullptr;  // null without rules
    TransactionHandler* handler = nullptr;
    bool tls_available = false;
};

class SmtpMachine {
  public:
    SmtpMachine(const MachineContext& context, uint64_t connection, std::string peer, std::string local);

    // The greeting, or what a rule or a limit makes of it. `open_here`: connections open on the local address.
    Flow greet(uint32_t open_here, std::string& out);
    // Consumes all of `in` unless the flow changes; replies are appended to `out`.
    Flow feed(std::string_view in, std::string& out, int64_t now_us);
    // After the handshake: all knowledge of the client is forgotten (RFC 3207 4.2).
    void secured(std::string_view version);
    // The connection is gone: an open transaction is told as aborted.
    void lost(int64_t now_us);

    Pace pace() const { return pace_; }
    uint64_t connection() const { return connection_; }
    std::string_view peer() const { return peer_; }
    std::string_view local() const { return local_; }
    std::string_view tls() const { return tls_; }
    // Counted since the last call.
    uint64_t take_violations() { return std::exchange(violations_, 0); }
    uint64_t take_rules_applied() { return std::exchange(rules_applied_, 0); }
    uint64_t take_limited() { return std::exchange(limited_, 0); }

  private:
    enum class State : uint8_t { command, data, chunk, ended };

    void command_line(std::string_view line, std::string_view& rest, std::string& out);
    void helo(std::string_view line, bool extended, std::string& out);
    void starttls(std::string_view& rest, std::string& out);
    void mail(std::string_view line, std::string& out);
    void rcpt(std::string_view line, std::string& out);
    void data(std::string_view rest, std::string& out);
    void bdat(std::string_view line, std::string& out);
    void rset(std::string& out);
    void quit(std::string_view& rest, std::string& out);
    void chunk(std::string_view& in, std::string& out);
    void end_of_chunk(std::string& out);
    void end_of_content(std::string& out);

    // Puts `usual` or what a rule says instead; true when a reply of the class of `usual` was put.
    bool answer(Point point, std::string_view usual, std::string& out);
    bool carry_out(const Verdict& verdict, std::string_view usual, std::string& out);
    std::vector<std::string_view> subjects(Point point) const;
    void put(std::string_view reply, std::string& out) const;
    void violation(std::string_view reply, std::string& out);
    bool good_mail_parameters(std::string_view parameters, std::string& out);
    bool good_rcpt_parameters(std::string_view parameters) const;
    void clear_transaction();
    void tell(std::string_view verdict, bool accepted);

    MachineContext context_;
    uint64_t connection_;
    std::string peer_, local_, helo_, tls_;
    int64_t now_us_ = 0;
    State state_ = State::command;
    Flow flow_ = Flow::go_on;
    Pace pace_ = Pace::whole;
    std::string partial_;  // a command line begun in an earlier read
    bool overlong_ = false;
    bool extended_ = false;

    bool mail_open_ = false;
    int64_t mail_us_ = 0;
    uint64_t mails_ = 0;
    std::string sender_, mail_parameters_;
    std::string candidate_;        // the forward-path or name a rule is asked about
    std::string recipients_;       // accepted forward-paths, one behind the other
    std::vector<size_t> recipient_ends_;
    uint64_t refused_recipients_ = 0;
    SinkTransaction told_;         // reused, so that its vector keeps its room

    DataScanner scanner_;
    ContentWatch content_;
    bool by_bdat_ = false;         // this transaction has seen BDAT
    bool spoiled_ = false;         // a chunk was refused: only RSET helps
    bool chunk_last_ = false, chunk_wanted_ = false;
    uint64_t chunk_left_ = 0;
    std::string reply_line_;       // of a rule

    uint64_t violations_ = 0, rules_applied_ = 0, limited_ = 0;
};

}  // namespace postrider::sink
