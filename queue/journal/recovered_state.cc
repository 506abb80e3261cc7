#include "queue/journal/recovered_state.h"

#include <tuple>
#include <utility>

#include "engine/core/check.h"
#include "engine/core/hash.h"

namespace postrider {
namespace {

auto rank(const RecoveredRecipient& r) {
    return std::tuple(r.final(), r.result_attempt, r.kind, r.time_s, r.due_s);
}

auto place_of(const RecoveredRecipient& r) { return std::tuple(uint32_t{r.file}, r.place, r.recipient); }

void join(RecoveredRecipient& into, const RecoveredRecipient& other) {
    const uint16_t intent = std::max(into.intent_attempt, other.intent_attempt);
    if (rank(other) > rank(into)) into = other;
    into.intent_attempt = intent;
}

// `v = {}` would keep the memory.
template <class T>
void give_back(std::vector<T>& v) {
    std::vector<T>().swap(v);
}

}  // namespace

RecoveredState::RecoveredState(FileDescriptor scratch)
    : folders_(std::make_unique<std::array<Folder, kFolders>>()), names_(std::make_unique<NameStore>()) {
    if (scratch) names_->spill_to(std::move(scratch));
}

void RecoveredState::listed() {
    for (Folder& folder : *folders_) {
        auto& files = folder.files;
        std::ranges::sort(files, {}, &RecoveredFile::id);
        const auto twice = std::ranges::unique(files, {}, &RecoveredFile::id);
        files.erase(twice.begin(), twice.end());
        files.shrink_to_fit();
        POSTRIDER_CHECK(files.size() < size_t{1} << 24, "four thousand million spool files");
    }
}

// Ids are hashes: they lie about where their value says. The range around that place is doubled until it holds the id.
std::optional<size_t> RecoveredState::index_in(const std::vector<RecoveredFile>& files, FileId id) {
    const auto guess = static_cast<size_t>((static_cast<unsigned __int128>(id << 8) * files.size()) >> 64);
    size_t low = guess, high = guess;  // files[low].id <= id < files[high].id, if there are such
    for (size_t step = 8; low > 0 && files[low].id > id; step *= 2) low -= std::min(low, step);
    for (size_t step = 8; high < files.size() && files[high].id <= id; step *= 2) high += std::min(files.size() - high, step);
    const auto range = std::span(files).subspan(low, high - low);
    const auto found = std::ranges::lower_bound(range, id, {}, &RecoveredFile::id);
    if (found == range.end() || found->id != id) return std::nullopt;
    return static_cast<size_t>(&*found - files.data());
}

const RecoveredFile* RecoveredState::find(FileId id) const {
    const auto& files = folder_of(id).files;
    const auto index = index_in(files, id);
    return index ? &files[*index] : nullptr;
}

std::span<const RecoveredRecipient> RecoveredState::recipients(const RecoveredFile& file) const {
    const Folder& folder = folder_of(file.id);
    const bool last = &file == &folder.files.back();
    const size_t end = last ? folder.known.size() : (&file + 1)->first;
    return std::span(folder.known).subspan(file.first, end - file.first);
}

void RecoveredState::add_segment(OldSegment segment) {
    next_sequence_ = std::max(next_sequence_, segment.name.sequence + 1);
    segments_.push_back(std::move(segment));
}

// ---- building

void RecoveredState::merge_claim(RecoveredFile& file, const JournalRecord& record) {
    const uint32_t stamp = RecoveredFile::stamp_of(record.size, record.mtime_ns);
    const auto form = static_cast<uint32_t>(record.form == SpoolForm::batch);
    if (file.claimed) {
        const auto told = std::tuple(record.time_s, stamp, form);
        const auto known = std::tuple(file.created_s, file.stamp, uint32_t{file.batch});
        if (known < told || (known == told && name(file) <= record.name)) return;
        names_->remove(file.name);
    }
    file.claimed = 1;
    file.created_s = record.time_s;
    file.stamp = stamp;
    file.batch = form;
    file.name = names_->add(record.name);
}

bool RecoveredState::merge(const JournalRecord& record) {
    Folder& folder = folder_of(record.file);
    const auto index = index_in(folder.files, record.file);
    if (!index) return false;
    newest_s_ = std::max(newest_s_, record.time_s);
    if (record.kind == RecordKind::claim) {
        merge_claim(folder.files[*index], record);
        return true;
    }
    RecoveredRecipient entry;
    entry.file = static_cast<uint32_t>(*index);
    entry.place = record.place;
    entry.recipient = record.recipient;
    told_octets_ += record.kind == RecordKind::intent ? kIntentSize : kResultSize;
    if (record.kind == RecordKind::intent) {
        entry.intent_attempt = record.attempt;
    } else {
        entry.kind = record.kind;
        entry.result_attempt = record.attempt;
        entry.time_s = record.time_s;
        entry.due_s = record.due_s;
    }
    if (unsorted_.size() == unsorted_.capacity()) sort_in();
    unsorted_.push_back({static_cast<uint32_t>(record.file >> 56), entry});
    return true;
}

// Leaves unsorted_ empty, with room for the next portion: a fixed part of what is kept, so that sorting in costs the same
// for each recipient however many there are. The first portions are small: most journals are.
void RecoveredState::sort_in() {
    std::ranges::sort(unsorted_, {}, [](const Unsorted& entry) { return std::tuple_cat(std::tuple(entry.folder), place_of(entry.recipient)); });
    for (size_t first = 0; first < unsorted_.size();) {
        size_t last = first;
        while (last < unsorted_.size() && unsorted_[last].folder == unsorted_[first].folder) ++last;
        join_into((*folders_)[unsorted_[first].folder], std::span(unsorted_).subspan(first, last - first));
        first = last;
    }
    unsorted_.clear();
    const size_t grown = std::max(kUnsortedFirst, 4 * unsorted_.capacity());
    const size_t room = std::max(std::min(grown, kUnsortedLeast), kept_ / 4);
    if (unsorted_.capacity() < room) {
        give_back(unsorted_);
        unsorted_.reserve(room);
    }
}

// Merges two ascending sequences; `more` may name a recipient several times.
void RecoveredState::join_into(Folder& folder, std::span<const Unsorted> more) {
    const std::vector<RecoveredRecipient> known = std::exchange(folder.known, {});
    size_t size = known.size(), k = 0;
    for (size_t i = 0; i < more.size(); ++i) {
        const auto place = place_of(more[i].recipient);
        if (i > 0 && place == place_of(more[i - 1].recipient)) continue;
        while (k < known.size() && place_of(known[k]) < place) ++k;
        if (k == known.size() || place_of(known[k]) != place) ++size;
    }
    folder.known.reserve(size);
    k = 0;
    for (const Unsorted& entry : more) {
        const auto place = place_of(entry.recipient);
        while (k < known.size() && place_of(known[k]) <= place) folder.known.push_back(known[k++]);
        if (!folder.known.empty() && place_of(folder.known.back()) == place)
            join(folder.known.back(), entry.recipient);
        else
            folder.known.push_back(entry.recipient);
    }
    folder.known.insert(folder.known.end(), known.begin() + static_cast<std::ptrdiff_t>(k), known.end());
    POSTRIDER_CHECK(folder.known.size() == size, "counted and merged alike");
    kept_ += size - known.size();
}

void RecoveredState::finish(size_t shards) {
    sort_in();
    give_back(unsorted_);
    for (Folder& folder : *folders_) {
        size_t at = 0;
        for (size_t i = 0; i < folder.files.size(); ++i) {
            while (at < folder.known.size() && folder.known[at].file < i) ++at;
            folder.files[i].first = static_cast<uint32_t>(at);
        }
        folder.held.store(folder.files.size() + shards, std::memory_order_relaxed);
    }
    // One result each would have told the same.
    const double needed = std::min(1.0, static_cast<double>(kept_ * kResultSize) /
                                            static_cast<double>(std::max<uint64_t>(1, told_octets_)));
    for (OldSegment& segment : segments_)
        segment.superseded = static_cast<uint64_t>(static_cast<double>(segment.live_octets) * (1 - needed));
}

// ---- handing it out

std::vector<FileId> RecoveredState::take(size_t folder, ShardId shard, size_t shards) {
    std::vector<FileId> taken;
    for (const RecoveredFile& file : (*folders_)[folder].files)
        if (file.id % shards == shard) taken.push_back(file.id);
    let_go((*folders_)[folder]);
    return taken;
}

void RecoveredState::let_go(Folder& folder) {
    const size_t held = folder.held.fetch_sub(1, std::memory_order_acq_rel);
    POSTRIDER_CHECK(held > 0, "a recovered file is released once");
    if (held > 1) return;
    give_back(folder.files);
    give_back(folder.known);
}

}  // namespace postrider
