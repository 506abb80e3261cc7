#include "queue/formats/batch_parser.h"

#include <fmt/format.h>

#include "engine/core/address.h"
#include "engine/core/limits.h"

namespace postrider {
namespace {

enum class Verb : uint8_t { unknown, mail, rcpt, data, greeting, rset, noop, quit };

// The verb of a line; `argument` gets what follows it, the colon of MAIL FROM: and RCPT TO: and
// white space behind it left out.
Verb split_command(std::string_view line, std::string_view& argument) {
    const auto takes = [&](std::string_view word) {
        if (!equal_ignoring_case(line.substr(0, word.size()), word)) return false;
        argument = line.substr(word.size());
        return true;
    };
    const auto skip_spaces = [&] {
        while (!argument.empty() && argument.front() == ' ') argument.remove_prefix(1);
    };
    if (line.empty()) return Verb::unknown;
    switch (line.front() | 0x20) {
        case 'm':
            if (!takes("MAIL FROM:")) return Verb::unknown;
            skip_spaces();
            return Verb::mail;
        case 'r':
            if (takes("RCPT TO:")) {
                skip_spaces();
                return Verb::rcpt;
            }
            if (!takes("RSET")) return Verb::unknown;
            skip_spaces();
            return argument.empty() ? Verb::rset : Verb::unknown;
        default:
            break;
    }
    if (line.size() < 4) return Verb::unknown;
    argument = line.substr(4);
    if (!argument.empty() && argument.front() != ' ') return Verb::unknown;
    skip_spaces();
    const std::string_view word = line.substr(0, 4);
    if (equal_ignoring_case(word, "DATA")) return Verb::data;
    if (equal_ignoring_case(word, "HELO") || equal_ignoring_case(word, "EHLO"))
        return Verb::greeting;
    if (equal_ignoring_case(word, "NOOP")) return Verb::noop;
    if (equal_ignoring_case(word, "QUIT") && argument.empty()) return Verb::quit;
    return Verb::unknown;
}

void clear(Envelope& envelope) {
    // Field by field: the strings keep their memory for the next message.
    envelope.sender.clear();
    envelope.envid.clear();
    envelope.job.clear();
    envelope.campaign.clear();
    envelope.tenant.clear();
    envelope.pool.clear();
    envelope.priority = Priority::normal;
    envelope.not_before_s = 0;
    envelope.smtputf8 = false;
    envelope.ret = DsnReturn::none;
}

std::unexpected<Error> refuse(const Line& line, std::string_view what) {
    return std::unexpected(error_at(line.number, line.offset, what));
}

std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 40)) out += c >= 32 && c < 127 ? c : '?';
    return text.size() > 40 ? out + "..." : out;
}

}  // namespace

BatchParser::BatchParser(SpoolHandler& handler, const ContentRules& rules)
    : handler_(handler), rules_(rules) {}

void BatchParser::reset() {
    lines_.reset();
    state_ = State::between;
    first_line_ = crlf_ = true;
    number_ = 0;
    recipients_ = 0;
    begin_ = 0;
    refusal_.reset();
}

Result<void> BatchParser::feed(std::span<const char> block) {
    const char* p = block.data();
    const char* const end = p + block.size();
    Line line;
    while (p != end) {
        if (state_ == State::content) {
            if (auto ok = feed_content(p, end); !ok) return ok;
            continue;
        }
        if (!lines_.next(p, end, line)) break;
        auto ok = state_ == State::opening ? on_opening(line) : on_command(line);
        if (!ok) return ok;
    }
    return {};
}

Result<void> BatchParser::finish() {
    const Line rest = lines_.rest();
    if (!rest.raw.empty() || state_ == State::opening || state_ == State::content) {
        const bool content = state_ == State::content;
        return std::unexpected(error_at(content ? scan_.line() : rest.number,
                                        content ? scan_.offset() : rest.offset,
                                        state_ == State::between || state_ == State::envelope
                                            ? "the file ends inside a line; write it whole"
                                            : "the file ends inside a message; write it whole"));
    }
    if (state_ == State::envelope) {
        return refuse(rest, "the file ends between MAIL and DATA; write it whole");
    }
    if (number_ == 0) return refuse(rest, "no message in the file; write MAIL FROM, RCPT TO, DATA");
    return {};
}

Result<void> BatchParser::on_command(const Line& line) {
    if (line.too_long) {
        return refuse(line,
                      fmt::format("a command over {} octets; shorten it", limits::kEnvelopeLine));
    }
    if (first_line_) {
        first_line_ = false;
        crlf_ = line.crlf;
    } else if (line.crlf != crlf_) {
        return refuse(line, crlf_ ? "this line ends in LF, the first one in CRLF; use one of them"
                                  : "this line ends in CRLF, the first one in LF; use one of them");
    }
    std::string_view argument;
    switch (split_command(line.text, argument)) {
        case Verb::mail:
            return on_mail(line, argument);
        case Verb::rcpt:
            return on_rcpt(line, argument);
        case Verb::data:
            return on_data(line, argument);
        case Verb::noop:
            return {};
        case Verb::greeting:
        case Verb::rset:
            // RFC 5321 4.1.4: EHLO in mid-envelope is as RSET.
            if (state_ == State::envelope) abandon(line);
            return {};
        case Verb::quit:
            if (state_ == State::envelope)
                return refuse(line, "QUIT between MAIL and DATA; send the message");
            return {};
        case Verb::unknown:
            break;
    }
    return refuse(
        line, fmt::format("\"{}\" is no command of a batch; use MAIL FROM, RCPT TO, DATA, HELO, "
                          "EHLO, RSET, NOOP or QUIT",
                          shown(line.text)));
}

Result<void> BatchParser::on_mail(const Line& line, std::string_view argument) {
    if (state_ == State::envelope)
        return refuse(line, "MAIL behind MAIL; DATA or RSET must come before");
    if (argument.empty() || argument.front() != '<') {
        return refuse(line, "MAIL FROM: without <address>; use <> for no sender");
    }
    state_ = State::envelope;
    ++number_;
    recipients_ = 0;
    begin_ = line.offset;
    refusal_.reset();
    clear(envelope_);
    fields_.reset();
    auto path = parse_path(argument);
    if (!path) {
        refusal_ = error_at(line.number, line.offset, path.error().text);
        return {};
    }
    const std::string_view parameters = argument.substr(path->size);
    if (!parameters.empty() && parameters.front() != ' ')
        return refuse(line, "text behind the > of MAIL FROM:");
    envelope_.sender.assign(path->address);
    if (auto ok = take_mail_parameters(parameters, envelope_); !ok)
        return refuse(line, ok.error().text);
    envelope_.smtputf8 |= path->mailbox.needs_smtputf8;
    return {};
}

Result<void> BatchParser::on_rcpt(const Line& line, std::string_view argument) {
    if (state_ != State::envelope)
        return refuse(line, "RCPT without MAIL; put MAIL FROM before it");
    if (argument.empty() || argument.front() != '<')
        return refuse(line, "RCPT TO: without <address>");
    if (++recipients_ > limits::kRecipientsPerMessage) {
        return refuse(line, fmt::format("over {} recipients; split the message",
                                        limits::kRecipientsPerMessage));
    }
    while (argument.back() == ' ') argument.remove_suffix(1);
    auto path = parse_path(argument);
    if (path && path->address.empty()) path = fail("<> is no recipient");
    if (!path) {
        const std::string_view address = argument.ends_with('>') && argument.size() > 2 ? argument.substr(1, argument.size() - 2) : argument;
        handler_.on_refused_recipient(address, error_at(line.number, line.offset, path.error().text));
        return {};
    }
    std::string_view parameters = argument.substr(path->size);
    if (!parameters.empty()) {
        if (parameters.front() != ' ') return refuse(line, "text behind the > of RCPT TO:");
        if (auto ok = check_rcpt_parameters(parameters); !ok) return refuse(line, ok.error().text);
        while (!parameters.empty() && parameters.front() == ' ') parameters.remove_prefix(1);
    }
    envelope_.smtputf8 |= path->mailbox.needs_smtputf8;
    const auto at = static_cast<uint64_t>(argument.data() - line.text.data());
    handler_.on_recipient({path->address, path->mailbox.domain, parameters,
                           Range{line.offset + at, argument.size()}, argument});
    return {};
}

Result<void> BatchParser::on_data(const Line& line, std::string_view argument) {
    if (state_ != State::envelope)
        return refuse(line, "DATA without MAIL; put MAIL FROM and RCPT TO before it");
    if (!argument.empty()) return refuse(line, "DATA takes no argument");
    state_ = State::opening;
    if (recipients_ == 0 && !refusal_) {
        refusal_ = error_at(line.number, line.offset,
                            "the message has no recipient; put RCPT TO before DATA");
    }
    return {};
}

// Lines of our own may stand before the content; the first other line is content. The block of an .eml is neither: its lines
// would be sent.
Result<void> BatchParser::on_opening(const Line& line) {
    const BlockLine field = split_block_line(line.text);
    if (field.name == BlockName::receiver && !refusal_) {
        refusal_ = error_at(line.number, line.offset,
                            "x-receiver in the content would show the recipients; use RCPT TO");
    }
    if (field.name == BlockName::sender && !refusal_) {
        refusal_ = error_at(line.number, line.offset,
                            "x-sender opens the content: the envelope block of an .eml would be sent with it; drop the block, "
                            "MAIL FROM and RCPT TO say it");
    }
    if (may_open_data(field.name)) {
        if (line.too_long) {
            return refuse(line,
                          fmt::format("a line over {} octets; shorten it", limits::kEnvelopeLine));
        }
        if (line.crlf != crlf_)
            return refuse(line, "this line ends otherwise than the first one; use one ending");
        if (auto ok = fields_.take(field.name, field.value, envelope_); !ok && !refusal_) {
            refusal_ = error_at(
                line.number, line.offset,
                fmt::format("{}: {}", line.text.substr(0, line.text.find(':')), ok.error().text));
        }
        return {};
    }
    begin_content(line.offset, line.number);
    const char* p = line.raw.data();
    return feed_content(p, p + line.raw.size());
}

void BatchParser::begin_content(uint64_t offset, uint64_t line) {
    state_ = State::content;
    scan_.begin(form(), rules_, offset, line);
}

Result<void> BatchParser::feed_content(const char*& p, const char* end) {
    p += scan_.feed(p, static_cast<size_t>(end - p));
    if (scan_.frame_broken()) {
        return std::unexpected(
            error_at(scan_.line(), scan_.offset(),
                     crlf_ ? "a dot line that ends in LF in a file of CRLF; use one ending"
                           : "a dot line that ends in CRLF in a file of LF; use one ending"));
    }
    return scan_.ended() ? end_message() : Result<void>{};
}

Result<void> BatchParser::end_message() {
    state_ = State::between;
    lines_.reset(scan_.offset(), scan_.line());
    auto sound = scan_.finish(content_);
    if (!refusal_ && !sound) refusal_ = std::move(sound.error());
    if (refusal_) {
        refuse_message(std::move(*refusal_));
    } else {
        handler_.on_message(number_, envelope_, content_);
    }
    return {};
}

// The envelope is given up without content: nobody gets it, so it is told rather than dropped in
// silence.
void BatchParser::abandon(const Line& line) {
    state_ = State::between;
    content_ = Content{};
    content_.stored.offset = line.offset;
    content_.form = form();
    refuse_message(error_at(line.number, line.offset,
                            "RSET or a greeting before DATA; the message has no content"));
}

void BatchParser::refuse_message(Error why) {
    const Range whole = message();
    refusal_.reset();
    handler_.on_refused_message(number_, envelope_, content_, whole, why);
}

}  // namespace postrider
