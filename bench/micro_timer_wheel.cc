// The timer wheel as a shard uses it: many connections, each of which moves its one deadline with
// every reply; and timers that fire.
#include <benchmark/benchmark.h>

#include <vector>

#include "engine/io/timer_wheel.h"

namespace postrider {
namespace {

struct Deadline : Timer {
    void on_timer() override { ++fired; }
    uint64_t fired = 0;
};

constexpr int64_t kReplyMs = 300'000;  // RFC 5321 4.5.3.2

void move_deadline(benchmark::State& state) {
    TimerWheel wheel(0);
    std::vector<Deadline> deadlines(static_cast<size_t>(state.range(0)));
    for (Deadline& deadline : deadlines) wheel.arm(deadline, kReplyMs);
    int64_t now = 0;
    size_t at = 0;
    for (auto _ : state) {
        wheel.arm(deadlines[at], now + kReplyMs);
        if (++at < deadlines.size()) continue;
        at = 0;
        wheel.advance(++now);
    }
    for (Deadline& deadline : deadlines) wheel.disarm(deadline);
}
BENCHMARK(move_deadline)->Name("timer wheel/move a deadline, connections")->Arg(20)->Arg(20'000);

// Armed, cascaded down the levels, fired.
void fire(benchmark::State& state) {
    TimerWheel wheel(0);
    std::vector<Deadline> deadlines(1000);
    int64_t now = 0;
    for (auto _ : state) {
        for (size_t i = 0; i < deadlines.size(); ++i)
            wheel.arm(deadlines[i], now + 1 + static_cast<int64_t>(i) * state.range(0) / 1000);
        now += state.range(0) + 1;
        wheel.advance(now);
    }
    if (deadlines[0].fired != static_cast<uint64_t>(state.iterations()))
        state.SkipWithError("a timer did not fire");
    state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(deadlines.size()));
}
BENCHMARK(fire)->Name("timer wheel/arm and fire a thousand, over ms")->Arg(200)->Arg(60'000);

}  // namespace
}  // namespace postrider
