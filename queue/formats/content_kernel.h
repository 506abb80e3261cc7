// The fast tier of ContentScan: how far a text is clean, by whole chunks of 128 octets. A kernel
// never judges; it stops in front of the first chunk that the exact machine has to look at.
//
// Clean means: no NUL, no line that begins with a dot, no line that may exceed 998 octets, and line
// ends alike: `crlf` wants every CR before an LF and every LF behind a CR, `lf` wants no CR at all.
// Octets above 127 are clean but told.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/core/limits.h"

namespace postrider {

inline constexpr size_t kContentChunk = 128;
// A line that spans at most this many chunks without a line end, and the pieces of chunks around
// them, has less than 998 octets.
inline constexpr size_t kContentChunksInLine = 5;
static_assert(kContentChunk * (kContentChunksInLine + 2) <= limits::kLine);

struct CleanRun {
    size_t size = 0;     // octets, whole chunks
    uint64_t lines = 0;  // line ends among them
    bool eight_bit = false;
};

// Each octet is looked at beside the one before it: data[-1] must be readable. `run`: chunks that
// the current line has already crossed.
using ContentKernel = CleanRun (*)(const char* data, size_t size, size_t run);
struct ContentKernels {
    ContentKernel crlf, lf;
};

extern const ContentKernels kAvx2ContentKernels;  // to be called only where the processor has AVX2
extern const ContentKernels kSseContentKernels;   // SSE4.1, which our baseline has
const ContentKernels& content_kernels();          // the better of those the processor has

}  // namespace postrider
