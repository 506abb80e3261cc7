// The ready window under one, two and four threads. The first thread is the home shard and pushes
// what the others pull; alone it does both. `items` are records that changed hands. Threads beyond
// the cores of the machine share them.
#include <benchmark/benchmark.h>

#include "queue/ready_window.h"

namespace postrider {
namespace {

ReadyWindow& window() {
    static ReadyWindow shared(1);
    return shared;
}

void hand_over(benchmark::State& state) {
    ReadyWindow& shared = window();
    const bool alone = state.threads() == 1;
    const bool home = state.thread_index() == 0;
    RecordId next = 1;
    int64_t pulled = 0;
    for (auto _ : state) {
        if (home && shared.push(next, next)) ++next;
        if ((alone || !home) && shared.pull() != 0) ++pulled;
    }
    state.SetItemsProcessed(pulled);
}
BENCHMARK(hand_over)->Name("ready window/hand over")->ThreadRange(1, 4)->UseRealTime();

// All recipients of a message in one go: the tag is compared before each.
void pull_same(benchmark::State& state) {
    ReadyWindow own(1);
    int64_t pulled = 0;
    for (auto _ : state) {
        for (RecordId id = 1; id <= ReadyWindow::kCells; ++id) own.push(id, 7);
        while (own.pull_same(7) != 0) ++pulled;
    }
    state.SetItemsProcessed(pulled);
}
BENCHMARK(pull_same)->Name("ready window/recipients of one message");

}  // namespace
}  // namespace postrider
