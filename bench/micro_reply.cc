// The reply parser over what a receiver sends: the replies to one message, in one block and octet
// by octet, and an EHLO.
#include <benchmark/benchmark.h>

#include <string_view>

#include "engine/smtp/reply.h"

namespace postrider {
namespace {

constexpr std::string_view kMessage =
    "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued "
    "as 4bXyZ91Q2vz3x\r\n";
constexpr std::string_view kEhlo =
    "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE "
    "104857600\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n"
    "250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";

// Feeds `text` in pieces; returns the number of replies.
int64_t parse(ReplyParser& parser, std::string_view text, size_t piece) {
    int64_t replies = 0;
    while (!text.empty()) {
        const auto progress = parser.feed(text.substr(0, piece));
        text.remove_prefix(progress.consumed);
        if (progress.state != ReplyState::complete) continue;
        benchmark::DoNotOptimize(parser.reply().code);
        ++replies;
    }
    return replies;
}

void replies(benchmark::State& state, std::string_view text, size_t piece) {
    ReplyParser parser;
    int64_t count = 0;
    for (auto _ : state) count += parse(parser, text, piece);
    state.SetItemsProcessed(count);
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK_CAPTURE(replies, message_in_one_block, kMessage, kMessage.size())
    ->Name("reply/four of a message, one block");
BENCHMARK_CAPTURE(replies, message_octets, kMessage, size_t{1})
    ->Name("reply/four of a message, octet by octet");
BENCHMARK_CAPTURE(replies, ehlo, kEhlo, kEhlo.size())->Name("reply/EHLO");

}  // namespace
}  // namespace postrider
