// The simulation seam kept true: shards of the engine's own reactor, on one thread, with a clock, a
// ring and randomness of the test's. Hours pass in a moment; a seed gives one history and no other.
// What would break that (a real clock, state outside a shard's objects) breaks this test, or
// check_state.py beside it.
#include <dlfcn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/random.h>
#include <time.h>

#include "tests/simulation/world.h"

namespace {
int real_clock_reads = 0;
}

// Inside a turn nobody may ask the machine for the time or for randomness, nor may what the
// standard library offers.
extern "C" int clock_gettime(clockid_t id, struct timespec* ts) noexcept {
    if (postrider::simulation::World::current) ++real_clock_reads;
    using Call = int (*)(clockid_t, struct timespec*);
    static const auto next = reinterpret_cast<Call>(dlsym(RTLD_NEXT, "clock_gettime"));
    return next(id, ts);
}
extern "C" ssize_t getrandom(void* buffer, size_t size, unsigned flags) {
    if (postrider::simulation::World::current) ++real_clock_reads;
    using Call = ssize_t (*)(void*, size_t, unsigned);
    static const auto next = reinterpret_cast<Call>(dlsym(RTLD_NEXT, "getrandom"));
    return next(buffer, size, flags);
}

namespace postrider::simulation {
namespace {

constexpr MonoNs kHour = 3'600 * kNsPerSecond;

// One shard's part: a caller and an answerer over the pipe between the two shards, a task that
// sleeps for minutes, one that waits for an event that mail from the other shard brings, or for its
// deadline.
struct Party final : Operation {
    World& world;
    Reactor& reactor;
    Event event;
    Gate gate;
    std::string out, got;
    uint64_t sent = 0, received = 0, mails = 0;
    int fd;
    bool sending = false, ended = false;

    struct Sent final : Operation {
        Party& party;
        explicit Sent(Party& p) : party(p) {}
        void complete(int result, bool, std::span<const char>) override { party.on_sent(result); }
    } sent_operation{*this};

    Party(World& w, ShardId shard) : world(w), reactor(w.shard(shard)), event(reactor), fd(shard) {
        World::current = &world;
        reactor.on_mail(1, [this](const Mail& mail) {
            ++mails;
            world.note(reactor.shard(), "mail", mail.b);
            event.notify();
        });
        reactor.ring().receive(fd, this);
        spawn(gate, sleeper());
        spawn(gate, waiter());
        World::current = nullptr;
    }
    ~Party() override { EXPECT_TRUE(gate.empty()); }

    void say(const std::string& text) {
        out += text;
        sent += text.size();
        flush();
    }
    void flush() {
        if (sending || out.empty()) return;
        sending = true;
        reactor.ring().send(fd, out.data(), out.size(), &sent_operation);
    }
    void on_sent(int result) {
        sending = false;
        out.erase(0, static_cast<size_t>(result));
        reactor.defer([this] { flush(); });
    }
    void complete(int result, bool, std::span<const char> octets) override {
        ASSERT_GT(result, 0);
        received += octets.size();
        world.note(reactor.shard(), "octets", octets.size());
        got.append(octets.data(), octets.size());
        if (got.size() > 200) got.erase(0, 100);
    }
    Task<void> sleeper() {
        while (!ended) {
            co_await Sleep(reactor, 1 + reactor.random().below(120'000));
            world.note(reactor.shard(), "slept", reactor.random().next());
            say(std::string(1 + reactor.random().below(60), 'x'));
            if (reactor.random().below(2)) co_await Yield(reactor);
            reactor.post(static_cast<ShardId>(1 - reactor.shard()),
                         Mail{.kind = 1, .b = reactor.random().below(1'000)});
        }
    }
    Task<void> waiter() {
        while (!ended) {
            const bool told = co_await event.wait(reactor.now_ms() + 60'000);
            world.note(reactor.shard(), told ? "told" : "late",
                       static_cast<uint64_t>(reactor.wall_us()));
        }
    }
};

struct History {
    World world;
    Party a, b;
    explicit History(uint64_t seed) : world(seed, 2), a(world, 0), b(world, 1) {}
    ~History() { end(); }
    bool step(MonoNs until_ns) { return world.step(until_ns); }
    std::string run(MonoNs until_ns) {
        world.run(until_ns);
        return world.trace();
    }
    void end() {
        a.ended = b.ended = true;
        world.run(world.clock_ns + kHour);
        EXPECT_EQ(a.sent, b.received);
        EXPECT_EQ(b.sent, a.received);
        EXPECT_GT(a.sent, 0u);
    }
};

TEST(Seam, HoursPassInAMomentAndNobodyAsksTheMachine) {
    timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    real_clock_reads = 0;
    {
        History history(1);
        history.run(12 * kHour);
        EXPECT_GT(history.world.clock_ns, 11 * kHour);
        EXPECT_GT(history.a.mails, 300u);
        EXPECT_NE(history.world.trace().find("told"), std::string::npos);
        EXPECT_NE(history.world.trace().find("late"), std::string::npos);
    }
    EXPECT_EQ(real_clock_reads, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    EXPECT_LT(end.tv_sec - begin.tv_sec, 5);
}

TEST(Seam, ASeedGivesOneHistoryAnotherSeedAnother) {
    const std::string first = History(7).run(2 * kHour);
    EXPECT_GT(first.size(), 1'000u);
    EXPECT_EQ(History(7).run(2 * kHour), first);
    EXPECT_NE(History(8).run(2 * kHour), first);
}

// What two worlds share would show: run by turns, each has the history that it has alone.
TEST(Seam, TwoWorldsOnOneThreadDoNotMeet) {
    const std::string alone = History(7).run(2 * kHour), other_alone = History(8).run(2 * kHour);
    History one(7), other(8);
    bool more = true;
    while (more) {
        more = one.step(2 * kHour);
        for (int i = 0; i < 3; ++i) more |= other.step(2 * kHour);
    }
    EXPECT_EQ(one.world.trace(), alone);
    EXPECT_EQ(other.world.trace(), other_alone);
}

// FAULTS 96: deadlines go by a clock that nobody sets.
TEST(Seam, ASetClockMovesTheWallAlone) {
    History history(3);
    Reactor& reactor = history.a.reactor;
    history.run(kHour);
    EXPECT_EQ(reactor.steady_us(), reactor.wall_us());
    for (const int64_t step_s : {86'400 * 365, -86'400 * 730}) {
        const WallUs steady_us = reactor.steady_us(), wall_us = reactor.wall_us();
        history.world.set_by_us += step_s * kUsPerSecond;
        history.run(history.world.clock_ns + kHour);
        const int64_t passed_s = (reactor.steady_us() - steady_us) / kUsPerSecond;
        EXPECT_GE(passed_s, 3'500);
        EXPECT_LE(passed_s, 3'700);
        EXPECT_EQ(reactor.wall_us() - wall_us, reactor.steady_us() - steady_us + step_s * kUsPerSecond);
    }
}

// The guard itself: a turn that asks the machine is seen.
TEST(Seam, AReadOfTheRealClockIsSeen) {
    History history(1);
    real_clock_reads = 0;
    history.a.reactor.defer([] {
        timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
    });
    history.run(kHour);
    EXPECT_EQ(real_clock_reads, 1);
}

}  // namespace
}  // namespace postrider::simulation
