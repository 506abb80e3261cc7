// `*.eml`, one message. Pure push parser over blocks of the file, cut anywhere.
//
//   block (x-sender, x-receiver, ... as PowerMTA's pickup has them) -> header -> body
//
// Without a block the envelope is read from the header: recipients from To, Cc, Bcc (each address
// once), the sender from Return-Path, Sender or From; Bcc and Return-Path are then left out of the
// content.
//
// Failure policy: whatever refuses the message refuses the file (feed() or finish() fails); a bad
// address refuses its recipient alone. Nothing is acted upon until finish() has succeeded.
// on_message may come without any on_recipient when every recipient was refused.
//
// Memory: one line of the block (2048 octets); without a block the address fields, at most 1 MiB.
// Recipients of a block stream. The same octets give the same calls, whenever the file is read
// again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "queue/formats/content_scan.h"
#include "queue/formats/envelope_fields.h"
#include "queue/formats/header_reader.h"
#include "queue/formats/line_reader.h"
#include "queue/message.h"

namespace postrider {

class EmlParser {
  public:
    EmlParser(SpoolHandler& handler, const ContentRules& rules);

    Result<void> feed(std::span<const char> block);
    Result<void> finish();
    // What it was fed refuses the file already: finish() tells why.
    bool refused() const { return state_ != State::block && scan_.refused(); }
    // For the next file. `offset` and `line` are what its first octet is called in what is told of it; the caller may have
    // put lines in front (then they count up to 2^64 and on from 0).
    void reset(uint64_t offset = 0, uint64_t line = 1);

  private:
    enum class State : uint8_t { block, header, body };

    Result<void> on_block_line(const Line& line, bool& belongs);
    Result<void> on_receiver(const Line& line, std::string_view value);
    Result<void> feed_message(const char* data, size_t size);
    void begin_message(uint64_t offset, uint64_t line);
    Result<void> end_header();
    Result<void> subtract_removed();

    SpoolHandler& handler_;
    ContentRules rules_;
    LineReader lines_;
    HeaderReader header_;
    ContentScan scan_;
    EnvelopeFields fields_;
    Envelope envelope_;
    Content content_;
    State state_ = State::block;
    bool has_block_ = false;
    uint64_t recipients_ = 0;  // refused ones too
};

}  // namespace postrider
