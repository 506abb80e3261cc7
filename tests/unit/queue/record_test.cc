// Records, names and files as numbers: the arena, a shard's supply, the name table and the file
// table, also with threads.
#include "queue/record.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "engine/io/clock.h"
#include "queue/file_table.h"
#include "queue/name_table.h"

namespace postrider {
namespace {

std::vector<RecordId> listed(RecordArena& arena, RecordChain chain) {
    std::vector<RecordId> ids;
    while (!chain.empty()) ids.push_back(arena.pop(chain));
    EXPECT_EQ(chain.count, 0u);
    EXPECT_EQ(chain.tail, 0u);
    return ids;
}

TEST(RecordArena, AChainIsAListLikeItsModel) {
    RecordArena arena;
    RecordSupply supply(arena);
    Random random(1);
    RecordChain chain;
    std::vector<RecordId> model;
    for (int step = 0; step < 20'000; ++step) {
        const RecordId id = supply.take();
        switch (random.below(4)) {
            case 0:
                arena.append(chain, id);
                model.push_back(id);
                break;
            case 1:
                arena.prepend(chain, id);
                model.insert(model.begin(), id);
                break;
            case 2: {
                RecordChain more;
                arena.append(more, id);
                arena.append(more, RecordChain{});
                arena.append(chain, more);
                model.push_back(id);
                break;
            }
            default:
                supply.give(id);
                while (!model.empty() && random.below(4) != 0) {
                    ASSERT_EQ(arena.pop(chain), model.front());
                    supply.give(model.front());
                    model.erase(model.begin());
                }
        }
        ASSERT_EQ(chain.count, model.size());
    }
    EXPECT_EQ(listed(arena, chain), model);
}

TEST(RecordArena, NoRecordIsHandedOutTwiceNorIsAnyLost) {
    RecordArena arena;
    std::set<RecordId> out;
    {
        RecordSupply supply(arena);
        for (uint32_t i = 0; i < 3 * RecordArena::kChunk; ++i) {
            const RecordId id = supply.take();
            ASSERT_NE(id, 0u);
            ASSERT_TRUE(out.insert(id).second);
            arena[id].attempts = 9;
        }
        EXPECT_GE(arena.in_use(), out.size());
        EXPECT_LE(arena.in_use(), out.size() + RecordArena::kChain);
        for (const RecordId id : out) supply.give(id);
        EXPECT_LE(arena.in_use(), RecordSupply::kMost) << "the arena has the rest again";
    }
    EXPECT_EQ(arena.in_use(), 0u);
    const uint64_t bytes = arena.bytes();
    EXPECT_LE(bytes, 4ull * RecordArena::kChunk * 64) << "promise 5";
    RecordSupply again(arena);
    for (size_t i = 0; i < out.size(); ++i) {
        const RecordId id = again.take();
        EXPECT_EQ(arena[id].attempts, 0) << "a record comes back clean";
    }
    EXPECT_EQ(arena.bytes(), bytes) << "what was given back is used again";
}

// Records wander: taken from one shard's supply, settled by another, whose supply gives them back.
TEST(RecordArena, SuppliesOfManyThreads) {
    RecordArena arena;
    std::vector<std::vector<RecordId>> hands(4);
    for (int round = 0; round < 4; ++round) {
        std::vector<std::thread> threads;
        for (size_t t = 0; t < hands.size(); ++t) {
            threads.emplace_back([&, t] {
                RecordSupply supply(arena);
                for (const RecordId id : hands[t]) supply.give(id);
                hands[t].clear();
                for (uint32_t i = 0; i < 40'000; ++i) {
                    hands[t].push_back(supply.take());
                    arena[hands[t].back()].place = static_cast<uint32_t>(t);
                }
            });
        }
        for (auto& thread : threads) thread.join();
        std::unordered_set<RecordId> all;
        for (size_t t = 0; t < hands.size(); ++t) {
            for (const RecordId id : hands[t]) {
                ASSERT_TRUE(all.insert(id).second) << "two threads own record " << id;
                ASSERT_EQ(arena[id].place, t);
            }
        }
        std::rotate(hands.begin(), hands.begin() + 1, hands.end());
    }
    EXPECT_LE(arena.bytes(), 4 * 40'000 * sizeof(Record) * 3);
}

TEST(NameTable, OneIdForANameWhateverThreadAsks) {
    constexpr size_t kNames = 20'000;
    NameTable table;
    std::vector<std::vector<uint32_t>> ids(4, std::vector<uint32_t>(kNames));
    std::vector<std::thread> threads;
    for (size_t t = 0; t < ids.size(); ++t) {
        threads.emplace_back([&, t] {
            NameCache cache(table);
            for (size_t i = 0; i < kNames; ++i) {
                const size_t n = t % 2 ? i : kNames - 1 - i;  // they meet in the middle
                const std::string name = "d" + std::to_string(n) + ".example";
                ids[t][n] = cache.intern(name);
                ASSERT_EQ(table.name(ids[t][n]), name);
                ASSERT_EQ(cache.intern(name), ids[t][n]);
            }
        });
    }
    for (auto& thread : threads) thread.join();
    for (size_t t = 1; t < ids.size(); ++t) EXPECT_EQ(ids[t], ids[0]);
    EXPECT_EQ(table.size(), kNames);
    EXPECT_EQ(*std::ranges::min_element(ids[0]), 1u);
    EXPECT_EQ(*std::ranges::max_element(ids[0]), kNames);
    EXPECT_EQ(table.intern(""), 0u);
    EXPECT_EQ(table.name(0), "");
}

TEST(NameCache, ForgetsWhenFullAndStaysRight) {
    NameTable table;
    NameCache cache(table);
    for (int i = 0; i < 135'000; ++i) {
        const std::string name = "n" + std::to_string(i);
        const uint32_t id = cache.intern(name);
        ASSERT_EQ(table.name(id), name);
        ASSERT_EQ(cache.intern("n" + std::to_string(i / 2)),
                  table.intern("n" + std::to_string(i / 2)));
    }
}

// With names of all lengths, in memory or in a scratch file.
void add_and_remove(FileTable& table) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::vector<std::pair<FileSlot, SpoolFile>> mine;
            Random random(static_cast<uint64_t>(t) + 1);
            for (uint64_t i = 0; i < 10'000; ++i) {
                SpoolFile file;
                file.id = static_cast<FileId>(t) << 32 | i;
                file.name.assign(random.below(256), static_cast<char>('a' + random.below(26)));
                mine.emplace_back(table.add(file), file);
                ASSERT_NE(mine.back().first, 0u);
                const size_t at = random.below(static_cast<uint32_t>(mine.size()));
                const auto& [slot, known] = mine[at];
                ASSERT_EQ(table[slot].id, known.id);
                ASSERT_EQ(table.name(slot), known.name);
                ASSERT_EQ(table[slot].pending, 1u);
                if (mine.size() < 1000) continue;
                table.remove(slot);
                mine.erase(mine.begin() + static_cast<ptrdiff_t>(at));
            }
            for (auto& [slot, file] : mine) table.remove(slot);
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_LE(table.add(SpoolFile{}), 4 * 1000u) << "free slots come before new ones";
}

TEST(FileTable, SlotsAreUsedAgainAndNamesAreKept) {
    FileTable table;
    add_and_remove(table);
}

TEST(FileTable, NamesRestInTheScratchFile) {
    FILE* scratch = tmpfile();
    ASSERT_TRUE(scratch);
    FileTable table;
    table.spill_names_to(FileDescriptor(dup(fileno(scratch))));
    add_and_remove(table);
    std::vector<FileSlot> slots;
    SpoolFile file;
    for (int i = 0; i < 100'000; ++i) {
        file.name = "a name of thirty octets " + std::to_string(100'000 + i);
        slots.push_back(table.add(file));
    }
    EXPECT_LE(table.bytes(), 100'000 * sizeof(FileEntry) + (300u << 10)) << "a block of names, the rest is on disk";
    for (int i = 0; i < 100'000; ++i)
        ASSERT_EQ(table.name(slots[static_cast<size_t>(i)]), "a name of thirty octets " + std::to_string(100'000 + i));
    fclose(scratch);
}

// FAULTS 93: a full disk costs memory, not names.
TEST(FileTable, NamesStayInMemoryWhereTheyCannotBeWritten) {
    FileTable table;
    table.spill_names_to(FileDescriptor(open("/dev/full", O_RDWR)));
    add_and_remove(table);
}

}  // namespace
}  // namespace postrider
