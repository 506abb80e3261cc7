#include "queue/journal/recovered_state.h"

#include <cstring>
#include <tuple>

#include "engine/core/check.h"
#include "engine/core/hash.h"

namespace postrider {
namespace {

auto rank(const RecoveredRecipient& r) {
    return std::tuple(r.final(), r.result_attempt, r.kind, r.time_s, r.due_s);
}

uint64_t place_of(const RecoveredRecipient& r) { return uint64_t{r.place} << 32 | r.recipient; }

void join(RecoveredRecipient& into, const RecoveredRecipient& other) {
    const uint16_t intent = std::max(into.intent_attempt, other.intent_attempt);
    if (rank(other) > rank(into)) into = other;
    into.intent_attempt = intent;
}

}  // namespace

// The place in by_id_ of the file, or the free one where it would be.
uint32_t* RecoveredState::slot_of(FileId id) {
    size_t at = mix64(id, 2) & (by_id_.size() - 1);
    while (by_id_[at] != 0 && files_[by_id_[at] - 1].id != id) at = (at + 1) & (by_id_.size() - 1);
    return &by_id_[at];
}

const RecoveredFile* RecoveredState::find(FileId id) const {
    if (by_id_.empty()) return nullptr;
    const uint32_t number = *const_cast<RecoveredState*>(this)->slot_of(id);
    return number == 0 ? nullptr : &files_[number - 1];
}

RecoveredFile& RecoveredState::file_of(FileId id, uint32_t& index) {
    if (4 * (files_.size() + 1) > 3 * by_id_.size()) {
        by_id_.assign(by_id_.empty() ? 64 : 2 * by_id_.size(), 0);
        for (uint32_t i = 0; i < files_.size(); ++i) *slot_of(files_[i].id) = i + 1;
    }
    uint32_t* slot = slot_of(id);
    if (*slot == 0) {
        files_.emplace_back().id = id;
        *slot = static_cast<uint32_t>(files_.size());
    }
    index = *slot - 1;
    return files_[index];
}

void RecoveredState::release(FileId id) {
    if (by_id_.empty()) return;
    const uint32_t number = *slot_of(id);
    if (number == 0) return;
    files_[number - 1].count = 0;
    files_[number - 1].known.reset();
}

void RecoveredState::forget(FileId id) {
    for (auto& segment : segments_) segment.files.erase(id);
}

void RecoveredState::add_segment(OldSegment segment) {
    next_sequence_ = std::max(next_sequence_, segment.name.sequence + 1);
    segments_.push_back(std::move(segment));
}

std::string_view RecoveredState::keep_name(std::string_view name) {
    if (name.empty()) return {};
    if (name_room_ < name.size()) {
        names_.push_back(std::make_unique_for_overwrite<char[]>(kNameBlock));
        name_room_ = kNameBlock;
    }
    char* at = names_.back().get() + (kNameBlock - name_room_);
    std::memcpy(at, name.data(), name.size());
    name_room_ -= name.size();
    return {at, name.size()};
}

void RecoveredState::merge_claim(RecoveredFile& file, const JournalRecord& record) {
    const auto told = std::tuple(record.time_s, record.size, record.mtime_ns, record.form, record.name);
    const auto known = std::tuple(file.created_s, file.size, file.mtime_ns, file.form, file.name);
    if (file.claimed && known <= told) return;
    file.claimed = true;
    file.created_s = record.time_s;
    file.size = record.size;
    file.mtime_ns = record.mtime_ns;
    file.form = record.form;
    if (file.name != record.name) file.name = keep_name(record.name);
}

void RecoveredState::merge(const JournalRecord& record) {
    if (!is_there(record.file)) return;
    uint32_t index;
    RecoveredFile& file = file_of(record.file, index);
    if (record.kind == RecordKind::claim) return merge_claim(file, record);
    RecoveredRecipient entry;
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
    unsorted_.push_back({index, entry});
}

// Leaves unsorted_ empty, with room for the next portion: a fixed part of what is kept, so that sorting in costs the same
// for each recipient however many there are. The first portions are small: most journals are.
void RecoveredState::sort_in() {
    std::ranges::sort(unsorted_, {}, [](const Unsorted& entry) {
        return std::tuple(entry.file_index, place_of(entry.recipient));
    });
    for (size_t first = 0; first < unsorted_.size();) {
        size_t last = first;
        while (last < unsorted_.size() && unsorted_[last].file_index == unsorted_[first].file_index) ++last;
        join_into(files_[unsorted_[first].file_index], std::span(unsorted_).subspan(first, last - first));
        first = last;
    }
    unsorted_.clear();
    const size_t grown = std::max(kUnsortedFirst, 4 * unsorted_.capacity());
    const size_t room = std::max(std::min(grown, kUnsortedLeast), kept_ / 4);
    if (unsorted_.capacity() < room) {
        unsorted_ = {};
        unsorted_.reserve(room);
    }
}

// Merges two ascending sequences; `more` may name a recipient several times.
void RecoveredState::join_into(RecoveredFile& file, std::span<const Unsorted> more) {
    size_t size = file.count;
    for (size_t i = 0, k = 0; i < more.size(); ++i) {
        const uint64_t place = place_of(more[i].recipient);
        if (i > 0 && place == place_of(more[i - 1].recipient)) continue;
        while (k < file.count && place_of(file.known[k]) < place) ++k;
        if (k == file.count || place_of(file.known[k]) != place) ++size;
    }
    auto merged = std::make_unique_for_overwrite<RecoveredRecipient[]>(size);
    size_t out = 0, k = 0;
    for (const Unsorted& entry : more) {
        const uint64_t place = place_of(entry.recipient);
        while (k < file.count && place_of(file.known[k]) <= place) merged[out++] = file.known[k++];
        if (out > 0 && place_of(merged[out - 1]) == place)
            join(merged[out - 1], entry.recipient);
        else
            merged[out++] = entry.recipient;
    }
    while (k < file.count) merged[out++] = file.known[k++];
    POSTRIDER_CHECK(out == size, "counted and merged alike");
    kept_ += size - file.count;
    file.known = std::move(merged);
    file.count = static_cast<uint32_t>(size);
}

void RecoveredState::finish() {
    sort_in();
    unsorted_ = {};
    there_ = nullptr;
    // One result each would have told the same.
    const double needed = std::min(1.0, static_cast<double>(kept_ * kResultSize) / static_cast<double>(std::max<uint64_t>(1, told_octets_)));
    for (OldSegment& segment : segments_)
        segment.superseded = static_cast<uint64_t>(static_cast<double>(segment.live_octets) * (1 - needed));
}

}  // namespace postrider
