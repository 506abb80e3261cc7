// Batch SMTP (RFC 2442), `*.bsmtp`: MAIL, RCPT, DATA, content, dot, again and again. Pure push
// parser over blocks of a file, cut anywhere.
//
//   between -> MAIL -> envelope -> RCPT... -> DATA -> opening (x-campaign and the like) -> content
//   -> between
//
// Failure policy. What makes the frame doubtful (unknown command or parameter, order, the other
// line ending, a file that ends too early) refuses the file: feed() or finish() fails, and nothing
// that was handed over may be acted upon. A bad forward-path refuses its recipient. A bad
// reverse-path, bad content, no recipient or an RSET in mid-envelope refuses its message alone. So
// a handler acts when finish() has succeeded. on_message may come without any on_recipient when
// every recipient of the message was refused.
//
// Memory: one line of an envelope (2048 octets) and one Envelope, whose strings are used again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "engine/core/result.h"
#include "queue/formats/content_scan.h"
#include "queue/formats/envelope_fields.h"
#include "queue/formats/line_reader.h"
#include "queue/message.h"

namespace postrider {

class BatchParser {
  public:
    BatchParser(SpoolHandler& handler, const ContentRules& rules);

    Result<void> feed(std::span<const char> block);
    Result<void> finish();
    void reset();  // for the next file

    // How the file's content is stored, known once its first line is read.
    StoredForm form() const { return crlf_ ? StoredForm::stuffed_crlf : StoredForm::stuffed_lf; }
    uint32_t messages() const { return number_; }
    // Of the message that is being handed over: envelope and content, framing included.
    Range message() const { return {begin_, lines_.offset() - begin_}; }

  private:
    enum class State : uint8_t { between, envelope, opening, content };

    Result<void> on_command(const Line& line);
    Result<void> on_mail(const Line& line, std::string_view argument);
    Result<void> on_rcpt(const Line& line, std::string_view argument);
    Result<void> on_data(const Line& line, std::string_view argument);
    Result<void> on_opening(const Line& line);
    void begin_content(uint64_t offset, uint64_t line);
    Result<void> feed_content(const char*& p, const char* end);
    Result<void> end_message();
    void abandon(const Line& line);
    void refuse_message(Error why);

    SpoolHandler& handler_;
    ContentRules rules_;
    LineReader lines_;
    ContentScan scan_;
    EnvelopeFields fields_;
    Envelope envelope_;
    Content content_;
    std::optional<Error> refusal_;  // of the current message
    State state_ = State::between;
    bool first_line_ = true;
    bool crlf_ = true;
    uint32_t number_ = 0;
    uint64_t recipients_ = 0;  // of the current message, refused ones too
    uint64_t begin_ = 0;       // of the current message: its MAIL line
};

}  // namespace postrider
