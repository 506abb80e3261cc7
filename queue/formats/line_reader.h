// Lines out of blocks that are cut anywhere. A line inside one block is seen where it lies; only
// one that crosses a cut is copied. Bounded: a line over limits::kEnvelopeLine is handed over cut,
// as `too_long`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace postrider {

struct Line {
    std::string_view text;  // without its end
    std::string_view raw;   // with its end; valid until the reader is used again
    uint64_t offset = 0;    // of its first octet in the file
    uint64_t number = 0;    // counted from 1
    bool crlf = false;
    bool too_long = false;  // `raw` is the beginning only, no end was seen yet
};

class LineReader {
  public:
    void reset(uint64_t offset = 0, uint64_t number = 1);

    // True: `line` is filled and `p` stands behind it. False: all up to `end` is kept for the next
    // block.
    bool next(const char*& p, const char* end, Line& line);

    // At the end of the file: the octets of an unfinished line, empty when there is none.
    Line rest() const;
    uint64_t offset() const { return offset_; }  // where the next line begins
    uint64_t number() const { return number_; }

  private:
    Line make(std::string_view raw, bool complete);

    std::string carry_;        // the beginning of a line that the last block ended in
    bool carry_used_ = false;  // `carry_` was handed out: it is dropped at the next call
    uint64_t offset_ = 0;
    uint64_t number_ = 1;
};

}  // namespace postrider
