// From the stored form to the wire, 10 KiB: what needs no encoder costs a copy; the others are bare
// LF, and dots that are stuffed (DATA) or taken off (BDAT).
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "bench/micro_content.h"
#include "engine/smtp/transparency.h"

namespace postrider {
namespace {

constexpr size_t kMessage = 10 * 1024;

void encode(benchmark::State& state, StoredForm form, const char* line_end, size_t dot_every,
            WireForm wire) {
    const std::string stored = bench::make_message(kMessage, line_end, dot_every);
    std::vector<char> out(2 * stored.size() + ContentEncoder::kFinishRoom);
    Content content;
    content.stored = {0, stored.size()};
    content.form = form;
    ContentEncoder encoder;
    for (auto _ : state) {
        encoder.begin(content, wire);
        const auto progress = encoder.encode(stored, out);
        if (progress.consumed != stored.size()) return state.SkipWithError("the encoder stopped");
        benchmark::DoNotOptimize(encoder.finish(std::span(out).subspan(progress.produced)));
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(stored.size()));
}
BENCHMARK_CAPTURE(encode, crlf, StoredForm::plain, "\r\n", 0, WireForm::data)
    ->Name("encode/CRLF to DATA");
BENCHMARK_CAPTURE(encode, lf, StoredForm::plain, "\n", 0, WireForm::data)
    ->Name("encode/bare LF to DATA");
BENCHMARK_CAPTURE(encode, dots, StoredForm::plain, "\r\n", 10, WireForm::data)
    ->Name("encode/CRLF, a dot in ten lines, to DATA");
// One dot at a line's head is the stuffed one.
BENCHMARK_CAPTURE(encode, destuff, StoredForm::stuffed_crlf, "\r\n", 10, WireForm::bdat)
    ->Name("encode/batch file, a dot in ten lines, to BDAT");

}  // namespace
}  // namespace postrider
