#include "engine/io/reactor.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace postrider {
namespace {

std::unique_ptr<Reactor> make_reactor(MailExchange& exchange) {
    auto reactor = Reactor::make(0, exchange, {.entries = 64, .receive_buffers = 8, .receive_buffer_size = 64});
    EXPECT_TRUE(reactor) << reactor.error().text;
    return std::move(*reactor);
}

// A turn that ends the last task has nothing left to wait for, so waits are bounded.
void run_until_empty(Reactor& reactor, const Gate& gate) {
    while (!gate.empty()) reactor.turn(reactor.now_ns() + 20 * kNsPerMs);
}

Task<int> three_sleeps(Reactor& reactor) {
    for (int i = 0; i < 3; ++i) co_await Sleep(reactor, 5);
    co_return 3;
}

Task<void> sleeper(Reactor& reactor, int& result) { result = co_await three_sleeps(reactor); }

TEST(Reactor, RunsTasksOnTimers) {
    MailExchange exchange(1);
    auto reactor = make_reactor(exchange);
    Gate gate;
    int result = 0;
    const MonoNs start = read_mono_clock();
    spawn(gate, sleeper(*reactor, result));
    run_until_empty(*reactor, gate);
    EXPECT_EQ(result, 3);
    EXPECT_GE(read_mono_clock() - start, 14 * kNsPerMs);
}

struct Receiver final : Operation {
    Ring& ring;
    int fd;
    std::string got;
    bool ended = false;
    Receiver(Ring& r, int f) : ring(r), fd(f) {}
    void complete(int result, bool more, std::span<const char> buffer) override {
        got.append(buffer.data(), buffer.size());
        if (result == 0 || (result < 0 && result != -ENOBUFS))
            ended = true;
        else if (!more)
            ring.receive(fd, this);
    }
};

TEST(Reactor, ReceivesMoreThanItsBuffersHold) {
    MailExchange exchange(1);
    auto reactor = make_reactor(exchange);
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const std::string sent(40'000, 'x');
    ASSERT_EQ(write(pair[0], sent.data(), sent.size()), static_cast<ssize_t>(sent.size()));
    close(pair[0]);
    Receiver receiver(reactor->ring(), pair[1]);
    reactor->ring().receive(pair[1], &receiver);
    while (!receiver.ended) reactor->turn(TimerWheel::kNever);
    EXPECT_EQ(receiver.got, sent);
    EXPECT_EQ(reactor->ring().in_flight(), 0u);
    close(pair[1]);
}

TEST(Reactor, AnotherThreadWakesIt) {
    MailExchange exchange(1);
    auto reactor = make_reactor(exchange);
    for (int i = 0; i < 3; ++i) {
        std::thread other([&] { reactor->ring().wake_from_outside(); });
        reactor->turn(read_mono_clock() + 30 * kNsPerSecond);
        other.join();
    }
    EXPECT_LE(reactor->turns(), 3u);
}

Task<void> waits(Event& event, int64_t deadline_ms, int& outcome) {
    outcome = co_await event.wait(deadline_ms) ? 1 : 2;
}

TEST(Reactor, AnEventEndsByNotificationOrDeadline) {
    MailExchange exchange(1);
    auto reactor = make_reactor(exchange);
    Event event(*reactor);
    Gate gate;
    int outcome = 0;
    spawn(gate, waits(event, reactor->now_ms() + 10, outcome));
    run_until_empty(*reactor, gate);
    EXPECT_EQ(outcome, 2);
    spawn(gate, waits(event, TimerWheel::kNever, outcome));
    event.notify();
    run_until_empty(*reactor, gate);
    EXPECT_EQ(outcome, 1);
}

}  // namespace
}  // namespace postrider
