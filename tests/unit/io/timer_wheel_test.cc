#include "engine/io/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "engine/io/clock.h"

namespace postrider {
namespace {

struct Probe : Timer {
    int64_t* now = nullptr;
    int64_t fired_at = -1;
    void on_timer() override { fired_at = *now; }
};

// Against the obvious model: every timer fires in the first advance() at or after its deadline.
TEST(TimerWheel, FiresLikeASortedMap) {
    Random random(7);
    for (int round = 0; round < 20; ++round) {
        int64_t now = static_cast<int64_t>(random.next() >> 20);
        TimerWheel wheel(now);
        std::vector<std::unique_ptr<Probe>> probes;
        for (int i = 0; i < 500; ++i) {
            auto probe = std::make_unique<Probe>();
            probe->now = &now;
            const int64_t span = int64_t{1} << random.below(30);
            wheel.arm(*probe, now + static_cast<int64_t>(random.next() % static_cast<uint64_t>(span)));
            if (random.below(4) == 0) wheel.arm(*probe, probe->deadline_ms() + 3);
            probes.push_back(std::move(probe));
        }
        std::vector<bool> disarmed(probes.size());
        for (int step = 0; step < 3000; ++step) {
            const int64_t next = wheel.next_ms();
            int64_t to = now + static_cast<int64_t>(random.next() % (uint64_t{1} << random.below(22)));
            if (random.below(2) == 0 && next != TimerWheel::kNever) to = next;
            const int64_t before = now;
            now = std::max(now, to);
            for (auto& probe : probes) {
                const bool due_before_hint = probe->armed() && probe->deadline_ms() < next &&
                                             probe->deadline_ms() > before;
                ASSERT_FALSE(due_before_hint) << "next_ms() was late";
            }
            wheel.advance(now);
            for (size_t i = 0; i < probes.size(); ++i) {
                auto& probe = *probes[i];
                if (disarmed[i]) {
                    ASSERT_EQ(probe.fired_at, -1);
                } else if (probe.fired_at >= 0) {
                    ASSERT_GE(probe.fired_at, probe.deadline_ms());
                } else {
                    ASSERT_GT(probe.deadline_ms(), now - 1);
                }
            }
            const size_t victim = random.below(static_cast<uint32_t>(probes.size()));
            if (step % 16 == 0 && probes[victim]->armed()) {
                wheel.disarm(*probes[victim]);
                disarmed[victim] = true;
            }
        }
    }
}

struct Rearming : Timer {
    TimerWheel* wheel;
    int count = 0;
    void on_timer() override {
        if (++count < 1000) wheel->arm(*this, deadline_ms() + 1);
    }
};

TEST(TimerWheel, ATimerMayArmItself) {
    TimerWheel wheel(0);
    Rearming timer;
    timer.wheel = &wheel;
    wheel.arm(timer, 1);
    wheel.advance(5000);
    EXPECT_EQ(timer.count, 1000);
    EXPECT_EQ(wheel.next_ms(), TimerWheel::kNever);
}

TEST(TimerWheel, PastTheHorizonStillFires) {
    int64_t now = 12345;
    TimerWheel wheel(now);
    Probe probe;
    probe.now = &now;
    const int64_t deadline = now + (int64_t{1} << 34);
    wheel.arm(probe, deadline);
    while (probe.fired_at < 0) {
        now = wheel.next_ms();
        ASSERT_LE(now, deadline);
        wheel.advance(now);
    }
    EXPECT_EQ(probe.fired_at, deadline);
}

}  // namespace
}  // namespace postrider
