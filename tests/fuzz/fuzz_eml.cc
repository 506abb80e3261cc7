// `.eml` files of any octets: see spool_fuzz.h.
#include <cstdint>

#include "queue/formats/eml_parser.h"
#include "tests/fuzz/spool_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    fuzz_spool_file<EmlParser>({reinterpret_cast<const char*>(data), size}, StoredForm::plain);
    return 0;
}
