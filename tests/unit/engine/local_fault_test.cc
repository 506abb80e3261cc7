// Faults of the machine: what becomes of recipients without the space to record it, or the descriptors to read of them, waits;
// and what is removed gives its space back.
#include <sys/resource.h>

#include <set>

#include "tests/unit/engine/rehearsal.h"

namespace postrider {
namespace {

class LocalFaults : public test::Rehearsal {
  protected:
    static Hold suspension_of(std::string domain) {
        Hold hold{.scope = HoldScope::domain, .name = std::move(domain)};
        hold.suspended = true;
        return hold;
    }
    Hold cancel_of(std::string domain) {
        Hold hold{.scope = HoldScope::domain, .name = std::move(domain)};
        hold.cancelled_to_s = read_wall_clock() / kUsPerSecond + 1;
        hold.cancelled_at_ns = hold.cancelled_to_s * 1'000'000'000;
        hold.cancelled_by.who = "operator";
        return hold;
    }
    void set_holds(std::vector<Hold> holds) {
        SharedState& shared = engine_->shared();
        auto table = std::make_shared<const HoldTable>(std::move(holds), shared.domains, shared.labels);
        engine_->on_each_shard([&](Shard& shard) { shard.set_holds(table); });
    }
    void set_max_age(int64_t max_age_s) {
        engine_->on_each_shard([&](Shard& shard) { shard.reconfigure({{1'000}, max_age_s}, {}); });
    }
    void check_ledger() {
        const uint64_t before = engine_->ledger().checks;
        EXPECT_TRUE(wait_for([&] {
            engine_->check_ledger();
            return engine_->ledger().checks > before;
        }));
        EXPECT_EQ(engine_->ledger().breaches, 0u) << engine_->ledger().missing();
    }
    uint64_t finals_after(int milliseconds) {
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        return engine_->totals().finals();
    }
    // Of the file descriptors of this process, those of removed spool files.
    size_t removed_and_open() {
        size_t count = 0;
        std::error_code gone;
        for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
            const std::string name = std::filesystem::read_symlink(entry.path(), gone).string();
            count += name.starts_with((folder_ / "spool/active").string()) && name.ends_with("(deleted)");
        }
        return count;
    }
};

// Lines and results that cannot be written are held in memory: there must be no more of them than was in flight.
TEST_F(LocalFaults, NothingIsCancelledOrExpiresOnAFullDisk) {
    constexpr uint64_t kCount = 6'000;
    start_sink(plain_sink());
    log_ = "/dev/full";
    start_engine(1);
    const auto suspended = suspension_of("aged.test");
    set_holds({suspension_of("sent.test"), suspension_of("cancelled.test"), suspended});
    submit_many(kCount, [](size_t i) { return i % 3 == 0 ? "sent.test" : i % 3 == 1 ? "cancelled.test" : "aged.test"; });
    ASSERT_TRUE(wait_for([&] { return engine_->totals().accepted == kCount; }));
    // The first lines meet the full disk.
    set_holds({suspension_of("cancelled.test"), suspended});
    uint64_t before = 0;
    ASSERT_TRUE(wait_for([&] { return engine_->shared().short_of_space.load() == 1; }));
    ASSERT_TRUE(wait_for([&] { return std::exchange(before, finals_after(300)) == before; }));
    EXPECT_LE(before, kCount / 3);
    set_holds({cancel_of("cancelled.test"), suspended});
    EXPECT_EQ(finals_after(1'000), before);
    set_max_age(1);
    EXPECT_EQ(finals_after(2'000), before);
    check_ledger();
    engine_->stop_at_once();
    (void)engine_->join();
}

// A final line names its recipient: whoever reads the log could not tell otherwise whose fate it was.
TEST_F(LocalFaults, WithoutDescriptorsTheFatesWaitForTheirAddresses) {
    constexpr uint64_t kCount = 300;
    start_sink(plain_sink());
    start_engine(2);
    const auto suspended = suspension_of("aged.test");
    set_holds({suspension_of("cancelled.test"), suspended});  // before anything can be sent
    submit_many(kCount, [](size_t i) { return i % 2 ? "cancelled.test" : "aged.test"; }, 1);
    ASSERT_TRUE(wait_for([&] { return engine_->totals().accepted == kCount; }));
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{.rlim_cur = 3, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    set_holds({cancel_of("cancelled.test"), suspended});
    set_max_age(1);
    const uint64_t finals = finals_after(2'500);
    check_ledger();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(finals, 0u);
    ASSERT_TRUE(wait_finals(kCount, 10)) << engine_->totals().finals();
    end_engine();
    std::map<std::string, std::set<std::string>> named;
    std::ifstream log(folder_ / "delivery.jsonl");
    size_t lines = 0;
    for (std::string line; std::getline(log, line); ++lines) {
        const auto record = nlohmann::json::parse(line);
        named[record["type"]].insert(record["recipient"].get<std::string>());
    }
    EXPECT_EQ(lines, kCount);
    EXPECT_EQ(named["AdminBounce"].size(), kCount / 2);
    EXPECT_EQ(named["Expiration"].size(), kCount / 2);
    for (const auto& [type, recipients] : named)
        for (const auto& recipient : recipients) EXPECT_TRUE(recipient.contains('@')) << type << " " << recipient;
    EXPECT_EQ(files_left(), 0u);
}

TEST_F(LocalFaults, DescriptorsForConnectionsTheirFilesAndTheShards) {
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit little{.rlim_cur = 1'024, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &little), 0);
    const auto fit = raise_descriptor_limit(1'500, 4);
    rlimit raised;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &raised), 0);
    const auto all = raise_descriptor_limit(UINT32_MAX / 4, 4);  // more than any process may have
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (before.rlim_max < 8'192) GTEST_SKIP() << "the hard limit is low";
    ASSERT_TRUE(fit && all);
    EXPECT_EQ(*fit, 1'500u);
    EXPECT_EQ(raised.rlim_cur, 2 * 1'500u + 512 + 4 * 384);
    EXPECT_LE(*all, before.rlim_max - 1'024);
}

// Every shard reads the files whose recipients it sends to; one of them removes the file.
TEST_F(LocalFaults, NoShardKeepsARemovedFileOpen) {
    constexpr size_t kCount = 3'000;
    SinkOptions options = plain_sink();
    options.sites = 8;
    options.spread = true;
    start_sink(options);
    submit_many(kCount, [](size_t i) { return fmt::format("d{}.test", i % 60); }, 100);
    start_engine(3);
    ASSERT_TRUE(wait_finals(kCount));
    ASSERT_TRUE(wait_for([&] { return files_left() == 0; }));
    EXPECT_TRUE(wait_for([&] { return removed_and_open() == 0; }, 3)) << removed_and_open();
    end_engine();
}

}  // namespace
}  // namespace postrider
