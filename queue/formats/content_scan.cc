#include "queue/formats/content_scan.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <bit>

#include "engine/core/limits.h"

namespace postrider {
namespace {

constexpr size_t kChunk = 128;
// A line that spans at most this many chunks without a line end, and the pieces around them, has less than
// 998 octets; a longer one is left to the exact machine.
constexpr size_t kChunksInLine = 5;
static_assert(kChunk * (kChunksInLine + 2) <= limits::kLine);

struct Clean {
    size_t size = 0;   // octets, whole chunks, that hold nothing to look at
    uint64_t lines = 0;
    bool eight_bit = false;
};

// The kernels look at each octet beside the one before it, so data[-1] must be readable. `run`: chunks that
// the current line has already crossed. With Crlf every CR must be followed by LF and every LF preceded
// by CR; without it there must be no CR.
template <bool Crlf>
__attribute__((target("avx2"))) Clean clean_avx2(const char* data, size_t size, size_t run) {
    const __m256i cr = _mm256_set1_epi8('\r'), lf = _mm256_set1_epi8('\n'), dot = _mm256_set1_epi8('.');
    const __m256i zero = _mm256_setzero_si256();
    Clean clean;
    __m256i high_all = zero;
    for (; clean.size + kChunk <= size; clean.size += kChunk) {
        __m256i wrong = zero, high = zero, least = _mm256_set1_epi8(-1), ends = zero;
        for (size_t k = 0; k < kChunk; k += 32) {
            const char* p = data + clean.size + k;
            const __m256i before = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p - 1));
            const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
            const __m256i end = _mm256_cmpeq_epi8(here, lf);
            const __m256i pair = Crlf ? _mm256_xor_si256(_mm256_cmpeq_epi8(before, cr), end)
                                      : _mm256_cmpeq_epi8(here, cr);
            const __m256i dotted =
                _mm256_and_si256(_mm256_cmpeq_epi8(before, lf), _mm256_cmpeq_epi8(here, dot));
            wrong = _mm256_or_si256(wrong, _mm256_or_si256(pair, dotted));
            least = _mm256_min_epu8(least, here);
            high = _mm256_or_si256(high, here);
            ends = _mm256_sub_epi8(ends, end);
        }
        wrong = _mm256_or_si256(wrong, _mm256_cmpeq_epi8(least, zero));
        const __m256i sums = _mm256_sad_epu8(ends, zero);
        const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        const auto lines = static_cast<uint64_t>(_mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1));
        run = lines == 0 ? run + 1 : 0;
        if (!_mm256_testz_si256(wrong, wrong) || run > kChunksInLine) break;
        clean.lines += lines;
        high_all = _mm256_or_si256(high_all, high);
    }
    clean.eight_bit = _mm256_movemask_epi8(high_all) != 0;
    return clean;
}

// The same by 16 octets, for a machine without AVX2.
template <bool Crlf>
Clean clean_sse(const char* data, size_t size, size_t run) {
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), dot = _mm_set1_epi8('.');
    const __m128i zero = _mm_setzero_si128();
    Clean clean;
    __m128i high_all = zero;
    for (; clean.size + kChunk <= size; clean.size += kChunk) {
        __m128i wrong = zero, high = zero, least = _mm_set1_epi8(-1), ends = zero;
        for (size_t k = 0; k < kChunk; k += 16) {
            const char* p = data + clean.size + k;
            const __m128i before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p - 1));
            const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
            const __m128i end = _mm_cmpeq_epi8(here, lf);
            const __m128i pair =
                Crlf ? _mm_xor_si128(_mm_cmpeq_epi8(before, cr), end) : _mm_cmpeq_epi8(here, cr);
            const __m128i dotted = _mm_and_si128(_mm_cmpeq_epi8(before, lf), _mm_cmpeq_epi8(here, dot));
            wrong = _mm_or_si128(wrong, _mm_or_si128(pair, dotted));
            least = _mm_min_epu8(least, here);
            high = _mm_or_si128(high, here);
            ends = _mm_sub_epi8(ends, end);
        }
        wrong = _mm_or_si128(wrong, _mm_cmpeq_epi8(least, zero));
        const __m128i sums = _mm_sad_epu8(ends, zero);
        const auto lines = static_cast<uint64_t>(_mm_cvtsi128_si64(sums) + _mm_extract_epi64(sums, 1));
        run = lines == 0 ? run + 1 : 0;
        if (!_mm_testz_si128(wrong, wrong) || run > kChunksInLine) break;
        clean.lines += lines;
        high_all = _mm_or_si128(high_all, high);
    }
    clean.eight_bit = _mm_movemask_epi8(high_all) != 0;
    return clean;
}

using Kernel = Clean (*)(const char*, size_t, size_t);
struct Kernels {
    Kernel crlf, lf;
};
// Chosen once, before main: the choice is a constant of the machine.
const Kernels kKernels = __builtin_cpu_supports("avx2") ? Kernels{clean_avx2<true>, clean_avx2<false>}
                                                        : Kernels{clean_sse<true>, clean_sse<false>};

struct Special {
    size_t at = 0;  // of the first CR, LF or NUL, or `size`
    bool eight_bit = false;  // among the octets before it
};

Special find_special(const char* data, size_t size) {
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), zero = _mm_setzero_si128();
    Special found;
    for (; found.at + 16 <= size; found.at += 16) {
        const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + found.at));
        const __m128i any = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(here, cr), _mm_cmpeq_epi8(here, lf)),
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

void ContentScan::begin(StoredForm form, const ContentRules& rules, uint64_t offset, uint64_t line) {
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
    if (at - line_begin_ > limits::kLine && !long_lines_send_) note(Problem::long_line, line_begin_);
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
    const uint64_t crossed = (at - line_begin_ + kChunk - 1) / kChunk;
    clean_from_ = i + kChunk;
    if (crossed > kChunksInLine) return i;
    const Kernel kernel = last_end_crlf_ ? kKernels.crlf : kKernels.lf;
    const Clean clean = kernel(data + i, size - i, crossed);
    if (clean.size == 0) return i;
    i += clean.size;
    clean_from_ = i + kChunk;
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
        state_ = !last_end_crlf_ && form_ == StoredForm::stuffed_crlf ? State::bare_start : State::line_start;
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
        case '\n': take_line_end(false, offset_ + i); break;
        case '\r': state_ = State::cr; break;
        default: note(Problem::nul, offset_ + i); break;
    }
    return i + 1;
}

size_t ContentScan::feed(const char* data, size_t size) {
    size_t i = 0;
    clean_from_ = 1;  // the kernel looks one octet back
    while (i < size && state_ != State::ended && state_ != State::broken) {
        const bool at_text = state_ <= State::bare_start || state_ == State::text;
        // Where a line begins the kernel is right about a first dot only if it sees the line end before it.
        if (at_text && i >= clean_from_ && size - i >= kChunk) {
            const size_t before = i;
            i = feed_clean(data, i, size);
            if (i != before) continue;
        }
        const char c = data[i];
        switch (state_) {
            case State::text: i = feed_text(data, i, size); break;
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
                    // RFC 5321 4.5.2: a first dot with other characters behind it is taken away. What
                    // begins with a dot as it is stored may not go out by BDAT as it lies.
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
            case State::broken: break;
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
            if (end - line_begin_ > limits::kLine && !long_lines_send_) note(Problem::long_line, line_begin_);
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
        case Problem::none: break;
        case Problem::bare_cr:
            return std::unexpected(error_at(problem_line_, problem_offset_,
                                            "a CR without LF; end every line with CRLF or LF"));
        case Problem::nul:
            return std::unexpected(error_at(problem_line_, problem_offset_,
                                            "a NUL; send binary data as base64"));
        case Problem::long_line:
            return std::unexpected(error_at(
                problem_line_, problem_offset_,
                "a line over 998 octets; encode the part as quoted-printable or base64, or set "
                "[content] long_lines = \"send\""));
    }
    if (empty) return std::unexpected(error_at(line_, begin_, "the message is empty; give it a header"));
    if (max_size_ != 0 && content.wire_size > max_size_) {
        return std::unexpected(error_at(
            line_, begin_, fmt::format("the message has {} octets, {} are allowed; make it smaller",
                                       content.wire_size, max_size_)));
    }
    return {};
}

}  // namespace postrider
