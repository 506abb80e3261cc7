#include "queue/journal/journal_format.h"

#include <unordered_set>

#include "queue/journal/file_set.h"
#include "support.h"

namespace postrider::testing {
namespace {

constexpr SegmentName kName{3, 77};

TEST(JournalFormat, EveryKindComesBackAsItWasWritten) {
    const uint32_t seed = segment_seed(kName);
    const std::string longest(limits::kFileName, 'n');
    std::vector<JournalRecord> records = {
        claim_record(0xfedcba9876543210, 4'000'000'000, "a.eml"), claim_record(1, 0, ""),
        claim_record(2, 1, longest),
        fact(RecordKind::intent, UINT64_MAX, UINT32_MAX, kWholeFile, UINT16_MAX),
        mark(RecordKind::synced, uint64_t{1} << 40),
        mark(RecordKind::seal, 12345)};
    for (int kind = 16; kind <= 22; ++kind)
        records.push_back(fact(static_cast<RecordKind>(kind), 9, 8, 7, 6, UINT32_MAX, 4));
    for (const auto& record : records) {
        char out[kRecordSizeMax];
        const size_t size = encode_record(seed, record, out);
        EXPECT_EQ(size % 4, 0u);
        if (record.kind == RecordKind::intent || is_result(record.kind)) EXPECT_LE(size, 32u);
        JournalRecord back;
        size_t parsed_size = 0;
        ASSERT_EQ(parse_record({out, size}, seed, back, parsed_size), Parsed::known);
        EXPECT_EQ(parsed_size, size);
        EXPECT_EQ(back.kind, record.kind);
        EXPECT_EQ(back.form, record.form);
        EXPECT_EQ(back.attempt, record.attempt);
        EXPECT_EQ(back.file, record.file);
        EXPECT_EQ(back.place, record.place);
        EXPECT_EQ(back.recipient, record.recipient);
        EXPECT_EQ(back.time_s, record.time_s);
        EXPECT_EQ(back.due_s, record.due_s);
        EXPECT_EQ(back.size, record.size);
        EXPECT_EQ(back.mtime_ns, record.mtime_ns);
        EXPECT_EQ(back.offset, record.offset);
        EXPECT_EQ(back.name, record.name);
        for (size_t cut = 0; cut < size; ++cut)
            EXPECT_EQ(parse_record({out, cut}, seed, back, parsed_size), Parsed::incomplete);
    }
}

TEST(JournalFormat, ARecordOfAnotherSegmentIsNone) {
    char out[kRecordSizeMax];
    const size_t size = encode_mark(segment_seed({3, 77}), RecordKind::synced, 5, out);
    JournalRecord back;
    size_t parsed_size = 0;
    EXPECT_EQ(parse_record({out, size}, segment_seed({3, 78}), back, parsed_size), Parsed::bad);
    EXPECT_EQ(parse_record({out, size}, segment_seed({4, 77}), back, parsed_size), Parsed::bad);
}

TEST(JournalFormat, ZerosAreNoRecord) {
    const char zeros[64] = {};
    JournalRecord back;
    size_t size = 0;
    EXPECT_EQ(parse_record(zeros, segment_seed(kName), back, size), Parsed::bad);
}

TEST(JournalFormat, OnlyOurOwnSegmentNamesAreRead) {
    SegmentName name;
    ASSERT_TRUE(parse_segment_file_name("12-18446744073709551615.log", name));
    EXPECT_EQ(name.shard, 12);
    EXPECT_EQ(name.sequence, UINT64_MAX);
    for (const char* other : {"", "-", "1-2", "1-2.lo", "1-2.log~", "01-2.log", "1-02.log", "-1-2.log",
                              "1.log", "65536-1.log", "1-18446744073709551616.log", "1--2.log", "a-2.log"})
        EXPECT_FALSE(parse_segment_file_name(other, name)) << other;
}

TEST(JournalFormat, HeaderTellsDamageFromANewerVersion) {
    char header[kSegmentHeaderSize];
    encode_header(kName, 1, header);
    EXPECT_EQ(check_header(header, kName), HeaderState::whole);
    EXPECT_EQ(check_header(header, SegmentName{3, 78}), HeaderState::damaged);
    for (size_t bit = 0; bit < 8 * kSegmentHeaderSize; ++bit) {
        header[bit / 8] ^= static_cast<char>(1 << (bit % 8));
        EXPECT_EQ(check_header(header, kName), HeaderState::damaged) << bit;
        header[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    }
    header[8] = 2;
    const uint32_t crc = crc32c(header, 28);
    std::memcpy(header + 28, &crc, 4);
    EXPECT_EQ(check_header(header, kName), HeaderState::newer);
}

TEST(FileSet, AgreesWithTheStandardSetThroughGrowthAndErasure) {
    FileSet ours;
    std::unordered_set<FileId> theirs;
    std::mt19937_64 random(20261123);
    for (int i = 0; i < 200'000; ++i) {
        // Few distinct ids, so that insertion and erasure meet, in waves that fill and empty the set.
        const FileId file = 1 + random() % 4096;
        if (random() % 100 < (i / 20'000 % 2 ? 30u : 70u))
            ASSERT_EQ(ours.insert(file), theirs.insert(file).second);
        else
            ASSERT_EQ(ours.erase(file), theirs.erase(file) == 1);
        ASSERT_EQ(ours.size(), theirs.size());
    }
    for (FileId file = 1; file <= 4096; ++file) ASSERT_EQ(ours.contains(file), theirs.contains(file));
    size_t visited = 0;
    ours.for_each([&](FileId file) {
        ++visited;
        EXPECT_TRUE(theirs.contains(file));
    });
    EXPECT_EQ(visited, theirs.size());
}

}  // namespace
}  // namespace postrider::testing
