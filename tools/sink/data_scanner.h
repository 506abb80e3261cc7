// The end of mail data, found in pieces of any size (RFC 5321 4.1.1.4, 4.5.2): CRLF "." CRLF ends it, and the
// first dot of any other line that begins with one is removed. Only CRLF ends a line: a bare LF or CR is content
// (RFC 5321 2.3.8), which is what keeps a hidden "LF.LF" or "LF.CRLF" from ending a message.
//
// The state is what the octets before the next one were; nothing is withheld but a CR behind a line's first dot.
#pragma once

#include <emmintrin.h>

#include <cstdint>
#include <string_view>

namespace postrider::sink {

// Points at the "." of the first CRLF "." inside [begin, end), or at `end`.
inline const char* find_line_dot(const char* begin, const char* end) {
    // The pair LF "." is rare in any text, so it is looked for sixteen places at a time and the CR checked after.
    const char* p = begin;
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i dot = _mm_set1_epi8('.');
    while (end - p >= 17) {
        const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 1));
        auto hits = static_cast<unsigned>(_mm_movemask_epi8(
            _mm_and_si128(_mm_cmpeq_epi8(here, lf), _mm_cmpeq_epi8(next, dot))));
        while (hits != 0) {
            const char* at = p + __builtin_ctz(hits);
            if (at > begin && at[-1] == '\r') return at + 1;
            hits &= hits - 1;
        }
        p += 16;
    }
    for (; end - p >= 2; ++p)
        if (p[0] == '\n' && p[1] == '.' && p > begin && p[-1] == '\r') return p + 1;
    return end;
}

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
