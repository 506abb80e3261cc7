#include "queue/formats/content_kernel.h"

#include <immintrin.h>

namespace postrider {
namespace {

template <bool Crlf>
__attribute__((target("avx2"))) CleanRun clean_avx2(const char* data, size_t size, size_t run) {
    const __m256i cr = _mm256_set1_epi8('\r'), lf = _mm256_set1_epi8('\n'),
                  dot = _mm256_set1_epi8('.');
    const __m256i zero = _mm256_setzero_si256();
    CleanRun clean;
    __m256i high_all = zero;
    for (; clean.size + kContentChunk <= size; clean.size += kContentChunk) {
        __m256i wrong = zero, high = zero, least = _mm256_set1_epi8(-1), ends = zero;
        for (size_t k = 0; k < kContentChunk; k += 32) {
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
        const __m128i half =
            _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        const auto lines =
            static_cast<uint64_t>(_mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1));
        run = lines == 0 ? run + 1 : 0;
        if (!_mm256_testz_si256(wrong, wrong) || run > kContentChunksInLine) break;
        clean.lines += lines;
        high_all = _mm256_or_si256(high_all, high);
    }
    clean.eight_bit = _mm256_movemask_epi8(high_all) != 0;
    return clean;
}

// The same by 16 octets, for a machine without AVX2.
template <bool Crlf>
CleanRun clean_sse(const char* data, size_t size, size_t run) {
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), dot = _mm_set1_epi8('.');
    const __m128i zero = _mm_setzero_si128();
    CleanRun clean;
    __m128i high_all = zero;
    for (; clean.size + kContentChunk <= size; clean.size += kContentChunk) {
        __m128i wrong = zero, high = zero, least = _mm_set1_epi8(-1), ends = zero;
        for (size_t k = 0; k < kContentChunk; k += 16) {
            const char* p = data + clean.size + k;
            const __m128i before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p - 1));
            const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
            const __m128i end = _mm_cmpeq_epi8(here, lf);
            const __m128i pair =
                Crlf ? _mm_xor_si128(_mm_cmpeq_epi8(before, cr), end) : _mm_cmpeq_epi8(here, cr);
            const __m128i dotted =
                _mm_and_si128(_mm_cmpeq_epi8(before, lf), _mm_cmpeq_epi8(here, dot));
            wrong = _mm_or_si128(wrong, _mm_or_si128(pair, dotted));
            least = _mm_min_epu8(least, here);
            high = _mm_or_si128(high, here);
            ends = _mm_sub_epi8(ends, end);
        }
        wrong = _mm_or_si128(wrong, _mm_cmpeq_epi8(least, zero));
        const __m128i sums = _mm_sad_epu8(ends, zero);
        const auto lines =
            static_cast<uint64_t>(_mm_cvtsi128_si64(sums) + _mm_extract_epi64(sums, 1));
        run = lines == 0 ? run + 1 : 0;
        if (!_mm_testz_si128(wrong, wrong) || run > kContentChunksInLine) break;
        clean.lines += lines;
        high_all = _mm_or_si128(high_all, high);
    }
    clean.eight_bit = _mm_movemask_epi8(high_all) != 0;
    return clean;
}

}  // namespace

// Chosen once, when the program starts: what the machine can does not change.
const ContentKernels& content_kernels() {
    static const ContentKernels& chosen =
        __builtin_cpu_supports("avx2") ? kAvx2ContentKernels : kSseContentKernels;
    return chosen;
}

const ContentKernels kAvx2ContentKernels{clean_avx2<true>, clean_avx2<false>};
const ContentKernels kSseContentKernels{clean_sse<true>, clean_sse<false>};

}  // namespace postrider
