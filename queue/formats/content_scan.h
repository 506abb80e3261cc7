// One pass over the content of a message: what RFC 5321 2.3.8 and RFC 5322 2.1.1 forbid, and what
// MAIL and the sender want to know beforehand (size on the wire, 8-bit, may it go as it lies). In a
// batch file the same pass finds the final dot. Pure: octets in, facts out; no octet is kept, so
// any size streams.
//
// Two tiers. Clean text (each line ends alike, no line begins with a dot, nothing forbidden) is
// taken 128 octets at a time by a SIMD kernel; whatever is not clean goes octet by special octet
// through the exact state machine, which alone decides. The kernel only ever says "nothing to see
// in these".
//
// Dots: a batch file stuffs them after its own line end only. After a bare LF of a CRLF file a dot
// is content, so `LF . LF` and `LF . CRLF` never end a message there (FAULTS 39, 41), and a dot
// line that ends with the other ending is a broken frame, never a guess.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/core/result.h"
#include "queue/message.h"

namespace postrider {

struct ContentRules {
    bool long_lines_send = false;   // [content] long_lines = "send": lines over 998 octets pass
    uint64_t max_message_size = 0;  // octets on the wire; 0: no limit
};

class ContentScan {
  public:
    // `form` says where dots are stuffed and how the content ends: `plain` ends with its file, the
    // others with a dot line. `offset` and `line` (counted from 1) are where the content begins in
    // the file.
    void begin(StoredForm form, const ContentRules& rules, uint64_t offset, uint64_t line);

    // Takes octets up to the end of the dot line, or all of them; returns how many were taken.
    size_t feed(const char* data, size_t size);

    bool ended() const { return state_ == State::ended; }
    // What was taken refuses the message already: finish() tells why.
    bool refused() const { return problem_ != Problem::none; }
    // A dot line with the other ending: the file is refused, its frame cannot be trusted.
    bool frame_broken() const { return state_ == State::broken; }
    uint64_t offset() const { return offset_; }  // of the next octet in the file
    uint64_t line() const { return line_; }      // of the next octet

    // Content is over: fills every field of `content` but `removed`. An error refuses the message:
    // "line 7, offset 123: bare CR; end lines with CRLF or LF only".
    Result<void> finish(Content& content);

  private:
    enum class State : uint8_t {
        line_start,  // behind a line end that the frame counts, or at the beginning
        bare_start,  // behind a bare LF of a CRLF file: a line for the receiver, not for the frame
        dot,         // a frame's line began with a dot
        dot_cr,      // and CR follows
        text,
        cr,  // a CR waits for its LF
        ended,
        broken,
    };
    enum class Problem : uint8_t { none, bare_cr, nul, long_line };

    size_t feed_text(const char* data, size_t i, size_t size);
    size_t feed_clean(const char* data, size_t i, size_t size);
    void take_line_end(bool crlf, uint64_t at);
    void note(Problem problem, uint64_t at);

    State state_ = State::ended;
    StoredForm form_ = StoredForm::plain;
    Problem problem_ = Problem::none;
    bool long_lines_send_ = false;
    bool eight_bit_ = false;
    bool dots_ = false;
    bool last_end_crlf_ = true;  // which kernel to try
    uint64_t max_size_ = 0;
    uint64_t begin_ = 0;  // of the content
    uint64_t offset_ = 0;
    uint64_t line_ = 1;
    uint64_t line_begin_ = 0;  // of the current line, its stuffed dot not counted
    uint64_t dot_line_ = 0;    // offset of the dot line, where stored content ends
    uint64_t bare_lfs_ = 0;
    uint64_t stuffed_ = 0;
    uint64_t problem_offset_ = 0;
    uint64_t problem_line_ = 0;
    size_t clean_from_ = 0;  // index in the block before which the kernel need not be tried again
};

// One line that refuses: "line 7, offset 123: what; how to mend".
Error error_at(uint64_t line, uint64_t offset, std::string_view what);

}  // namespace postrider
