// The intake's one pass over a content of 10 KiB: clean text goes by the SIMD kernel, dots and
// mixed ends by the exact machine.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/micro_content.h"
#include "queue/formats/content_scan.h"

namespace postrider {
namespace {

constexpr size_t kMessage = 10 * 1024;

void scan(benchmark::State& state, StoredForm form, const char* line_end, size_t dot_every) {
    std::string text = bench::make_message(kMessage, line_end, dot_every);
    // A batch file: the dots above are content, so each is stuffed, and a dot line ends it.
    if (form != StoredForm::plain) {
        std::string stuffed;
        for (const char octet : text) {
            if (octet == '.' && stuffed.ends_with('\n')) stuffed += '.';
            stuffed += octet;
        }
        text = stuffed + "." + line_end;
    }
    ContentScan scanner;
    Content content;
    for (auto _ : state) {
        scanner.begin(form, {}, 0, 1);
        scanner.feed(text.data(), text.size());
        if (!scanner.finish(content)) return state.SkipWithError("the content was refused");
        benchmark::DoNotOptimize(content.wire_size);
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK_CAPTURE(scan, crlf, StoredForm::plain, "\r\n", 0)->Name("scan/CRLF");
BENCHMARK_CAPTURE(scan, lf, StoredForm::plain, "\n", 0)->Name("scan/LF");
BENCHMARK_CAPTURE(scan, batch, StoredForm::stuffed_crlf, "\r\n", 0)->Name("scan/batch file, CRLF");
BENCHMARK_CAPTURE(scan, dots, StoredForm::stuffed_crlf, "\r\n", 10)
    ->Name("scan/batch file, a dot in ten lines");

}  // namespace
}  // namespace postrider
