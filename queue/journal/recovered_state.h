// What a start finds: the files in active/, each with its claim, and of their recipients those that differ from "never tried".
//
// Laid out as active/ is, in 256 folders by the first octet of the file's id: one is published after the other, and what is
// known of it goes when its last file has been. In this order: add() each file, listed(), merge() the journals, finish();
// then the shards take() the folders.
//
// Memory: 24 octets for a file, 24 for a recipient, and while merging a quarter more for what was read and is not yet sorted
// in. Names lie in a scratch file. What the journals say of files that are not there costs nothing.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "queue/journal/journal.h"
#include "queue/journal/name_store.h"

namespace postrider {

// A recipient that differs from "never tried".
struct RecoveredRecipient {
    uint32_t place = 0;
    uint32_t recipient = 0;
    uint32_t time_s = 0;
    uint32_t due_s = 0;
    uint16_t result_attempt = 0;
    uint16_t intent_attempt = 0;
    RecordKind kind{};       // zero: no result yet
    uint32_t file : 24 = 0;  // in its folder

    uint16_t attempts() const { return std::max(result_attempt, intent_attempt); }
    bool has_result() const { return kind != RecordKind{}; }
    bool final() const { return is_final(kind); }
    // The last dot was perhaps sent and its reply is not known.
    bool ambiguous() const { return !final() && intent_attempt > result_attempt; }
    // Some attempt may have arrived: the next may be a duplicate.
    bool in_doubt() const { return ambiguous() || kind == RecordKind::deferred_in_doubt; }
};
static_assert(sizeof(RecoveredRecipient) == 24);

struct RecoveredFile {
    FileId id = 0;
    uint32_t created_s = 0;
    uint32_t stamp = 0;  // of size and mtime
    uint32_t name : NameStore::kRefBits = 0;
    uint32_t claimed : 1 = 0;  // all of this is known
    uint32_t batch : 1 = 0;
    uint32_t first = 0;  // of its recipients among the folder's; they end where the next file's begin

    SpoolForm form() const { return batch ? SpoolForm::batch : SpoolForm::eml; }
    // What lies there is what was claimed.
    bool is(uint64_t size, int64_t mtime_ns) const { return stamp == stamp_of(size, mtime_ns); }
    static uint32_t stamp_of(uint64_t size, int64_t mtime_ns) {
        return static_cast<uint32_t>(mix64(size, static_cast<uint64_t>(mtime_ns)));
    }
};
static_assert(sizeof(RecoveredFile) == 24);

class RecoveredState {
  public:
    static constexpr size_t kFolders = 256;

    // Without a scratch file the names stay in memory.
    explicit RecoveredState(FileDescriptor scratch = {});

    // ---- building
    // A file of active/.
    void add(FileId id) { folder_of(id).files.push_back({.id = id}); }
    // All are added.
    void listed();
    // False: the file is not there.
    bool merge(const JournalRecord& record);
    // Merges the rest of what merge() collected, for so many shards to take.
    void finish(size_t shards = 1);
    void add_segment(OldSegment segment);

    // ---- what is known
    const RecoveredFile* find(FileId id) const;
    // Ascending by (place, recipient), each once: walk them beside the file.
    std::span<const RecoveredRecipient> recipients(const RecoveredFile& file) const;
    std::string name(const RecoveredFile& file) const { return names_->name(file.name); }
    template <class F>
    void for_each(F&& visit) const {
        for (const Folder& folder : *folders_)
            for (const RecoveredFile& file : folder.files) visit(file);
    }
    // For Journal::adopt(), each to one journal.
    std::vector<OldSegment> take_segments() { return std::move(segments_); }
    // The newest stamp of what was merged; 0: nothing was.
    uint32_t newest_s() const { return newest_s_; }
    // Higher than any found.
    uint64_t next_sequence() const { return next_sequence_; }

    // ---- handing it out: thread-safe
    // The files of a folder that are the shard's. Each shard asks once for each folder.
    std::vector<FileId> take(size_t folder, ShardId shard, size_t shards);
    // The file is published, or has gone: once for each that was taken. Its folder goes with its last file.
    void release(FileId id) { let_go(folder_of(id)); }

  private:
    static constexpr size_t kUnsortedFirst = size_t{1} << 8;
    static constexpr size_t kUnsortedLeast = size_t{1} << 19;  // once there is that much
    struct Folder {
        std::vector<RecoveredFile> files;       // ascending by id
        std::vector<RecoveredRecipient> known;  // ascending by (file, place, recipient)
        std::atomic<size_t> held{0};  // by files that are not published, and shards that have not taken theirs
    };

    struct Unsorted {
        uint32_t folder;
        RecoveredRecipient recipient;
    };

    Folder& folder_of(FileId id) const { return (*folders_)[id >> 56]; }
    static std::optional<size_t> index_in(const std::vector<RecoveredFile>& files, FileId id);
    void merge_claim(RecoveredFile& file, const JournalRecord& record);
    void sort_in();
    void join_into(Folder& folder, std::span<const Unsorted> more);
    static void let_go(Folder& folder);

    std::unique_ptr<std::array<Folder, kFolders>> folders_;
    std::unique_ptr<NameStore> names_;
    std::vector<Unsorted> unsorted_;
    size_t kept_ = 0;           // recipients in the folders
    uint64_t told_octets_ = 0;  // of the records about recipients
    std::vector<OldSegment> segments_;
    uint64_t next_sequence_ = 1;
    uint32_t newest_s_ = 0;
};

}  // namespace postrider
