// The spool formats over 10 KiB messages in memory: a batch file of a hundred, and one .eml with
// its envelope block.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/micro_content.h"
#include "queue/formats/batch_parser.h"
#include "queue/formats/eml_parser.h"

namespace postrider {
namespace {

constexpr size_t kMessage = 10 * 1024;
constexpr size_t kBlock = 256 * 1024;  // of the intake's reads
constexpr int64_t kBatch = 100;

struct Counter : SpoolHandler {
    void on_recipient(const RecipientView& recipient) override {
        octets += recipient.address.size();
    }
    void on_refused_recipient(std::string_view, const Error&) override { ++refused; }
    void on_message(uint32_t, const Envelope&, const Content& content) override {
        ++messages;
        octets += content.wire_size;
    }
    void on_refused_message(uint32_t, const Envelope&, const Content&, Range,
                            const Error&) override {
        ++refused;
    }
    uint64_t octets = 0;
    int64_t messages = 0, refused = 0;
};

std::string make_batch() {
    std::string file;
    for (int64_t i = 0; i < kBatch; ++i)
        file += "MAIL FROM:<bounce@sender.example> BODY=8BITMIME\r\nRCPT TO:<user" +
                std::to_string(i) + "@example.com>\r\nDATA\r\nx-campaign: spring\r\n" +
                bench::make_message(kMessage, "\r\n") + ".\r\n";
    return file;
}

template <class Parser>
void parse(benchmark::State& state, const std::string& file, int64_t messages) {
    Counter counter;
    Parser parser(counter, {});
    for (auto _ : state) {
        parser.reset();
        bool good = true;
        for (size_t at = 0; at < file.size(); at += kBlock)
            good = good &&
                   parser.feed(std::span(file).subspan(at, std::min(kBlock, file.size() - at)));
        if (!good || !parser.finish()) return state.SkipWithError("the file was refused");
    }
    if (counter.refused != 0 || counter.messages != state.iterations() * messages)
        return state.SkipWithError("messages are missing");
    state.SetItemsProcessed(counter.messages);
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(file.size()));
}

void batch(benchmark::State& state) { parse<BatchParser>(state, make_batch(), kBatch); }
BENCHMARK(batch)->Name("spool/batch file of 100");

void eml(benchmark::State& state) {
    parse<EmlParser>(
        state,
        "x-sender: bounce@sender.example\nx-receiver: user@example.com\nx-campaign: spring\n" +
            bench::make_message(kMessage, "\n"),
        1);
}
BENCHMARK(eml)->Name("spool/eml with an envelope block");

void eml_from_header(benchmark::State& state) {
    parse<EmlParser>(state, bench::make_message(kMessage, "\n"), 1);
}
BENCHMARK(eml_from_header)->Name("spool/eml, envelope from the header");

}  // namespace
}  // namespace postrider
