// A folder in memory in place of the file system, behind the seam of engine/io/files.h: what recovery does with a journal's
// folder (list, open, read, cut, append, sync), without a system call. Each folder is its thread's.
#pragma once

#include <array>
#include <map>
#include <string>

namespace postrider {

class MemoryFolder {
  public:
    MemoryFolder();
    ~MemoryFolder();
    MemoryFolder(const MemoryFolder&) = delete;
    MemoryFolder& operator=(const MemoryFolder&) = delete;
    // For the calls of files.h.
    int fd() const { return fd_; }

    std::map<std::string, std::string> files;

    // Files open at once; recovery has one.
    static constexpr int kOpen = 4;
    std::array<std::string*, kOpen> open{};

  private:
    int fd_;
};

}  // namespace postrider
