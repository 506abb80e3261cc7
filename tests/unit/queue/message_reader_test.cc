// A message read again when its turn has come: only if its file is still the one that was claimed
// (FAULTS 51).
#include "queue/message_reader.h"

#include <gmock/gmock.h>

#include "tests/unit/queue/intake_fixture.h"

namespace postrider {
namespace {

using testing::IntakeTest;

class MessageReaderTest : public IntakeTest {
  protected:
    std::string content(Run& run, const LoadedMessage& message) {
        std::string octets(message.content.stored.size, 0);
        auto read = run.reader.read(message, message.content.stored.offset, octets);
        return read ? octets : "error " + std::to_string(read.error().code);
    }
};

TEST_F(MessageReaderTest, SmallAndIndexedFilesReadTheSame) {
    spool_.drop(
        "small.eml",
        "x-sender: s@example.org\nx-receiver: a@x.example\nx-receiver: b@y.example\nx-job: j\n"
        "x-priority: high\nSubject: x\n\n.dots\n");
    std::string many = "x-sender: s@example.org\n";
    for (int i = 0; i < 20; ++i) many += fmt::format("x-receiver: r{}@x.example\n", i);
    spool_.drop("many.eml", many + "Subject: x\n\n.dots\n");
    spool_.drop("b.bsmtp",
                batch({"a@x.example"}, "", "..dots") + batch({"b@x.example"}, "", "more"));
    Run run(*this);
    run.start_and_settle();
    ASSERT_EQ(run.owner.records.size(), 2u + 20 + 2);
    std::map<std::string, int> contents;
    std::set<std::pair<uint64_t, uint64_t>> ids;
    for (const Record& record : run.owner.records) {
        LoadedMessage message;
        ASSERT_TRUE(run.reader.load(record, message));
        EXPECT_EQ(message.envelope.sender, "s@example.org");
        EXPECT_EQ(message.envelope.job, message.file().name == "small.eml" ? "j" : "");
        EXPECT_TRUE(message.content.dots || message.content.stored.size == 17);
        EXPECT_TRUE(run.reader.unchanged(message));
        ++contents[content(run, message)];
        ids.emplace(message.id.file, message.id.place);
        RecipientText text;
        EXPECT_FALSE(run.reader.recipient(message, message.recipients, text)) << "one too many";
        run.reader.unload(message);
    }
    EXPECT_EQ(contents, (std::map<std::string, int>{{"Subject: x\n\n.dots\n", 22},
                                                    {"Subject: x\n\n..dots\n", 1},
                                                    {"Subject: x\n\nmore\n", 1}}));
    EXPECT_EQ(ids.size(), 4u) << "one id for each message";
    EXPECT_EQ(run.loaded().size(), 24u);
}

TEST_F(MessageReaderTest, AFileThatIsNotWhatWasClaimedIsStale) {
    enum class Fault { shorter, other_octets, replaced, none };
    for (const bool small : {true, false}) {
        for (const Fault fault :
             {Fault::shorter, Fault::other_octets, Fault::replaced, Fault::none}) {
            for (const bool open_already : {true, false}) {
                spool_.drop(small ? "a.eml" : "a.bsmtp",
                            small ? eml({"a@x.example"}) : batch({"a@x.example"}));
                Run run(*this);
                run.start_and_settle();
                ASSERT_EQ(run.owner.records.size(), 1u);
                const Record record = run.owner.records[0];
                const FileEntry& file = run.files[record.file];
                const std::string path = spool_.active(file.id);
                LoadedMessage message;
                if (open_already) ASSERT_TRUE(run.reader.load(record, message));
                const std::string text = testing::read_file(path);
                if (fault == Fault::shorter) ASSERT_EQ(truncate(path.c_str(), 10), 0);
                if (fault == Fault::other_octets)
                    testing::write_file(path, std::string(text.size(), 'x'));
                if (fault == Fault::replaced) {
                    testing::write_file(spool_ / "tmp/other", text);
                    ASSERT_EQ(rename((spool_ / "tmp/other").c_str(), path.c_str()), 0);
                }
                const bool harmless =
                    fault == Fault::none || (fault == Fault::replaced && open_already);
                if (open_already) {
                    // The file we hold open is the one that was claimed, whoever has its name now.
                    EXPECT_EQ(run.reader.unchanged(message), harmless);
                    // A small file was read whole when it was loaded: what was parsed is what would be sent.
                    if (fault == Fault::shorter && !small)
                        EXPECT_EQ(content(run, message), fmt::format("error {}", ESTALE));
                    if (small) EXPECT_EQ(content(run, message), "Subject: x\n\nhello\n");
                    run.reader.unload(message);
                } else {
                    auto loaded = run.reader.load(record, message);
                    EXPECT_EQ(loaded.has_value(), harmless);
                    if (!loaded) EXPECT_EQ(loaded.error().code, ESTALE);
                    run.reader.unload(message);  // of what was not loaded: harmless
                    if (!loaded) EXPECT_EQ(run.reader.load(record, message).error().code, ESTALE);
                }
                ASSERT_EQ(unlink(path.c_str()), 0);
            }
        }
    }
}

TEST_F(MessageReaderTest, ADamagedIndexIsStaleAndAfterwardsTheFileCanBeForgotten) {
    spool_.drop("a.bsmtp", batch({"a@x.example"}));
    Run run(*this);
    run.start_and_settle();
    const Record record = run.owner.records.at(0);
    const std::string index = spool_.active(run.files[record.file].id, kIndexSuffix);
    ASSERT_EQ(truncate(index.c_str(), static_cast<off_t>(record.place * kIndexUnit + 8)), 0);
    LoadedMessage message;
    auto loaded = run.reader.load(record, message);
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ESTALE);
    run.reader.unload(message);
    run.reader.forget(record.file);
}

TEST_F(MessageReaderTest, KeepsFewFilesOpenAndForgetsThoseThatAreGone) {
    for (int i = 0; i < 300; ++i)
        spool_.drop(fmt::format("{}.eml", i), eml({fmt::format("r{}@x.example", i)}));
    Run run(*this);
    run.start_and_settle();
    const auto open_files = [] {
        return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
    };
    const auto before = open_files();
    LoadedMessage held;
    ASSERT_TRUE(run.reader.load(run.owner.records[0], held));
    EXPECT_EQ(run.loaded().size(), 300u);
    EXPECT_LE(open_files() - before, static_cast<ptrdiff_t>(MessageReader::kOpenFiles) + 1);
    EXPECT_EQ(content(run, held), "Subject: x\n\nhello\n") << "what is in use stays open";
    run.reader.unload(held);
    const auto full = open_files();
    for (const Record& record : run.owner.records) run.reader.forget(record.file);
    EXPECT_LE(open_files(), full - static_cast<ptrdiff_t>(MessageReader::kOpenFiles));
    EXPECT_EQ(run.loaded().size(), 300u);
}

// Another shard has removed the file: its descriptor is closed, unless the slot or the message is in use again.
TEST_F(MessageReaderTest, AFileThatAnotherShardRemovedIsClosed) {
    for (const char* name : {"a.bsmtp", "b.bsmtp"}) spool_.drop(name, batch({"a@x.example"}));
    Run run(*this);
    run.start_and_settle();
    ASSERT_EQ(run.owner.records.size(), 2u);
    const auto open_files = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
    const auto before = open_files();
    EXPECT_EQ(run.loaded().size(), 2u);
    ASSERT_EQ(open_files() - before, 4) << "data and index of each";
    const FileSlot first = run.owner.records[0].file, second = run.owner.records[1].file;
    const FileId id = run.files[first].id;
    run.reader.forget_removed(second, id);
    EXPECT_EQ(open_files() - before, 4) << "the slot is another file's";
    LoadedMessage held;
    ASSERT_TRUE(run.reader.load(run.owner.records[0], held));
    run.reader.forget_removed(first, id);
    EXPECT_EQ(content(run, held), "Subject: x\n\nhello\n");
    run.reader.unload(held);
    run.reader.forget_removed(first, id);
    EXPECT_EQ(open_files() - before, 2);
    run.reader.forget_removed(first, id);
    EXPECT_EQ(open_files() - before, 2);
}

// A slot is used again by another file: what was open under it is not that file.
TEST_F(MessageReaderTest, ASlotUsedAgainIsAnotherFile) {
    spool_.drop("a.eml", eml({"a@x.example"}));
    Run run(*this);
    run.start_and_settle();
    const Record first = run.owner.records.at(0);
    EXPECT_EQ(run.loaded().size(), 1u);
    run.files.remove(first.file);
    spool_.drop("b.eml", eml({"b@x.example"}, "another\n"));
    run.owner.claims.clear();
    ASSERT_TRUE(run.until_records(2));
    const Record second = run.owner.records.at(1);
    ASSERT_EQ(second.file, first.file);
    LoadedMessage message;
    ASSERT_TRUE(run.reader.load(second, message));
    EXPECT_EQ(content(run, message), "Subject: x\n\nanother\n");
    run.reader.unload(message);
}

}  // namespace
}  // namespace postrider
