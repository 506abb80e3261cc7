// Any octets as a journal segment: the reader ends, covers every octet exactly once, and what it takes for a record is
// encoded to the same octets again.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "engine/core/check.h"
#include "engine/core/hash.h"
#include "queue/journal/segment_reader.h"

using namespace postrider;

namespace {

void read_all(int fd, const SegmentName& name, const char* data, size_t size) {
    SegmentReader reader(fd, name);
    uint64_t position = 0;
    while (true) {
        const auto item = reader.next();
        if (!item) return;  // a newer format version
        if (item->what == SegmentReader::What::end) {
            POSTRIDER_CHECK(item->offset == size, "the end is the file's");
            return;
        }
        if (position == 0 && item->offset == kSegmentHeaderSize) position = kSegmentHeaderSize;
        POSTRIDER_CHECK(item->offset == position && item->size > 0, "no octet is skipped in silence");
        position += item->size;
        if (item->what != SegmentReader::What::record) continue;
        char out[kRecordSizeMax];
        const size_t encoded = encode_record(segment_seed(name), item->record, out);
        POSTRIDER_CHECK(encoded == item->size, "a record has one size");
        JournalRecord again;
        size_t again_size = 0;
        POSTRIDER_CHECK(parse_record({data + item->offset, size - item->offset}, segment_seed(name), again,
                                     again_size) == Parsed::known,
                        "a record is one wherever it is read from");
    }
}

}  // namespace

// The checksums are mended first, half of the time, so that the fuzzer reaches what lies behind them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
    const SegmentName name{1, 2};
    std::string octets(reinterpret_cast<const char*>(input), size);
    if (size > 0 && (input[0] & 1) != 0) {
        char header[kSegmentHeaderSize];
        encode_header(name, 1, header);
        octets.replace(0, 1, header, sizeof header);
        for (size_t at = kSegmentHeaderSize; at + kRecordSizeMin <= octets.size();) {
            const size_t words = static_cast<unsigned char>(octets[at + 4]);
            if (words < 2 || at + 4 * words > octets.size()) break;
            if ((octets[at] & 7) != 0) {
                const uint32_t crc = crc32c(octets.data() + at + 4, 4 * words - 4, segment_seed(name));
                std::memcpy(octets.data() + at, &crc, 4);
            }
            at += 4 * words;
        }
    }
    const int fd = memfd_create("segment", MFD_CLOEXEC);
    if (fd < 0 || write(fd, octets.data(), octets.size()) != static_cast<ssize_t>(octets.size())) return 0;
    read_all(fd, name, octets.data(), octets.size());
    close(fd);
    return 0;
}
