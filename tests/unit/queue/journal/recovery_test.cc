#include "queue/journal/recovery.h"

#include <algorithm>

#include "support.h"

namespace postrider::testing {
namespace {

std::vector<JournalRecord> some_records() {
    return {claim_record(11, 1'700'000'001, "first.bsmtp"),
            fact(RecordKind::intent, 11, 1, 0, 1),
            fact(RecordKind::intent, 11, 2, 0, 1),
            fact(RecordKind::deferred, 11, 1, 0, 1, 1'700'000'002, 1'700'000'600),
            fact(RecordKind::delivered, 11, 2, 0, 1, 1'700'000'003),
            claim_record(12, 1'700'000'004, "second.eml"),
            fact(RecordKind::refusals_told, 12, kWholeFile, kWholeFile, 0, 1'700'000'005),
            fact(RecordKind::intent, 11, 1, 0, 2)};
}

std::vector<JournalRecord> random_records(std::mt19937_64& random, size_t count) {
    static const std::vector<std::string> names = {"a.eml", "b.bsmtp", "c.eml", "d.eml"};
    std::vector<JournalRecord> records;
    for (size_t i = 0; i < count; ++i) {
        const FileId file = 1 + random() % 4;
        const auto kind = random() % 10;
        const auto place = static_cast<uint32_t>(random() % 3);
        const auto recipient = static_cast<uint32_t>(random() % 3);
        const auto attempt = static_cast<uint16_t>(random() % 4);
        const auto time_s = static_cast<uint32_t>(random() % 3);
        const auto due_s = static_cast<uint32_t>(random() % 3);
        if (kind == 0)
            records.push_back(claim_record(file, 100 + static_cast<uint32_t>(file), names[file - 1]));
        else if (kind < 5)
            records.push_back(fact(RecordKind::intent, file, place, recipient, attempt));
        else
            records.push_back(fact(static_cast<RecordKind>(16 + random() % 7), file, place, recipient,
                                   attempt, time_s, due_s));
    }
    return records;
}

// Promise of the format: any order, any number of journals, any repetition give the same state.
TEST(Recovery, RecordsCommuteOverOrderShardsAndRepetition) {
    std::mt19937_64 random(91);
    for (int round = 0; round < 60; ++round) {
        const auto records = random_records(random, 1 + random() % 120);
        const Model expected = model_of(records);
        for (int arrangement = 0; arrangement < 3; ++arrangement) {
            auto spread = records;
            for (size_t i = random() % 20; i-- > 0;) spread.push_back(records[random() % records.size()]);
            std::shuffle(spread.begin(), spread.end(), random);
            const size_t journals = 1 + random() % 5;
            std::vector<std::vector<JournalRecord>> parts(journals);
            for (const auto& record : spread) parts[random() % journals].push_back(record);
            TempDir dir;
            for (size_t i = 0; i < journals; ++i) {
                const SegmentName name{static_cast<ShardId>(random() % 3), 1 + i};
                parts[i].push_back(mark(RecordKind::seal, 0));
                write_file(dir / segment_file_name(name), segment_octets(name, parts[i]));
            }
            RecoveryReport report;
            const auto state = recover(dir, report);
            EXPECT_EQ(model_of(state), expected) << "round " << round;
            EXPECT_EQ(report.damaged_stretches + report.torn_stretches, 0u);
        }
    }
}

TEST(Recovery, MergingInSmallPortionsChangesNothing) {
    std::mt19937_64 random(92);
    std::vector<JournalRecord> records;
    for (uint32_t i = 0; i < 300'000; ++i)
        records.push_back(fact(i % 3 ? RecordKind::intent : RecordKind::deferred, 1 + i % 5,
                               static_cast<uint32_t>(random() % 40'000), 0,
                               static_cast<uint16_t>(random() % 5), i, i));
    EXPECT_EQ(model_of(state_of(records)), model_of(records));
}

TEST(Recovery, AnIntentWithoutResultIsAmbiguous) {
    const auto state = state_of(some_records());
    const auto* file = state.find(11);
    ASSERT_TRUE(file && file->claimed);
    const auto recipients = state.recipients(*file);
    ASSERT_EQ(recipients.size(), 2u);
    EXPECT_TRUE(recipients[0].ambiguous());  // deferred at the first attempt, the second is in the air
    EXPECT_EQ(recipients[0].attempts(), 2);
    EXPECT_EQ(recipients[0].due_s, 1'700'000'600u);
    EXPECT_FALSE(recipients[1].ambiguous());
    EXPECT_TRUE(recipients[1].final());
    ASSERT_TRUE(state.find(12));
    ASSERT_EQ(state.recipients(*state.find(12)).size(), 1u);
    EXPECT_TRUE(state.recipients(*state.find(12))[0].final());
    EXPECT_EQ(state.find(13), nullptr);
}

// FAULTS 92: a torn tail is cut, nothing before it is touched, and the next recovery finds a sealed segment.
TEST(Recovery, ASegmentCutAtAnyOctetKeepsItsWholeRecords) {
    const SegmentName name{0, 5};
    auto records = some_records();
    records.insert(records.begin() + 4, mark(RecordKind::synced, kSegmentHeaderSize));
    std::vector<size_t> ends;
    const std::string octets = segment_octets(name, records, &ends);
    for (size_t cut = 0; cut <= octets.size(); ++cut) {
        TempDir dir(quick_parent());
        write_file(dir / segment_file_name(name), octets.substr(0, cut));
        std::vector<JournalRecord> whole;
        for (size_t i = 0; i < records.size() && ends[i] <= cut; ++i) whole.push_back(records[i]);
        RecoveryReport report;
        EXPECT_EQ(model_of(recover(dir, report)), model_of(whole)) << cut;
        EXPECT_EQ(report.damaged_stretches, 0u) << cut;
        const bool between = cut == 0 || cut == kSegmentHeaderSize ||
                             std::ranges::find(ends, cut) != ends.end();
        EXPECT_EQ(report.torn_stretches, between ? 0u : 1u) << cut;
        RecoveryReport again;
        EXPECT_EQ(model_of(recover(dir, again)), model_of(whole)) << cut;
        EXPECT_EQ(again.damaged_stretches, 0u) << cut;
        EXPECT_EQ(again.records, whole.size() + 1) << "the seal";
    }
}

// Of a flipped bit: it is reported, and no record but the one it struck is lost.
void flip_every_bit(const std::vector<JournalRecord>& records, bool later_segment) {
    const SegmentName name{0, 5};
    const SegmentName later{0, 6};
    const std::string octets = segment_octets(name, records);
    TempDir dir(quick_parent());
    if (later_segment)
        write_file(dir / segment_file_name(later),
                   segment_octets(later, {fact(RecordKind::intent, 99, 1, 1, 1),
                                          mark(RecordKind::synced, 32), mark(RecordKind::seal, 32)}));
    const size_t others = later_segment ? 3 : 0;
    for (size_t bit = 0; bit < 8 * octets.size(); ++bit) {
        std::string flipped = octets;
        flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
        write_file(dir / segment_file_name(name), flipped);
        RecoveryReport report;
        recover(dir, report);
        EXPECT_GE(report.damaged_stretches + report.torn_stretches, 1u) << "bit " << bit;
        if (later_segment) EXPECT_GE(report.damaged_stretches, 1u) << "bit " << bit;
        const size_t lost = bit < 8 * kSegmentHeaderSize ? 0 : 1;
        EXPECT_EQ(report.records, others + records.size() - lost) << "bit " << bit;
    }
}

TEST(Recovery, EveryFlippedBitOfASealedSegmentIsDamageAndTheRestIsSalvaged) {
    auto records = some_records();
    records.push_back(mark(RecordKind::seal, segment_octets({0, 5}, records).size()));
    flip_every_bit(records, true);
}

TEST(Recovery, EveryFlippedBitOfTheLastSegmentIsNoticedAndTheRestIsSalvaged) {
    flip_every_bit(some_records(), false);
}

TEST(Recovery, ADamagedMiddleIsReportedWithFileAndOffset) {
    const SegmentName name{2, 1};
    std::vector<JournalRecord> records;
    for (uint32_t i = 0; i < 60'000; ++i)  // several times the reader's buffer
        records.push_back(fact(RecordKind::delivered, 7, i, 0, 1, i));
    std::string octets = segment_octets(name, records);
    records.push_back(mark(RecordKind::synced, octets.size()));
    octets = segment_octets(name, records);
    const size_t at = kSegmentHeaderSize + 32 * 32'760;  // astride the end of the first buffer
    std::fill_n(octets.begin() + static_cast<std::ptrdiff_t>(at + 5), 4096, '\x5a');
    TempDir dir;
    write_file(dir / segment_file_name(name), octets);
    for (int round = 0; round < 2; ++round) {
        RecoveryReport report;
        const auto state = recover(dir, report);
        ASSERT_EQ(report.damaged.size(), 1u);
        EXPECT_EQ(report.damaged[0].file, "2-1.log");
        EXPECT_EQ(report.damaged[0].offset, at);
        EXPECT_EQ(report.damaged[0].size, 129u * 32);
        EXPECT_EQ(state.recipients(*state.find(7)).size(), 60'000u - 129);
    }
}

// Behind the last mark a power cut may leave pages out: a hole there is no alarm, what follows it is true.
TEST(Recovery, AHoleBehindTheLastMarkIsTornAndStaysSo) {
    const SegmentName name{0, 1};
    auto records = some_records();
    records.insert(records.begin() + 2, mark(RecordKind::synced, kSegmentHeaderSize));
    std::vector<size_t> ends;
    std::string octets = segment_octets(name, records, &ends);
    std::fill(octets.begin() + static_cast<std::ptrdiff_t>(ends[3]),
              octets.begin() + static_cast<std::ptrdiff_t>(ends[4]), '\0');
    TempDir dir;
    write_file(dir / segment_file_name(name), octets);
    auto whole = records;
    whole.erase(whole.begin() + 4);
    for (int round = 0; round < 2; ++round) {
        RecoveryReport report;
        EXPECT_EQ(model_of(recover(dir, report)), model_of(whole));
        EXPECT_EQ(report.damaged_stretches, 0u);
        EXPECT_EQ(report.torn_stretches, 1u);
    }
}

TEST(Recovery, ALostSealIsDamageOnceALaterCommitHasEnded) {
    const SegmentName first{0, 1}, second{0, 2}, other{1, 3};
    TempDir dir;
    write_file(dir / segment_file_name(first), segment_octets(first, some_records()));
    write_file(dir / segment_file_name(other), segment_octets(other, {mark(RecordKind::synced, 32)}));
    write_file(dir / segment_file_name(second),
               segment_octets(second, {fact(RecordKind::intent, 1, 1, 1, 1), mark(RecordKind::synced, 32)}));
    RecoveryReport report;
    recover(dir, report);
    ASSERT_EQ(report.damaged.size(), 1u);
    EXPECT_EQ(report.damaged[0].file, "0-1.log");
}

TEST(Recovery, ASegmentMadeAheadDoesNotMakeTheOneInUseLookDamaged) {
    const SegmentName used{0, 1}, ahead{0, 2};
    TempDir dir;
    write_file(dir / segment_file_name(used), segment_octets(used, some_records()) + "torn");
    write_file(dir / segment_file_name(ahead), segment_octets(ahead, {}));
    RecoveryReport report;
    auto state = recover(dir, report);
    EXPECT_EQ(report.damaged_stretches, 0u);
    EXPECT_EQ(report.torn_stretches, 1u);
    EXPECT_EQ(state.next_sequence(), 3u);
    auto segments = state.take_segments();
    ASSERT_EQ(segments.size(), 2u);
    EXPECT_EQ(segments[0].files.size(), 2u);
    EXPECT_TRUE(segments[1].files.empty());
}

TEST(Recovery, ASegmentOfANewerVersionStopsTheEngine) {
    const SegmentName name{0, 1};
    std::string octets = segment_octets(name, some_records());
    octets[8] = 2;
    const uint32_t crc = crc32c(octets.data(), 28);
    std::memcpy(octets.data() + 28, &crc, 4);
    TempDir dir;
    write_file(dir / segment_file_name(name), octets);
    RecoveryReport report;
    const auto state = recover_all(dir.fd(), report);
    ASSERT_FALSE(state);
    EXPECT_NE(state.error().text.find("0-1.log"), std::string::npos);
    EXPECT_EQ(read_file(dir / "0-1.log"), octets) << "and it is left as it is";
}

TEST(Recovery, RecordsOfALaterKindAreSkippedAndCounted) {
    const SegmentName name{0, 1};
    auto octets = segment_octets(name, {fact(RecordKind::intent, 1, 1, 1, 1)});
    char later[16] = {};
    later[4] = 4;
    later[5] = 9;
    const uint32_t crc = crc32c(later + 4, 12, segment_seed(name));
    std::memcpy(later, &crc, 4);
    octets.append(later, sizeof later);
    char out[kRecordSizeMax];
    octets.append(out, encode_record(segment_seed(name), fact(RecordKind::delivered, 1, 1, 1, 1), out));
    TempDir dir;
    write_file(dir / segment_file_name(name), octets);
    RecoveryReport report;
    const auto state = recover(dir, report);
    EXPECT_EQ(report.unknown_records, 1u);
    EXPECT_EQ(report.damaged_stretches + report.torn_stretches, 0u);
    EXPECT_TRUE(state.recipients(*state.find(1))[0].final());
}

}  // namespace
}  // namespace postrider::testing
