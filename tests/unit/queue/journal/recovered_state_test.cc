// What a start knows of the files in active/: found by their ids, handed out folder by folder, and let go.
#include <algorithm>
#include <iterator>
#include <set>

#include "tests/unit/queue/journal/support.h"

namespace postrider::testing {
namespace {

TEST(RecoveredState, EachFileIsFoundAmongManyAndNoOther) {
    std::mt19937_64 random(5);
    for (const size_t count : {0u, 1u, 2u, 300u, 60'000u}) {
        std::set<FileId> ids;
        while (ids.size() < count) ids.insert(random() >> (random() % 2 * 5));  // not spread evenly
        if (count > 2) ids.insert({1, UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 56, (uint64_t{1} << 56) - 1});
        RecoveredState state;
        for (const FileId id : ids) state.add(id);
        for (const FileId id : ids) state.add(id);  // a folder that changes while it is listed may tell of a name twice
        state.listed();
        for (const FileId id : ids) {
            ASSERT_TRUE(state.find(id));
            EXPECT_EQ(state.find(id)->id, id);
            EXPECT_EQ(state.find(id + 1) != nullptr, ids.contains(id + 1));
            EXPECT_EQ(state.find(id - 1) != nullptr, ids.contains(id - 1));
        }
        size_t told = 0;
        state.for_each([&](const RecoveredFile&) { ++told; });
        EXPECT_EQ(told, ids.size());
    }
}

TEST(RecoveredState, OfFilesThatAreNotThereNothingIsKept) {
    RecoveredState state;
    state.add(7);
    state.listed();
    EXPECT_TRUE(state.merge(claim_record(7, 1, "seven.eml")));
    EXPECT_FALSE(state.merge(claim_record(8, 1, "eight.eml")));
    EXPECT_FALSE(state.merge(fact(RecordKind::delivered, 8, 0, 0, 1)));
    state.finish();
    EXPECT_EQ(state.name(*state.find(7)), "seven.eml");
    EXPECT_EQ(state.find(8), nullptr);
}

// Of two claims of one file the order of the journals decides nothing.
TEST(RecoveredState, ClaimsCommute) {
    std::vector<JournalRecord> claims;
    for (const uint32_t created_s : {5u, 6u})
        for (const char* name : {"a.eml", "b.eml"}) claims.push_back(claim_record(3, created_s, name));
    std::ranges::sort(claims, {}, &JournalRecord::time_s);
    std::vector<size_t> order{0, 1, 2, 3};
    do {
        std::vector<JournalRecord> arranged;
        for (const size_t i : order) arranged.push_back(claims[i]);
        const auto state = state_of(arranged);
        EXPECT_EQ(state.name(*state.find(3)), "a.eml");
        EXPECT_EQ(state.find(3)->created_s, 5u);
        EXPECT_TRUE(state.find(3)->is(claims[0].size, claims[0].mtime_ns));
        EXPECT_FALSE(state.find(3)->is(claims[0].size + 1, claims[0].mtime_ns));
    } while (std::ranges::next_permutation(order).found);
}

TEST(RecoveredState, NamesLieInTheScratchFile) {
    TempDir dir;
    const int scratch = open((dir / "scratch").c_str(), O_RDWR | O_CREAT, 0600);
    RecoveredState state{FileDescriptor(scratch)};
    constexpr FileId kFiles = 20'000;
    const auto name_of = [](FileId id) { return "newsletter-" + std::to_string(id) + ".eml"; };
    for (FileId id = 1; id <= kFiles; ++id) state.add(mix64(id, 9));
    state.listed();
    for (FileId id = 1; id <= kFiles; ++id) state.merge(claim_record(mix64(id, 9), 1, name_of(id)));
    state.finish();
    EXPECT_GT(std::filesystem::file_size(dir / "scratch"), kFiles * 15);
    for (FileId id = 1; id <= kFiles; ++id) ASSERT_EQ(state.name(*state.find(mix64(id, 9))), name_of(id));
}

// A folder is there until every shard has taken its part of it, were it none, and every file has been published.
TEST(RecoveredState, AFolderGoesWithItsLastFile) {
    constexpr size_t kShards = 3, kFolder = 0xab;
    for (const bool late_shard : {false, true}) {
        RecoveredState state;
        std::vector<FileId> ids;
        for (FileId id = FileId{kFolder} << 56; ids.size() < 30; ++id)
            if (id % kShards != 2) ids.push_back(id);
        for (const FileId id : ids) state.add(id);
        state.listed();
        for (const FileId id : ids) state.merge(fact(RecordKind::deferred, id, 0, 0, 1));
        state.finish(kShards);
        std::vector<FileId> taken = state.take(kFolder, 0, kShards);
        for (const FileId id : taken) EXPECT_EQ(id % kShards, 0u);
        std::ranges::copy(state.take(kFolder, 1, kShards), std::back_inserter(taken));
        if (!late_shard) EXPECT_TRUE(state.take(kFolder, 2, kShards).empty());
        std::ranges::sort(taken);
        EXPECT_EQ(taken, ids);
        for (const FileId id : taken) {
            ASSERT_TRUE(state.find(id));
            EXPECT_EQ(state.recipients(*state.find(id)).size(), 1u);
            state.release(id);
        }
        EXPECT_EQ(state.find(ids.front()) != nullptr, late_shard);
        if (late_shard) EXPECT_TRUE(state.take(kFolder, 2, kShards).empty());
        EXPECT_EQ(state.find(ids.front()), nullptr);
    }
}

}  // namespace
}  // namespace postrider::testing
