// Who listens to a site, and what is kept for him: bounded, printable, from many threads.
#include "engine/smtp/trace.h"

#include <gtest/gtest.h>

#include <thread>

namespace postrider {
namespace {

using std::chrono::milliseconds;

constexpr TracePlace kPlace{1, 2, "mx.test", "192.0.2.1"};

TEST(Trace, LinesAsTheyWereSaid) {
    Tracer tracer;
    const auto listener = tracer.listen("site");
    listener->put(kPlace, TraceKind::sent, "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n", 1'700'000'000'000'007);
    listener->put(kPlace, TraceKind::received, "550 \x1b[31mno\x07 \xff\n", 8);
    const auto taken = listener->take(milliseconds(0));
    ASSERT_EQ(taken.lines.size(), 4u);
    EXPECT_EQ(taken.lines[0].text, "MAIL FROM:<a@b.test>");
    EXPECT_EQ(taken.lines[0].at_us, 1'700'000'000'000'007);
    EXPECT_EQ(taken.lines[0].kind, TraceKind::sent);
    EXPECT_EQ(taken.lines[0].host, "mx.test");
    EXPECT_EQ(taken.lines[2].text, "DATA");
    for (const char c : taken.lines[3].text) EXPECT_TRUE(c >= ' ' && c <= '~') << static_cast<int>(c);
    EXPECT_TRUE(listener->take(milliseconds(1)).lines.empty());
}

// One that takes nothing costs so much and no more, and is told what it missed.
TEST(Trace, KeepsSoManyLinesOfSoManyOctets) {
    Tracer tracer;
    const auto listener = tracer.listen("site");
    listener->put(kPlace, TraceKind::received, std::string(1'000'000, 'x'), 0);
    for (size_t i = 0; i < TraceListener::kLinesKept + 9; ++i) listener->put(kPlace, TraceKind::note, "line", 0);
    auto taken = listener->take(milliseconds(0));
    EXPECT_EQ(taken.lines.size(), TraceListener::kLinesKept);
    EXPECT_EQ(taken.lost, 10u);
    EXPECT_LE(taken.lines[0].text.size(), 2'048u);
    listener->put(kPlace, TraceKind::note, "after", 0);
    taken = listener->take(milliseconds(0));
    ASSERT_EQ(taken.lines.size(), 1u);
    EXPECT_EQ(taken.lost, 0u);
}

TEST(Trace, SoManyListenAndEachToItsSite) {
    Tracer tracer;
    EXPECT_EQ(tracer.version(), 0u);  // nothing a session would look at
    std::vector<std::shared_ptr<TraceListener>> all;
    for (size_t i = 0; i < Tracer::kListenersMost; ++i) all.push_back(tracer.listen(i % 2 ? "odd" : "even"));
    EXPECT_EQ(tracer.listen("odd"), nullptr);
    EXPECT_EQ(tracer.listeners("odd").size(), Tracer::kListenersMost / 2);
    EXPECT_TRUE(tracer.listeners("other").empty());
    const uint64_t before = tracer.version();
    tracer.end(all[1]->id());
    tracer.end(4711);
    EXPECT_EQ(tracer.version(), before + 1);
    EXPECT_EQ(tracer.find(all[1]->id()), nullptr);
    EXPECT_EQ(tracer.find(all[0]->id()), all[0]);
    const auto next = tracer.listen("odd");
    ASSERT_TRUE(next);
    EXPECT_NE(next->id(), all[1]->id());
    tracer.sweep();  // all were just made
    EXPECT_EQ(tracer.listeners("even").size(), Tracer::kListenersMost / 2);
}

// Shards tell, the admin socket takes, traces begin and end: every line is taken or counted.
TEST(Trace, FromManyThreads) {
    constexpr size_t kShards = 3, kLines = 20'000;
    Tracer tracer;
    const auto listener = tracer.listen("site");
    std::atomic<size_t> ended{0};
    std::vector<std::thread> threads;
    for (size_t shard = 0; shard < kShards; ++shard) {
        threads.emplace_back([&] {
            uint64_t seen = 0;
            Tracer::Listeners listeners;
            for (size_t i = 0; i < kLines; ++i) {
                if (const uint64_t version = tracer.version(); version != seen) {
                    seen = version;
                    listeners = tracer.listeners("site");
                }
                for (const auto& each : listeners)
                    if (each == listener) each->put(kPlace, TraceKind::note, "line", 0);
            }
            ++ended;
        });
    }
    threads.emplace_back([&] {
        while (ended < kShards) {
            if (const auto other = tracer.listen("site")) tracer.end(other->id());
            tracer.sweep();
        }
    });
    size_t told = 0;
    for (bool last = false; !last;) {
        last = ended == kShards;
        const auto taken = listener->take(milliseconds(1));
        told += taken.lines.size() + taken.lost;
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(told, kShards * kLines);
}

}  // namespace
}  // namespace postrider
