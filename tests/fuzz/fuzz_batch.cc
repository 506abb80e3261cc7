// Batch SMTP files of any octets: see spool_fuzz.h.
#include <cstdint>

#include "queue/formats/batch_parser.h"
#include "tests/fuzz/spool_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    const std::string_view file(reinterpret_cast<const char*>(data), size);
    const size_t lf = file.find('\n');
    const bool crlf = lf != std::string_view::npos && lf > 0 && file[lf - 1] == '\r';
    fuzz_spool_file<BatchParser>(file, crlf ? StoredForm::stuffed_crlf : StoredForm::stuffed_lf);
    return 0;
}
