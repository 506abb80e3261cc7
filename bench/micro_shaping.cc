// What shaping adds to a message, in CPU: the look whether the version has moved, one event of each rate of the path, and the
// look whether the connection must go. With one provider, a site rate, a path rate and a data rate; and without any limit.
#include <benchmark/benchmark.h>

#include <string>
#include <thread>
#include <vector>

#include "engine/egress/site.h"

namespace postrider {
namespace {

void one_rate(benchmark::State& state) {
    static Gcra limit(1'000'000'000, 1, 100'000'000);
    MonoNs now = 1'000 * kNsPerSecond;
    for (auto _ : state) benchmark::DoNotOptimize(limit.take(now += 100));
}
BENCHMARK(one_rate)->Name("shaping/one rate, taken, threads")->ThreadRange(1, 2);

void refused(benchmark::State& state) {
    RateLimit provider, site, path;
    for (RateLimit* limit : {&provider, &site}) limit->set_rate(Rate{1'000'000, 1, {}}, 0);
    path.set_rate(Rate{1, 86'400, {}}, 0);
    PathView view;
    view.message_rates = {&provider, &site, &path};
    const MonoNs now = 1'000 * kNsPerSecond;
    (void)view.acquire(now, 1'000);
    for (auto _ : state) benchmark::DoNotOptimize(view.acquire(now, 1'000));
}
BENCHMARK(refused)->Name("shaping/refused by the narrowest of three, given back");

// `limits`: 0 without, 1 with four rates that all grant.
void message(benchmark::State& state) {
    ShapingBook book{ShapingRules()};
    RateLimit provider, site, path, octets;
    const Rate wide{4'000'000'000, 1, 4'000'000'000};
    CountLimit sockets, of_provider, of_site, of_path(1'000);
    PathView view;
    view.slots = {&sockets, &of_provider, &of_site, &of_path};
    if (state.range(0)) {
        for (RateLimit* limit : {&provider, &site, &path, &octets}) limit->set_rate(wide, 0);
        view.message_rates = {&provider, &site, &path};
        view.data_rate = &octets;
    }
    ConnectionLease lease = ConnectionLease::take(view);
    const uint64_t version = book.version();
    MonoNs now = 1'000 * kNsPerSecond;
    for (auto _ : state) {
        benchmark::DoNotOptimize(book.version() == version);
        benchmark::DoNotOptimize(lease.over());
        now += 20'000;
        if (!view.paced()) continue;
        if (!view.acquire(now, 10'000)) state.SkipWithError("refused");
        view.correct(10'000, 10'240);
    }
}
BENCHMARK(message)->Name("shaping/message, limits")->Arg(0)->Arg(1);

}  // namespace
}  // namespace postrider
