#include "engine/smtp/transparency.h"

#include <emmintrin.h>

#include <algorithm>

#include "engine/core/check.h"

namespace postrider {

void ContentEncoder::begin(const Content& content, WireForm wire) {
    removed_ = content.removed;
    first_ = position_ = content.stored.offset;
    wire_size_ = 0;
    stuff_ = wire == WireForm::data;
    destuff_ = content.form != StoredForm::plain;
    bare_lf_frames_ = content.form == StoredForm::stuffed_lf;
    pending_cr_ = broken_ = false;
    stored_line_start_ = wire_line_start_ = true;
}

ContentEncoder::Progress ContentEncoder::encode(std::span<const char> in, std::span<char> out) {
    Progress total;
    while (!in.empty() && !broken_) {
        while (!removed_.empty() && position_ >= removed_.front().offset + removed_.front().size)
            removed_ = removed_.subspan(1);
        Progress step;
        if (!removed_.empty() && position_ >= removed_.front().offset) {
            const uint64_t end = removed_.front().offset + removed_.front().size;
            step.consumed = static_cast<size_t>(std::min<uint64_t>(end - position_, in.size()));
        } else {
            const uint64_t kept =
                removed_.empty() ? in.size() : removed_.front().offset - position_;
            step = encode_segment(in.first(static_cast<size_t>(std::min<uint64_t>(kept, in.size()))),
                                  out);
            if (step.consumed == 0) break;  // no room
        }
        position_ += step.consumed;
        total.consumed += step.consumed;
        total.produced += step.produced;
        in = in.subspan(step.consumed);
        out = out.subspan(step.produced);
    }
    return total;
}

// Octets between two removed ranges. Inside a line the clean stretch is copied 16 octets at a time; the first octet
// of a line and every line end that is not CRLF go through encode_octet(), which alone knows the rules.
ContentEncoder::Progress ContentEncoder::encode_segment(std::span<const char> in,
                                                        std::span<char> out) {
    const char* from = in.data();
    const char* const in_end = from + in.size();
    char* to = out.data();
    char* const out_end = to + out.size();
    while (from < in_end) {
        if (!encode_octet(*from, to, out_end)) break;
        ++from;
        if (wire_line_start_ || pending_cr_ || from == in_end) continue;
        const size_t copied = copy_clean(from, static_cast<size_t>(in_end - from), to,
                                         static_cast<size_t>(out_end - to));
        from += copied;
        to += copied;
    }
    return {static_cast<size_t>(from - in.data()), static_cast<size_t>(to - out.data())};
}

// False: no room, or broken; nothing was taken.
bool ContentEncoder::encode_octet(char octet, char*& out, const char* out_end) {
    if (out_end - out < 2) return false;
    if (octet == '\n') {
        *out++ = '\r';
        *out++ = '\n';
        wire_size_ += 2;
        stored_line_start_ = pending_cr_ || !destuff_ || bare_lf_frames_;
        wire_line_start_ = true;
        pending_cr_ = false;
        return true;
    }
    if (pending_cr_) {  // RFC 5321 2.3.8: a CR goes out only before an LF
        broken_ = true;
        return false;
    }
    if (octet == '\r') {
        pending_cr_ = true;
        return true;
    }
    const bool dot = octet == '.';
    if (dot && stored_line_start_ && destuff_) {  // RFC 5321 4.5.2, as a receiver
        stored_line_start_ = false;
        return true;
    }
    if (dot && wire_line_start_ && stuff_) *out++ = '.';  // RFC 5321 4.5.2, as a sender
    *out++ = octet;
    ++wire_size_;
    stored_line_start_ = wire_line_start_ = false;
    return true;
}

// Copies octets of which none needs encode_octet(); in[-1] is an octet of the same line, not CR. Stops before an LF
// without CR, behind a CR without LF, before a dot at the begin of a line. Leaves the state as after the last octet
// copied, which is never a CR.
size_t ContentEncoder::copy_clean(const char* in, size_t in_size, char* out, size_t out_size) {
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i cr = _mm_set1_epi8('\r');
    const __m128i dot = _mm_set1_epi8('.');
    const __m128i dots_matter = _mm_set1_epi8(stuff_ || destuff_ ? -1 : 0);
    const size_t most = std::min(in_size, out_size);
    size_t at = 0;
    while (at + 16 <= most) {
        const auto now = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at));
        const auto before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at - 1));
        // Line ends that are no CRLF: an LF where the octet before is no CR, or the other way round.
        const __m128i torn = _mm_xor_si128(_mm_cmpeq_epi8(now, lf), _mm_cmpeq_epi8(before, cr));
        const __m128i first = _mm_and_si128(_mm_cmpeq_epi8(before, lf), dots_matter);
        const __m128i events = _mm_or_si128(torn, _mm_and_si128(first, _mm_cmpeq_epi8(now, dot)));
        const auto mask = static_cast<unsigned>(_mm_movemask_epi8(events));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), now);
        if (mask != 0) {
            at += static_cast<size_t>(__builtin_ctz(mask));
            break;
        }
        at += 16;
    }
    if (at > 0 && in[at - 1] == '\r') --at;
    if (at > 0) {
        wire_size_ += at;
        wire_line_start_ = stored_line_start_ = in[at - 1] == '\n';
    }
    return at;
}

size_t ContentEncoder::finish(std::span<char> out) {
    POSTRIDER_CHECK(out.size() >= kFinishRoom, "the end of the content needs its room");
    char* to = out.data();
    if (pending_cr_) broken_ = true;
    if (broken_) return 0;
    if (!wire_line_start_) {
        *to++ = '\r';
        *to++ = '\n';
        wire_size_ += 2;
        wire_line_start_ = true;
    }
    if (stuff_) {
        *to++ = '.';
        *to++ = '\r';
        *to++ = '\n';
    }
    return static_cast<size_t>(to - out.data());
}

}  // namespace postrider
