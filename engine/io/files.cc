#include "engine/io/files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

namespace postrider {

void FileDescriptor::close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

namespace files {
namespace {

int openat2_beneath(int dir, const char* name, int flags, mode_t mode) {
    open_how how{};
    how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    if (flags & O_CREAT) how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    int fd;
    do {
        fd = static_cast<int>(syscall(SYS_openat2, dir, name, &how, sizeof how));
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd;
}

template <class Call>
auto retry(Call call) {
    auto rc = call();
    while (rc < 0 && errno == EINTR) rc = call();
    return rc;
}

}  // namespace

Result<FileDescriptor> open_beneath(int dir, const std::string& name, int flags, mode_t mode) {
    const int fd = openat2_beneath(dir, name.c_str(), flags, mode);
    if (fd < 0) return fail_errno("open " + name);
    return FileDescriptor(fd);
}

Result<FileDescriptor> open_directory(int dir, const std::string& name, bool make) {
    if (make && mkdirat(dir, name.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno("make directory " + name);
    const int fd = retry([&] { return openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (fd < 0) return fail_errno("open directory " + name);
    return FileDescriptor(fd);
}

Result<struct stat> status(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) return fail_errno("fstat");
    return st;
}

Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        const ssize_t got = retry([&] {
            return pread(fd, static_cast<char*>(data) + done, size - done,
                         static_cast<off_t>(offset + done));
        });
        if (got < 0) return fail_errno("read");
        if (got == 0) break;
        done += static_cast<size_t>(got);
    }
    return done;
}

Result<void> write_all(int fd, const void* data, size_t size) {
    size_t done = 0;
    while (done < size) {
        const ssize_t put = retry(
            [&] { return ::write(fd, static_cast<const char*>(data) + done, size - done); });
        if (put < 0) return fail_errno("write");
        done += static_cast<size_t>(put);
    }
    return {};
}

Result<void> write_at(int fd, const void* data, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        const ssize_t put = retry([&] {
            return pwrite(fd, static_cast<const char*>(data) + done, size - done,
                          static_cast<off_t>(offset + done));
        });
        if (put < 0) return fail_errno("write");
        done += static_cast<size_t>(put);
    }
    return {};
}

// A failed fsync is never retried (FAULTS 94): EINTR is reported like any other error.
Result<void> sync_data(int fd) {
    if (::fdatasync(fd) != 0) return fail_errno("fdatasync");
    return {};
}

Result<void> sync_all(int fd) {
    if (::fsync(fd) != 0) return fail_errno("fsync");
    return {};
}

Result<void> allocate(int fd, uint64_t offset, uint64_t size) {
    const int rc = retry([&] {
        return ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(size));
    });
    if (rc != 0) return fail_errno("fallocate");
    return {};
}

Result<void> reserve(int fd, uint64_t offset, uint64_t size) {
    const int rc = retry([&] {
        return ::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(size));
    });
    if (rc != 0) return fail_errno("reserve blocks");
    return {};
}

Result<void> truncate(int fd, uint64_t size) {
    const int rc = retry([&] { return ftruncate(fd, static_cast<off_t>(size)); });
    if (rc != 0) return fail_errno("truncate");
    return {};
}

Result<void> rename_no_replace(int from_dir, const std::string& from, int to_dir,
                               const std::string& to) {
    if (renameat2(from_dir, from.c_str(), to_dir, to.c_str(), RENAME_NOREPLACE) != 0)
        return fail_errno("rename " + from + " to " + to);
    return {};
}

Result<void> rename_replace(int from_dir, const std::string& from, int to_dir,
                            const std::string& to) {
    if (renameat2(from_dir, from.c_str(), to_dir, to.c_str(), 0) != 0)
        return fail_errno("rename " + from + " to " + to);
    return {};
}

Result<void> remove(int dir, const std::string& name) {
    if (unlinkat(dir, name.c_str(), 0) != 0) return fail_errno("remove " + name);
    return {};
}

}  // namespace files
}  // namespace postrider
