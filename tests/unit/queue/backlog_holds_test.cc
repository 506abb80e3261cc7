// Cancels and suspensions in the backlog: what is held is not handed out, what is cancelled dies, and each record has one
// fate, whatever comes in which order.
#include "tests/unit/queue/backlog_fixture.h"

namespace postrider {
namespace {

class BacklogHolds : public testing::BacklogTest {
  protected:
    void SetUp() override {
        for (auto* label : {&x_, &y_}) *label = labels_.intern(label == &x_ ? "x" : "y");
        tenant_ = labels_.intern("t");
        for (auto* domain : {&a_, &b_}) *domain = domains_.intern(domain == &a_ ? "a.test" : "b.test");
    }
    Hold cancel_of(HoldScope scope, std::string name, int64_t to_s) {
        Hold hold{.scope = scope, .name = std::move(name)};
        hold.cancelled_to_s = to_s;
        hold.cancelled_at_ns = to_s * 1'000'000'000;
        return hold;
    }
    Hold suspension_of(HoldScope scope, std::string name) {
        Hold hold{.scope = scope, .name = std::move(name)};
        hold.suspended = true;
        return hold;
    }
    void set(std::vector<Hold> holds) {
        table_ = std::make_shared<HoldTable>(std::move(holds), domains_, labels_);
        backlog_->set_holds(table_);
    }
    void walk_to_the_end() {
        for (size_t slices = 0; backlog_->walk(); ++slices) ASSERT_LT(slices, 100'000u);
    }

    NameTable domains_, labels_;
    LabelId x_ = 0, y_ = 0, tenant_ = 0;
    DomainId a_ = 0, b_ = 0;
    std::shared_ptr<const HoldTable> table_;
};

TEST_F(BacklogHolds, ACancelledCampaignDiesWhereverItRests) {
    const int64_t later = now_s() + 1'000;
    std::set<RecordId> doomed;
    for (const RecordId id : accept({.domain = a_, .campaign = x_}, 300)) doomed.insert(id);  // the window among them
    for (const RecordId id : accept({.domain = b_, .campaign = x_, .due_s = later}, 50)) doomed.insert(id);
    doomed.insert(accept({.domain = b_, .campaign = x_, .priority = Priority::high}));
    backlog_->park(b_, later, "its site is down");
    const auto others = accept({.domain = a_, .campaign = y_}, 40);
    accept({.domain = b_, .campaign = y_, .due_s = later});
    set({cancel_of(HoldScope::campaign, "x", now_s())});
    walk_to_the_end();
    EXPECT_EQ(std::set(owner_.cancelled.begin(), owner_.cancelled.end()), doomed);
    EXPECT_EQ(owner_.cancelled.size(), doomed.size()) << "each once";
    const auto got = pull_announced();
    EXPECT_EQ(std::set(got.begin(), got.end()), std::set(others.begin(), others.end()));
    EXPECT_EQ(backlog_->counts().deferred, 1u);
}

TEST_F(BacklogHolds, WhatIsClaimedAfterTheCancelLives) {
    const int64_t now = now_s();
    set({cancel_of(HoldScope::campaign, "x", now)});
    walk_to_the_end();
    const auto old = accept({.domain = a_, .campaign = x_}, 10);  // published late: of a file claimed before
    const FileSlot newer = add_file(now + 1);
    const auto alive = accept({.domain = a_, .campaign = x_, .file = newer}, 10);
    EXPECT_EQ(owner_.cancelled, old);
    EXPECT_EQ(pull_announced(), alive);
    // A further change of the table does not take them for suspects again and again.
    accept({.domain = a_, .campaign = x_, .file = newer}, 10);
    set({cancel_of(HoldScope::campaign, "x", now), suspension_of(HoldScope::domain, "elsewhere.test")});
    walk_to_the_end();
    EXPECT_EQ(pull_announced().size(), 10u);
}

TEST_F(BacklogHolds, ASuspendedCampaignWaitsAndTheOthersOfItsDomainGoOn) {
    accept({.domain = a_, .campaign = x_}, 200);
    const auto others = accept({.domain = a_, .campaign = y_}, 100);
    set({suspension_of(HoldScope::campaign, "x")});
    walk_to_the_end();
    const auto got = pull_announced();
    EXPECT_EQ(std::set(got.begin(), got.end()), std::set(others.begin(), others.end()));
    EXPECT_EQ(backlog_->counts().held, 200u);
    EXPECT_EQ(backlog_->counts().ready, 0u);
    EXPECT_EQ(domains()[a_].held, 200u);
    accept({.domain = a_, .campaign = x_}, 5);  // comes in while it is suspended
    EXPECT_EQ(backlog_->counts().held, 205u);
    EXPECT_TRUE(pull_announced().empty());
    backlog_->set_holds(nullptr);
    walk_to_the_end();
    EXPECT_EQ(pull_announced().size(), 205u);
    EXPECT_EQ(backlog_->counts().held, 0u);
}

// The first records of the campaign were in the window already: it is filled with others at once.
TEST_F(BacklogHolds, TheWindowIsTakenBack) {
    accept({.domain = a_, .campaign = x_}, ReadyWindow::kCells);
    ReadyWindow& window = *owner_.announced.front();
    const auto others = accept({.domain = a_, .campaign = y_}, 3);
    ASSERT_EQ(window.size(), ReadyWindow::kCells);
    set({suspension_of(HoldScope::campaign, "x")});
    walk_to_the_end();
    std::vector<RecordId> got;
    while (const RecordId id = window.pull()) got.push_back(id);
    EXPECT_EQ(got, others);
}

TEST_F(BacklogHolds, DomainsTenantsAndSites) {
    owner_.sites[7] = "mx.test";
    accept({.domain = a_, .campaign = x_}, 10);
    accept({.domain = b_, .campaign = y_, .tenant = tenant_}, 20);
    accept({.domain = b_, .campaign = y_}, 30);
    for (const auto& [hold, held] : {std::pair{suspension_of(HoldScope::domain, "a.test"), 10u},
                                     std::pair{suspension_of(HoldScope::tenant, "t"), 20u},
                                     std::pair{suspension_of(HoldScope::site, "mx.test"), 50u}}) {
        set({hold});
        if (hold.scope == HoldScope::site) EXPECT_FALSE(backlog_->bound(b_, 7)) << "nothing of it may go there";
        walk_to_the_end();
        EXPECT_EQ(backlog_->counts().held, held) << hold.name;
    }
    // A cancel finds the mail of a site that becomes known later.
    set({cancel_of(HoldScope::site, "mx.test", now_s())});
    walk_to_the_end();
    EXPECT_EQ(owner_.cancelled.size(), 50u);
    EXPECT_TRUE(backlog_->bound(a_, 8));
    EXPECT_FALSE(backlog_->bound(a_, 7));
    walk_to_the_end();
    EXPECT_EQ(owner_.cancelled.size(), 60u);
}

TEST_F(BacklogHolds, MaxAgeHoldsForWhatIsSuspended) {
    schedule_.max_age_s = 3;
    accept({.domain = a_, .campaign = x_}, 100);
    set({suspension_of(HoldScope::campaign, "x")});
    walk_to_the_end();
    EXPECT_EQ(backlog_->counts().held, 100u);
    loop_.run_until([&] {
        while (backlog_->walk()) {
        }
        return owner_.expired.size() == 100;
    });
    EXPECT_EQ(owner_.expired.size(), 100u);
    EXPECT_EQ(backlog_->counts().held, 0u);
}

TEST_F(BacklogHolds, AChangeOfMaxAgeHoldsForWhatIsSuspended) {
    const int64_t old_age_s = schedule_.max_age_s;
    const FileSlot old = add_file(now_s() - old_age_s + 2);
    accept({.domain = a_, .campaign = x_, .file = old}, 100);
    set({suspension_of(HoldScope::campaign, "x")});
    walk_to_the_end();
    change_max_age(2 * old_age_s);
    const int64_t until_s = now_s() + 4;
    ASSERT_TRUE(loop_.run_until([&] { return now_s() >= until_s; }));
    EXPECT_EQ(backlog_->counts().held, 100u);
    change_max_age(old_age_s);
    EXPECT_EQ(owner_.expired.size(), 100u) << "at once, not at the next look at the ages";
    EXPECT_EQ(backlog_->counts().held, 0u);
}

TEST_F(BacklogHolds, FlushMakesRetriesOfTheSelectionDueAndEndsItsParks) {
    const int64_t later = now_s() + 1'000;
    const auto defer = [&](DomainId domain, LabelId campaign, uint16_t attempts) {
        const RecordId id = make({.domain = domain, .campaign = campaign, .due_s = later});
        arena_[id].attempts = attempts;
        RecordChain chain;
        arena_.append(chain, id);
        backlog_->accept(chain);
        return id;
    };
    const RecordId wanted = defer(a_, x_, 1);
    defer(a_, y_, 1);
    defer(a_, x_, 0);  // x-not-before: its producer's wish
    accept({.domain = b_, .campaign = x_}, 2);
    EXPECT_TRUE(backlog_->bound(b_, 7));
    backlog_->park(b_, later, "its site is down");
    backlog_->flush(std::make_shared<HoldTable>(std::vector{suspension_of(HoldScope::campaign, "x")}, domains_, labels_));
    walk_to_the_end();
    EXPECT_EQ(domains()[b_].parked_until_s, 0);
    EXPECT_EQ(owner_.tried, std::vector<SiteId>{7});
    EXPECT_EQ(backlog_->counts().deferred, 2u);
    const auto got = pull_announced();
    EXPECT_TRUE(std::ranges::find(got, wanted) != got.end());
    backlog_->flush(nullptr);
    walk_to_the_end();
    EXPECT_EQ(backlog_->counts().deferred, 1u) << "all but what was never tried";
}

// Random operations against a list that says what each record's fate may be.
TEST_F(BacklogHolds, NothingCancelledIsEverHandedOut) {
    Random random(random_seed());
    const auto below = [&](size_t bound) { return random.below(static_cast<uint32_t>(bound)); };
    int64_t clock_s = now_s();
    FileSlot file = add_file(clock_s);
    std::vector<Hold> holds;
    std::set<RecordId> in, handed_out;
    const DomainId all_domains[] = {a_, b_};
    const LabelId all_labels[] = {0, x_, y_};
    const auto verdict_of = [&](RecordId id) {
        const Record& record = arena_[id];
        return table_ ? table_->of(record.domain, record.campaign, record.tenant) : HoldTable::Verdict{};
    };
    const auto take = [&](ReadyWindow& window) {  // as a worker does
        for (uint32_t i = below(40); i > 0; --i) {
            const RecordId id = window.pull();
            if (!id) return;
            if (window.wants_refill()) backlog_->refill(window.domain());
            const auto verdict = verdict_of(id);
            if (verdict.dies(files_[arena_[id].file].created_s)) {
                owner_.cancel(id);
            } else if (verdict.suspended || below(10) == 0) {
                backlog_->put_back(id);
            } else {
                ASSERT_TRUE(in.contains(id));
                ASSERT_TRUE(handed_out.insert(id).second) << "twice";
            }
        }
    };
    for (int step = 0; step < 4'000; ++step) {
        switch (below(6)) {
            case 0:
            case 1: {
                const uint32_t count = 1 + below(100);
                const Want want{.domain = all_domains[below(2)], .campaign = all_labels[below(3)],
                                .tenant = below(2) ? tenant_ : 0, .priority = below(4) ? Priority::normal : Priority::high,
                                .due_s = below(5) ? 0 : now_s() + 1 + below(2), .file = file};
                for (const RecordId id : accept(want, count)) in.insert(id);
                break;
            }
            case 2: {
                const std::pair<HoldScope, std::string> selections[] = {
                    {HoldScope::campaign, "x"}, {HoldScope::campaign, "y"}, {HoldScope::tenant, "t"},
                    {HoldScope::domain, "a.test"}};
                const auto& [scope, name] = selections[below(4)];
                std::erase_if(holds, [&](const Hold& hold) { return hold.name == name; });
                if (below(3) == 0) {
                    holds.push_back(cancel_of(scope, name, clock_s));
                    file = add_file(++clock_s);
                } else if (below(2)) {
                    holds.push_back(suspension_of(scope, name));
                }
                if (below(8) == 0) {
                    holds.clear();
                    table_ = nullptr;
                    backlog_->set_holds(nullptr);
                } else {
                    set(holds);
                }
                break;
            }
            case 3: (void)backlog_->walk(); break;
            case 4:
                if (!owner_.announced.empty()) take(*owner_.announced[below(owner_.announced.size())]);
                break;
            default: loop_->turn(0);
        }
    }
    // Everything is let go but what the last table cancels: each record has one fate.
    std::erase_if(holds, [](const Hold& hold) { return hold.suspended; });
    set(holds);
    loop_.run_until([&] {
        while (backlog_->walk()) {
        }
        for (const auto& [id, counts] : domains())
            if (counts.ready > 0 || counts.held > 0) {
                for (ReadyWindow* window : owner_.announced)
                    if (window->domain() == id) take(*window);
            }
        return handed_out.size() + owner_.cancelled.size() == in.size();
    });
    for (const RecordId id : owner_.cancelled) {
        EXPECT_TRUE(in.contains(id));
        EXPECT_FALSE(handed_out.contains(id));
    }
    EXPECT_EQ(handed_out.size() + owner_.cancelled.size(), in.size());
    EXPECT_EQ(std::set(owner_.cancelled.begin(), owner_.cancelled.end()).size(), owner_.cancelled.size());
    const auto counts = backlog_->counts();
    EXPECT_EQ(counts.ready + counts.deferred + counts.held, 0u);
}

TEST(HoldTable, ClaimsAreStampedOnTheirSideOfACancel) {
    NameTable names;
    Hold first{.scope = HoldScope::campaign, .name = "x"};
    first.cancelled_to_s = 1'000;
    first.cancelled_at_ns = 999'500'000'000;
    Hold second{.scope = HoldScope::campaign, .name = "y"};
    second.cancelled_to_s = 1'001;
    second.cancelled_at_ns = 1'000'000'000'000;
    const HoldTable table({second, first}, names, names);
    EXPECT_EQ(table.created_s(1'005, 999'499'999'999), 1'000) << "lay in new/ before the first";
    EXPECT_EQ(table.created_s(1'005, 999'500'000'000), 1'000);
    EXPECT_EQ(table.created_s(1'005, 999'500'000'001), 1'001) << "between the two";
    EXPECT_EQ(table.created_s(1'000, 1'000'000'000'001), 1'002) << "after both, in the same second";
    EXPECT_EQ(table.created_s(1'005, 1'000'000'000'001), 1'005);
    EXPECT_EQ(HoldTable({}, names, names).created_s(5, 1), 5);
}

}  // namespace
}  // namespace postrider
