// The file calls the engine makes, one place for all: plain system calls (ext4 has no non-blocking buffered write, so
// the ring would hand these to a kernel worker), EINTR and short counts handled. Part of the simulation seam: a fault
// injector links its own files.cc, so that the n-th call can fail.
//
// Every path is relative to a directory descriptor and resolved beneath it without following links (openat2,
// RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS).
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
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
    explicit operator bool() const { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

namespace files {

// `flags` as for open(2); O_CLOEXEC, O_NOFOLLOW and O_NONBLOCK are added: a FIFO does not block.
Result<FileDescriptor> open_beneath(int dir, const std::string& name, int flags, mode_t mode = 0600);
// A directory by its path, made when missing if `make` (one level).
Result<FileDescriptor> open_directory(int dir, const std::string& name, bool make);
Result<struct stat> status(int fd);

// Reads until `size` octets or the end of the file; the count is short only at the end.
Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset);
// Writes everything at the end of the file (O_APPEND or the file position).
Result<void> write_all(int fd, const void* data, size_t size);
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

}  // namespace files
}  // namespace postrider
