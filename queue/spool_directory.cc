#include "queue/spool_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/core/hash.h"
#include "engine/core/limits.h"
#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr size_t kCopyBlock = 256 * 1024;
constexpr unsigned kNamesakes = 1'000'000;
constexpr char kReason[] = ".reason";

int64_t mtime_ns(const struct stat& st) {
    return int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec;
}

// With the time of its rename into new/ (ctime): a file that is put in again, by `cp -p`, may get the inode that it had the
// first time, and must not be taken for it while a journal still tells that all of that one was delivered. A claim that a
// power cut undoes leaves all of this as it was.
FileId make_file_id(const struct stat& st, const std::string& name) {
    const uint64_t facts[4] = {st.st_ino, static_cast<uint64_t>(st.st_size), static_cast<uint64_t>(mtime_ns(st)),
                               static_cast<uint64_t>(st.st_ctim.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(st.st_ctim.tv_nsec)};
    const std::string_view bytes(reinterpret_cast<const char*>(facts), sizeof facts);
    const FileId id = hash64(name, hash64(bytes));
    return id ? id : 1;
}

Result<FileDescriptor> take_lock(int root, const std::string& path) {
    auto lock = files::open_beneath(root, "lock", O_RDWR | O_CREAT);
    if (!lock) return fail(fmt::format("spool {}: {}; it must be the engine's own", path, lock.error().text), lock.error().code);
    auto ours = files::lock(lock->get());
    if (!ours) return std::unexpected(ours.error());
    if (!*ours) {
        char holder[32] = {};
        (void)files::read_at(lock->get(), holder, sizeof holder - 1, 0);
        holder[std::strcspn(holder, "\n")] = 0;
        return fail(fmt::format("spool {} is held by another engine, process {}; stop it or use another spool",
                                path, holder[0] ? holder : "unknown"),
                    EWOULDBLOCK);
    }
    const std::string pid = fmt::format("{}\n", getpid());
    if (auto cut = files::truncate(lock->get(), 0); !cut) return std::unexpected(cut.error());
    if (auto put = files::write_at(lock->get(), pid.data(), pid.size(), 0); !put)
        return std::unexpected(put.error());
    return lock;
}

// Name in bad/ of the file refused under `name`; `number` tells namesakes apart.
std::string bad_name(const std::string& name, unsigned number) {
    constexpr size_t kSuffixRoom = 24;  // ".reason" and a number
    const std::string base = name.substr(0, limits::kFileName - kSuffixRoom);
    return number == 0 ? base : fmt::format("{}.{}", base, number);
}

bool same_octets(int a, int b) {
    std::string first(kCopyBlock, 0), second(kCopyBlock, 0);
    for (uint64_t offset = 0;; offset += first.size()) {
        auto got = files::read_at(a, first.data(), first.size(), offset);
        auto other = files::read_at(b, second.data(), second.size(), offset);
        if (!got || !other || *got != *other || std::memcmp(first.data(), second.data(), *got) != 0) return false;
        if (*got < first.size()) return true;
    }
}

bool ends_with(const std::string& name, std::string_view ending) {
    return name.size() > ending.size() && std::string_view(name).ends_with(ending);
}

}  // namespace

std::string file_id_text(FileId id) { return fmt::format("{:016x}", id); }

Result<std::unique_ptr<SpoolDirectory>> SpoolDirectory::open(const std::string& path) {
    auto spool = std::make_unique<SpoolDirectory>();
    spool->path_ = path;
    auto into = [](FileDescriptor& target, Result<FileDescriptor> opened) -> Result<void> {
        if (!opened) return std::unexpected(opened.error());
        target = std::move(*opened);
        return {};
    };
    if (auto r = into(spool->root_, files::open_directory(AT_FDCWD, path, true)); !r)
        return fail(fmt::format("spool: {}; make the folder, or set [server] spool", r.error().text),
                    r.error().code);
    if (auto r = into(spool->lock_, take_lock(spool->root(), path)); !r)
        return std::unexpected(r.error());
    FileDescriptor tmp, active;
    for (auto& [target, name] : {std::pair<FileDescriptor*, const char*>{&tmp, "tmp"},
                                 {&spool->new_, "new"},
                                 {&spool->bad_, "bad"},
                                 {&spool->journal_, "journal"},
                                 {&active, "active"}})
        if (auto r = into(*target, files::open_directory(spool->root(), name, true)); !r)
            return fail(fmt::format("spool {}: {}", path, r.error().text), r.error().code);
    for (size_t i = 0; i < spool->active_.size(); ++i)
        if (auto r = into(spool->active_[i],
                          files::open_directory(active.get(), fmt::format("{:02x}", i), true));
            !r)
            return fail(fmt::format("spool {}/active: {}", path, r.error().text), r.error().code);
    // What was made is there after a power cut: the claims of this run lie in it.
    for (const int folder : {active.get(), spool->root()})
        if (auto synced = files::sync_all(folder); !synced)
            return fail(fmt::format("spool {}: {}", path, synced.error().text), synced.error().code);
    return spool;
}

Result<FileDescriptor> SpoolDirectory::open_incoming(const std::string& folder) const {
    return files::open_beneath(new_.get(), folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
}

SpoolDirectory::Entry SpoolDirectory::look(int dir, const std::string& name, bool top, struct stat& st,
                                           std::string& why) const {
    auto seen = files::status_of(dir, name);
    if (!seen) {
        why = seen.error().text;
        return is_local_fault(seen.error().code) ? Entry::not_now : Entry::gone;
    }
    st = *seen;
    if (S_ISDIR(st.st_mode)) {
        if (top) return Entry::folder;
        why = "a folder below a producer's folder; only new/ and one level below it are read";
        return Entry::refuse;
    }
    if (!S_ISREG(st.st_mode)) {
        why = fmt::format("not a regular file but a {}; write the message into tmp/ and rename it",
                          S_ISLNK(st.st_mode)    ? "symbolic link"
                          : S_ISFIFO(st.st_mode) ? "FIFO"
                          : S_ISSOCK(st.st_mode) ? "socket"
                                                 : "device");
        return Entry::refuse;
    }
    if (st.st_nlink != 1) {
        why = fmt::format("it has {} hard links; rename the file instead of linking it", st.st_nlink);
        return Entry::refuse;
    }
    if (ends_with(name, ".eml")) return Entry::eml;
    if (ends_with(name, ".bsmtp")) return Entry::batch;
    why = "the name ends neither in .eml nor in .bsmtp";
    return Entry::refuse;
}

Result<ClaimedFile> SpoolDirectory::claim(int dir, const std::string& name, SpoolForm form,
                                          const struct stat& st) const {
    ClaimedFile file;
    file.id = make_file_id(st, name);
    file.name = name;
    file.form = form;
    auto opened = files::open_beneath(dir, name, O_RDONLY);
    // A file renamed out of the folder in the midst of the open is no longer beneath it: gone, like any other.
    if (!opened && opened.error().code == EXDEV) return fail(opened.error().text, ENOENT);
    if (!opened) return std::unexpected(opened.error());
    POSTRIDER_CRASH_POINT("claim.before");
    // Two files with one id (the very same name, size, mtime and inode cannot both exist): take the next id.
    while (true) {
        auto moved = files::rename_no_replace(dir, name, active_folder(file.id), file_id_text(file.id));
        if (moved) break;
        if (moved.error().code == EACCES) return fail(moved.error().text, EPERM);
        if (moved.error().code != EEXIST) return std::unexpected(moved.error());
        ++file.id;
    }
    POSTRIDER_CRASH_POINT("claim.renamed");
    auto now = files::status(opened->get());
    const std::string id_text = file_id_text(file.id);
    auto claimed = files::status_of(active_folder(file.id), id_text);
    if (!now || !claimed) {
        // A local fault: the file goes back and is claimed anew. If it cannot, the next start finds it in active/.
        (void)files::rename_no_replace(active_folder(file.id), id_text, dir, name);
        return std::unexpected(now ? claimed.error() : now.error());
    }
    // Another file may have taken the name between our look and our claim: what we did not look at is not sent.
    file.changed = claimed->st_ino != st.st_ino || now->st_ino != st.st_ino || now->st_size != st.st_size ||
                   mtime_ns(*now) != mtime_ns(st);
    file.size = static_cast<uint64_t>(st.st_size);
    file.mtime_ns = mtime_ns(st);
    file.inode = st.st_ino;
    file.fd = std::move(*opened);
    return file;
}

Result<FileDescriptor> SpoolDirectory::open_scratch() const {
    auto scratch = files::open_beneath(root_.get(), ".scratch", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (!scratch) return scratch;
    if (auto removed = files::remove(root_.get(), ".scratch"); !removed) return std::unexpected(removed.error());
    return scratch;
}

Result<FileDescriptor> SpoolDirectory::open_active(FileId id, const char* suffix, int flags) const {
    // Never waits, whatever somebody has put in the file's place.
    return files::open_beneath(active_folder(id), file_id_text(id) + suffix, flags | O_NONBLOCK, 0600);
}

Result<void> SpoolDirectory::remove_active(FileId id, const char* suffix) const {
    return files::remove(active_folder(id), file_id_text(id) + suffix);
}

Result<void> SpoolDirectory::scan_active(const std::function<void(FileId)>& visit) const {
    for (const auto& folder : active_) {
        auto listing = files::Listing::open(folder.get());
        if (!listing) return fail("spool/active: " + listing.error().text, listing.error().code);
        for (;;) {
            auto entry = listing->next();
            if (!entry) return fail("spool/active: " + entry.error().text, entry.error().code);
            if (!*entry) break;
            const std::string_view name = (*entry)->d_name;
            if (name.size() != 16 || name.find_first_not_of("0123456789abcdef") != name.npos) continue;
            visit(std::strtoull((*entry)->d_name, nullptr, 16));
        }
    }
    return {};
}

// Under a name of its own until it is whole: no kill leaves an empty reason. EEXIST when there is a file of the name: it may
// be a producer's, refused earlier.
Result<void> SpoolDirectory::write_reason(const std::string& bad_name, const std::string& why,
                                          Written* to_sync) const {
    const std::string line = why + "\n", part = "." + bad_name + kReason;
    POSTRIDER_CRASH_POINT("bad.reason.before");
    auto file = files::open_beneath(bad_.get(), part, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (!file) return std::unexpected(file.error());
    POSTRIDER_CRASH_POINT("bad.reason.created");
    auto written = files::write_all(file->get(), line.data(), line.size());
    POSTRIDER_CRASH_POINT("bad.reason.written");
    if (written) written = files::rename_no_replace(bad_.get(), part, bad_.get(), bad_name + kReason);
    POSTRIDER_CRASH_POINT("bad.reason.named");
    if (!written) (void)files::remove(bad_.get(), part);
    if (written && to_sync) to_sync->push_back(std::move(*file));
    return written;
}

// The reason comes first: it reserves the name, and no file lies in bad/ without one.
Result<std::string> SpoolDirectory::move_to_bad(int dir, const std::string& from, const std::string& name,
                                                const std::string& why, Written* to_sync) const {
    const std::scoped_lock lock(refusing_);
    for (unsigned number = 0; number < kNamesakes; ++number) {
        const std::string target = bad_name(name, number);
        auto written = write_reason(target, why, to_sync);
        if (!written && written.error().code == EEXIST) continue;
        auto moved = written ? files::rename_no_replace(dir, from, bad_.get(), target) : written;
        POSTRIDER_CRASH_POINT("bad.moved");
        if (moved) return target;
        if (written) (void)files::remove(bad_.get(), target + kReason);
        if (moved.error().code != EEXIST) return std::unexpected(moved.error());
    }
    return fail("bad/ holds a million files of this name: " + name);
}

Result<std::string> SpoolDirectory::refuse_incoming(int dir, const std::string& name,
                                                    const std::string& why, Written* written) const {
    return move_to_bad(dir, name, name, why, written);
}

Result<std::string> SpoolDirectory::refuse_active(FileId id, const std::string& name,
                                                  const std::string& why, Written* written) const {
    return move_to_bad(active_folder(id), file_id_text(id), name, why, written);
}

Result<std::string> SpoolDirectory::refuse_message(FileId file, int from_fd, Range whole, const std::string& name,
                                                   const std::string& why, Written* written) const {
    auto [offset, size] = whole;
    const std::string part = "." + file_id_text(file) + "." + name;  // until it is whole; a namesake may be copied beside
    auto copy = files::open_beneath(bad_.get(), part, O_RDWR | O_CREAT | O_TRUNC, 0640);
    if (!copy) return std::unexpected(copy.error());
    POSTRIDER_CRASH_POINT("bad.message.created");
    std::string block(std::min<uint64_t>(size, kCopyBlock), 0);
    while (size > 0) {
        const size_t most = std::min<uint64_t>(size, block.size());
        auto got = files::read_at(from_fd, block.data(), most, offset);
        if (!got) return std::unexpected(got.error());
        if (*got == 0) break;
        if (auto put = files::write_all(copy->get(), block.data(), *got); !put) {
            (void)files::remove(bad_.get(), part);
            return std::unexpected(put.error());
        }
        offset += *got;
        size -= *got;
    }
    POSTRIDER_CRASH_POINT("bad.message.copied");
    // A second pass after a crash finds what the first one set aside; a namesake's message has other octets.
    for (unsigned number = 0; number < kNamesakes; ++number) {
        const std::string there = bad_name(name, number);
        auto earlier = files::open_beneath(bad_.get(), there, O_RDONLY);
        if (!earlier) break;
        if (!same_octets(earlier->get(), copy->get())) continue;
        (void)files::remove(bad_.get(), part);
        if (written) written->push_back(std::move(*earlier));
        return there;
    }
    auto moved = move_to_bad(bad_.get(), part, name, why, written);
    if (!moved)
        (void)files::remove(bad_.get(), part);  // the space may be all there is
    else if (written)
        written->push_back(std::move(*copy));
    return moved;
}

}  // namespace postrider
