#include "tools/sink/data_scanner.h"

#include <immintrin.h>

namespace postrider::sink {

namespace {

// The pair LF "." is rare in any text, so it is looked for many places at a time and the CR checked after.
const char* confirm(const char* begin, const char* block, unsigned hits) {
    for (; hits != 0; hits &= hits - 1) {
        const char* const lf = block + __builtin_ctz(hits);
        if (lf > begin && lf[-1] == '\r') return lf + 1;
    }
    return nullptr;
}

const char* scan_rest(const char* begin, const char* p, const char* end) {
    for (; end - p >= 2; ++p)
        if (p[0] == '\n' && p[1] == '.' && p > begin && p[-1] == '\r') return p + 1;
    return end;
}

const char* scan_sse2(const char* begin, const char* end) {
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i dot = _mm_set1_epi8('.');
    const char* p = begin;
    for (; end - p >= 17; p += 16) {
        const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 1));
        const __m128i pairs = _mm_and_si128(_mm_cmpeq_epi8(here, lf), _mm_cmpeq_epi8(next, dot));
        const auto hits = static_cast<unsigned>(_mm_movemask_epi8(pairs));
        if (hits == 0) continue;
        if (const char* found = confirm(begin, p, hits)) return found;
    }
    return scan_rest(begin, p, end);
}

__attribute__((target("avx2"))) const char* scan_avx2(const char* begin, const char* end) {
    const __m256i lf = _mm256_set1_epi8('\n');
    const __m256i dot = _mm256_set1_epi8('.');
    const char* p = begin;
    for (; end - p >= 33; p += 32) {
        const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 1));
        const __m256i pairs = _mm256_and_si256(_mm256_cmpeq_epi8(here, lf), _mm256_cmpeq_epi8(next, dot));
        const auto hits = static_cast<unsigned>(_mm256_movemask_epi8(pairs));
        if (hits == 0) continue;
        if (const char* found = confirm(begin, p, hits)) return found;
    }
    return scan_rest(begin, p, end);
}

}  // namespace

const char* find_line_dot(const char* begin, const char* end) {
    static const bool avx2 = __builtin_cpu_supports("avx2");
    return avx2 ? scan_avx2(begin, end) : scan_sse2(begin, end);
}

}  // namespace postrider::sink
