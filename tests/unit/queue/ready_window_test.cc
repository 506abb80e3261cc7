// The ready window against a model, its three protocols, and with threads: every record comes out
// exactly once.
#include "queue/ready_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/io/clock.h"

namespace postrider {
namespace {

TEST(ReadyWindow, IsAQueueLikeItsModel) {
    for (uint64_t seed = 1; seed <= 50; ++seed) {
        Random random(seed);
        ReadyWindow window(7);
        std::deque<std::pair<RecordId, uint32_t>> model;
        RecordId next = 1;
        const uint32_t pushes =
            1 + random.below(9);  // of ten steps, so that both full and empty are met
        for (int step = 0; step < 5'000; ++step) {
            if (random.below(10) < pushes) {
                const uint32_t tag = random.below(3);
                const bool pushed = window.push(next, tag);
                ASSERT_EQ(pushed, model.size() < ReadyWindow::kCells);
                if (pushed) model.emplace_back(next++, tag);
            } else if (random.below(2) == 0) {
                const uint32_t tag = random.below(3);
                const bool fits = !model.empty() && model.front().second == tag;
                ASSERT_EQ(window.pull_same(tag), fits ? model.front().first : 0u);
                if (fits) model.pop_front();
            } else {
                ASSERT_EQ(window.pull(), model.empty() ? 0u : model.front().first);
                if (!model.empty()) model.pop_front();
            }
            ASSERT_EQ(window.size(), model.size());
            ASSERT_EQ(window.empty(), model.empty());
        }
    }
}

TEST(ReadyWindow, TheTagIsOfTheMessageNotOfTheRecipient) {
    Record a, b, c;
    a.file = b.file = c.file = 3;
    a.place = b.place = 10;
    c.place = 20;
    b.recipient = 5;
    b.attempts = 2;
    EXPECT_EQ(ReadyWindow::message_tag(a), ReadyWindow::message_tag(b));
    EXPECT_NE(ReadyWindow::message_tag(a), ReadyWindow::message_tag(c));
    EXPECT_TRUE(a.same_message(b));
    EXPECT_FALSE(a.same_message(c));
}

TEST(ReadyWindow, IsAnnouncedOnceUntilItLeavesTheRotation) {
    ReadyWindow window(1);
    ASSERT_TRUE(window.push(1, 0));
    EXPECT_TRUE(window.announce());
    EXPECT_TRUE(window.referenced());
    ASSERT_TRUE(window.push(2, 0));
    EXPECT_FALSE(window.announce());
    EXPECT_FALSE(window.leave()) << "mail is there: the worker stays";
    EXPECT_FALSE(window.announce()) << "it is still in rotation";
    EXPECT_EQ(window.pull(), 1u);
    EXPECT_EQ(window.pull(), 2u);
    EXPECT_TRUE(window.leave());
    EXPECT_FALSE(window.referenced());
    ASSERT_TRUE(window.push(3, 0));
    EXPECT_TRUE(window.announce());
    EXPECT_TRUE(window.referenced());
}

TEST(ReadyWindow, AbandonedItKeepsItsMail) {
    ReadyWindow window(1);
    ASSERT_TRUE(window.push(1, 0));
    ASSERT_TRUE(window.announce());
    window.add_reference();  // a second shard
    window.abandon();
    EXPECT_TRUE(window.referenced());
    window.drop_reference();
    EXPECT_FALSE(window.referenced());
    EXPECT_EQ(window.size(), 1u);
    EXPECT_TRUE(window.announce()) << "out of rotation, so the next announcement counts";
}

TEST(ReadyWindow, OneConsumerAsksForMoreUntilTheNextRefill) {
    ReadyWindow window(1);
    for (RecordId id = 1; id <= ReadyWindow::kCells; ++id) ASSERT_TRUE(window.push(id, 0));
    while (window.size() > ReadyWindow::kCells / 2 + 1) {
        EXPECT_NE(window.pull(), 0u);
        EXPECT_FALSE(window.wants_refill());
    }
    window.pull();
    EXPECT_TRUE(window.wants_refill());
    EXPECT_FALSE(window.wants_refill());
    window.refilling();
    EXPECT_TRUE(window.wants_refill()) << "nothing came of the refill, so the want is told again";
    window.set_behind(1'000);
    EXPECT_EQ(window.waiting(), 1'000u + window.size());
    window.set_behind(uint64_t{1} << 40);
    EXPECT_GE(window.waiting(), uint64_t{UINT32_MAX});
}

// A consumer's part: takes a record, then the following recipients of its message; writes what it
// saw.
void consume(ReadyWindow& window, RecordArena& arena, std::atomic<uint32_t>& left,
             std::vector<RecordId>& out) {
    while (left.load(std::memory_order_relaxed) > 0) {
        const RecordId first = window.pull();
        if (!first) {
            std::this_thread::yield();
            continue;
        }
        const uint32_t tag = ReadyWindow::message_tag(arena[first]);
        uint32_t taken = 0;
        for (RecordId id = first; id; id = taken < 5 ? window.pull_same(tag) : 0) {
            Record& record = arena[id];  // ours now: a plain write, as a sending shard makes
            ++record.attempts;
            if (!record.same_message(arena[first])) record.possible_duplicate = true;
            out.push_back(id);
            ++taken;
        }
        left.fetch_sub(taken, std::memory_order_relaxed);
    }
}

TEST(ReadyWindow, OneProducerThreeConsumersAMillionRecords) {
    constexpr uint32_t kRecords = 1'000'000;
    RecordArena arena;
    RecordSupply supply(arena);
    ReadyWindow window(1);
    std::atomic<uint32_t> left{kRecords};
    std::vector<std::vector<RecordId>> got(3);
    std::vector<std::thread> consumers;
    for (auto& out : got)
        consumers.emplace_back([&, &mine = out] { consume(window, arena, left, mine); });
    std::vector<RecordId> made;
    for (uint32_t i = 0; i < kRecords; ++i) {
        const RecordId id = supply.take();
        made.push_back(id);
        arena[id].file = 1;
        arena[id].place = i / 4;  // four recipients of each message
        arena[id].recipient = i % 4;
        while (!window.push(id, ReadyWindow::message_tag(arena[id]))) std::this_thread::yield();
    }
    for (auto& thread : consumers) thread.join();
    std::vector<RecordId> all;
    for (const auto& out : got) {
        // A consumer sees the producer's order.
        EXPECT_TRUE(std::ranges::is_sorted(
            out, {}, [&](RecordId id) { return arena[id].place * 4 + arena[id].recipient; }));
        all.insert(all.end(), out.begin(), out.end());
    }
    std::ranges::sort(made);
    std::ranges::sort(all);
    EXPECT_EQ(all, made);
    for (const RecordId id : made) {
        ASSERT_EQ(arena[id].attempts, 1);
        ASSERT_FALSE(arena[id].possible_duplicate) << "a tag brought a record of another message";
    }
    EXPECT_EQ(window.pull(), 0u);
}

// The workers of a site: windows arrive by mail, are served until empty, and leave.
class Workers {
  public:
    Workers() {
        for (int i = 0; i < 3; ++i) threads_.emplace_back([this] { work(); });
    }
    ~Workers() {
        stop_ = true;
        for (auto& thread : threads_) thread.join();
    }
    void send(ReadyWindow* window) {
        std::scoped_lock lock(mutex_);
        mail_.push_back(window);
    }
    uint64_t pulled() const { return pulled_.load(std::memory_order_acquire); }

  private:
    void work() {
        while (!stop_) {
            ReadyWindow* window = nullptr;
            {
                std::scoped_lock lock(mutex_);
                if (!mail_.empty()) {
                    window = mail_.front();
                    mail_.pop_front();
                }
            }
            if (!window) {
                std::this_thread::yield();
                continue;
            }
            do {
                while (window->pull()) pulled_.fetch_add(1, std::memory_order_release);
            } while (!window->leave());
        }
    }
    std::mutex mutex_;
    std::deque<ReadyWindow*> mail_;
    std::atomic<uint64_t> pulled_{0};
    std::atomic<bool> stop_ = false;
    std::vector<std::thread> threads_;
};

// The home shard pushes little by little, announces, and frees the window whenever it may. A
// wake-up that is lost leaves mail in the window for ever; one too many uses a window that was
// freed.
TEST(ReadyWindow, NoMailIsLeftBehindAndNoFreedWindowUsed) {
    constexpr uint64_t kPushed = 50'000;
    Random random(3);
    Workers workers;
    std::unique_ptr<ReadyWindow> window;
    const MonoNs end_ns = read_mono_clock() + 50 * kNsPerSecond;
    uint64_t pushed = 0, freed = 0;
    while (pushed < kPushed && read_mono_clock() < end_ns) {
        if (!window) window = std::make_unique<ReadyWindow>(1);
        for (uint32_t burst = 1 + random.below(4); burst > 0; --burst) pushed += window->push(1, 0);
        if (window->announce()) workers.send(window.get());
        if (random.below(8) == 0) std::this_thread::yield();
        if (window->empty() && !window->referenced()) {
            window.reset();
            ++freed;
        }
    }
    while (workers.pulled() < pushed && read_mono_clock() < end_ns) std::this_thread::yield();
    EXPECT_GE(pushed, kPushed);
    EXPECT_EQ(workers.pulled(), pushed);
    while (window && window->referenced() && read_mono_clock() < end_ns) std::this_thread::yield();
    EXPECT_FALSE(window && window->referenced());
    EXPECT_GT(freed, 0u);
}

}  // namespace
}  // namespace postrider
