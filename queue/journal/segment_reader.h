// Reads one segment front to back with a bounded buffer: its records, and the stretches that hold none.
#pragma once

#include <memory>
#include <vector>

#include "engine/core/result.h"
#include "queue/journal/journal_format.h"

namespace postrider {

class SegmentReader {
  public:
    enum class What : uint8_t {
        record,   // `record` is a known one
        unknown,  // a whole record of a kind from a later version
        bad,      // [offset, offset + size) holds no record: the search goes on behind it
        end,
    };
    struct Item {
        What what = What::end;
        uint64_t offset = 0;  // at the end: the size of the file
        uint64_t size = 0;
        JournalRecord record;  // its name is valid until the next call
    };

    // `fd` stays the caller's. A header that is damaged comes as the first bad stretch.
    SegmentReader(int fd, const SegmentName& name);

    // Fails when the file cannot be read, or was written in a newer format version.
    Result<Item> next();

  private:
    static constexpr size_t kBufferMost = size_t{1} << 20;

    Result<void> make_buffer();
    // Makes a whole record's octets, or all there are, visible.
    Result<void> fill();
    std::span<const char> view() const { return {buffer_.get() + begin_, end_ - begin_}; }
    uint64_t position() const { return file_offset_ - (end_ - begin_); }
    Result<bool> header_is_whole();
    Result<Item> skip_bad();

    int fd_;
    SegmentName name_;
    uint32_t seed_;
    std::unique_ptr<char[]> buffer_;
    size_t capacity_ = 0;  // of it: the whole file, if it is small
    size_t begin_ = 0, end_ = 0;
    uint64_t file_offset_ = 0;  // of buffer_[end_]
    bool at_end_ = false;
    bool started_ = false;
};

// The segments in a directory, ascending by shard and sequence; other names are left alone.
Result<std::vector<SegmentName>> list_segments(int journal_dir);

}  // namespace postrider
