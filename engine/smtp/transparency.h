// From the stored form of a content to the octets on the wire, block by block, without a copy of the message.
//
// What the receiver stores equals the stored content with every line end written as CRLF: stuffed dots of a batch
// file are taken off and dots are stuffed for DATA (RFC 5321 4.5.2) or not at all for BDAT (RFC 3030 2), the ranges
// of Content::removed are left out, a missing last line end is added. Content::clean_for_data() and
// clean_for_bdat() tell when the stored octets may go out without an encoder; DATA then still needs append_dot().
//
// A bare CR never reaches the wire (RFC 5321 2.3.8). The intake refuses it, so meeting one here means that the
// file is not the one that was claimed: the encoder is `broken()` and the session closes without a dot (FAULTS 51).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "queue/message.h"

namespace postrider {

enum class WireForm : uint8_t { data, bdat };

class ContentEncoder {
  public:
    struct Progress {
        size_t consumed = 0;
        size_t produced = 0;
    };

    // Room finish() needs at most: CRLF "." CRLF.
    static constexpr size_t kFinishRoom = 5;

    // `removed` of the content must outlive the encoding.
    void begin(const Content& content, WireForm wire);

    // Takes the next stored octets, of content.stored from its begin to its end, in blocks of any size, and
    // writes to `out` what fits. Progress is made as soon as out has 2 octets of room. Stops when broken.
    Progress encode(std::span<const char> in, std::span<char> out);

    // The end: the last line end if it was missing, for DATA the final dot. `out` has kFinishRoom octets.
    size_t finish(std::span<char> out);

    bool broken() const { return broken_; }
    // Stored octets taken so far; finish() is right only at content.stored.size.
    uint64_t consumed() const { return position_ - first_; }
    // Octets of content written so far (line ends as CRLF, stuffed dots and the final dot not counted):
    // after finish() it must equal Content::wire_size, which SIZE= and BDAT announced.
    uint64_t wire_size() const { return wire_size_; }

  private:
    Progress encode_segment(std::span<const char> in, std::span<char> out);
    bool encode_octet(char octet, char*& out, const char* out_end);
    size_t copy_clean(const char* in, size_t in_size, char* out, size_t out_size);

    std::span<const Range> removed_;
    uint64_t first_ = 0;
    uint64_t position_ = 0;  // offset in the file of the next octet
    uint64_t wire_size_ = 0;
    bool stuff_ = false;             // DATA
    bool destuff_ = false;           // batch forms
    bool bare_lf_frames_ = false;    // a lone LF begins a framed line: stuffed_lf
    bool pending_cr_ = false;        // a CR was taken, what follows decides
    bool stored_line_start_ = true;  // the next octet may be a stuffed dot
    bool wire_line_start_ = true;    // the next octet may need a dot
    bool broken_ = false;
};

}  // namespace postrider
