#include "engine/io/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "engine/io/crash_points.h"

namespace postrider {

void FileDescriptor::close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

namespace files {
namespace {

// One system call, which a build for tests may let fail (crash_points.h).
template <class Call>
auto attempt([[maybe_unused]] const char* operation, Call call) -> decltype(call()) {
#ifdef POSTRIDER_CRASH_POINTS
    if (const FileFault fault = file_fault(operation); fault.code != 0) {
        errno = fault.code;
        return -1;
    }
#endif
    return call();
}

// The same for a read or write of `size` octets, which may be cut.
template <class Call>
ssize_t attempt_sized([[maybe_unused]] const char* operation, size_t size, Call call) {
#ifdef POSTRIDER_CRASH_POINTS
    const FileFault fault = file_fault(operation, size);
    if (fault.code != 0) {
        errno = fault.code;
        return -1;
    }
    size = fault.size;
#endif
    return call(size);
}

template <class Call>
auto retry(const char* operation, Call call) {
    auto rc = attempt(operation, call);
    while (rc < 0 && errno == EINTR) rc = attempt(operation, call);
    return rc;
}

template <class Call>
ssize_t retry_sized(const char* operation, size_t size, Call call) {
    ssize_t rc = attempt_sized(operation, size, call);
    while (rc < 0 && errno == EINTR) rc = attempt_sized(operation, size, call);
    return rc;
}

int openat2_beneath(int dir, const char* name, int flags, mode_t mode) {
    open_how how{};
    how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    if (flags & O_CREAT) how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    int fd, tries = 16;  // EAGAIN: a name was moved meanwhile, or somebody has a lease on the file, for up to a minute
    do {
        fd = retry("open", [&] { return static_cast<int>(syscall(SYS_openat2, dir, name, &how, sizeof how)); });
    } while (fd < 0 && errno == EAGAIN && --tries > 0);
    return fd;
}

}  // namespace

Result<FileDescriptor> open_beneath(int dir, const std::string& name, int flags, mode_t mode) {
    const int fd = openat2_beneath(dir, name.c_str(), flags, mode);
    if (fd < 0) return fail_errno("open " + name);
    return FileDescriptor(fd);
}

Result<void> make_directory(int dir, const std::string& name, mode_t mode) {
    if (retry("mkdir", [&] { return mkdirat(dir, name.c_str(), mode); }) != 0 && errno != EEXIST)
        return fail_errno("make directory " + name);
    return {};
}

Result<FileDescriptor> open_directory(int dir, const std::string& name, bool make) {
    if (make)
        if (auto made = make_directory(dir, name, 0700); !made) return std::unexpected(made.error());
    const int fd = retry("open directory", [&] {
        return openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    });
    if (fd < 0) return fail_errno("open directory " + name);
    return FileDescriptor(fd);
}

Result<struct stat> status(int fd) {
    struct stat st;
    if (retry("fstat", [&] { return fstat(fd, &st); }) != 0) return fail_errno("fstat");
    return st;
}

Result<struct stat> status_of(int dir, const std::string& name) {
    struct stat st;
    if (retry("stat", [&] { return fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW); }) != 0)
        return fail_errno("look at " + name);
    return st;
}

Result<bool> lock(int fd) {
    if (retry("lock", [&] { return flock(fd, LOCK_EX | LOCK_NB); }) == 0) return true;
    if (errno == EWOULDBLOCK) return false;
    return fail_errno("lock");
}

Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        const ssize_t got = retry_sized("read", size - done, [&](size_t part) {
            return pread(fd, static_cast<char*>(data) + done, part, static_cast<off_t>(offset + done));
        });
        if (got < 0) return fail_errno("read");
        if (got == 0) break;
        done += static_cast<size_t>(got);
    }
    return done;
}

Result<void> write_all(int fd, const void* data, size_t size) {
    size_t done = 0;
    return write_on(fd, data, size, done);
}

Result<void> write_on(int fd, const void* data, size_t size, size_t& done) {
    while (done < size) {
        const ssize_t put = retry_sized("write", size - done, [&](size_t part) {
            return ::write(fd, static_cast<const char*>(data) + done, part);
        });
        if (put < 0) return fail_errno("write");
        done += static_cast<size_t>(put);
    }
    return {};
}

Result<void> write_at(int fd, const void* data, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        const ssize_t put = retry_sized("write", size - done, [&](size_t part) {
            return pwrite(fd, static_cast<const char*>(data) + done, part, static_cast<off_t>(offset + done));
        });
        if (put < 0) return fail_errno("write");
        done += static_cast<size_t>(put);
    }
    return {};
}

// A failed fsync is never retried (FAULTS 94): EINTR is reported like any other error.
Result<void> sync_data(int fd) {
    if (attempt("fdatasync", [&] { return ::fdatasync(fd); }) != 0) return fail_errno("fdatasync");
    return {};
}

Result<void> sync_all(int fd) {
    if (attempt("fsync", [&] { return ::fsync(fd); }) != 0) return fail_errno("fsync");
    return {};
}

Result<void> allocate(int fd, uint64_t offset, uint64_t size) {
    const int rc = retry("fallocate", [&] {
        return ::fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(size));
    });
    if (rc != 0) return fail_errno("fallocate");
    return {};
}

Result<void> reserve(int fd, uint64_t offset, uint64_t size) {
    const int rc = retry("fallocate", [&] {
        return ::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size));
    });
    if (rc != 0) return fail_errno("reserve blocks");
    return {};
}

Result<void> truncate(int fd, uint64_t size) {
    if (retry("truncate", [&] { return ftruncate(fd, static_cast<off_t>(size)); }) != 0)
        return fail_errno("truncate");
    return {};
}

namespace {

Result<void> rename_with(int from_dir, const std::string& from, int to_dir, const std::string& to, unsigned flags) {
    if (retry("rename", [&] { return renameat2(from_dir, from.c_str(), to_dir, to.c_str(), flags); }) != 0)
        return fail_errno("rename " + from + " to " + to);
    return {};
}

}  // namespace

Result<void> rename_no_replace(int from_dir, const std::string& from, int to_dir, const std::string& to) {
    return rename_with(from_dir, from, to_dir, to, RENAME_NOREPLACE);
}

Result<void> rename_replace(int from_dir, const std::string& from, int to_dir, const std::string& to) {
    return rename_with(from_dir, from, to_dir, to, 0);
}

Result<void> remove(int dir, const std::string& name) {
    if (retry("unlink", [&] { return unlinkat(dir, name.c_str(), 0); }) != 0) return fail_errno("remove " + name);
    return {};
}

struct Listing::Stream {
    DIR* dir;
    bool begun = false;
    explicit Stream(DIR* d) : dir(d) {}
    ~Stream() { closedir(dir); }
};

Listing::Listing() = default;
Listing::Listing(Listing&&) noexcept = default;
Listing& Listing::operator=(Listing&&) noexcept = default;
Listing::~Listing() = default;

Result<Listing> Listing::open(int dir, const std::string& name) {
    // A descriptor of its own: fdopendir takes it over and moves its position.
    auto fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY);
    if (!fd) return std::unexpected(fd.error());
    DIR* stream = fdopendir(fd->get());
    if (!stream) return fail_errno("list " + name);
    (void)fd->release();
    Listing listing;
    listing.stream_.reset(new Stream(stream));
    return listing;
}

Result<const dirent*> Listing::next() {
    const dirent* entry = nullptr;
    auto call = [&] {
        errno = 0;
        entry = readdir(stream_->dir);
        return entry || errno == 0 ? 0 : -1;
    };
    // The first call reads for many: it counts as the operation.
    const int rc = std::exchange(stream_->begun, true) ? call() : retry("readdir", call);
    if (rc != 0) return fail_errno("list a directory");
    return entry;
}

}  // namespace files
}  // namespace postrider
