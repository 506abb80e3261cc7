// Checksums and hashes: CRC-32C for what is stored (journal, index), a 64-bit mix for ids and tables.
#pragma once

#include <nmmintrin.h>

#include <cstdint>
#include <cstring>
#include <string_view>

namespace postrider {

// CRC-32C (Castagnoli) by the SSE4.2 instruction; `seed` continues an earlier value.
inline uint32_t crc32c(const void* data, size_t size, uint32_t seed = 0) {
    const auto* p = static_cast<const unsigned char*>(data);
    uint64_t crc = ~seed;
    while (size >= 8) {
        uint64_t word;
        std::memcpy(&word, p, 8);
        crc = _mm_crc32_u64(crc, word);
        p += 8;
        size -= 8;
    }
    while (size-- > 0) crc = _mm_crc32_u8(static_cast<uint32_t>(crc), *p++);
    return ~static_cast<uint32_t>(crc);
}

inline uint64_t mix64(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15ULL) *
                         (b ^ 0xD1B54A32D192ED03ULL);
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Stable over versions: file ids and site names are made with it.
inline uint64_t hash64(std::string_view bytes, uint64_t seed = 0) {
    uint64_t h = mix64(seed, bytes.size() + 1);
    const char* p = bytes.data();
    size_t n = bytes.size();
    while (n >= 8) {
        uint64_t word;
        std::memcpy(&word, p, 8);
        h = mix64(h, word);
        p += 8;
        n -= 8;
    }
    uint64_t tail = 0;
    if (n > 0) std::memcpy(&tail, p, n);  // an empty view may have no pointer
    return mix64(h, tail ^ (static_cast<uint64_t>(n) << 56));
}

}  // namespace postrider
