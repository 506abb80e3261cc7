#include "queue/formats/line_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/core/limits.h"

namespace postrider {

void LineReader::reset(uint64_t offset, uint64_t number) {
    carry_.clear();
    carry_used_ = false;
    offset_ = offset;
    number_ = number;
}

Line LineReader::make(std::string_view raw, bool complete) {
    Line line{raw, raw, offset_, number_, false, !complete};
    if (complete) {
        line.text.remove_suffix(1);
        if (!line.text.empty() && line.text.back() == '\r') {
            line.text.remove_suffix(1);
            line.crlf = true;
        }
        line.too_long = line.text.size() > limits::kEnvelopeLine;
        ++number_;
    }
    offset_ += raw.size();
    return line;
}

bool LineReader::next(const char*& p, const char* end, Line& line) {
    if (carry_used_) {
        carry_.clear();
        carry_used_ = false;
    }
    if (p == end) return false;
    const char* const start = p;
    // A line that is too long already is not searched to its end: a line may have gigabytes.
    const size_t room =
        limits::kEnvelopeLine + 2 - std::min(carry_.size(), limits::kEnvelopeLine + 1);
    const size_t window = std::min(static_cast<size_t>(end - p), room);
    const auto* lf = static_cast<const char*>(std::memchr(p, '\n', window));
    if (lf == nullptr && window < room) {
        carry_.append(start, window);
        p = end;
        return false;
    }
    p = lf != nullptr ? lf + 1 : start + window;
    const std::string_view piece(start, static_cast<size_t>(p - start));
    if (carry_.empty()) {
        line = make(piece, lf != nullptr);
    } else {
        carry_.append(piece);
        carry_used_ = true;
        line = make(carry_, lf != nullptr);
    }
    return true;
}

Line LineReader::rest() const {
    if (carry_used_) return Line{{}, {}, offset_, number_, false, false};
    return Line{carry_, carry_, offset_, number_, false, false};
}

}  // namespace postrider
