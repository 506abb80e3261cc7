// Journals damaged in every way a disk can think of, through recovery, in memory: `mutate-journal [COUNT [SEED [FIRST
// [THREADS]]]]`. The program links a file system of its own (memory_files.h): no mutant costs a system call, so that ten
// million under the sanitizers are a matter of an hour or two.
//
// A base is a small set of segments as a shard leaves them: claims, intents, results, marks, sealed or torn at the end.
// A mutant is a base with a few of: bits flipped, octets overwritten, a stretch removed, inserted, repeated, swapped or
// zeroed, a tail cut or grown, octets of another segment, a segment missing or twice under another name.
//
// What must hold for each: recovery ends, without a crash or a report of the sanitizers, and
//   * where octets kept their places, as on a disk: it recovered the base's state, or reported damage or a torn tail, or
//     refused the journal. (Whole records that are taken out or moved leave no trace, and none is promised.)
//   * what it recovered is made of true records alone: nothing is settled that the base did not settle;
//   * run again on what it left, it comes to the same state: it may be killed and repeated.
// Seed and number of a mutant are printed when it fails: `mutate-journal 1 SEED NUMBER` repeats it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/core/hash.h"
#include "tests/crash/memory_files.h"
#include "tests/journal_state.h"

namespace postrider {
namespace {

using Octets = std::string;
using Disk = std::map<std::string, Octets>;  // the journal's directory
using Random = std::mt19937_64;

size_t below(Random& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

// ---- bases

struct Writer {
    SegmentName name;
    Octets octets;

    explicit Writer(SegmentName n) : name(n) {
        char header[kSegmentHeaderSize];
        encode_header(name, 1'700'000'000, header);
        octets.assign(header, sizeof header);
    }
    template <class Encode, class... Facts>
    void put(Encode encode, const Facts&... facts) {
        char out[kRecordSizeMax];
        octets.append(out, encode(segment_seed(name), facts..., RecordBuffer(out)));
    }
    void mark(RecordKind kind) { put(encode_mark, kind, uint64_t{octets.size()}); }
};

void put_facts(Writer& writer, Random& random, FileId file) {
    const auto place = static_cast<uint32_t>(below(random, 3) * 60);
    const auto recipient = static_cast<uint32_t>(below(random, 3));
    const auto attempt = static_cast<uint16_t>(1 + below(random, 3));
    if (random() % 3 == 0) writer.put(encode_intent, IntentFacts{file, place, recipient, attempt});
    if (random() % 2 == 0) return;
    const bool final = random() % 3 != 0;
    writer.put(encode_result, ResultFacts{file, place, recipient, attempt,
                                          final ? RecordKind::delivered : RecordKind::deferred, 1'700'000'100,
                                          final ? 0 : 1'700'000'700u});
}

Disk make_base(Random& random) {
    Disk disk;
    const size_t segments = 1 + below(random, 3);
    for (size_t i = 0; i < segments; ++i) {
        // Of one shard, the last unsealed; or each of its own shard.
        Writer writer(segments > 1 && random() % 2 ? SegmentName{static_cast<ShardId>(i), 1} : SegmentName{0, i + 1});
        const size_t files = 1 + below(random, 4);
        for (size_t f = 0; f < files; ++f) {
            const FileId file = 1 + below(random, 6);
            const std::string label = "spring-" + std::to_string(file) + ".bsmtp";
            writer.put(encode_claim, ClaimFacts{file, 1000 + file, 77, 1'700'000'000, SpoolForm::batch, label});
            for (size_t n = below(random, 8); n > 0; --n) put_facts(writer, random, file);
            if (random() % 2 == 0) writer.mark(RecordKind::synced);
        }
        if (i + 1 < segments || random() % 2 == 0) writer.mark(RecordKind::seal);
        disk[segment_file_name(writer.name)] = std::move(writer.octets);
    }
    return disk;
}

// ---- mutations

// True when octets kept their places: what a disk does to a file.
bool mutate_octets(Random& random, Octets& octets, const Octets& other) {
    const size_t at = below(random, octets.size()), size = 1 + below(random, std::min<size_t>(64, octets.size()));
    const uint64_t what = random() % 11;
    switch (what) {
        case 0: case 1: case 2:
            if (!octets.empty()) octets[at] = static_cast<char>(octets[at] ^ (1 << (random() % 8)));
            break;
        case 3:
            for (size_t i = at; i < std::min(octets.size(), at + size); ++i) octets[i] = static_cast<char>(random());
            break;
        case 4: octets.erase(at, size); break;
        case 5: octets.insert(at, octets.substr(below(random, octets.size() + 1), size)); break;
        case 6: octets.insert(at, Octets(size, static_cast<char>(random() % 3 ? 0 : random()))); break;
        case 7: octets.resize(at); break;
        case 8: octets.append(size, 0); break;
        case 9: {  // two stretches change places; records are multiples of four
            const size_t a = at & ~size_t{3}, b = below(random, octets.size()) & ~size_t{3}, n = 4 * (1 + random() % 8);
            for (size_t i = 0; i < n && a + i < octets.size() && b + i < octets.size(); ++i)
                std::swap(octets[a + i], octets[b + i]);
            break;
        }
        default: octets.insert(at, other.substr(below(random, other.size() + 1), size)); break;
    }
    return what < 4 || what == 7 || what == 8;
}

// True when octets kept their places in all of it.
bool mutate(Random& random, Disk& disk) {
    bool in_place = true;
    auto pick = [&] { return std::next(disk.begin(), static_cast<ptrdiff_t>(below(random, disk.size()))); };
    for (size_t n = 1 + below(random, 3); n > 0; --n) {
        if (disk.empty()) return false;
        const uint64_t what = random() % 40;
        if (what == 0) {
            disk.erase(pick());
            in_place = false;
        } else if (what == 1) {
            disk[segment_file_name({static_cast<ShardId>(random() % 3), 1 + random() % 4})] = Octets(pick()->second);
            in_place = false;
        } else {
            const Octets other = pick()->second;
            in_place &= mutate_octets(random, pick()->second, other);
        }
    }
    return in_place;
}

// ---- recovery, and what it came to

struct Fate {
    RecordKind kind{};
    uint16_t result = 0, intent = 0;
    uint32_t time_s = 0, due_s = 0;
    bool operator==(const Fate&) const = default;
};
using Key = std::tuple<FileId, uint32_t, uint32_t>;

struct State {
    bool refused = false;  // the directory could not be recovered at all
    std::map<Key, Fate> fates;
    std::map<FileId, std::string> names;
    bool reported = false;
    bool same(const State& other) const { return refused == other.refused && fates == other.fates && names == other.names; }
};

State recover(const MemoryFolder& folder) {
    State state;
    RecoveryReport report;
    const auto recovered = testing::recover_all(folder.fd(), report);
    if (!recovered) {
        state.refused = true;
        return state;
    }
    state.reported = report.damaged_stretches + report.torn_stretches + report.unknown_records > 0;
    recovered->for_each([&](const RecoveredFile& file) {
        if (file.claimed) state.names[file.id] = recovered->name(file);
        for (const auto& r : recovered->recipients(file))
            state.fates[{file.id, r.place, r.recipient}] = {r.kind, r.result_attempt, r.intent_attempt, r.time_s, r.due_s};
    });
    return state;
}

// Cut at the end of a record, behind all that a mark vouches for: the same octets would be there if more had never been
// written.
bool is_prefix(const Disk& base, const Disk& mutant) {
    for (const auto& [name, octets] : mutant) {
        const auto found = base.find(name);
        if (found == base.end() || !found->second.starts_with(octets)) return false;
    }
    return true;
}

const char* judge(const State& before, const State& after, const State& again, bool in_place) {
    if (again.refused != after.refused || !again.same(after)) return "a second recovery comes to another state";
    if (after.refused) return nullptr;
    for (const auto& [key, fate] : after.fates) {
        if (!is_final(fate.kind)) continue;
        const auto known = before.fates.find(key);
        if (known == before.fates.end() || !is_final(known->second.kind)) return "settled, and the base did not settle it";
    }
    if (!after.same(before) && !after.reported && in_place) return "damaged in silence";
    return nullptr;
}

struct Counts {
    uint64_t reported = 0, refused = 0, harmless = 0, unseen = 0;
};

constexpr uint64_t kFamily = 50;  // mutants that share a base

// The mutants of one family that are in [first, end). False: one was wrong, and was told.
bool run_family(MemoryFolder& folder, uint64_t family, uint64_t seed, uint64_t first, uint64_t end, Counts& counts) {
    Random of_base(mix64(seed ^ 0x62617365, family));
    const Disk base = make_base(of_base);
    folder.files = base;
    const State before = recover(folder);
    for (uint64_t n = std::max(first, family * kFamily); n < std::min(end, (family + 1) * kFamily); ++n) {
        Random random(mix64(seed, n));
        Disk mutant = base;
        const bool in_place = mutate(random, mutant) && !is_prefix(base, mutant);
        folder.files.swap(mutant);
        const State after = recover(folder);
        const State again = recover(folder);
        if (const char* wrong = judge(before, after, again, in_place)) {
            std::printf("mutate-journal: mutant %llu of seed %llu: %s\n", static_cast<unsigned long long>(n),
                        static_cast<unsigned long long>(seed), wrong);
            return false;
        }
        ++(after.refused         ? counts.refused
           : after.reported      ? counts.reported
           : after.same(before)  ? counts.harmless
                                 : counts.unseen);
    }
    return true;
}

int run(uint64_t count, uint64_t seed, uint64_t first, unsigned threads) {
    const auto begun = std::chrono::steady_clock::now();
    std::atomic<uint64_t> next_family{first / kFamily};
    std::atomic<bool> wrong{false};
    std::vector<Counts> counts(threads);
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < threads; ++i)
        workers.emplace_back([&, i] {
            MemoryFolder folder;
            for (;;) {
                const uint64_t family = next_family.fetch_add(1);
                if (family * kFamily >= first + count || wrong) return;
                if (!run_family(folder, family, seed, first, first + count, counts[i])) wrong = true;
            }
        });
    for (auto& worker : workers) worker.join();
    if (wrong) return 1;
    Counts all;
    for (const Counts& part : counts) {
        all.reported += part.reported;
        all.refused += part.refused;
        all.harmless += part.harmless;
        all.unseen += part.unseen;
    }
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    std::printf("  %llu mutants in %.0f s (%.0f/s): %llu reported, %llu refused, %llu without effect, %llu with whole "
                "records moved, removed or cut at the end; none settled what was not\n",
                static_cast<unsigned long long>(count), s, static_cast<double>(count) / s,
                static_cast<unsigned long long>(all.reported), static_cast<unsigned long long>(all.refused),
                static_cast<unsigned long long>(all.harmless), static_cast<unsigned long long>(all.unseen));
    return 0;
}

}  // namespace
}  // namespace postrider

int main(int argc, char** argv) {
    return postrider::run(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000,
                          argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1,
                          argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0,
                          argc > 4 ? static_cast<unsigned>(std::strtoul(argv[4], nullptr, 10))
                                   : std::max(1u, std::thread::hardware_concurrency()));
}
