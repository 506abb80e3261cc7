// The file calls the engine makes, one place for all: plain system calls (ext4 has no non-blocking buffered write, so
// the ring would hand these to a kernel worker), EINTR and short counts handled. Part of the simulation seam: files.cc is
// chosen at link time, and a build for tests lets the n-th call fail (crash_points.h).
//
// Every path is relative to a directory descriptor and resolved beneath it without following links (openat2,
// RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS).
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "engine/core/result.h"

namespace postrider {

class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileDescriptor() { close(); }
    void close();
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    explicit operator bool() const { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

namespace files {

// `flags` as for open(2); O_CLOEXEC, O_NOFOLLOW and O_NONBLOCK are added: a FIFO does not block.
Result<FileDescriptor> open_beneath(int dir, const std::string& name, int flags, mode_t mode = 0600);
// No error when it is there.
Result<void> make_directory(int dir, const std::string& name, mode_t mode);
// A directory by its path, made when missing if `make` (one level).
Result<FileDescriptor> open_directory(int dir, const std::string& name, bool make);
Result<struct stat> status(int fd);
// Of a name; a link is not followed.
Result<struct stat> status_of(int dir, const std::string& name);
// Takes the file's lock, which ends with its last descriptor. False: another process holds it.
Result<bool> lock(int fd);

// Reads until `size` octets or the end of the file; the count is short only at the end.
Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset);
// Writes everything at the end of the file (O_APPEND or the file position).
Result<void> write_all(int fd, const void* data, size_t size);
// The same from `done` on, which tells how far it came: after a full disk the rest can be written later.
Result<void> write_on(int fd, const void* data, size_t size, size_t& done);
Result<void> write_at(int fd, const void* data, size_t size, uint64_t offset);
Result<void> sync_data(int fd);
Result<void> sync_all(int fd);
Result<void> allocate(int fd, uint64_t offset, uint64_t size);
// Blocks for [offset, offset + size) without a change of the file's size: appending there cannot meet a full disk.
Result<void> reserve(int fd, uint64_t offset, uint64_t size);
Result<void> truncate(int fd, uint64_t size);

// EEXIST when the target is there: a rename never replaces.
Result<void> rename_no_replace(int from_dir, const std::string& from, int to_dir, const std::string& to);
Result<void> rename_replace(int from_dir, const std::string& from, int to_dir, const std::string& to);
Result<void> remove(int dir, const std::string& name);

// The entries of a directory, one by one, in its own order.
class Listing {
  public:
    static Result<Listing> open(int dir, const std::string& name = ".");
    Listing();
    Listing(Listing&&) noexcept;
    Listing& operator=(Listing&&) noexcept;
    ~Listing();
    // Null at the end. Valid until the next call.
    Result<const dirent*> next();
    explicit operator bool() const { return stream_ != nullptr; }

  private:
    struct Stream;
    std::unique_ptr<Stream> stream_;
};

}  // namespace files
}  // namespace postrider
