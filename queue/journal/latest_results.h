// The recipients that one segment speaks of, each with the latest result that is known of it, to tell which of the segment's
// records say nothing any more: a higher attempt's result, or a final one, has come after them.
//
// Open addressing, exact keys: 18 octets a slot, between a half and seven eighths of them used. A segment of 48 MiB names at
// most 1.6 million recipients without a final result: 36 MiB while it is being compacted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/core/hash.h"
#include "queue/journal/journal_format.h"

namespace postrider {

class LatestResults {
  public:
    // A record of the segment itself.
    void add(const JournalRecord& record) {
        if (!may_be_void(record.kind) && !is_result(record.kind)) return;
        if (8 * (size_ + 1) > 7 * keys_.size()) grow();
        const size_t at = find_slot(key_of(record));
        if (keys_[at].file == 0) {
            keys_[at] = key_of(record);
            ++size_;
        }
        hear(at, record);
    }
    // A record that is durable elsewhere: counts if it tells of one of the segment's recipients.
    void hear_of(const JournalRecord& record) {
        if (size_ == 0 || !is_result(record.kind)) return;
        const size_t at = find_slot(key_of(record));
        if (keys_[at].file != 0) hear(at, record);
    }
    // The state that recovery finds is the same without this record of the segment.
    bool makes_void(const JournalRecord& record) const {
        if (!may_be_void(record.kind)) return false;
        const uint16_t latest = latest_[find_slot(key_of(record))];
        return record.kind == RecordKind::intent ? record.attempt <= latest : record.attempt < latest;
    }
    size_t size() const { return size_; }

  private:
    static constexpr uint16_t kFinal = UINT16_MAX;
    struct Key {
        FileId file = 0;  // 0: a free slot
        uint32_t place = 0;
        uint32_t recipient = 0;
        bool operator==(const Key&) const = default;
    };
    static_assert(sizeof(Key) == 16);

    // A deferral too: the doubt of one is told by each that follows.
    static bool may_be_void(RecordKind kind) { return kind == RecordKind::intent || (is_result(kind) && !is_final(kind)); }
    static Key key_of(const JournalRecord& record) { return {record.file, record.place, record.recipient}; }
    size_t find_slot(const Key& key) const {
        const size_t mask = keys_.size() - 1;
        size_t at = mix64(mix64(key.file, 3), uint64_t{key.place} << 32 | key.recipient) & mask;
        while (keys_[at].file != 0 && keys_[at] != key) at = (at + 1) & mask;
        return at;
    }
    void hear(size_t at, const JournalRecord& record) {
        if (!is_result(record.kind)) return;
        latest_[at] = is_final(record.kind) ? kFinal : std::max(latest_[at], record.attempt);
    }
    void grow() {
        const auto keys = std::exchange(keys_, std::vector<Key>(keys_.empty() ? 1024 : 2 * keys_.size()));
        const auto latest = std::exchange(latest_, std::vector<uint16_t>(keys_.size()));
        for (size_t i = 0; i < keys.size(); ++i) {
            if (keys[i].file == 0) continue;
            const size_t at = find_slot(keys[i]);
            keys_[at] = keys[i];
            latest_[at] = latest[i];
        }
    }

    std::vector<Key> keys_;
    std::vector<uint16_t> latest_;  // beside keys_: the attempt of the latest deferral, 0 none, kFinal
    size_t size_ = 0;
};

}  // namespace postrider
