// Promise 5 in small: once its strings have grown, a transaction from message to message allocates nothing.
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/unit/smtp/dialogue.h"

namespace {

std::atomic<size_t> allocations = 0;

void* counted(size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    void* memory = std::malloc(size);
    if (memory == nullptr) std::abort();
    return memory;
}

}  // namespace

void* operator new(size_t size) { return counted(size); }
void* operator new[](size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace postrider {
namespace {

// One message to two recipients of which one is refused; the replies come in two packets.
void send_one(Transaction& transaction, ReplyParser& parser, const Capabilities& host, std::string& out) {
    transaction.reset();
    MessageFacts facts;
    facts.wire_size = 10'240;
    facts.envid = "a-rather-long-envelope-id-0123456789";
    transaction.set_message("bounces+newsletter-0123456789@sender.example.test", facts);
    transaction.add_recipient(1, "first.recipient.of.some.length@example.test", "NOTIFY=SUCCESS,FAILURE,DELAY");
    transaction.add_recipient(2, "second.recipient.of.some.length@example.test");
    out.clear();
    auto step = transaction.begin(host, Dialogue::group, {}, out);
    for (std::string_view packet :
         {std::string_view("250 2.1.0 Sender ok, please go on\r\n250 2.1.5 Recipient ok\r\n"
                           "550-5.1.1 The mailbox you tried to reach does not exist.\r\n"
                           "550 5.1.1 Please look at its address again.\r\n354 Go ahead, end with a dot\r\n"),
          std::string_view("250 2.0.0 Queued as 4bXyZ0123456789abcdef, thank you\r\n")}) {
        while (!packet.empty()) {
            const auto progress = parser.feed(packet);
            packet.remove_prefix(progress.consumed);
            step = transaction.on_reply(parser.reply(), out);
        }
        if (step == Transaction::Step::send_content) transaction.content_handed_over();
    }
}

TEST(SteadyState, NothingIsAllocatedForAMessage) {
    Transaction transaction;
    ReplyParser parser;
    Capabilities host;
    host.pipelining = host.size = host.dsn = true;
    std::string out;
    send_one(transaction, parser, host, out);
    const size_t before = allocations.load();
    EXPECT_GT(before, 0U);
    for (int i = 0; i < 100; ++i) send_one(transaction, parser, host, out);
    EXPECT_EQ(allocations.load(), before);
    EXPECT_EQ(transaction.outcome(0).kind, OutcomeKind::delivered);
    EXPECT_EQ(transaction.outcome(1).kind, OutcomeKind::bounced);
    EXPECT_EQ(transaction.outcome(1).text,
              "The mailbox you tried to reach does not exist. Please look at its address again.");
}

}  // namespace
}  // namespace postrider
