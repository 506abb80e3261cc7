// A SpoolHandler that writes down everything it is told, so that two parses can be compared as
// text; and the one way in which the tests feed a parser.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <span>
#include <string>
#include <vector>

#include "queue/formats/batch_parser.h"
#include "queue/formats/eml_parser.h"
#include "queue/message.h"
#include "tests/unit/queue/formats/wire_form.h"

namespace postrider {

struct Recorded {
    uint32_t number = 0;
    Envelope envelope;
    Content content;
    Range whole;        // of a refused message
    std::string error;  // of a refused message
    std::vector<std::string> recipients, refused_recipients, dsn;
    std::vector<Range> where;
};

class Recorder : public SpoolHandler {
  public:
    void on_recipient(const RecipientView& recipient) override {
        EXPECT_EQ(recipient.address.substr(recipient.address.size() - recipient.domain.size()),
                  recipient.domain);
        open_.recipients.emplace_back(recipient.address);
        open_.dsn.emplace_back(recipient.dsn);
        open_.where.push_back(recipient.where);
        log += fmt::format("rcpt {} {} {} {}+{}\n", recipient.address, recipient.domain,
                           recipient.dsn, recipient.where.offset, recipient.where.size);
    }
    void on_refused_recipient(std::string_view text, const Error& why) override {
        open_.refused_recipients.emplace_back(text);
        log += fmt::format("bad rcpt {}: {}\n", text, why.text);
    }
    void on_message(uint32_t number, const Envelope& envelope, const Content& content) override {
        log += fmt::format("message {}\n", number);
        close(messages, number, envelope, content);
    }
    void on_refused_message(uint32_t number, const Envelope& envelope, const Content& content,
                            Range whole, const Error& why) override {
        open_.whole = whole;
        open_.error = why.text;
        log += fmt::format("refused {} {}+{}: {}\n", number, whole.offset, whole.size, why.text);
        close(refused, number, envelope, content);
    }

    std::vector<Recorded> messages, refused;
    std::string log;
    std::string error;  // of the file

  private:
    void close(std::vector<Recorded>& into, uint32_t number, const Envelope& e, const Content& c) {
        open_.number = number;
        open_.envelope = e;
        open_.content = c;
        log += fmt::format("  <{}> {} {} {} {} {} {} {} {} {}\n", e.sender, e.envid, e.job,
                           e.campaign, e.tenant, e.pool, static_cast<int>(e.priority),
                           e.not_before_s, e.smtputf8, static_cast<int>(e.ret));
        log += fmt::format("  {}+{} wire {} form {} {}{}{}\n", c.stored.offset, c.stored.size,
                           c.wire_size, static_cast<int>(c.form), c.eight_bit ? "8" : "-",
                           c.crlf_only ? "c" : "-", c.dots ? "." : "-");
        for (const Range& range : c.removed)
            log += fmt::format("  removed {}+{}\n", range.offset, range.size);
        into.push_back(std::move(open_));
        open_ = Recorded{};
    }
    Recorded open_;
};

// Feeds `text` cut at `cuts` (ascending); each piece lies in memory of its own, so that a sanitizer
// sees a parser that looks past it or keeps a view.
template <class Parser>
Recorder parse(std::string_view text, const std::vector<size_t>& cuts = {},
               const ContentRules& rules = {}) {
    Recorder recorder;
    Parser parser(recorder, rules);
    size_t at = 0;
    Result<void> ok;
    for (size_t k = 0; ok && k <= cuts.size(); ++k) {
        const size_t end = k < cuts.size() ? cuts[k] : text.size();
        const std::vector<char> piece(text.begin() + static_cast<ptrdiff_t>(at),
                                      text.begin() + static_cast<ptrdiff_t>(end));
        ok = parser.feed(piece);
        at = end;
    }
    if (ok) ok = parser.finish();
    if (!ok) recorder.error = ok.error().text;
    recorder.log += "end " + recorder.error;
    return recorder;
}

// Any cut gives the same calls: whole, octet by octet, every single cut of a short text, and at
// random.
template <class Parser>
Recorder parse_every_way(std::string_view text, const ContentRules& rules = {}) {
    Recorder whole = parse<Parser>(text, {}, rules);
    std::vector<size_t> all;
    for (size_t i = 1; i < text.size(); ++i) all.push_back(i);
    if (text.size() <= 20'000) EXPECT_EQ(parse<Parser>(text, all, rules).log, whole.log);
    const size_t step = text.size() / 700 + 1;
    for (size_t i = 1; i < text.size(); i += step) {
        EXPECT_EQ(parse<Parser>(text, {i}, rules).log, whole.log) << "cut at " << i;
    }
    std::mt19937_64 random(text.size());
    for (int round = 0; round < 50 && !text.empty(); ++round) {
        std::vector<size_t> cuts;
        size_t at = 0;
        while ((at += 1 + random() % (1u << (1 + random() % 9))) < text.size()) cuts.push_back(at);
        EXPECT_EQ(parse<Parser>(text, cuts, rules).log, whole.log) << "round " << round;
    }
    return whole;
}

}  // namespace postrider
