// What the parsers claim of a content is measured against this: slow, plain, and written from the
// RFC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "queue/message.h"

namespace postrider {

inline std::string cut_out(std::string_view text, const Range& range) {
    return std::string(text.substr(range.offset, range.size));
}

// What a receiver gets of `content` by RFC 5321 4.5.2: kept octets, unstuffed, with CRLF line ends.
// Slow and plain: what the parsers claim is measured against it.
inline std::string wire_form(std::string_view file, const Content& content) {
    std::string kept;
    uint64_t at = content.stored.offset;
    for (const Range& range : content.removed) {
        kept += file.substr(at, range.offset - at);
        at = range.offset + range.size;
    }
    kept += file.substr(at, content.stored.offset + content.stored.size - at);
    std::string wire;
    bool frame_line = true;
    for (size_t i = 0; i < kept.size(); ++i) {
        const bool stuffed = frame_line && kept[i] == '.' && content.form != StoredForm::plain;
        const bool crlf = kept[i] == '\n' && i > 0 && kept[i - 1] == '\r';
        frame_line = kept[i] == '\n' && (crlf || content.form != StoredForm::stuffed_crlf);
        if (stuffed) continue;
        if (kept[i] == '\n' && !crlf) wire += '\r';
        wire += kept[i];
    }
    if (!wire.ends_with("\n")) wire += "\r\n";
    return wire;
}

}  // namespace postrider
