// An intake on a spool of its own, with a real reactor and an owner that writes down what it is
// told.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "queue/intake.h"
#include "queue/set_aside.h"
#include "tests/unit/queue/support.h"

namespace postrider::testing {

struct RecordingOwner final : IntakeOwner {
    RecordArena& arena;
    FileTable& files;
    bool room = true;
    int64_t expires_at_s = 0;
    std::vector<Record> records;
    std::vector<FileSlot> done;
    std::vector<FileId> claims, told;
    std::vector<FileId> known_claims;  // of them those that the journals have
    std::vector<SpoolFile> facts;  // of the claims
    std::vector<FileDescriptor> aside;  // what the next commit would sync
    std::vector<std::optional<uint32_t>> refused_places;
    std::vector<std::string> refused_campaigns;
    std::vector<std::string> refused_recipients, refused_messages, refused_files, troubles;
    std::string refused_why;  // of the last file

    RecordingOwner(RecordArena& a, FileTable& f) : arena(a), files(f) {}
    bool has_room() override { return room; }
    void publish(RecordChain chain) override {
        while (!chain.empty()) records.push_back(arena[arena.pop(chain)]);
        // A claim is told before its records.
        EXPECT_EQ(std::ranges::count(claims, files[records.back().file].id), 1);
    }
    int64_t claim_time_s(int64_t) override { return read_wall_clock() / kUsPerSecond; }
    int64_t expires_s(int64_t) override { return expires_at_s; }
    void claimed(const SpoolFile& file, bool journalled) override {
        if (journalled) known_claims.push_back(file.id);
        claims.push_back(file.id);
        facts.push_back(file);
    }
    void refused_recipient(const RefusedRecipient& refused) override {
        refused_recipients.push_back(
            fmt::format("{} {} {}", refused.file->name, refused.number, refused.text));
        refused_places.push_back(refused.place);
        refused_campaigns.push_back(refused.envelope ? refused.envelope->campaign : "?");
    }
    void refused_message(const SpoolFile& file, const RefusedMessage& refused,
                         const std::string& bad_name) override {
        refused_messages.push_back(
            fmt::format("{} {} <{}> {}", file.name, refused.number, refused.sender, bad_name));
    }
    void refused_file(FileId, const std::string& name, uint64_t, const std::string& why) override {
        refused_files.push_back(name);
        refused_why = why;
    }
    void refusals_told(FileId file) override { told.push_back(file); }
    void publishing_done(FileSlot slot) override { done.push_back(slot); }
    void set_aside(std::vector<FileDescriptor> written) override {
        for (auto& file : written) aside.push_back(std::move(file));
    }
    bool may_set_aside() override { return aside.size() < SetAside::kMany; }
    void trouble(const Error& error) override { troubles.push_back(error.text); }
};

class IntakeTest : public ::testing::Test {
  protected:
    // One run of the engine; a second one on the same spool is its restart.
    struct Run {
        IntakeTest& test;
        MailExchange exchange;
        ShardLoop loop;
        FileTable files;
        RecordArena arena;
        RecordSupply supply{arena};
        NameTable domains, labels;
        RecordingOwner owner{arena, files};
        Intake intake;
        MessageReader reader;

        explicit Run(IntakeTest& t, const ContentRules& rules = {}, ShardId shard = 0, size_t shards = 1)
            : test(t),
              exchange(shards),
              loop(&exchange, shard),
              intake(*loop, shards, *t.spool_, files, arena, supply, domains, labels, rules, owner),
              reader(*t.spool_, files, rules) {
            loop->each_turn([this] { return intake.slice(); });
        }
        ~Run() {
            intake.close();
            EXPECT_TRUE(loop.run_until([&] { return intake.closed(); }));
        }
        // `journalled`: what the journals of the runs before tell.
        void start(const std::vector<JournalRecord>& journalled = {}) {
            auto started = intake.start(test.recovered(journalled, 1));
            ASSERT_TRUE(started) << started.error().text;
        }
        void start_and_settle(const std::vector<JournalRecord>& journalled = {}) {
            start(journalled);
            ASSERT_TRUE(loop.run_until([&] { return committed_and([&] { return intake.idle(); }); }));
        }
        // As a commit would, between two turns.
        template <class F>
        bool committed_and(F condition) {
            most_aside = std::max(most_aside, owner.aside.size());
            owner.aside.clear();
            return condition();
        }
        size_t most_aside = 0;
        bool until_records(size_t count) {
            return loop.run_until([&] { return owner.records.size() >= count && intake.idle(); });
        }
        // "address campaign" of each record, as its message says when it is loaded again.
        std::multiset<std::string> loaded() {
            std::multiset<std::string> all;
            LoadedMessage message;
            RecipientText text;
            for (const Record& record : owner.records) {
                auto ok = reader.load(record, message);
                EXPECT_TRUE(ok) << ok.error().text;
                if (!ok) continue;
                auto read = reader.recipient(message, record.recipient, text);
                EXPECT_TRUE(read) << read.error().text;
                EXPECT_EQ(text.domain(), domains.name(record.domain));
                EXPECT_EQ(message.envelope.campaign, labels.name(record.campaign));
                EXPECT_EQ(message.envelope.priority, record.priority);
                all.insert(text.address + " " + message.envelope.campaign);
                reader.unload(message);
            }
            return all;
        }
    };

    std::shared_ptr<RecoveredState> recovered(const std::vector<JournalRecord>& journalled, size_t shards) {
        auto state = std::make_shared<RecoveredState>();
        EXPECT_TRUE(spool_->scan_active([&](FileId id) { state->add(id); }));
        state->listed();
        for (const auto& record : journalled) state->merge(record);
        state->finish(shards);
        return state;
    }
    static std::string eml(const std::vector<std::string>& to,
                           const std::string& body = "hello\n") {
        std::string text = "x-sender: s@example.org\n";
        for (const auto& address : to) text += "x-receiver: " + address + "\n";
        return text + "Subject: x\n\n" + body;
    }
    static std::string batch(const std::vector<std::string>& to, const std::string& extra = "",
                             const std::string& body = "hello") {
        std::string text = "MAIL FROM:<s@example.org>\n";
        for (const auto& address : to) text += "RCPT TO:<" + address + ">\n";
        return text + "DATA\n" + extra + "Subject: x\n\n" + body + "\n.\n";
    }

    TempSpool spool_;
};

}  // namespace postrider::testing
