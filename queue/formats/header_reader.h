// Walks the header of a message, cut anywhere, and keeps the fields an envelope is read from (RFC
// 5322 3.6). The octets of other fields are not kept. A header ends at its first empty line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "queue/message.h"

namespace postrider {

enum class FieldName : uint8_t { other, to, cc, bcc, resent_bcc, return_path, sender, from, x_receiver };

struct HeaderField {
    FieldName name = FieldName::other;
    Range where;         // in the file, from the name to the end of the last line, its end included
    size_t kept_at = 0;  // where its octets begin in HeaderReader::kept
    size_t body_at = 0;  // index behind the colon, in the field
    uint64_t line = 0;   // of its name
};

class HeaderReader {
  public:
    // `keep`: address fields are kept; else only x-receiver is looked for.
    void begin(uint64_t offset, uint64_t line, bool keep);
    // Returns how many octets belong to the header: all, or up to the end of the empty line.
    size_t feed(const char* data, size_t size);
    void finish();  // the file ended

    bool ended() const { return state_ == State::ended; }
    bool too_large() const {
        return too_large_;
    }  // over limits::kHeaderForAddresses: fields are missing
    const std::vector<HeaderField>& fields() const { return fields_; }
    // The first x-receiver in the header: it refuses the file, as sending it would show the
    // recipients.
    const HeaderField* x_receiver() const { return x_receiver_.line != 0 ? &x_receiver_ : nullptr; }
    std::string_view text(const HeaderField& field) const;  // the whole field
    std::string_view body(const HeaderField& field) const;  // behind the colon

  private:
    enum class State : uint8_t { line_start, name, keep, skip, ended };

    void end_name(bool colon);
    void close_field();

    static constexpr size_t kLongestName = 12;
    State state_ = State::ended;
    bool keep_ = false;
    bool open_ = false;  // the last field of `fields_` may go on in a folded line
    bool too_large_ = false;
    uint64_t offset_ = 0;
    uint64_t line_ = 1;
    uint64_t line_begin_ = 0;
    std::string name_;  // octets of the line so far, until its name is known
    std::string kept_;
    std::vector<HeaderField> fields_;
    HeaderField x_receiver_;
};

}  // namespace postrider
