// The backlog with a real reactor and an owner that only writes down.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "queue/backlog.h"
#include "tests/unit/queue/support.h"

namespace postrider::testing {

struct BacklogWitness final : BacklogOwner {
    std::vector<ReadyWindow*> announced;
    std::vector<RecordId> expired, cancelled;
    std::map<SiteId, std::string> sites;
    std::vector<SiteId> tried;
    void announce(ReadyWindow& window) override { announced.push_back(&window); }
    void expire(RecordId id) override { expired.push_back(id); }
    void cancel(RecordId id) override { cancelled.push_back(id); }
    void try_now(SiteId site) override { tried.push_back(site); }
    HoldTable::Verdict judge_site(const HoldTable& holds, SiteId site) override {
        return holds.of_site(sites[site]);
    }
};

class BacklogTest : public ::testing::Test {
  protected:
    BacklogTest() {
        file_ = add_file(now_s());
        backlog_ = std::make_unique<Backlog>(*loop_, arena_, files_, schedule_, owner_);
    }
    int64_t now_s() { return loop_->steady_us() / kUsPerSecond; }
    FileSlot add_file(int64_t created_s) {
        SpoolFile file;
        file.created_s = created_s;
        return files_.add(file);
    }
    struct Want {
        DomainId domain = 1;
        LabelId campaign = 0;
        LabelId tenant = 0;
        Priority priority = Priority::normal;
        int64_t due_s = 0;
        FileSlot file = 0;
    };
    RecordId make(const Want& want) {
        const RecordId id = supply_.take();
        Record& record = arena_[id];
        record.domain = want.domain;
        record.campaign = want.campaign;
        record.tenant = want.tenant;
        record.priority = want.priority;
        record.due_s = static_cast<uint32_t>(want.due_s);
        record.file = want.file ? want.file : file_;
        return id;
    }
    RecordId accept(const Want& want) {
        const RecordId id = make(want);
        RecordChain chain;
        arena_.append(chain, id);
        backlog_->accept(chain);
        return id;
    }
    std::vector<RecordId> accept(const Want& want, uint32_t count) {
        RecordChain chain;
        std::vector<RecordId> ids;
        for (uint32_t i = 0; i < count; ++i) {
            ids.push_back(make(want));
            arena_.append(chain, ids.back());
        }
        backlog_->accept(chain);
        return ids;
    }
    // Pulls everything of the window as its worker would, asking for more.
    std::vector<RecordId> pull_all(ReadyWindow& window) {
        std::vector<RecordId> got;
        for (;;) {
            if (const RecordId id = window.pull())
                got.push_back(id);
            else if (window.leave())
                return got;
            if (window.wants_refill()) backlog_->refill(window.domain());
        }
    }
    std::vector<RecordId> pull_announced() {
        std::vector<RecordId> got;
        while (!owner_.announced.empty()) {
            ReadyWindow* window = owner_.announced.back();
            owner_.announced.pop_back();
            const auto some = pull_all(*window);
            got.insert(got.end(), some.begin(), some.end());
        }
        return got;
    }
    void change_max_age(int64_t max_age_s) {
        schedule_.max_age_s = max_age_s;
        backlog_->schedule_changed();
        while (backlog_->walk()) {
        }
    }
    std::map<DomainId, Backlog::DomainCounts> domains() {
        std::map<DomainId, Backlog::DomainCounts> all;
        backlog_->for_each_domain(
            [&](const Backlog::DomainCounts& counts) { all[counts.domain] = counts; });
        return all;
    }

    ShardLoop loop_;
    RecordArena arena_;
    RecordSupply supply_{arena_};
    FileTable files_;
    RetrySchedule schedule_{{1000}, 100'000};
    BacklogWitness owner_;
    FileSlot file_ = 0;
    std::unique_ptr<Backlog> backlog_;
};

}  // namespace postrider::testing
