// The journal of one shard: records gathered in memory, appended to the newest segment, rotated, compacted, removed.
// The format is journal_format.h's; when what is written becomes durable is group_commit.h's.
//
// Segments
// * Only the newest is written. Its blocks are reserved beyond its end when it is made (decision 0010), and the next
//   one is made when it is half full: what is in flight can be recorded on a full disk (decision 0018). When the next
//   cannot be made, space_low() holds until it can; then the intake must take nothing new. At three quarters without a
//   next one space_out() holds too: no new transaction begins, the last quarter is for what is in flight.
// * Rotation happens when a commit begins and the newest is three quarters full: it is sealed and synced in that commit,
//   and what is still reserved behind its end is given back.
// * A segment counts the files it speaks of. forget() tells that a file has left active/: a segment that speaks of no
//   other is removed, after a commit that has also synced the folders the files were removed from: should a power cut
//   bring a file back, the records of what was done with it are still there. This order makes removal safe in any order of segments: what a lost record would have denied
//   ("not done yet") can no longer be acted upon.
// * Compaction: when the segments together are larger than `compact_above_bytes` and than four times the part that tells
//   of files that are left, the oldest is read again (compaction.h), a slice each turn, what is needed of it is appended
//   to the newest, and it is removed after a commit that covers that. Facts commute, so a crash between is harmless.
// * Merging: each attempt at a recipient makes the records of the one before it void. When more than three quarters of the
//   octets are void by that, every segment that is there is compacted once, with merging: a backlog that is tried again
//   and again keeps about one result a recipient (decision 0024).
//
// Failure policy: an error of a write or sync is returned to the group commit, which fails for good. An error while
// a segment is removed or compacted is kept for the caller (last_trouble) and the segment stays.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/files.h"
#include "queue/journal/compaction.h"
#include "queue/journal/file_set.h"
#include "queue/journal/group_commit.h"
#include "queue/journal/journal_format.h"

namespace postrider {

// A segment of an earlier run, found by recovery, with the files it speaks of that are still there.
struct OldSegment {
    SegmentName name;
    uint64_t size = 0;
    FileSet files;
    size_t files_ever = 0;  // with those that are gone
    uint64_t live_octets = 0;  // of records that tell of `files`,
    uint64_t superseded = 0;   // and of them about what later ones made void
};

class Journal final : public CommitParticipant {
  public:
    struct Options {
        uint64_t segment_bytes = uint64_t{64} << 20;
        uint64_t compact_above_bytes = uint64_t{128} << 20;
        uint64_t compact_slice_bytes = uint64_t{1} << 16;  // read again in a turn, or in each millisecond of a longer one
        // The folders of active/, to be synced before a segment is removed. None: it is removed at once.
        std::function<void(std::vector<int>&)> removed_from;
    };

    // Makes the first segment, durable. `directory` (<spool>/journal) outlives the journal; `sequence` is higher than
    // that of any segment there (RecoveredState::next_sequence).
    static Result<std::unique_ptr<Journal>> open(int directory, ShardId shard, uint64_t sequence,
                                                 Options options);
    ~Journal() override = default;

    // Takes a segment of an earlier run over, of whatever shard; an empty one is removed.
    void adopt(OldSegment segment);

    // These two are written before this turn's sends, see group_commit.h,
    void claim(const ClaimFacts& facts);
    void intent(const IntentFacts& facts);
    // a result with the commit, when its line in the delivery log is durable.
    void result(const ResultFacts& facts);

    // `file` has been unlinked from active/ (whatever shard did it): no record of it matters any more.
    void forget(FileId file);

    // A slice of the compaction under way, about a tenth of the turn; true when there is more to do at once. For Reactor::each_turn.
    bool compact(MonoNs now);
    bool compacting() const { return compaction_ != nullptr; }

    bool space_low() const { return space_low_; }
    bool space_out() const { return space_low_ && written_ + gathered_ >= rotate_at(); }
    // A commit takes long: results wait for it in memory, no new transaction begins.
    bool many_gathered() const { return gathered_ >= kManyGathered; }
    // Tries again to make the next segment; for the owner's clock while space_low().
    void look_for_space() {
        if (space_low_) prepare_next();
    }
    uint64_t octets() const;       // of all segments
    uint64_t live_octets() const;  // estimated by the share of files that are still there
    size_t segments() const { return 1 + old_.size(); }
    uint64_t records() const { return records_; }
    // The last error that stopped neither a record nor a commit; empty text when none.
    const Error& last_trouble() const { return trouble_; }

    bool dirty() const override {
        return gathered_ > 0 || !early_.empty() || written_ > synced_ || !sealed_.empty() ||
               (compaction_ && compaction_->done()) || !condemned_.empty();
    }
    bool urgent() const override { return !early_.empty(); }
    Result<void> write_urgent() override;
    void before_commit() override;
    void folders_to_sync(std::vector<int>& folders) override;
    Result<void> begin_commit(std::vector<int>& to_sync) override;
    Result<void> end_commit() override;

  private:
    static constexpr size_t kBufferAtFirst = size_t{512} << 10;
    static constexpr uint64_t kLongestTurnMs = 128;
    static constexpr size_t kCopiedAt = size_t{4} << 20;  // gathered: compaction waits for a commit
    static constexpr size_t kManyGathered = size_t{16} << 20;
    uint64_t rotate_at() const { return options_.segment_bytes / 4 * 3; }

    struct Segment {
        SegmentName name;
        uint64_t size = 0;
        FileSet files;
        size_t files_ever = 0;
        bool stuck = false;  // could not be compacted: it waits for its files to go
    };

    Journal(int directory, ShardId shard, uint64_t sequence, Options options);

    Result<FileDescriptor> make_segment(const SegmentName& name);
    void use_segment(const SegmentName& name, FileDescriptor fd);
    void prepare_next();
    Result<void> rotate(std::vector<int>& to_sync);
    RecordBuffer room();
    Result<void> write(const char* data, size_t size);
    void appended(size_t size, FileId file);
    void appended_early(const char* record, size_t size, FileId file);
    void encode_again(uint32_t seed);
    void append_mark(RecordKind kind);
    void start_compaction();
    Segment* choose_segment(bool by_files);
    Result<std::vector<SegmentName>> durable_segments_but(const SegmentName& name) const;
    void give_up(Segment& segment, Error why);
    Segment* find_old(const SegmentName& name);
    void condemn(const SegmentName& name);
    void remove_segment(const SegmentName& name);

    const int directory_;
    const ShardId shard_;
    const Options options_;
    FileDescriptor fd_;
    Segment current_;
    uint32_t seed_ = 0;
    std::deque<Segment> old_;             // oldest first
    std::vector<FileDescriptor> sealed_;  // rotated out; closed when the commit in flight has ended
    uint64_t next_sequence_;
    std::optional<std::pair<SegmentName, FileDescriptor>> next_;
    std::unique_ptr<Compaction> compaction_;
    MonoNs compacted_at_ = 0;
    bool compaction_covered_ = false;  // by the commit in flight
    uint64_t superseded_ = 0;   // octets of records that are void by later ones; about, since the last merging
    uint64_t merge_below_ = 0;  // while segments are merged: those of lower sequences
    std::vector<char> buffer_;  // of the current segment's records
    size_t gathered_ = 0;       // octets of it in use,
    size_t committing_ = 0;     // of them those of the commit in flight
    std::string early_;         // intents and claims: they tell of no log line, and are written with the turn
    std::vector<SegmentName> condemned_;  // of no more use; the first `condemned_syncing_` are covered by the commit in flight
    size_t condemned_syncing_ = 0;
    uint64_t written_ = 0;      // octets of the current segment that are written,
    uint64_t syncing_to_ = 0;   // that the commit in flight, or else the last, covers,
    uint64_t synced_ = 0;       // that are durable,
    uint64_t marked_ = 0;       // that the last `synced` record tells of
    FileId last_file_ = 0;      // counted last: a batch's records come in runs
    uint64_t records_ = 0;
    bool space_low_ = false;
    Error trouble_;
};

}  // namespace postrider
