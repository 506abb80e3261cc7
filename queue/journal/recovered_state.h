// What the journals know, merged: each file with its claim, each recipient that differs from "never tried".
//
// Memory: 24 octets for a recipient, 64 and the name for a file, and while merging a quarter more for what was read and is
// not yet sorted in. With a set of the files that are there, what the journals say of others costs nothing. A file's part is
// released when it has been published.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "queue/journal/journal.h"

namespace postrider {

// A recipient that differs from "never tried".
struct RecoveredRecipient {
    uint32_t place = 0;
    uint32_t recipient = 0;
    uint32_t time_s = 0;
    uint32_t due_s = 0;
    uint16_t result_attempt = 0;
    uint16_t intent_attempt = 0;
    RecordKind kind{};  // zero: no result yet

    uint16_t attempts() const { return std::max(result_attempt, intent_attempt); }
    bool has_result() const { return kind != RecordKind{}; }
    bool final() const { return is_final(kind); }
    // The last dot was perhaps sent and its reply is not known.
    bool ambiguous() const { return !final() && intent_attempt > result_attempt; }
    // Some attempt may have arrived: the next may be a duplicate.
    bool in_doubt() const { return ambiguous() || kind == RecordKind::deferred_in_doubt; }
    bool operator==(const RecoveredRecipient&) const = default;
};
static_assert(sizeof(RecoveredRecipient) == 24);

struct RecoveredFile {
    FileId id = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    std::string_view name;  // the state's
    std::unique_ptr<RecoveredRecipient[]> known;
    uint32_t count = 0;     // of them
    uint32_t created_s = 0;
    bool claimed = false;  // size, mtime, name, form and created are known
    SpoolForm form = SpoolForm::eml;
};
static_assert(sizeof(RecoveredFile) <= 64);

class RecoveredState {
  public:
    // With `there`, records of other files are passed over; it outlives the merging.
    explicit RecoveredState(const FileSet* there = nullptr) : there_(there) {}

    const RecoveredFile* find(FileId id) const;
    const std::deque<RecoveredFile>& files() const { return files_; }
    // Ascending by (place, recipient), each once: walk them beside the file.
    std::span<const RecoveredRecipient> recipients(const RecoveredFile& file) const {
        return {file.known.get(), file.count};
    }
    // What is known of the file's recipients is not needed any more. Each file by one thread; others may find() meanwhile.
    void release(FileId id);

    // `id` is not in active/ (any more): segments that speak of it alone may go.
    void forget(FileId id);
    // For Journal::adopt(), each to one journal; afterwards forget() is the journals'.
    std::vector<OldSegment> take_segments() { return std::move(segments_); }
    // Higher than any found.
    uint64_t next_sequence() const { return next_sequence_; }

    bool is_there(FileId id) const { return !there_ || there_->contains(id); }
    void merge(const JournalRecord& record);
    // Merges the rest of what merge() collected; ends the building.
    void finish();
    void add_segment(OldSegment segment);

  private:
    static constexpr size_t kUnsortedFirst = size_t{1} << 8;
    static constexpr size_t kUnsortedLeast = size_t{1} << 19;  // once there is that much
    static constexpr size_t kNameBlock = size_t{1} << 16;
    struct Unsorted {
        uint32_t file_index;
        RecoveredRecipient recipient;
    };

    uint32_t* slot_of(FileId id);
    RecoveredFile& file_of(FileId id, uint32_t& index);
    void merge_claim(RecoveredFile& file, const JournalRecord& record);
    void sort_in();
    void join_into(RecoveredFile& file, std::span<const Unsorted> more);
    std::string_view keep_name(std::string_view name);

    const FileSet* there_;
    std::deque<RecoveredFile> files_;
    std::vector<uint32_t> by_id_;  // open addressing: 1 + position in files_, 0 free
    std::vector<Unsorted> unsorted_;
    size_t kept_ = 0;  // recipients in the files
    uint64_t told_octets_ = 0;  // of the records about recipients
    std::vector<std::unique_ptr<char[]>> names_;
    size_t name_room_ = 0;  // left in the last block
    std::vector<OldSegment> segments_;
    uint64_t next_sequence_ = 1;
};

}  // namespace postrider
