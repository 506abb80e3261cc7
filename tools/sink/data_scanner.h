// The end of mail data, found in pieces of any size (RFC 5321 4.1.1.4, 4.5.2): CRLF "." CRLF ends it, and the
// first dot of any other line that begins with one is removed. Only CRLF ends a line: a bare LF or CR is content
// (RFC 5321 2.3.8), which is what keeps a hidden "LF.LF" or "LF.CRLF" from ending a message.
//
// The state is what the octets before the next one were; nothing is withheld but a CR behind a line's first dot.
#pragma once

#include <cstdint>
#include <string_view>

namespace postrider::sink {

// Points at the "." of the first CRLF "." inside [begin, end), or at `end`. By AVX2 where the machine has it: a
// message is mostly this scan.
const char* find_line_dot(const char* begin, const char* end);

class DataScanner {
  public:
    void reset() { state_ = State::line_start; }

    // Consumes from `in`; `on_content(std::string_view)` gets the content piece by piece, in order. True when
    // the final dot was consumed; the rest of `in` is then commands.
    template <class OnContent>
    bool feed(std::string_view& in, OnContent&& on_content) {
        const char* p = in.data();
        const char* const end = p + in.size();
        bool done = false;
        while (p < end && !done) {
            switch (state_) {
                case State::line_start:
                    if (*p == '.') ++p, state_ = State::dot;
                    else state_ = State::inside;
                    break;
                case State::dot:
                    if (*p == '\r') ++p, state_ = State::dot_cr;
                    else state_ = State::inside;
                    break;
                case State::dot_cr:
                    if (*p == '\n') ++p, done = true;
                    else on_content(std::string_view("\r")), state_ = State::inside;
                    break;
                case State::cr:
                    if (*p == '\n') on_content(std::string_view(p++, 1)), state_ = State::line_start;
                    else state_ = State::inside;
                    break;
                case State::inside: p = run(p, end, on_content); break;
            }
        }
        in.remove_prefix(static_cast<size_t>(p - in.data()));
        return done;
    }

  private:
    enum class State : uint8_t { line_start, dot, dot_cr, cr, inside };

    template <class OnContent>
    const char* run(const char* p, const char* end, OnContent&& on_content) {
        const char* const stop = find_line_dot(p, end);
        on_content(std::string_view(p, static_cast<size_t>(stop - p)));
        if (stop < end || (end - p >= 2 && end[-1] == '\n' && end[-2] == '\r'))
            state_ = State::line_start;
        else if (end[-1] == '\r')
            state_ = State::cr;
        return stop;
    }

    State state_ = State::line_start;
};

}  // namespace postrider::sink
