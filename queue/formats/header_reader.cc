#include "queue/formats/header_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/core/limits.h"
#include "queue/formats/envelope_fields.h"

namespace postrider {
namespace {

FieldName field_named(std::string_view name) {
    // RFC 5322 4.5: white space may stand before the colon.
    while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.remove_suffix(1);
    switch (name.size()) {
        case 2:
            if (equal_ignoring_case(name, "to")) return FieldName::to;
            if (equal_ignoring_case(name, "cc")) return FieldName::cc;
            break;
        case 3:
            if (equal_ignoring_case(name, "bcc")) return FieldName::bcc;
            break;
        case 4:
            if (equal_ignoring_case(name, "from")) return FieldName::from;
            break;
        case 6:
            if (equal_ignoring_case(name, "sender")) return FieldName::sender;
            break;
        case 10:
            if (equal_ignoring_case(name, "x-receiver")) return FieldName::x_receiver;
            if (equal_ignoring_case(name, "resent-bcc")) return FieldName::resent_bcc;
            break;
        case 11:
            if (equal_ignoring_case(name, "return-path")) return FieldName::return_path;
            break;
        default:
            break;
    }
    return FieldName::other;
}

}  // namespace

void HeaderReader::begin(uint64_t offset, uint64_t line, bool keep) {
    state_ = State::line_start;
    keep_ = keep;
    open_ = too_large_ = false;
    offset_ = line_begin_ = offset;
    line_ = line;
    name_.clear();
    kept_.clear();
    fields_.clear();
    x_receiver_ = HeaderField{};
}

std::string_view HeaderReader::text(const HeaderField& field) const {
    return std::string_view(kept_).substr(field.kept_at, field.where.size);
}

std::string_view HeaderReader::body(const HeaderField& field) const {
    return text(field).substr(field.body_at);
}

// The field that was being kept has no further line.
void HeaderReader::close_field() {
    if (!open_) return;
    open_ = false;
    fields_.back().where.size = kept_.size() - fields_.back().kept_at;
}

// `name_` holds the beginning of a line, up to its colon when there is one.
void HeaderReader::end_name(bool colon) {
    state_ = State::skip;
    if (!colon) return;
    const FieldName name = field_named(name_);
    if (name == FieldName::other) return;
    HeaderField field{name, {line_begin_, 0}, kept_.size(), name_.size() + 1, line_};
    if (name == FieldName::x_receiver) {
        if (x_receiver_.line == 0) x_receiver_ = field;
        return;
    }
    if (!keep_) return;
    fields_.push_back(field);
    kept_ += name_;
    kept_ += ':';
    open_ = true;
    state_ = State::keep;
}

size_t HeaderReader::feed(const char* data, size_t size) {
    size_t i = 0;
    while (i < size && state_ != State::ended) {
        const char c = data[i];
        if (state_ == State::line_start) {
            line_begin_ = offset_ + i;
            name_.clear();
            // A folded line goes on with the field before it (RFC 5322 2.2.3).
            if (c == ' ' || c == '\t') {
                state_ = open_ ? State::keep : State::skip;
                continue;
            }
            close_field();
            state_ = State::name;
        }
        if (state_ == State::name) {
            ++i;
            if (c == '\n') {
                const bool empty = name_.empty() || name_ == "\r";
                state_ = empty ? State::ended : State::line_start;
                ++line_;
            } else if (c == ':') {
                end_name(true);
            } else if (name_.size() >= kLongestName) {
                end_name(false);
            } else {
                name_ += c;
            }
            continue;
        }
        const auto* lf = static_cast<const char*>(std::memchr(data + i, '\n', size - i));
        const size_t end = lf != nullptr ? static_cast<size_t>(lf - data) + 1 : size;
        if (state_ == State::keep) {
            const size_t room =
                limits::kHeaderForAddresses - std::min(kept_.size(), limits::kHeaderForAddresses);
            too_large_ |= end - i > room;
            kept_.append(data + i, std::min(end - i, room));
        }
        i = end;
        if (lf != nullptr) {
            state_ = State::line_start;
            ++line_;
        }
    }
    offset_ += i;
    return i;
}

void HeaderReader::finish() {
    close_field();
    state_ = State::ended;
}

}  // namespace postrider
