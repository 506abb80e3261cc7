#include "queue/formats/eml_parser.h"

#include <fmt/format.h>

#include "engine/core/address.h"
#include "engine/core/limits.h"
#include "queue/formats/header_envelope.h"

namespace postrider {
namespace {

std::unexpected<Error> refuse(uint64_t line, uint64_t offset, std::string_view what) {
    return std::unexpected(error_at(line, offset, what));
}

uint64_t count_bare_lfs(std::string_view text) {
    uint64_t count = 0;
    for (size_t i = 0; i < text.size(); ++i)
        count += text[i] == '\n' && (i == 0 || text[i - 1] != '\r');
    return count;
}

}  // namespace

EmlParser::EmlParser(SpoolHandler& handler, const ContentRules& rules)
    : handler_(handler), rules_(rules) {}

void EmlParser::reset(uint64_t offset, uint64_t line) {
    lines_.reset(offset, line);
    fields_.reset();
    envelope_ = Envelope{};
    content_ = Content{};
    state_ = State::block;
    has_block_ = false;
    recipients_ = 0;
}

Result<void> EmlParser::feed(std::span<const char> block) {
    const char* p = block.data();
    const char* const end = p + block.size();
    Line line;
    while (state_ == State::block && lines_.next(p, end, line)) {
        bool belongs = false;
        if (auto ok = on_block_line(line, belongs); !ok) return ok;
        if (belongs) continue;
        begin_message(line.offset, line.number);
        if (auto ok = feed_message(line.raw.data(), line.raw.size()); !ok) return ok;
    }
    return p == end ? Result<void>{} : feed_message(p, static_cast<size_t>(end - p));
}

// `belongs`: the line is one of the block's and is taken.
Result<void> EmlParser::on_block_line(const Line& line, bool& belongs) {
    const BlockLine field = split_block_line(line.text);
    if (field.name == BlockName::none) return {};
    const bool opens = field.name == BlockName::sender || field.name == BlockName::receiver;
    if (!has_block_ && !opens) return {};
    if (line.too_long) {
        return refuse(line.number, line.offset,
                      fmt::format("a line of the envelope over {} octets; shorten it",
                                  limits::kEnvelopeLine));
    }
    belongs = has_block_ = true;
    if (field.name == BlockName::receiver) {
        return on_receiver({field.value, line.raw, line.offset + field.value_at, line.number},
                           field.value);
    }
    if (auto ok = fields_.take(field.name, field.value, envelope_); !ok) {
        return refuse(
            line.number, line.offset,
            fmt::format("{}: {}", line.text.substr(0, line.text.find(':')), ok.error().text));
    }
    return {};
}

// `line.offset` is where `value` begins in the file.
Result<void> EmlParser::on_receiver(const Line& line, std::string_view value) {
    if (++recipients_ > limits::kRecipientsPerMessage) {
        return refuse(
            line.number, line.offset,
            fmt::format("over {} recipients; split the message", limits::kRecipientsPerMessage));
    }
    const bool angles = value.size() >= 2 && value.front() == '<' && value.back() == '>';
    const std::string_view address = angles ? value.substr(1, value.size() - 2) : value;
    auto mailbox = parse_mailbox(address);
    if (!mailbox) {
        handler_.on_refused_recipient(value,
                                      error_at(line.number, line.offset, mailbox.error().text));
        return {};
    }
    envelope_.smtputf8 |= mailbox->needs_smtputf8;
    handler_.on_recipient(
        {address, mailbox->domain, {}, Range{line.offset + (angles ? 1 : 0), address.size()},
         address});
    return {};
}

void EmlParser::begin_message(uint64_t offset, uint64_t line) {
    state_ = State::header;
    header_.begin(offset, line, !has_block_);
    scan_.begin(StoredForm::plain, rules_, offset, line);
}

Result<void> EmlParser::feed_message(const char* data, size_t size) {
    scan_.feed(data, size);
    if (state_ != State::header) return {};
    header_.feed(data, size);
    return header_.ended() ? end_header() : Result<void>{};
}

Result<void> EmlParser::end_header() {
    header_.finish();
    state_ = State::body;
    if (const HeaderField* field = header_.x_receiver()) {
        return refuse(field->line, field->where.offset,
                      "x-receiver in the header would show the recipients; put it into the first "
                      "lines of the "
                      "file, behind x-sender");
    }
    if (has_block_) return {};
    if (header_.too_large()) {
        return refuse(
            1, 0,
            fmt::format("the address fields are over {} octets; put an envelope block in front "
                        "(x-sender, x-receiver)",
                        limits::kHeaderForAddresses));
    }
    for (const HeaderField& field : header_.fields()) {
        if (!is_removed_field(field.name)) continue;
        content_.removed.push_back(field.where);
    }
    if (auto ok = read_header_sender(header_, envelope_); !ok) return ok;
    recipients_ = read_header_recipients(header_, handler_, envelope_);
    return {};
}

// Removed fields do not count for the size, nor for the line end of the last line.
Result<void> EmlParser::subtract_removed() {
    if (content_.removed.empty()) return {};
    const uint64_t end = content_.stored.offset + content_.stored.size;
    for (const HeaderField& field : header_.fields()) {
        if (!is_removed_field(field.name)) continue;
        const std::string_view text = header_.text(field);
        content_.wire_size -= text.size() + count_bare_lfs(text);
        const bool unended = field.where.offset + field.where.size == end && text.back() != '\n';
        if (unended) content_.wire_size -= 2;  // the line end that was to be added
    }
    content_.crlf_only = false;
    if (content_.wire_size == 0) {
        return refuse(scan_.line(), end,
                      "the message is empty; give it more than Bcc and Return-Path");
    }
    return {};
}

Result<void> EmlParser::finish() {
    if (state_ == State::block) {
        // The last line has no end: a line of the block all the same, or all there is of the
        // message.
        const Line line = lines_.rest();
        bool belongs = false;
        if (auto ok = on_block_line(line, belongs); !ok) return ok;
        begin_message(line.offset + (belongs ? line.raw.size() : 0), line.number);
        if (!belongs) {
            if (auto ok = feed_message(line.raw.data(), line.raw.size()); !ok) return ok;
        }
    }
    if (auto ok = scan_.finish(content_); !ok) return ok;
    if (state_ == State::header) {
        if (auto ok = end_header(); !ok) return ok;
    }
    if (auto ok = subtract_removed(); !ok) return ok;
    if (has_block_ && !fields_.seen(BlockName::sender)) {
        return refuse(1, 0, "the envelope block has no x-sender; give one, <> for no sender");
    }
    if (recipients_ == 0) {
        return refuse(1, 0,
                      has_block_
                          ? "the envelope block has no x-receiver; give one for each recipient"
                          : "no recipient; give x-receiver lines, or To, Cc or Bcc");
    }
    handler_.on_message(1, envelope_, content_);
    return {};
}

}  // namespace postrider
