// The spool's folders and the moves between them (docs/spool.md). Nothing here parses.
//
//   tmp/  new/ [folder/]  active/<2 hex>/<16 hex>  journal/  bad/  lock
//
// A file is claimed by a rename from new/ that never replaces; its name in active/ is its FileId, a hash of (inode, name,
// size, mtime), so that a claim undone by a power cut ends at the same id. Not st_dev, which changes over a remount.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/core/ids.h"
#include "engine/core/result.h"
#include "engine/io/files.h"
#include "queue/journal/journal_format.h"
#include "queue/message.h"

namespace postrider {


struct ClaimedFile {
    FileId id = 0;
    std::string name;  // as the producer called it
    SpoolForm form = SpoolForm::eml;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    uint64_t inode = 0;
    FileDescriptor fd;
    bool changed = false;  // between the look and the claim: it is in active/, and to be refused
};

std::string file_id_text(FileId id);  // 16 hex digits

class SpoolDirectory {
  public:
    // Makes missing folders and takes the lock. When another engine holds it the error has code EWOULDBLOCK and
    // names its process.
    static Result<std::unique_ptr<SpoolDirectory>> open(const std::string& path);

    const std::string& path() const { return path_; }
    int root() const { return root_.get(); }
    int incoming() const { return new_.get(); }
    int journal() const { return journal_.get(); }

    // `folder` below new/, or empty. Opens it for a scan.
    Result<FileDescriptor> open_incoming(const std::string& folder) const;

    // What a look at a name in new/ or below says, before it is claimed. `why` tells of refuse and of not_now, a local fault.
    enum class Entry : uint8_t { gone, eml, batch, folder, refuse, not_now };
    Entry look(int dir, const std::string& name, bool top, struct stat& st, std::string& why) const;

    // Claims new/[folder/]name as a regular file. error.code ENOENT: gone meanwhile; EPERM: it may not be
    // moved. An error leaves it in new/.
    Result<ClaimedFile> claim(int dir, const std::string& name, SpoolForm form, const struct stat& st) const;

    // A file without a name, for the engine's own notes: it ends with the process.
    Result<FileDescriptor> open_scratch() const;

    // Opens a claimed file; the caller compares size, mtime and inode with what was claimed.
    Result<FileDescriptor> open_active(FileId id, const char* suffix, int flags) const;
    Result<void> remove_active(FileId id, const char* suffix) const;
    // For a sync: the folders files are removed from.
    void active_folders(std::vector<int>& folders) const {
        for (const auto& folder : active_) folders.push_back(folder.get());
    }
    // Every data file in active/ with its id; order is the directory's.
    Result<void> scan_active(const std::function<void(FileId)>& visit) const;

    // Moves to bad/ (numeric suffix when the name is taken) and writes <name>.reason beside it. Returns the name there.
    // `written`, where it is given, gets what is to be synced.
    using Written = std::vector<FileDescriptor>;
    Result<std::string> refuse_incoming(int dir, const std::string& name, const std::string& why,
                                        Written* written = nullptr) const;
    Result<std::string> refuse_active(FileId id, const std::string& name, const std::string& why,
                                      Written* written = nullptr) const;
    // Sets a message of a batch file aside as bad/<name> with its reason. Again after a crash: the same file, once.
    Result<std::string> refuse_message(FileId file, int from_fd, Range whole, const std::string& name,
                                       const std::string& why, Written* written = nullptr) const;
    int bad() const { return bad_.get(); }

  private:
    Result<std::string> move_to_bad(int dir, const std::string& from, const std::string& name,
                                    const std::string& why, Written* written) const;
    Result<void> write_reason(const std::string& bad_name, const std::string& why, Written* written) const;
    int active_folder(FileId id) const { return active_[id >> 56].get(); }

    mutable std::mutex refusing_;  // one shard at a time writes a reason: their unfinished names could meet
    std::string path_;
    FileDescriptor root_, new_, bad_, journal_, lock_;
    std::array<FileDescriptor, 256> active_;
};

}  // namespace postrider
