// What a hostile receiver, a long list or an exhausted machine does to the whole: no loop without progress, nothing that
// grows, nothing that stays away.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <thread>
#include <unordered_map>

#include "engine/egress/site_worker.h"
#include "tests/unit/engine/rehearsal.h"

namespace postrider {
namespace {

class EngineAttack : public test::Rehearsal {
  protected:
    static std::vector<std::string> recipients(size_t count, const std::string& domain, const std::string& prefix = "m") {
        std::vector<std::string> all;
        for (size_t i = 0; i < count; ++i) all.push_back(fmt::format("{}{}@{}", prefix, i, domain));
        return all;
    }
};

// A list longer than a window, and behind it in the same window the next message: its record is not of this message, and
// there is nothing more to refill.
TEST_F(EngineAttack, AnotherMessageBehindALongList) {
    start_sink(plain_sink());
    submit("lists.bsmtp", message(1, recipients(70, "list.test")) + message(2, {"x@list.test"}) +
                              message(3, recipients(150, "list.test", "n")) + message(4, {"y@list.test"}));
    start_engine(1);
    ASSERT_TRUE(wait_finals(222, 10)) << "the shard turns in a circle";
    end_engine();
    EXPECT_EQ(sink_->counters().distinct, 222u);
    EXPECT_EQ(sink_->counters().canary_mismatches, 0u);
    EXPECT_LE(sink_->counters().messages, 12u);  // long lists stay together
}

// LIMITS RCPTMAX=1 (RFC 9422): each recipient in a transaction of its own, without carrying the others around each time.
TEST_F(EngineAttack, HostThatTakesOneRecipientAtATime) {
    auto options = plain_sink();
    options.recipients_limit = 1;
    start_sink(options);
    submit("list.bsmtp", message(1, recipients(300, "one.test")));
    start_engine(2);
    ASSERT_TRUE(wait_finals(300, 15)) << engine_->totals().delivered;
    end_engine();
    EXPECT_EQ(sink_->counters().distinct, 300u);
    EXPECT_EQ(sink_->counters().messages, 300u);
    EXPECT_EQ(sink_->counters().violations, 0u);
}

// A message that is too large for every host is settled, not carried from host to host.
TEST_F(EngineAttack, TooLargeForEveryHost) {
    auto options = plain_sink();
    options.size_limit = 500;
    start_sink(options);
    submit("large.bsmtp", message(1, recipients(30, "small.test"), 5'000) + message(2, {"ok@small.test"}, 60));
    start_engine(2);
    ASSERT_TRUE(wait_finals(31, 10));
    EXPECT_EQ(engine_->totals().bounced, 30u);
    EXPECT_EQ(engine_->totals().delivered, 1u);
    EXPECT_LE(sink_->counters().connections, 4u);
}

// A host that greets and then ends every session at MAIL must not be dialled in a circle, nor may it burn through the
// attempts of all its mail at the speed of the loopback.
TEST_F(EngineAttack, HostThatEndsEverySessionAtMail) {
    for (const char* rule : {"mail=* action=close", "mail=* reply=\"421 4.3.2 not today\"", "connect=* reply=\"421 4.7.0 no\"",
                             "ehlo=* action=close"}) {
        SCOPED_TRACE(rule);
        auto options = plain_sink();
        options.rules = {rule};
        start_sink(options);
        std::filesystem::remove_all(folder_ / "spool");
        submit_many(2'000, [](size_t) { return "wall.test"; });
        start_engine(2);
        ASSERT_TRUE(wait_for([&] { return sink_->counters().connections > 0; }));
        std::this_thread::sleep_for(std::chrono::milliseconds(2'500));
        EXPECT_LE(sink_->counters().connections, 30u);
        EXPECT_LE(engine_->totals().deferred_attempts, 60u);
        end_engine();
        sink_.reset();
    }
}

// Sessions that end after one message each still make progress, at the pace of their connections.
TEST_F(EngineAttack, HostThatEndsTheSessionAfterEachMessage) {
    auto options = plain_sink();
    options.rules = {"dot=* action=close-after-reply"};
    start_sink(options);
    submit_many(300, [](size_t) { return "single.test"; });
    start_engine(2);
    ASSERT_TRUE(wait_finals(300, 20)) << engine_->totals().delivered;
    EXPECT_EQ(engine_->totals().delivered, 300u);
    EXPECT_EQ(sink_->counters().distinct, 300u);
    EXPECT_EQ(sink_->counters().duplicates, 0u);
}

// Shards that are asked to help with a hot domain hold its window once, however often they are asked.
TEST_F(EngineAttack, HelpersHoldAWindowOnce) {
    start_sink(plain_sink());
    submit_many(30'000, [](size_t) { return "hot.test"; }, 5'000);
    start_engine(3);
    size_t most = 0;
    ASSERT_TRUE(wait_for([&] {
        std::atomic<size_t> here{0};
        engine_->on_each_shard([&](Shard& shard) {
            shard.dispatcher().for_each_worker([&](const SiteWorker& worker) { here = std::max(here.load(), worker.windows()); });
        });
        most = std::max(most, here.load());
        return engine_->totals().finals() >= 30'000;
    }));
    EXPECT_EQ(most, 1u);
    EXPECT_EQ(sink_->counters().duplicates, 0u);
}

// FAULTS 95: without a descriptor for the next file the shard waits for one; it goes on turning, no attempt is counted.
TEST_F(EngineAttack, F95_NoDescriptorForTheNextFile) {
    constexpr size_t kCount = 400;  // more than a shard keeps open
    auto options = plain_sink();
    options.rules = {"rcpt=* reply=\"451 4.7.1 greylisted\" times=1 per=address"};
    start_sink(options);
    for (size_t i = 1; i <= kCount; ++i)
        submit(fmt::format("m{}.eml", i), fmt::format("x-sender: a@b.test\r\nx-receiver: r{0}@grey.test\r\nMessage-ID: <{0}@c>\r\n"
                                                      "X-Canary: {1}\r\n\r\nhello\r\n", i, canary(fmt::format("r{}@grey.test", i))));
    start_engine(1, "", "[journal]\ncommit = \"10ms\"\n");
    ASSERT_TRUE(wait_for([&] { return engine_->totals().deferred_attempts >= kCount - 20; }));
    const rlimit before = [] {
        rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        return limit;
    }();
    // It asks a first time while there are descriptors: UBSan makes a pipe to look at each new type of object.
    std::latch runs(1), none_left(1);
    std::atomic<int> answers{0};
    std::thread asking([&] {
        const auto answer = [&](Shard&) { ++answers; };
        engine_->on_each_shard(answer);
        runs.count_down();
        none_left.wait();
        engine_->on_each_shard(answer);
    });
    runs.wait();
    std::vector<int> held;
    rlimit low = before;
    low.rlim_cur = 900;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < 250; ++i) {  // the retries come due, and what the shard gives back is taken too
        for (int fd; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) held.push_back(fd);
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    none_left.count_down();
    EXPECT_TRUE(wait_for([&] { return answers == 2; }, 5)) << "the shard turns in a circle";
    const uint64_t turns = engine_->shared().metrics[0].turns.get();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_LT(engine_->shared().metrics[0].turns.get() - turns, 2'000u) << "busy without progress";
    for (const int fd : held) ::close(fd);
    setrlimit(RLIMIT_NOFILE, &before);
    asking.join();
    ASSERT_TRUE(wait_finals(kCount, 20)) << engine_->totals().delivered;
    EXPECT_EQ(sink_->counters().distinct, kCount);
    EXPECT_EQ(engine_->totals().delivered, kCount);
}

// More dead addresses than are remembered, and many sites at one of them: one probe each tells it, the rest waits.
TEST_F(EngineAttack, MoreDeadAddressesThanAreRemembered) {
    constexpr size_t kAlone = 1'100, kTogether = 150;
    auto options = plain_sink();
    for (size_t i = 0; i < kAlone; ++i)
        options.dns_records.push_back(fmt::format("mx.d{}.test A 127.77.{}.{}", i, i / 250, 1 + i % 250));
    for (size_t i = 0; i < kTogether; ++i) options.dns_records.push_back(fmt::format("mx.t{}.test A 127.78.0.1", i));
    start_sink(options);
    constexpr size_t kSites = kAlone + kTogether;
    submit_many(3 * kSites, [](size_t i) {
        const size_t n = i % kSites;
        return n < kAlone ? fmt::format("d{}.test", n) : fmt::format("t{}.test", n - kAlone);
    });
    start_engine(2);
    ASSERT_TRUE(wait_for([&] { return engine_->totals().deferred_attempts >= kSites; }, 20))
        << engine_->totals().deferred_attempts;
    EXPECT_EQ(engine_->totals().finals(), 0u);
    EXPECT_EQ(sink_->counters().connections, 0u);
    end_engine();
}

// The end with windows full of mail on every shard: nobody looks at what another has already put away.
TEST_F(EngineAttack, StoppedWithFullWindowsOnEveryShard) {
    auto options = plain_sink();
    options.latency_ms = 2;
    start_sink(options);
    submit_many(5'000, [](size_t i) { return fmt::format("d{}.test", i % 40); });
    for (int round = 0; round < 4; ++round) {
        start_engine(4);
        EXPECT_TRUE(wait_for([&] { return engine_->totals().finals() >= 20; }));
        end_engine();
    }
    EXPECT_EQ(sink_->counters().duplicates, 0u);
}

}  // namespace
}  // namespace postrider
