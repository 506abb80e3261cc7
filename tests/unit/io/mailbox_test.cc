#include "engine/io/mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/io/reactor.h"

namespace postrider {
namespace {

// Three shards bounce mail between each other, sleeping whenever they can: nothing is lost, nothing overtakes, and
// no doorbell is missed (a missed one would let the test run into its time limit).
TEST(Mailbox, EveryMailArrivesInOrderAndWakesTheSleeper) {
    constexpr size_t kShards = 3;
    constexpr uint64_t kMails = 200'000;
    MailExchange exchange(kShards);
    std::atomic<size_t> made{0};
    std::atomic<size_t> done{0};
    std::vector<uint64_t> received(kShards, 0);
    std::vector<std::thread> threads;
    for (ShardId shard = 0; shard < kShards; ++shard) {
        threads.emplace_back([&, shard] {
            auto reactor = Reactor::make(shard, exchange, {.entries = 64, .receive_buffers = 4});
            ASSERT_TRUE(reactor) << reactor.error().text;
            Reactor& r = **reactor;
            std::vector<uint64_t> expected(kShards, 0);
            r.on_mail(1, [&](const Mail& mail) {
                ASSERT_EQ(mail.b, expected[mail.a]++);
                ++received[shard];
            });
            ++made;
            while (made < kShards) std::this_thread::yield();
            uint64_t sent = 0;
            const uint64_t wanted = kMails * (kShards - 1);
            bool finished = false;
            r.each_turn([&] {
                for (int i = 0; i < 300 && sent < kMails; ++i, ++sent)
                    for (ShardId to = 0; to < kShards; ++to)
                        if (to != shard) r.post(to, Mail{1, 0, shard, sent, 0});
                return false;  // let the shard sleep: only a doorbell or mail wakes it
            });
            while (done < kShards) {
                // While there is something to send the turn is bounded; afterwards only mail wakes.
                const MonoNs patience = sent < kMails ? kNsPerMs : 200 * kNsPerMs;
                r.turn(r.now_ns() + patience);
                if (!finished && received[shard] == wanted && sent == kMails) {
                    finished = true;
                    ++done;
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    for (auto count : received) EXPECT_EQ(count, kMails * (kShards - 1));
}

}  // namespace
}  // namespace postrider
