#include "tools/spool_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace postrider {
namespace {

constexpr size_t kBuffer = 1 << 20;  // octets a write call takes at once

Result<void> sync_folder(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_errno("open " + path);
    const bool synced = fsync(fd) == 0;
    const int code = errno;
    close(fd);
    if (!synced) return fail_errno("fsync " + path, code);
    return {};
}

}  // namespace

Result<void> prepare_spool(const std::string& spool) {
    for (const char* folder : {"/tmp", "/new"}) {
        const std::string path = spool + folder;
        if (mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return fail_errno("mkdir " + path);
    }
    return {};
}

SpoolFile::~SpoolFile() { abandon(); }

void SpoolFile::abandon() {
    if (fd_ < 0) return;
    close(fd_);
    unlink(path_.c_str());
    fd_ = -1;
}

Result<void> SpoolFile::create(const std::string& spool, const std::string& name) {
    abandon();
    spool_ = spool;
    name_ = name;
    path_ = spool + "/tmp/" + name;
    size_ = 0;
    buffer_.clear();
    buffer_.reserve(kBuffer);
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd_ < 0) return fail_errno("create " + path_);
    return {};
}

Result<void> SpoolFile::write(std::string_view octets) {
    size_ += octets.size();
    while (!octets.empty()) {
        const std::string_view piece = octets.substr(0, kBuffer - buffer_.size());
        buffer_.append(piece);
        octets.remove_prefix(piece.size());
        if (buffer_.size() < kBuffer) break;
        if (auto ok = flush(); !ok) return ok;
    }
    return {};
}

Result<void> SpoolFile::flush() {
    size_t at = 0;
    while (at < buffer_.size()) {
        const ssize_t written = ::write(fd_, buffer_.data() + at, buffer_.size() - at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return fail_errno("write " + path_);
        at += static_cast<size_t>(written);
    }
    buffer_.clear();
    return {};
}

Result<void> SpoolFile::publish(bool sync, const std::string& folder) {
    if (auto ok = flush(); !ok) return ok;
    if (sync && fsync(fd_) != 0) return fail_errno("fsync " + path_);
    const std::string into = spool_ + "/new" + (folder.empty() ? "" : "/" + folder);
    const std::string target = into + "/" + name_;
    if (renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) != 0) {
        return fail_errno("rename " + path_ + " to " + target);
    }
    // From here the file is the engine's, whatever fails.
    const int code = close(fd_) == 0 ? 0 : errno;
    fd_ = -1;
    if (code != 0) return fail_errno("close " + target, code);
    return sync ? sync_folder(into) : Result<void>{};
}

}  // namespace postrider
