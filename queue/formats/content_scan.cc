#include "queue/formats/content_scan.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <bit>

#include "engine/core/limits.h"
#include "queue/formats/content_kernel.h"

namespace postrider {
namespace {

struct Special {
    size_t at = 0;           // of the first CR, LF or NUL, or `size`
    bool eight_bit = false;  // among the octets before it
};

Special find_special(const char* data, size_t size) {
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), zero = _mm_setzero_si128();
    Special found;
    for (; found.at + 16 <= size; found.at += 16) {
        const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + found.at));
        const __m128i any =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(here, cr), _mm_cmpeq_epi8(here, lf)),
                         _mm_cmpeq_epi8(here, zero));
        const auto special = static_cast<unsigned>(_mm_movemask_epi8(any));
        const auto high = static_cast<unsigned>(_mm_movemask_epi8(here));
        if (special != 0) {
            const auto first = static_cast<unsigned>(std::countr_zero(special));
            found.eight_bit |= (high & ((1u << first) - 1)) != 0;
            found.at += first;
            return found;
        }
        found.eight_bit |= high != 0;
    }
    for (; found.at < size; ++found.at) {
        const char c = data[found.at];
        if (c == '\r' || c == '\n' || c == '\0') break;
        found.eight_bit |= static_cast<signed char>(c) < 0;
    }
    return found;
}

}  // namespace

Error error_at(uint64_t line, uint64_t offset, std::string_view what) {
    return Error{0, fmt::format("line {}, offset {}: {}", line, offset, what)};
}

void ContentScan::begin(StoredForm form, const ContentRules& rules, uint64_t offset,
                        uint64_t line) {
    *this = ContentScan{};
    state_ = State::line_start;
    form_ = form;
    last_end_crlf_ = form != StoredForm::stuffed_lf;
    long_lines_send_ = rules.long_lines_send;
    max_size_ = rules.max_message_size;
    begin_ = offset_ = line_begin_ = offset;
    line_ = line;
}

void ContentScan::note(Problem problem, uint64_t at) {
    if (problem_ != Problem::none) return;  // the first one tells where to begin mending
    problem_ = problem;
    problem_offset_ = at;
    problem_line_ = line_;
}

// `at` is the offset of the line end's first octet.
void ContentScan::take_line_end(bool crlf, uint64_t at) {
    if (at - line_begin_ > limits::kLine && !long_lines_send_)
        note(Problem::long_line, line_begin_);
    if (!crlf) ++bare_lfs_;
    last_end_crlf_ = crlf;
    line_begin_ = at + (crlf ? 2 : 1);
    ++line_;
    // RFC 5321 2.3.8: only CRLF ends a line; here also where dots were stuffed.
    state_ = !crlf && form_ == StoredForm::stuffed_crlf ? State::bare_start : State::line_start;
}

// In the middle of text, or where a line begins: whole chunks by the kernel. Returns the new index.
size_t ContentScan::feed_clean(const char* data, size_t i, size_t size) {
    const uint64_t at = offset_ + i;
    // A long line would only be refused by the kernel again and again.
    const uint64_t crossed = (at - line_begin_ + kContentChunk - 1) / kContentChunk;
    clean_from_ = i + kContentChunk;
    if (crossed > kContentChunksInLine) return i;
    const ContentKernels& kernels = content_kernels();
    const CleanRun clean =
        (last_end_crlf_ ? kernels.crlf : kernels.lf)(data + i, size - i, crossed);
    if (clean.size == 0) return i;
    i += clean.size;
    clean_from_ = i + kContentChunk;
    eight_bit_ |= clean.eight_bit;
    line_ += clean.lines;
    if (!last_end_crlf_) bare_lfs_ += clean.lines;
    if (clean.lines > 0) {
        size_t begin = i;
        while (data[begin - 1] != '\n') --begin;
        line_begin_ = offset_ + begin;
    }
    state_ = State::text;
    if (data[i - 1] == '\r') state_ = State::cr;
    if (data[i - 1] == '\n') {
        state_ = !last_end_crlf_ && form_ == StoredForm::stuffed_crlf ? State::bare_start
                                                                      : State::line_start;
    }
    return i;
}

// In State::text. Returns the new index.
size_t ContentScan::feed_text(const char* data, size_t i, size_t size) {
    const Special special = find_special(data + i, size - i);
    eight_bit_ |= special.eight_bit;
    i += special.at;
    if (i == size) return i;
    switch (data[i]) {
        case '\n':
            take_line_end(false, offset_ + i);
            break;
        case '\r':
            state_ = State::cr;
            break;
        default:
            note(Problem::nul, offset_ + i);
            break;
    }
    return i + 1;
}

size_t ContentScan::feed(const char* data, size_t size) {
    size_t i = 0;
    clean_from_ = 1;  // the kernel looks one octet back
    while (i < size && state_ != State::ended && state_ != State::broken) {
        const bool at_text = state_ <= State::bare_start || state_ == State::text;
        // Where a line begins the kernel is right about a first dot only if it sees the line end
        // before it.
        if (at_text && i >= clean_from_ && size - i >= kContentChunk) {
            const size_t before = i;
            i = feed_clean(data, i, size);
            if (i != before) continue;
        }
        const char c = data[i];
        switch (state_) {
            case State::text:
                i = feed_text(data, i, size);
                break;
            case State::line_start:
                if (c == '.' && form_ != StoredForm::plain) {
                    state_ = State::dot;
                    dot_line_ = offset_ + i;
                    ++i;
                    break;
                }
                [[fallthrough]];
            case State::bare_start:
                dots_ |= c == '.';
                state_ = State::text;
                break;
            case State::dot:
                if (c == '\n') {
                    state_ = form_ == StoredForm::stuffed_lf ? State::ended : State::broken;
                    ++i;
                } else if (c == '\r') {
                    state_ = State::dot_cr;
                    ++i;
                } else {
                    // RFC 5321 4.5.2: a first dot with other characters behind it is taken away.
                    // What begins with a dot as it is stored may not go out by BDAT as it lies.
                    dots_ = true;
                    ++stuffed_;
                    ++line_begin_;
                    state_ = State::text;
                }
                break;
            case State::dot_cr:
                if (c == '\n') {
                    state_ = form_ == StoredForm::stuffed_crlf ? State::ended : State::broken;
                    ++i;
                    break;
                }
                dots_ = true;
                ++stuffed_;
                ++line_begin_;
                [[fallthrough]];
            case State::cr:
                if (c == '\n' && state_ == State::cr) {
                    take_line_end(true, offset_ + i - 1);
                    ++i;
                } else {
                    note(Problem::bare_cr, offset_ + i - 1);
                    state_ = State::text;
                }
                break;
            case State::ended:
            case State::broken:
                break;
        }
    }
    offset_ += i;
    if (state_ == State::ended) ++line_;
    return i;
}

Result<void> ContentScan::finish(Content& content) {
    const uint64_t end = form_ == StoredForm::plain ? offset_ : dot_line_;
    bool complete = true;
    if (form_ == StoredForm::plain) {
        if (state_ == State::cr) note(Problem::bare_cr, offset_ - 1);
        complete = state_ == State::line_start;
        if (!complete) {
            if (end - line_begin_ > limits::kLine && !long_lines_send_)
                note(Problem::long_line, line_begin_);
        }
    }
    const bool empty = end == begin_;
    content.stored = Range{begin_, end - begin_};
    content.form = form_;
    content.eight_bit = eight_bit_;
    content.dots = dots_;
    content.crlf_only = complete && bare_lfs_ == 0;
    content.wire_size = end - begin_ - stuffed_ + bare_lfs_ + (complete || empty ? 0 : 2);
    state_ = State::ended;
    switch (problem_) {
        case Problem::none:
            break;
        case Problem::bare_cr:
            return std::unexpected(error_at(problem_line_, problem_offset_,
                                            "a CR without LF; end every line with CRLF or LF"));
        case Problem::nul:
            return std::unexpected(
                error_at(problem_line_, problem_offset_, "a NUL; send binary data as base64"));
        case Problem::long_line:
            return std::unexpected(error_at(
                problem_line_, problem_offset_,
                "a line over 998 octets; encode the part as quoted-printable or base64, or set "
                "[content] long_lines = \"send\""));
    }
    if (empty)
        return std::unexpected(error_at(line_, begin_, "the message is empty; give it a header"));
    if (max_size_ != 0 && content.wire_size > max_size_) {
        return std::unexpected(
            error_at(line_, begin_,
                     fmt::format("the message has {} octets, {} are allowed; make it smaller",
                                 content.wire_size, max_size_)));
    }
    return {};
}

}  // namespace postrider
