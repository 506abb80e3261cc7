// The reply parser and the log's censorship: any split of the octets gives the same replies, within the bounds.
#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/check.h"
#include "engine/core/limits.h"
#include "engine/smtp/reply.h"
#include "engine/smtp/trouble.h"

namespace postrider {
namespace {

struct Parsed {
    std::vector<Reply> replies;
    ReplyFault fault = ReplyFault::none;
    size_t consumed = 0;
    bool operator==(const Parsed&) const = default;
};

// `step` 0: in one block.
Parsed parse(std::string_view octets, size_t step) {
    ReplyParser parser;
    Parsed parsed;
    while (parsed.consumed < octets.size()) {
        const std::string_view rest = octets.substr(parsed.consumed);
        const auto progress = parser.feed(step == 0 ? rest : rest.substr(0, step));
        parsed.consumed += progress.consumed;
        if (progress.state == ReplyState::bad) {
            parsed.fault = parser.fault();
            break;
        }
        if (progress.state == ReplyState::complete) parsed.replies.push_back(parser.reply());
    }
    return parsed;
}

void check(const Reply& reply) {
    POSTRIDER_CHECK(reply.code >= 200 && reply.code <= 599, "the table of codes");
    POSTRIDER_CHECK(reply.text.size() <= limits::kReplyKept, "kept text is bounded");
    std::string text;
    log_text(reply, text);
    POSTRIDER_CHECK(text.size() <= limits::kReplyLogged, "logged text is bounded");
    for (const char c : text)
        POSTRIDER_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F, "the log is printable");
    for (const Phase phase : {Phase::greeting, Phase::ehlo, Phase::mail, Phase::rcpt, Phase::data, Phase::dot}) {
        if (answer(phase, reply) == Answer::refused) (void)judge_refusal(phase, reply, true);
    }
}

}  // namespace
}  // namespace postrider

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    if (size == 0) return 0;
    const std::string_view octets(reinterpret_cast<const char*>(data) + 1, size - 1);
    const Parsed whole = parse(octets, 0);
    POSTRIDER_CHECK(whole == parse(octets, 1), "octet by octet gives the same");
    POSTRIDER_CHECK(whole == parse(octets, data[0] % 61U + 1), "any split gives the same");
    for (const Reply& reply : whole.replies) check(reply);
    return 0;
}
