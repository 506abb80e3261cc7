// The engine's promises over any number of shards: nothing lost, nothing twice, no limit passed, each recipient told once.
#include <atomic>
#include <mutex>
#include <unordered_map>

#include "engine/admin_client.h"
#include "engine/admin_transport.h"
#include "engine/status.h"
#include "tests/unit/engine/rehearsal.h"

namespace postrider {
namespace {

using test::Ledger;

constexpr size_t kMessages = 20'000;

class EngineShards : public test::Rehearsal, public ::testing::WithParamInterface<unsigned> {};

class EngineLedger : public test::Rehearsal {};

std::string many_domains(size_t i) { return i % 2 ? "hot.test" : fmt::format("d{}.test", i % 97); }

TEST_P(EngineShards, EveryMessageOnceWithinTheLimits) {
    constexpr uint32_t kConnections = 6, kDeliveries = 150;
    std::unordered_map<uint64_t, uint32_t> deliveries;  // the sink's only thread writes
    SinkOptions options = plain_sink();
    options.sites = 3;
    options.spread = true;
    options.connections_per_mx = kConnections;
    options.observer = [&](const SinkTransaction& transaction) { ++deliveries[transaction.connection]; };
    start_sink(options);
    submit_many(kMessages, many_domains);
    start_engine(GetParam(), fmt::format("[\"default\"]\nconnection_limit = {}\nmax_deliveries_per_connection = {}\n",
                                         kConnections, kDeliveries));
    ASSERT_TRUE(wait_finals(kMessages)) << engine_->totals().delivered;
    end_engine();
    const SinkCounters counters = sink_->counters();
    EXPECT_EQ(counters.distinct, kMessages);
    EXPECT_EQ(counters.duplicates, 0u);
    EXPECT_EQ(counters.canary_mismatches, 0u);
    EXPECT_EQ(counters.violations, 0u);
    EXPECT_EQ(counters.limited_connections, 0u);  // connection_limit, counted where it matters
    const Ledger ledger = read_log();
    EXPECT_EQ(ledger.delivered.size(), kMessages);
    for (const auto& [recipient, records] : ledger.delivered) ASSERT_EQ(records, 1) << recipient;
    EXPECT_EQ(ledger.bounced.size() + ledger.transient, 0u);
    EXPECT_EQ(files_left(), 0u);
    sink_.reset();
    for (const auto& [connection, count] : deliveries) EXPECT_LE(count, kDeliveries) << connection;
}

TEST_P(EngineShards, TheLedgerHoldsWhenReceiversMisbehave) {
    constexpr size_t kCount = 4'000;
    SinkOptions options = plain_sink();
    options.sites = 4;
    options.rules = {"rcpt=*@d1.test reply=\"451 4.7.1 greylisted\" times=1 per=address",
                     "rcpt=*7@d2.test reply=\"550 5.1.1 no such user\"",
                     "mail=* reply=\"421 4.3.2 busy\" probability=0.01",
                     "data=* reply=\"451 4.3.0 later\" probability=0.01",
                     "dot=* reply=\"554 5.7.1 no\" probability=0.01",
                     "dot=* action=close-after-reply probability=0.01",
                     "dot=* action=close probability=0.004",
                     "rcpt=* action=reset probability=0.004"};
    start_sink(options);
    submit_many(kCount, [](size_t i) { return fmt::format("d{}.test", i % 8); });
    start_engine(GetParam());
    // pending() is what is left of accepted: at no moment does the ledger hold more finals than it has accepted.
    ASSERT_TRUE(wait_for([&] {
        const Totals totals = engine_->totals();
        EXPECT_LE(totals.finals(), totals.accepted);
        return totals.finals() >= kCount;
    })) << engine_->totals().finals();
    const Totals totals = engine_->totals();
    EXPECT_EQ(totals.accepted, kCount);
    EXPECT_EQ(totals.pending(), 0u);
    end_engine();
    const SinkCounters counters = sink_->counters();
    const Ledger ledger = read_log();
    EXPECT_EQ(ledger.delivered.size(), totals.delivered);
    EXPECT_EQ(ledger.bounced.size(), totals.bounced);
    EXPECT_EQ(ledger.transient, totals.deferred_attempts);
    EXPECT_GT(ledger.bounced.size(), 15u);
    EXPECT_GT(ledger.transient, 100u);
    for (const auto& [recipient, records] : ledger.delivered) {
        ASSERT_EQ(records, 1) << recipient;
        ASSERT_FALSE(ledger.bounced.contains(recipient)) << recipient;
    }
    for (const auto& [recipient, records] : ledger.bounced) ASSERT_EQ(records, 1) << recipient;
    EXPECT_GE(counters.distinct, totals.delivered);
    EXPECT_LE(counters.duplicates, totals.possible_duplicates);
    EXPECT_EQ(counters.canary_mismatches, 0u);
    EXPECT_EQ(counters.violations, 0u);
    EXPECT_EQ(files_left(), 0u);
}

TEST_P(EngineShards, StoppedInTheMiddleAndStartedAgain) {
    constexpr size_t kCount = 12'000;
    SinkOptions options = plain_sink();
    options.sites = 5;
    options.latency_ms = 1;
    start_sink(options);
    submit_many(kCount, many_domains, 300);
    uint64_t delivered = 0;
    for (unsigned run = 0; run < 3; ++run) {
        start_engine(GetParam() + run % 2);  // `shards` may change between runs
        const uint64_t enough = run == 0 ? 500 : 2'000;
        EXPECT_TRUE(wait_for([&] { return engine_->totals().finals() >= enough; }));
        engine_->stop();
        engine_->stop();
        EXPECT_TRUE(engine_->join());
        delivered += engine_->totals().delivered;
        engine_.reset();
    }
    start_engine(GetParam());
    ASSERT_TRUE(wait_finals(kCount - delivered));
    end_engine();
    const SinkCounters counters = sink_->counters();
    EXPECT_EQ(counters.distinct, kCount);
    EXPECT_EQ(counters.duplicates, 0u);  // a drain leaves nothing in doubt
    const Ledger ledger = read_log();
    EXPECT_EQ(ledger.delivered.size(), kCount);
    for (const auto& [recipient, records] : ledger.delivered) ASSERT_EQ(records, 1) << recipient;
    EXPECT_EQ(files_left(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineShards, ::testing::Values(1, 2, 3, 5));

class EngineLife : public test::Rehearsal {};

TEST_F(EngineLife, AdminAnswersWhileItRunsAndWhileItStops) {
    SinkOptions options = plain_sink();
    options.latency_ms = 20;
    start_sink(options);
    submit_many(3'000, many_domains);
    start_engine(2);
    AdminServer admin;
    admin.Get("/status", [&](const httplib::Request&, httplib::Response& response) {
        response.set_content(status_json(*engine_, 1).dump(), "application/json");
    });
    const std::string socket = (folder_ / "admin.sock").string();
    ASSERT_TRUE(admin.listen(socket));
    ASSERT_TRUE(wait_for([&] { return engine_->totals().delivered > 0; }));
    const auto body = admin_get(socket, "/status");
    ASSERT_TRUE(body) << body.error().text;
    const auto status = nlohmann::json::parse(*body);
    EXPECT_EQ(status["shards"], 2);
    EXPECT_EQ(status["recipients"]["accepted"].get<uint64_t>(),
              status["recipients"]["delivered"].get<uint64_t>() + status["recipients"]["pending"].get<uint64_t>());
    EXPECT_FALSE(status["sites"].empty());
    EXPECT_NE(status_text(status).find("recipients"), std::string::npos);
    engine_->stop();
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(admin_get(socket, "/status"));
    ASSERT_TRUE(wait_for([&] { return !engine_->running(); }));
    // The shards have ended and nobody has joined them yet: whoever asks or stops again finds them in place.
    EXPECT_TRUE(admin_get(socket, "/status"));
    engine_->stop_at_once();
    EXPECT_TRUE(engine_->join());
}

// A shard that still drains answers: an operator who waits for the shutdown wants to know for what.
TEST_F(EngineLife, AdminAnswersDuringALongDrain) {
    SinkOptions options = plain_sink();
    options.rules = {"dot=* action=slow reply=\"250\""};  // an octet a second
    start_sink(options);
    submit("one.bsmtp", message(1, {"r@slow.test"}));
    start_engine(2);
    ASSERT_TRUE(wait_for([&] { return sink_->counters().rules_applied > 0; }));
    engine_->stop();
    const auto before = std::chrono::steady_clock::now();
    std::atomic<int> asked{0};
    engine_->on_each_shard([&](Shard&) { ++asked; });
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(1500));
    EXPECT_GE(asked, 1);
    EXPECT_TRUE(engine_->join());
    EXPECT_EQ(engine_->totals().delivered, 1u);
}

// Promise 1, watched: a recipient that nobody holds, and one that two hold, are noticed and told.
TEST_F(EngineLedger, ABreachIsNoticed) {
    start_sink(plain_sink());
    submit_many(2'000, many_domains);
    start_engine(2);
    const auto check = [&] {
        const uint64_t before = engine_->ledger().checks;
        return wait_for([&] {
            engine_->check_ledger();
            return engine_->ledger().checks > before;
        });
    };
    while (engine_->totals().finals() < 2'000) {
        ASSERT_TRUE(check());
        ASSERT_EQ(engine_->ledger().breaches, 0u) << engine_->ledger().missing();
    }
    ASSERT_TRUE(check());
    EXPECT_EQ(engine_->ledger().breaches, 0u);
    EXPECT_EQ(engine_->ledger().accepted, 2'000u);
    const auto fake = [&](uint64_t accepted, uint64_t delivered) {
        engine_->on_each_shard([&](Shard& shard) {
            if (&shard.metrics() != &engine_->shared().metrics[0]) return;
            shard.metrics().accepted.add(accepted);
            shard.metrics().delivered.add(delivered);
        });
    };
    ::testing::internal::CaptureStderr();
    fake(1, 0);
    ASSERT_TRUE(check());
    EXPECT_EQ(engine_->ledger().missing(), 1);
    fake(0, 3);
    ASSERT_TRUE(check());
    EXPECT_EQ(engine_->ledger().missing(), -2);
    const std::string told = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(told.find("LEDGER BREACH"), std::string::npos) << told;
    EXPECT_NE(told.find("1 are missing"), std::string::npos) << told;
    EXPECT_NE(told.find("2 are counted twice"), std::string::npos) << told;
    EXPECT_EQ(status_json(*engine_, 0)["ledger"]["breaches"], 2);
    end_engine();
}

}  // namespace
}  // namespace postrider
