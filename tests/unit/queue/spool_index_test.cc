// The index beside a claimed file: what is written is read, and nothing else is ever taken for it.
#include "queue/spool_index.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "engine/io/clock.h"
#include "queue/message_reader.h"
#include "tests/unit/queue/support.h"

namespace postrider {
namespace {

using testing::TempFolder;

struct Message {
    Envelope envelope;
    Content content;
    std::vector<std::pair<Range, std::string>> recipients;  // where, domain
    bool refused = false;
};

class SpoolIndexTest : public ::testing::Test {
  protected:
    SpoolIndexTest() {
        file_.id = 0x1234567890abcdef;
        file_.size = 1'000'000;
        file_.mtime_ns = 42;
        fd_ = FileDescriptor(open((folder_ / "index").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    }
    Result<void> write(const std::vector<Message>& messages) {
        IndexWriter writer(fd_.get(), file_);
        for (const Message& message : messages) {
            for (const auto& [where, domain] : message.recipients)
                writer.add_recipient(where, names_.intern(domain), "<a@" + domain + ">");
            if (message.refused)
                writer.drop_recipients();
            else
                writer.add_message(message.envelope, message.content);
        }
        return writer.finish(names_, 3);
    }
    // What a reader makes of the file, one line for each thing; "error" when it notices something.
    std::string read(bool verify, std::vector<uint32_t>* places = nullptr) {
        auto reader = IndexReader::open(fd_.get(), file_, verify);
        if (!reader) return "error";
        auto domains = reader->domains();
        if (!domains) return "error";
        std::string text, only;  // the address of an only recipient, which its message tells before it
        size_t left = 0;
        for (;;) {
            auto step = reader->next();
            if (!step) return "error";
            using Kind = IndexReader::Step::Kind;
            if (step->kind != Kind::recipients && left != 0) return "error";
            if (step->kind == Kind::end) break;
            if (step->kind == Kind::recipients) {
                for (size_t i = 0; i < step->count; ++i) {
                    const Range where = step->entries[i].range();
                    if (step->entries[i].domain >= domains->size()) return "error";
                    text += fmt::format("{}+{} {}\n", where.offset, where.size,
                                        domains->at(step->entries[i].domain));
                    if (!only.empty() && only != "<a@" + domains->at(step->entries[i].domain) + ">") return "error";
                }
                if (step->count == 0 || step->count > left) return "error";
                left -= step->count;
                continue;
            }
            left = step->message->recipients;
            only.clear();
            if (step->message->flags & MessageEntry::kRefused) {
                text += "refused\n";
                continue;
            }
            if (places) places->push_back(step->place);
            Envelope envelope;
            Content content;
            only = read_entry(*step->message, step->text, envelope, content);
            if (only.empty() == (step->message->recipients == 1)) return "error";
            text += describe(envelope, content);
        }
        return text;
    }
    static std::string describe(const Envelope& e, const Content& c) {
        std::string text = fmt::format(
            "<{}> {} {} {} {} {} {} {} {} {} {}+{} {} {} {}{}{}", e.sender, e.envid, e.job,
            e.campaign, e.tenant, e.pool, static_cast<int>(e.priority), e.not_before_s, e.smtputf8,
            static_cast<int>(e.ret), c.stored.offset, c.stored.size, c.wire_size,
            static_cast<int>(c.form), c.eight_bit, c.crlf_only, c.dots);
        for (const Range& range : c.removed)
            text += fmt::format(" -{}+{}", range.offset, range.size);
        return text + "\n";
    }
    static std::string describe(const std::vector<Message>& messages) {
        std::string text;
        for (const Message& message : messages) {
            if (!message.refused)
                text += describe(message.envelope, message.content);
            else if (!message.recipients.empty())
                text += "refused\n";
            for (const auto& [where, domain] : message.recipients)
                text += fmt::format("{}+{} {}\n", where.offset, where.size, domain);
        }
        return text;
    }
    static std::vector<Message> make(Random& random, size_t count, uint32_t most_recipients) {
        std::vector<Message> messages(count);
        auto text = [&](uint32_t most) {
            return std::string(random.below(most + 1), static_cast<char>('a' + random.below(26)));
        };
        auto number = [&] { return random.next() >> (16 + random.below(48)); };
        for (Message& message : messages) {
            Envelope& e = message.envelope;
            e.sender = text(254), e.envid = text(100), e.job = text(255), e.campaign = text(9),
            e.tenant = text(3), e.pool = text(255);
            e.priority = random.below(2) ? Priority::high : Priority::normal;
            e.not_before_s = random.below(2) ? 0 : random.below(UINT32_MAX);
            e.smtputf8 = random.below(2);
            e.ret = static_cast<DsnReturn>(random.below(3));
            Content& c = message.content;
            c.stored = {number(), number()};
            c.wire_size = number();
            c.form = static_cast<StoredForm>(random.below(3));
            c.eight_bit = random.below(2), c.crlf_only = random.below(2), c.dots = random.below(2);
            for (uint32_t i = random.below(4); i > 0; --i)
                c.removed.push_back({number(), number()});
            for (uint32_t i = random.below(most_recipients + 1); i > 0; --i)
                message.recipients.emplace_back(Range{number(), random.below(65'536)},
                                                fmt::format("d{}.example", random.below(50)));
            message.refused = random.below(8) == 0;
        }
        return messages;
    }

    TempFolder folder_;
    SpoolFile file_;
    NameTable names_;
    FileDescriptor fd_;
};

TEST_F(SpoolIndexTest, WhatIsWrittenIsRead) {
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        Random random(seed);
        ASSERT_EQ(ftruncate(fd_.get(), 0), 0);
        const auto messages = make(random, random.below(300), 1 + random.below(40));
        ASSERT_TRUE(write(messages));
        ASSERT_EQ(read(true), describe(messages)) << "seed " << seed;
    }
}

TEST_F(SpoolIndexTest, AHundredThousandRecipientsOfOneMessage) {
    Message message;
    for (uint32_t i = 0; i < 100'000; ++i)
        message.recipients.emplace_back(Range{i * 20ull, 19},
                                        fmt::format("d{}.example", i % 30'000));
    message.envelope.sender = "a@b.example";
    std::vector<Message> messages{message, Message{}, message};
    ASSERT_TRUE(write(messages));
    std::vector<uint32_t> places;
    EXPECT_EQ(read(true, &places), describe(messages));
    ASSERT_EQ(places.size(), 3u);
    // Record::place is the entry's unit: recipient i of n lies at place - n + i.
    RecipientEntry entry;
    const uint64_t unit = places[2] - 100'000 + 77'777;
    ASSERT_EQ(pread(fd_.get(), &entry, sizeof entry, static_cast<off_t>(unit * kIndexUnit)), 16);
    EXPECT_EQ(entry.tag, RecipientEntry::kTag);
    EXPECT_EQ(entry.range(), (Range{77'777 * 20, 19}));
}

TEST_F(SpoolIndexTest, WrittenAgainItHasTheSamePlaces) {
    Random random(5);
    const auto messages = make(random, 100, 20);
    std::vector<uint32_t> first, second;
    ASSERT_TRUE(write(messages));
    read(true, &first);
    ASSERT_EQ(ftruncate(fd_.get(), 0), 0);
    names_.intern("another.example");  // ids differ from run to run
    ASSERT_TRUE(write(messages));
    read(true, &second);
    EXPECT_EQ(first, second);
}

TEST_F(SpoolIndexTest, EveryFlippedOctetIsNoticedAndEveryCut) {
    Random random(9);
    ASSERT_TRUE(write(make(random, 5, 4)));
    const std::string whole = testing::read_file(folder_ / "index");
    ASSERT_NE(read(true), "error");
    for (size_t at = 0; at < whole.size(); ++at) {
        const char flipped = static_cast<char>(whole[at] ^ (1 << random.below(8)));
        ASSERT_EQ(pwrite(fd_.get(), &flipped, 1, static_cast<off_t>(at)), 1);
        ASSERT_EQ(read(true), "error") << "octet " << at;
        (void)read(false);  // reads garbage or fails, within bounds
        ASSERT_EQ(pwrite(fd_.get(), &whole[at], 1, static_cast<off_t>(at)), 1);
    }
    for (size_t size = whole.size(); size-- > 0;) {
        ASSERT_EQ(ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
        ASSERT_EQ(read(true), "error") << "cut at " << size;
    }
    testing::write_file(folder_ / "index", whole + "x");
    EXPECT_EQ(read(true), "error");
}

TEST_F(SpoolIndexTest, AnotherFilesIndexIsNotTaken) {
    ASSERT_TRUE(write({Message{}}));
    EXPECT_NE(read(true), "error");
    for (int fact = 0; fact < 3; ++fact) {
        const FileId id = file_.id;
        const uint64_t size = file_.size;
        const int64_t mtime = file_.mtime_ns;
        (fact == 0   ? file_.id
         : fact == 1 ? file_.size
                     : reinterpret_cast<uint64_t&>(file_.mtime_ns)) += 1;
        EXPECT_EQ(read(true), "error");
        EXPECT_EQ(read(false), "error");
        file_.id = id, file_.size = size, file_.mtime_ns = mtime;
    }
}

// A header may hold any number of Bcc fields; their ranges are part of the entry.
TEST_F(SpoolIndexTest, AHundredThousandRemovedRanges) {
    Message message;
    for (uint64_t i = 0; i < 100'000; ++i) message.content.removed.push_back({i * 10, 5});
    message.recipients.emplace_back(Range{1, 2}, "d.example");
    std::vector<Message> messages{message, Message{}};
    ASSERT_TRUE(write(messages));
    EXPECT_EQ(read(true), describe(messages));
}

TEST_F(SpoolIndexTest, ADiskThatFailsIsTold) {
    fd_ = FileDescriptor(open("/dev/full", O_RDWR));
    auto written = write({Message{}});
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ENOSPC);
}

}  // namespace
}  // namespace postrider
