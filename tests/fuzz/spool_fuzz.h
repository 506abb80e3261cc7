// The property every spool parser has to keep: any cut of the octets gives the same calls, every
// range lies in the file, a recipient is read again from where it lies, and the size on the wire is
// the true one.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/check.h"
#include "queue/formats/recipient_text.h"
#include "tests/unit/queue/formats/wire_form.h"

namespace postrider {

class SpoolRecord : public SpoolHandler {
  public:
    SpoolRecord(std::string_view file, StoredForm form) : file_(file), form_(form) {}

    void on_recipient(const RecipientView& r) override {
        check_range(r.where);
        const auto again = parse_recipient_text(form_, file_.substr(r.where.offset, r.where.size));
        POSTRIDER_CHECK(again && again->address == r.address, "a recipient is read again");
        POSTRIDER_CHECK(again->domain() == r.domain, "with its domain");
        POSTRIDER_CHECK(form_ == StoredForm::plain || again->dsn == r.dsn, "and its parameters");
        check_line(r.address);
        log += fmt::format("r {} {} {} {}\n", r.address, r.dsn, r.where.offset, r.where.size);
    }
    void on_refused_recipient(std::string_view text, const Error& why) override {
        check_line(why.text);
        log += fmt::format("b {} {}\n", text, why.text);
    }
    void on_message(uint32_t number, const Envelope& e, const Content& c) override {
        for (const auto& text : {e.sender, e.envid, e.job, e.campaign, e.tenant, e.pool})
            check_line(text);
        describe(number, c);
        const std::string wire = wire_form(file_, c);
        POSTRIDER_CHECK(c.wire_size == wire.size(), "the size on the wire is the true one");
        POSTRIDER_CHECK(c.wire_size > 0, "an empty message is refused");
        bool dot = wire.starts_with('.');
        for (size_t i = 0; i < wire.size(); ++i) {
            const bool pair = (wire[i] == '\r') == (i + 1 < wire.size() && wire[i + 1] == '\n');
            POSTRIDER_CHECK(pair && wire[i] != '\0', "only CRLF ends lines on the wire");
            dot |= wire[i] == '\n' && i + 1 < wire.size() && wire[i + 1] == '.';
            POSTRIDER_CHECK(c.eight_bit || static_cast<signed char>(wire[i]) >= 0, "8-bit is told");
        }
        POSTRIDER_CHECK(c.dots || !dot, "dots are told");
        const std::string_view stored = file_.substr(c.stored.offset, c.stored.size);
        POSTRIDER_CHECK(!c.clean_for_bdat() || stored == wire, "what is clean goes as it lies");
    }
    void on_refused_message(uint32_t number, const Envelope&, const Content& c, Range whole,
                            const Error& why) override {
        check_range(whole);
        check_line(why.text);
        describe(number, c);
        log += fmt::format("x {} {} {}\n", whole.offset, whole.size, why.text);
    }

    std::string log;

  private:
    void check_range(const Range& range) const {
        POSTRIDER_CHECK(range.offset <= file_.size() && range.size <= file_.size() - range.offset,
                        "a range lies in its file");
    }
    static void check_line(std::string_view text) {
        POSTRIDER_CHECK(text.find_first_of(std::string_view("\r\n\0", 3)) == text.npos,
                        "no field of an envelope and no reason has a line end");
    }
    void describe(uint32_t number, const Content& c) {
        check_range(c.stored);
        uint64_t at = c.stored.offset;
        for (const Range& range : c.removed) {
            check_range(range);
            POSTRIDER_CHECK(range.offset >= at, "removed ranges ascend inside the content");
            at = range.offset + range.size;
        }
        POSTRIDER_CHECK(at <= c.stored.offset + c.stored.size, "and end in it");
        log += fmt::format("m {} {} {} {} {}{}{}\n", number, c.stored.offset, c.stored.size,
                           c.wire_size, c.eight_bit, c.crlf_only, c.dots);
    }

    std::string_view file_;
    StoredForm form_;
};

// `step`: octets fed at once, each time from memory of its own.
template <class Parser>
std::string parse_in_steps(std::string_view file, StoredForm form, size_t step) {
    SpoolRecord record(file, form);
    Parser parser(record, {});
    Result<void> ok;
    for (size_t at = 0; ok && at < file.size(); at += step) {
        const std::string_view piece = file.substr(at, step);
        ok = parser.feed(std::vector<char>(piece.begin(), piece.end()));
    }
    if (ok) ok = parser.finish();
    if (!ok) {
        POSTRIDER_CHECK(ok.error().text.starts_with("line "), "a refused file is told where");
        POSTRIDER_CHECK(ok.error().text.find('\n') == std::string::npos, "in one line");
    }
    return record.log + (ok ? "good" : ok.error().text);
}

template <class Parser>
void fuzz_spool_file(std::string_view file, StoredForm form) {
    const std::string whole = parse_in_steps<Parser>(file, form, std::max<size_t>(file.size(), 1));
    for (const size_t step : {size_t{1}, size_t{7}, size_t{131}, file.size() / 2 + 1}) {
        POSTRIDER_CHECK(parse_in_steps<Parser>(file, form, step) == whole,
                        "any cut gives the same");
    }
}

}  // namespace postrider
