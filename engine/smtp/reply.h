// SMTP replies, RFC 5321 4.2: an incremental parser over whatever the connection delivers.
//
// The parser reads octets until one reply is whole and leaves the rest to the caller. How the octets are cut
// into blocks never changes the result (FAULTS 21). What is not a reply by the table of RFC 5321 4.2 is `bad`,
// and a bad reply ends the session: a reply stream out of step is the worst loss there is. The text is kept
// as it came, bounded; it goes to a log only through log_text().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace postrider {

// RFC 3463 2, "5.1.1"; class 0 when the reply had none.
struct EnhancedCode {
    uint8_t class_ = 0;
    uint16_t subject = 0;
    uint16_t detail = 0;

    bool present() const { return class_ != 0; }
    bool operator==(const EnhancedCode&) const = default;
};

// "5.1.1 text" -> the code, and `rest` set to the text behind it. Absent or malformed: class 0, rest == text.
EnhancedCode parse_enhanced_code(std::string_view text, std::string_view& rest);

struct Reply {
    uint16_t code = 0;      // 200..599; the first digit decides (FAULTS 22)
    EnhancedCode enhanced;  // of the first line that has one
    std::string text;       // lines without the code, joined by '\n'; raw octets of the peer

    bool positive() const { return code / 100 == 2; }
    bool intermediate() const { return code / 100 == 3; }
    bool transient() const { return code / 100 == 4; }
    bool permanent() const { return code / 100 == 5; }
    bool operator==(const Reply&) const = default;
};

enum class ReplyState : uint8_t { partial, complete, bad };

enum class ReplyFault : uint8_t {
    none,
    not_a_reply,      // FAULTS 15, 17: no three digits 200..599, or no SP, HYPHEN, end of line behind them
    different_codes,  // FAULTS 18: a multi-line reply changes its code
    too_long,         // FAULTS 19: more than limits::kReplyTotal octets
};
std::string_view name_of(ReplyFault fault);

class ReplyParser {
  public:
    struct Progress {
        size_t consumed = 0;  // octets of the block that belong to this reply
        ReplyState state = ReplyState::partial;
    };

    // After `complete` the next call begins a new reply; after `bad` the parser stays bad until reset().
    // A partial reply consumes the whole block; an empty block changes nothing.
    Progress feed(std::string_view block);

    // The finished reply (or the bad one, as far as it was read), until the next feed().
    const Reply& reply() const { return reply_; }
    ReplyFault fault() const { return fault_; }
    // True between replies: nothing of a next reply was read.
    bool idle() const { return total_ == 0; }
    void reset();

  private:
    void start();
    ReplyState line(std::string_view text);
    Progress bad(ReplyFault fault, size_t consumed);

    Reply reply_;
    std::string line_;  // begin of a line that was cut by a block's end, at most limits::kReplyLine octets
    size_t total_ = 0;
    bool finished_ = false;  // reply_ was handed out
    ReplyFault fault_ = ReplyFault::none;
};

// One printable line for the log (FAULTS 20): controls and octets that are no UTF-8 become '?', line ends become
// one space, enhanced codes at the head of a line are dropped, at most limits::kReplyLogged octets.
// Assigned to `out`, whose capacity is reused.
void log_text(const Reply& reply, std::string& out);

// The same censorship for other text of a peer or of the system, appended until `out` has limits::kReplyLogged octets.
void append_printable(std::string_view text, std::string& out);

}  // namespace postrider
