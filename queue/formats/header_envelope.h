// An envelope from the header of a message that has no block: recipients from To, Cc and Bcc, the
// sender from Return-Path, Sender or From.
#pragma once

#include <cstdint>

#include "engine/core/result.h"
#include "queue/formats/header_reader.h"
#include "queue/message.h"

namespace postrider {

// Fields that are not sent when the envelope came from the header (RFC 5322 3.6.3, 3.6.6; RFC 5321 4.4).
inline bool is_removed_field(FieldName name) {
    return name == FieldName::bcc || name == FieldName::resent_bcc || name == FieldName::return_path;
}

// The first field there is of Return-Path, Sender and From decides; "<>" is the null sender in
// Return-Path.
Result<void> read_header_sender(const HeaderReader& header, Envelope& envelope);

// Each address once, however often it stands in the header. Returns how many elements the lists
// have, refused ones too.
uint64_t read_header_recipients(const HeaderReader& header, SpoolHandler& handler,
                                Envelope& envelope);

}  // namespace postrider
