// The backlog with a real reactor and an owner that only writes down: who is ready when, in which
// turn, and that no record is lost on the way between classes, buckets, parks and windows.
#include "tests/unit/queue/backlog_fixture.h"

#include <gmock/gmock.h>

#include "queue/message_reader.h"

namespace postrider {
namespace {

using ::testing::ElementsAre;
using testing::BacklogTest;

std::vector<RecordId> joined(std::vector<RecordId> first, const std::vector<RecordId>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

// Each class has its window, so that whoever serves the site may take what is urgent of all its domains first.
TEST_F(BacklogTest, EachPriorityClassHasItsWindow) {
    const auto normal = accept({}, ReadyWindow::kCells + 20);
    const auto high = accept({.priority = Priority::high}, 20);
    EXPECT_EQ(backlog_->counts().ready, 20u);
    ASSERT_EQ(owner_.announced.size(), 2u) << "a window each, an announcement each";
    EXPECT_EQ(owner_.announced[0]->priority(), Priority::normal);
    EXPECT_EQ(owner_.announced[1]->priority(), Priority::high);
    EXPECT_EQ(domains()[1].ready, ReadyWindow::kCells + 40u);
    EXPECT_EQ(pull_announced(), joined(high, normal)) << "the last announced first";
    EXPECT_EQ(backlog_->counts().ready, 0u);
    EXPECT_EQ(backlog_->held(), 0u);
}

TEST_F(BacklogTest, CampaignsTakeTurnsOfSixteen) {
    const auto first = accept({.campaign = 100}, ReadyWindow::kCells);
    for (LabelId campaign = 1; campaign <= 3; ++campaign)
        accept({.campaign = campaign}, campaign == 2 ? 20 : 40);
    const auto got = pull_announced();
    ASSERT_EQ(got.size(), ReadyWindow::kCells + 100u);
    std::vector<std::pair<LabelId, int>> turns;
    for (size_t i = ReadyWindow::kCells; i < got.size(); ++i) {
        const LabelId campaign = arena_[got[i]].campaign;
        if (turns.empty() || turns.back().first != campaign) turns.emplace_back(campaign, 0);
        ++turns.back().second;
    }
    using Turn = std::pair<LabelId, int>;
    EXPECT_THAT(turns, ElementsAre(Turn{1, 16}, Turn{2, 16}, Turn{3, 16}, Turn{1, 16}, Turn{2, 4},
                                   Turn{3, 16}, Turn{1, 8}, Turn{3, 8}));
}

// A campaign that comes later does not wait for a million of another.
TEST_F(BacklogTest, ALateCampaignHasItsTurnSoon) {
    accept({.campaign = 1}, 5'000);
    const auto late = accept({.campaign = 2}, 3);
    const auto got = pull_announced();
    ASSERT_EQ(got.size(), 5'003u);
    EXPECT_LE(std::ranges::find(got, late.back()) - got.begin(), ReadyWindow::kCells + 2 * 16 + 3);
}

// For `why ID`: wherever a record of the message rests, over many slices, and nothing of another message.
TEST_F(BacklogTest, AMessageIsFoundWhereverItRests) {
    SpoolFile file;
    file.id = 77;
    file.created_s = now_s();
    const FileSlot slot = files_.add(file);
    const auto rests = [&](Want want, uint32_t place) {
        want.file = slot;
        const RecordId id = make(want);
        arena_[id].place = place;
        RecordChain chain;
        arena_.append(chain, id);
        backlog_->accept(chain);
    };
    accept({}, ReadyWindow::kCells);  // the window of domain 1 is full
    accept({.due_s = now_s() + 500}, 40'000);
    accept({.domain = 2}, 40'000);
    for (uint32_t place : {8u, 9u}) {
        rests({}, place);
        rests({.due_s = now_s() + 400}, place);
        rests({.domain = 3, .due_s = now_s() + 600}, place);
        rests({.domain = 2}, place);
    }
    backlog_->park(2, now_s() + 100, "its DNS fails");
    Backlog::Search search{.message = message_id(77, 9)};
    std::multiset<std::pair<DomainId, Backlog::Resting>> found;
    size_t slices = 1;
    while (backlog_->search(search, [&](const Record& record, Backlog::Resting how) {
        EXPECT_EQ(record.place, 9u);
        found.emplace(record.domain, how);
    }))
        ++slices;
    using enum Backlog::Resting;
    EXPECT_EQ(found, (std::multiset<std::pair<DomainId, Backlog::Resting>>{{1, ready}, {1, deferred}, {2, parked}, {3, deferred}}));
    EXPECT_GT(slices, 2u);
    EXPECT_FALSE(search.partly);
    EXPECT_EQ(message_id_of("000000000000004d00000000000000a1"), (MessageId{77, 161}));
    for (const char* bad : {"", "77", "000000000000004d00000000000000ag", "0x0000000000004d00000000000000a1", "-000000000000004d0000000000000a1"})
        EXPECT_FALSE(message_id_of(bad)) << bad;
}

TEST_F(BacklogTest, WhatIsPutBackComesFirst) {
    const auto ids = accept({}, 3 * ReadyWindow::kCells);
    ReadyWindow& window = *owner_.announced.front();
    const RecordId first = window.pull();
    const RecordId second = window.pull();
    EXPECT_EQ(first, ids[0]);
    backlog_->put_back(second);
    backlog_->put_back(first);
    std::vector<RecordId> got;
    for (uint32_t i = 0; i < ReadyWindow::kCells; ++i) got.push_back(window.pull());
    backlog_->refill(1);
    const auto rest = pull_announced();
    got.insert(got.end(), rest.begin(), rest.end());
    ASSERT_EQ(got.size(), ids.size());
    // Behind what was in the window, before all that waited.
    const auto at = [&](RecordId id) { return std::ranges::find(got, id) - got.begin(); };
    EXPECT_LE(at(first), ReadyWindow::kCells);
    EXPECT_LE(at(second), ReadyWindow::kCells);
    EXPECT_EQ(std::set<RecordId>(got.begin(), got.end()).size(), ids.size());
}

TEST_F(BacklogTest, DeferredComesWhenDueAndNotBefore) {
    const int64_t due_s = now_s() + 2;
    const RecordId later = accept({.due_s = due_s});
    const RecordId much_later = accept({.due_s = due_s + 3'600});
    EXPECT_TRUE(owner_.announced.empty());
    EXPECT_EQ(backlog_->counts().deferred, 2u);
    EXPECT_EQ(backlog_->counts().next_due_s, due_s);
    ASSERT_TRUE(loop_.run_until([&] { return !owner_.announced.empty(); }));
    EXPECT_GE(now_s(), due_s);
    EXPECT_LE(now_s(), due_s + 5);
    EXPECT_THAT(pull_announced(), ElementsAre(later));
    EXPECT_EQ(backlog_->counts().deferred, 1u);
    EXPECT_EQ(backlog_->counts().next_due_s, due_s + 3'600);
    EXPECT_EQ(arena_[later].due_s, 0u);
    EXPECT_EQ(arena_[much_later].due_s, due_s + 3'600);
}

TEST_F(BacklogTest, AStormOfDueRecordsComesInParts) {
    constexpr uint32_t kStorm = 25'000;
    accept({.due_s = now_s() + 1}, kStorm);
    ASSERT_TRUE(loop_.run_until([&] { return backlog_->counts().deferred < kStorm; }));
    EXPECT_EQ(backlog_->counts().deferred, kStorm - 10'000);
    ASSERT_TRUE(loop_.run_until([&] { return backlog_->counts().deferred == 0; }));
    EXPECT_EQ(pull_announced().size(), kStorm);
}

TEST_F(BacklogTest, AParkedDomainKeepsItsRecordsAndIsQuiet) {
    const RecordId in_window = accept({});
    const auto announced = owner_.announced;
    ASSERT_EQ(announced.size(), 1u);
    announced.front()->abandon();  // its site is down
    owner_.announced.clear();
    backlog_->park(1, now_s() + 3'600, "the site is down");
    const RecordId more = accept({});
    const RecordId other = accept({.domain = 2});
    ASSERT_EQ(owner_.announced.size(), 1u);
    EXPECT_EQ(owner_.announced.front()->domain(), 2u);
    EXPECT_THAT(pull_announced(), ElementsAre(other));
    EXPECT_EQ(backlog_->counts().parked, 2u);
    EXPECT_EQ(domains()[1].why, "the site is down");
    EXPECT_EQ(domains()[1].ready, 2u);
    EXPECT_GT(domains()[1].parked_until_s, now_s());
    backlog_->unpark(1);
    EXPECT_EQ(domains()[1].parked_until_s, 0);
    EXPECT_EQ(backlog_->counts().parked, 0u);
    EXPECT_THAT(pull_announced(), ElementsAre(in_window, more));
}

TEST_F(BacklogTest, AParkEndsByItselfAndTheLastOneCounts) {
    backlog_->park(1, now_s() + 1, "short");
    backlog_->park(1, now_s() + 3, "longer");
    const int64_t until_s = now_s() + 3;
    const RecordId id = accept({});
    ASSERT_TRUE(loop_.run_until([&] { return !owner_.announced.empty(); }));
    EXPECT_GE(now_s(), until_s);
    EXPECT_THAT(pull_announced(), ElementsAre(id));
}

TEST_F(BacklogTest, AParkThatWasLiftedIsNoReasonToWait) {
    accept({});
    backlog_->park(1, now_s() + 3'600, "a look-up failed");
    EXPECT_LT(backlog_->counts().next_due_s, INT64_MAX);
    backlog_->unpark(1);
    EXPECT_EQ(backlog_->counts().next_due_s, INT64_MAX);
}

TEST_F(BacklogTest, WhatIsTooOldExpiresWhereverItRests) {
    const FileSlot old = add_file(now_s() - schedule_.max_age_s + 2);
    const RecordId deferred = accept({.due_s = now_s() + 3'600, .file = old});
    EXPECT_LE(backlog_->counts().next_due_s, now_s() + 2) << "it comes due to expire";
    backlog_->park(2, now_s() + 3, "down");
    const RecordId parked = accept({.domain = 2, .file = old});
    const RecordId young = accept({.domain = 2});
    ASSERT_TRUE(loop_.run_until([&] { return owner_.expired.size() == 2; }));
    EXPECT_THAT(owner_.expired, ElementsAre(deferred, parked)) << "also in a park";
    ASSERT_TRUE(loop_.run_until([&] { return !owner_.announced.empty(); }));
    EXPECT_THAT(pull_announced(), ElementsAre(young));
    EXPECT_EQ(backlog_->counts().ready, 0u);
    EXPECT_EQ(backlog_->counts().deferred, 0u);
}

TEST_F(BacklogTest, AnIdleDomainIsForgotten) {
    accept({.domain = 1});
    accept({.domain = 2});
    ASSERT_EQ(owner_.announced.size(), 2u);
    ReadyWindow* held = owner_.announced.back();
    held->add_reference();  // a shard still holds this one
    pull_announced();
    backlog_->refill(1);
    backlog_->refill(2);
    ASSERT_TRUE(loop_.run_until([&] { return domains().size() == 1; }));
    EXPECT_TRUE(domains().contains(held->domain()));
    EXPECT_TRUE(held->empty());
    held->drop_reference();
    ASSERT_TRUE(loop_.run_until([&] { return domains().empty(); }));
}

// A campaign's million domains, each of whose mail expired, must not stay for ever.
TEST_F(BacklogTest, ADomainWhoseMailExpiredIsForgotten) {
    const FileSlot old = add_file(now_s() - schedule_.max_age_s + 1);
    accept({.domain = 1, .due_s = now_s() + 3'600, .file = old});
    backlog_->park(2, now_s() + 2, "down");
    accept({.domain = 2, .file = old});
    backlog_->park(3, now_s() + 1, "down, and without mail");
    ASSERT_TRUE(loop_.run_until([&] { return owner_.expired.size() == 2; }));
    EXPECT_TRUE(loop_.run_until([&] { return domains().empty(); }, 5'000));
}

// A consumer may empty a window at any moment, also while the idle ones are looked at.
TEST_F(BacklogTest, AWindowEmptiedInTheSweepIsSweptLater) {
    struct Emptying final : BacklogOwner {
        Backlog* backlog = nullptr;
        bool site_is_down = false;
        uint64_t pulled = 0;
        void announce(ReadyWindow& window) override {
            if (site_is_down) return window.abandon();
            do {
                while (window.pull()) ++pulled;
            } while (!window.leave());
            if (window.wants_refill()) backlog->refill(window.domain());
        }
        void expire(RecordId) override {}
        void cancel(RecordId) override {}
        HoldTable::Verdict judge_site(const HoldTable&, SiteId) override { return {}; }
        void try_now(SiteId) override {}
    } emptying;
    backlog_ = std::make_unique<Backlog>(*loop_, arena_, files_, schedule_, emptying);
    emptying.backlog = backlog_.get();
    for (DomainId domain = 1; domain <= 500; ++domain) {
        accept({.domain = domain}, 70);  // comes in two parts and leaves the domain idle
        emptying.site_is_down = true;
        accept({.domain = domain});  // rests in the window until the sweep finds it
        emptying.site_is_down = false;
    }
    EXPECT_EQ(emptying.pulled, 500u * 70);
    EXPECT_TRUE(loop_.run_until([&] { return domains().empty(); }));
    EXPECT_EQ(emptying.pulled, 500u * 71);
}

// Random commands; a model that only knows where each record is.
TEST_F(BacklogTest, LosesAndRepeatsNothingLikeItsModel) {
    Random random(11);
    enum class Place { backlog, pulled, expired };
    std::map<RecordId, Place> model;
    std::set<DomainId> parked;
    std::vector<ReadyWindow*> rotation;
    const FileSlot old = add_file(now_s() - schedule_.max_age_s - 1);
    std::vector<RecordId> pulled;
    auto take_announced = [&] {
        for (ReadyWindow* window : owner_.announced) {
            ASSERT_FALSE(parked.contains(window->domain())) << "a parked domain was announced";
            ASSERT_EQ(std::ranges::count(rotation, window), 0);
            rotation.push_back(window);
        }
        owner_.announced.clear();
        for (const RecordId id : owner_.expired) {
            ASSERT_EQ(arena_[id].file, old);
            ASSERT_EQ(model.at(id), Place::backlog);
            model[id] = Place::expired;
        }
        owner_.expired.clear();
    };
    for (int step = 0; step < 20'000; ++step) {
        const DomainId domain = 1 + random.below(6);
        switch (random.below(9)) {
            case 0:
            case 1: {
                const Want want{domain, random.below(3), 0,
                                random.below(4) ? Priority::normal : Priority::high,
                                random.below(3) ? 0 : now_s() + 1 + random.below(2),
                                random.below(10) ? file_ : old};
                for (const RecordId id : accept(want, 1 + random.below(30)))
                    model[id] = Place::backlog;
                break;
            }
            case 2:
                if (!parked.insert(domain).second) break;
                backlog_->park(domain, now_s() + 10'000, "test");
                std::erase_if(rotation, [&](ReadyWindow* window) {
                    if (window->domain() != domain) return false;
                    window->abandon();
                    return true;
                });
                break;
            case 3:
                if (parked.empty()) break;
                backlog_->unpark(*parked.begin());
                parked.erase(parked.begin());
                break;
            case 4:
                if (pulled.empty()) break;
                model[pulled.back()] = Place::backlog;
                backlog_->put_back(pulled.back());
                pulled.pop_back();
                break;
            case 5:
                loop_->turn(0);
                break;
            default:
                if (rotation.empty()) break;
                const size_t at = random.below(static_cast<uint32_t>(rotation.size()));
                ReadyWindow* window = rotation[at];
                for (uint32_t n = random.below(80); n > 0; --n) {
                    const RecordId id = window->pull();
                    if (!id) {
                        const DomainId empty = window->domain();
                        if (window->leave())
                            rotation.erase(rotation.begin() + static_cast<ptrdiff_t>(at));
                        backlog_->refill(empty);
                        break;
                    }
                    ASSERT_EQ(model.at(id), Place::backlog);
                    model[id] = Place::pulled;
                    pulled.push_back(id);
                    if (window->wants_refill()) backlog_->refill(window->domain());
                }
        }
        take_announced();
        if (HasFatalFailure()) return;
    }
    for (const DomainId domain : parked) backlog_->unpark(domain);
    parked.clear();
    auto left = [&] {
        return std::ranges::count(model, Place::backlog, &std::pair<const RecordId, Place>::second);
    };
    EXPECT_TRUE(loop_.run_until([&] {
        take_announced();
        for (ReadyWindow* window : std::exchange(rotation, {}))
            for (const RecordId id : pull_all(*window)) {
                EXPECT_EQ(model.at(id), Place::backlog);
                model[id] = Place::pulled;
            }
        return left() == 0;
    }));
    EXPECT_EQ(left(), 0);
    const auto counts = backlog_->counts();
    EXPECT_EQ(counts.ready + counts.deferred + counts.parked, 0u);
    EXPECT_TRUE(loop_.run_until([&] { return domains().empty(); }));
}

// Promise 4: neither a park of an hour nor a site that pulls nothing keeps mail past its age.
TEST_F(BacklogTest, WhatIsTooOldExpiresInAParkAndBehindALimit) {
    const FileSlot old = add_file(now_s() - schedule_.max_age_s + 2);
    backlog_->park(2, now_s() + 3'600, "down");
    const RecordId parked = accept({.domain = 2, .file = old});
    const RecordId young = accept({.domain = 2});
    const auto unpulled = accept({.domain = 3, .file = old}, 300);  // more than a window holds; nobody pulls
    const RecordId also_young = accept({.domain = 3});
    ASSERT_TRUE(loop_.run_until([&] { return owner_.expired.size() == 301; }, 6'000)) << owner_.expired.size();
    EXPECT_EQ(std::set<RecordId>(owner_.expired.begin(), owner_.expired.end()).size(), 301u);
    EXPECT_TRUE(std::ranges::find(owner_.expired, parked) != owner_.expired.end());
    EXPECT_EQ(backlog_->held(), 2u);
    EXPECT_EQ(backlog_->counts().parked, 1u);
    backlog_->unpark(2);
    EXPECT_THAT(pull_announced(), ::testing::UnorderedElementsAre(young, also_young));
}

// A change of max_age holds for what rests: unpulled, parked and deferred mail alike.
TEST_F(BacklogTest, ALoweredMaxAgeHoldsForWhatRests) {
    const FileSlot old = add_file(now_s() - 100);
    std::set<RecordId> aged;
    for (const RecordId id : accept({.domain = 1, .file = old}, 300)) aged.insert(id);  // nobody pulls
    backlog_->park(2, now_s() + 3'600, "down");
    aged.insert(accept({.domain = 2, .file = old}));
    aged.insert(accept({.domain = 3, .due_s = now_s() + 3'600, .file = old}));
    const RecordId young = accept({.domain = 3, .due_s = now_s() + 3'600});
    change_max_age(50);
    ASSERT_TRUE(loop_.run_until([&] { return owner_.expired.size() >= aged.size(); }, 5'000)) << owner_.expired.size();
    EXPECT_EQ(std::set(owner_.expired.begin(), owner_.expired.end()), aged);
    EXPECT_EQ(owner_.expired.size(), aged.size()) << "each once";
    EXPECT_EQ(backlog_->held(), 1u);
    EXPECT_LE(backlog_->counts().next_due_s, now_s() + 50) << "it comes due to expire";
    EXPECT_EQ(arena_[young].attempts, 0u);
}

TEST_F(BacklogTest, ARaisedMaxAgeKeepsWhatRests) {
    const int64_t old_age_s = schedule_.max_age_s, later = now_s() + 3'600;
    const FileSlot old = add_file(now_s() - old_age_s + 2);
    accept({.domain = 1, .file = old}, 300);  // nobody pulls
    backlog_->park(2, later, "down");
    accept({.domain = 2, .file = old});
    accept({.domain = 3, .due_s = later, .file = old});
    change_max_age(2 * old_age_s);
    const int64_t until_s = now_s() + 4;  // past the old age of all of them
    ASSERT_TRUE(loop_.run_until([&] { return now_s() >= until_s; }));
    EXPECT_TRUE(owner_.expired.empty());
    EXPECT_EQ(backlog_->held(), 302u);
    EXPECT_EQ(backlog_->next_due(3).due_s, later) << "not early either";
    change_max_age(old_age_s);
    EXPECT_TRUE(loop_.run_until([&] { return owner_.expired.size() == 302; }, 5'000)) << owner_.expired.size();
}

// Nothing of a domain that is forgotten comes due later.
TEST_F(BacklogTest, ADomainForgottenAfterAChangeOfMaxAgeLeavesNothing) {
    const int64_t old_age_s = schedule_.max_age_s;
    const FileSlot old = add_file(now_s() - old_age_s + 4);
    for (const int64_t age_s : {old_age_s + 1'000, old_age_s - 1}) {
        accept({.domain = 1, .file = old});
        schedule_.max_age_s = age_s;  // the domain is forgotten before the walk comes by, or after it
        pull_announced();
        backlog_->refill(1);
        ASSERT_TRUE(loop_.run_until([&] { return domains().empty(); }));
        backlog_->schedule_changed();
        while (backlog_->walk()) {
        }
    }
    const int64_t until_s = now_s() + 5;
    ASSERT_TRUE(loop_.run_until([&] { return now_s() >= until_s; }));
    EXPECT_TRUE(owner_.expired.empty());
    EXPECT_TRUE(domains().empty());
}

}  // namespace
}  // namespace postrider
