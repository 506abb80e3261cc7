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

TEST_F(LocalFaults, NothingIsCancelledOrExpiresOnAFullDisk) {
    constexpr uint64_t kCount = 6'000;
    start_sink(plain_sink());
    submit_many(kCount, [](size_t i) { return i % 3 == 0 ? "sent.test" : i % 3 == 1 ? "cancelled.test" : "aged.test"; });
    log_ = "/dev/full";
    start_engine(1);
    const auto suspended = suspension_of("aged.test");
    set_holds({suspension_of("sent.test"), suspension_of("cancelled.test"), suspended});
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
