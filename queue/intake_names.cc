// How the intake learns of files: those of an earlier run by a listing of active/, new ones by an inotify watch on
// new/ and on each folder below it, and a listing of each at the start, when a folder appears and after the watch has
// overflowed. A name is only a hint: begin() looks.
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "engine/core/hash.h"
#include "queue/intake.h"

namespace postrider {
namespace {

constexpr size_t kNamesAtOnce = 512;
constexpr size_t kNamesKept = 4096;
constexpr DurationMs kListedAgainMs = 5'000;
constexpr size_t kToldMost = 1'000;

// Not every file system tells it in a listing. Every shard must know, because each takes its part of the folder.
bool is_folder(int dir, const dirent& entry) {
    if (entry.d_type != DT_UNKNOWN) return entry.d_type == DT_DIR;
    const auto st = files::status_of(dir, entry.d_name);
    return st && S_ISDIR(st->st_mode);
}

}  // namespace

Result<void> Intake::start(std::shared_ptr<RecoveredState> recovered) {
    recovered_ = std::move(recovered);
    notify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (notify_ < 0) return fail_errno("inotify (fs.inotify.max_user_instances)");
    scan("");
    watching_ = true;
    reactor_.ring().poll(notify_, POLLIN, this);
    return {};
}

void Intake::close() {
    closing_ = true;
    if (watching_) reactor_.ring().cancel(this);
}

bool Intake::mine(std::string_view name) const { return hash64(name) % shards_ == reactor_.shard(); }

void Intake::scan(std::string folder) {
    if (std::ranges::find(scans_, folder) == scans_.end()) scans_.push_back(std::move(folder));
}

void Intake::watch(const std::string& folder) {
    const std::string path = spool_.path() + "/new" + (folder.empty() ? "" : "/" + folder);
    const int wd = inotify_add_watch(notify_, path.c_str(),
                                     IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE | IN_ONLYDIR | IN_DONT_FOLLOW);
    if (wd < 0) return cannot_watch(folder, Error{errno, fmt::format("inotify watch of {}: {}", path, std::strerror(errno))});
    // A folder that is watched already keeps its number; one that was renamed, or took another's place, replaces what
    // was known of its name.
    std::erase_if(watches_, [&](const auto& known) {
        if (known.first != wd && known.second == folder) inotify_rm_watch(notify_, known.first);
        return known.first == wd || known.second == folder;
    });
    watches_.emplace_back(wd, folder);
}

void Intake::cannot_watch(const std::string& folder, const Error& error) {
    if (error.code == ENOENT || error.code == ENOTDIR || error.code == ELOOP) return;  // it is gone, or no folder
    if (!std::exchange(told_unwatched_, true))
        owner_.trouble(Error{error.code, error.text + "; it is listed every few seconds until it can be watched (raise "
                                                      "fs.inotify.max_user_watches)"});
    list_later(folder);
}

void Intake::list_later(const std::string& folder) {
    if (listed_later_.empty()) list_again_ms_ = reactor_.now_ms() + kListedAgainMs;
    if (std::ranges::find(listed_later_, folder) == listed_later_.end()) listed_later_.push_back(folder);
    reactor_.arm(*this, list_again_ms_);
}

// The end of a pause, or time to list again; what could not be watched is tried to be watched before.
void Intake::on_timer() {
    if (listed_later_.empty()) return;
    if (reactor_.now_ms() < list_again_ms_) return reactor_.arm(*this, list_again_ms_);
    left_behind_ = left_for_now_ = false;
    for (auto& folder : std::exchange(listed_later_, {})) scan(std::move(folder));
}

// This file or folder cannot be taken now, and others need not wait for it. Told once for each folder and fault.
void Intake::leave_behind(const Name& name, const Error& error) {
    left_behind_ = true;
    left_for_now_ |= is_local_fault(error.code);
    if (told_left_.size() >= kToldMost) told_left_.clear();
    if (told_left_.emplace(name.folder, error.code).second)
        owner_.trouble(Error{error.code, fmt::format("new/{}{}{}: {}; what cannot be taken there is tried again every few seconds",
                                                     name.folder, name.folder.empty() ? "" : "/", name.name, error.text)});
    list_later(name.folder);
}

void Intake::complete(int result, bool, std::span<const char>) {
    if (result < 0 || closing_) {  // a poll that was ready before the cancel came is not polled again
        watching_ = false;
        return;
    }
    read_notices();
    reactor_.ring().poll(notify_, POLLIN, this);
}

// Of what was just made in place: a file is still being written, and its closing tells; a link, FIFO or socket has no
// closing and is looked at now.
bool Intake::refused_by_kind(const std::string& folder, const std::string& name) const {
    const std::string path = folder.empty() ? name : folder + "/" + name;
    const auto st = files::status_of(spool_.incoming(), path);
    return st && (!S_ISREG(st->st_mode) || st->st_nlink > 1);
}

void Intake::read_notices() {
    alignas(inotify_event) char buffer[16 * 1024];
    for (;;) {
        const ssize_t got = ::read(notify_, buffer, sizeof buffer);
        if (got <= 0) return;
        for (const char* p = buffer; p < buffer + got;) {
            const auto* notice = reinterpret_cast<const inotify_event*>(p);
            p += sizeof(inotify_event) + notice->len;
            if (notice->mask & IN_Q_OVERFLOW) {  // names were lost: list everything again
                for (const auto& [wd, folder] : watches_) scan(folder);
                continue;
            }
            auto at = std::ranges::find(watches_, notice->wd, &std::pair<int, std::string>::first);
            if (notice->mask & IN_IGNORED) {
                if (at != watches_.end()) watches_.erase(at);
                continue;
            }
            if (at == watches_.end() || notice->len == 0) continue;
            const std::string name = notice->name;
            if (name.front() == '.') continue;
            if (notice->mask & IN_ISDIR) {
                if (at->second.empty()) scan(name);
            } else if (mine(name) && (!(notice->mask & IN_CREATE) || refused_by_kind(at->second, name))) {
                // While the intake waits, the names wait in their folder, which is listed again.
                if (names_.size() < kNamesKept)
                    names_.push_back({at->second, name});
                else
                    scan(at->second);
            }
        }
    }
}

// From its beginning: a name that was found already is gone, or is looked at twice.
void Intake::list_again(const Error& error) {
    listing_ = {};
    scans_.push_front(scanning_);
    pause(Error{error.code, "list new/" + scanning_ + ": " + error.text});
}

// Lists a bounded number of names; true while there may be more.
bool Intake::read_names() {
    if (!listing_) {
        if (scans_.empty()) return false;
        scanning_ = std::move(scans_.front());
        scans_.pop_front();
        watch(scanning_);  // before the listing, so that nothing falls between
        auto listing = files::Listing::open(spool_.incoming(), scanning_.empty() ? "." : scanning_);
        if (!listing) {
            const int code = listing.error().code;
            if (code == ENOENT || code == ENOTDIR || code == ELOOP) return true;  // the folder is gone
            if (is_local_fault(code) && code != EIO) {
                list_again(listing.error());
                return false;
            }
            leave_behind({scanning_, ""}, listing.error());
            return true;
        }
        listing_ = std::move(*listing);
    }
    for (size_t seen = 0; seen < kNamesAtOnce; ++seen) {
        auto next = listing_.next();
        if (!next) {
            list_again(next.error());
            return false;
        }
        const dirent* entry = *next;
        if (!entry) {
            listing_ = {};
            return !scans_.empty();
        }
        const std::string_view name = entry->d_name;
        if (name.front() == '.') continue;  // dotfiles, and "." and ".."
        if (scanning_.empty() && is_folder(spool_.incoming(), *entry))
            scan(std::string(name));
        else if (mine(name))
            names_.push_back({scanning_, std::string(name)});
    }
    return true;
}

}  // namespace postrider
