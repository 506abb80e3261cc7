// Recovery: every segment of every shard, in any order, merged into one state by the rules of journal_format.h. It may
// be killed and run again: it changes nothing but the ends of unsealed segments.
//
// What it does about octets that are no record:
// * Torn tail. The last segment of a shard is unsealed after a crash. What lies behind its last `synced` mark was
//   perhaps never synced: bad octets there are no alarm. Records behind them are taken (they are true), octets behind
//   the last record are cut from the file, and the segment is sealed: it will never be written again.
// * Damage. Bad octets before a mark, in a sealed segment, or a segment without its seal that is not its shard's last:
//   reported with file and offset; the records that follow are salvaged by their checksums. Nothing is guessed.
//
// Memory: one buffer of 1 MiB, 28 octets for each recipient that has a record in a file that is not done (twice that
// while merging), about 100 for each file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "queue/journal/journal.h"

namespace postrider {

struct BadStretch {
    std::string file;
    uint64_t offset = 0;
    uint64_t size = 0;  // 0: something is missing at this offset (a seal)
};

struct RecoveryReport {
    static constexpr size_t kStretchesKept = 1000;

    size_t segments = 0;
    uint64_t octets = 0;
    uint64_t records = 0;
    uint64_t unknown_records = 0;     // of kinds from a later version: skipped
    uint64_t damaged_stretches = 0;   // > 0: the journal is damaged, exit 4 is the caller's
    std::vector<BadStretch> damaged;  // the first kStretchesKept
    uint64_t torn_stretches = 0;
    std::vector<BadStretch> torn;
};

// A recipient that differs from "never tried".
struct RecoveredRecipient {
    uint32_t file_index = 0;  // in RecoveredState::files()
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
    // The last dot was perhaps sent and its reply is not known: the next attempt may be a duplicate.
    bool ambiguous() const { return !final() && intent_attempt > result_attempt; }
    bool operator==(const RecoveredRecipient&) const = default;
};
static_assert(sizeof(RecoveredRecipient) <= 32);

struct RecoveredFile {
    FileId id = 0;
    bool claimed = false;  // the facts below are known
    bool done = false;     // every recipient is final and durable: the file may be removed without a look
    SpoolForm form = SpoolForm::eml;
    uint32_t created_s = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    std::string name;
    size_t first = 0, count = 0;  // of its recipients
};

class RecoveredState {
  public:
    const RecoveredFile* find(FileId id) const;
    std::span<const RecoveredFile> files() const { return files_; }
    // Ascending by (place, recipient), each once: walk them beside the file. Empty for a file that is done.
    std::span<const RecoveredRecipient> recipients(const RecoveredFile& file) const {
        return std::span(recipients_).subspan(file.first, file.count);
    }

    // `id` is not in active/ (any more): segments that speak of it alone may go.
    void forget(FileId id);
    // For Journal::adopt(), each to one journal; afterwards forget() is the journals'.
    std::vector<OldSegment> take_segments() { return std::move(segments_); }
    // Higher than any found.
    uint64_t next_sequence() const { return next_sequence_; }

    void merge(const JournalRecord& record);
    // Sorts and merges what merge() collected; ends the building.
    void finish();
    void add_segment(OldSegment segment);

  private:
    uint32_t index_of(FileId id);
    void add_recipient(const JournalRecord& record);
    void compact();

    std::vector<RecoveredFile> files_;
    std::unordered_map<FileId, uint32_t> by_id_;
    std::vector<RecoveredRecipient> recipients_;
    std::vector<OldSegment> segments_;
    size_t compact_at_ = size_t{1} << 16;
    uint64_t next_sequence_ = 1;
};

// `journal_dir`: <spool>/journal. Fails when a segment cannot be read or sealed, or is of a newer format version.
Result<RecoveredState> recover_journals(int journal_dir, RecoveryReport& report);

// The segments in a directory, ascending by shard and sequence; other names are left alone.
Result<std::vector<SegmentName>> list_segments(int journal_dir);

}  // namespace postrider
