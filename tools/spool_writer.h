// The producer's side of the spool contract: a file grows in <spool>/tmp and appears in <spool>/new
// by one rename that replaces nothing. A file that is not published is removed again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "engine/io/files.h"

namespace postrider {

// Makes <spool>/tmp and <spool>/new where they are missing; <spool> itself must exist.
Result<void> prepare_spool(const std::string& spool);

class SpoolWriter {
  public:
    SpoolWriter() = default;
    ~SpoolWriter();
    SpoolWriter(const SpoolWriter&) = delete;
    SpoolWriter& operator=(const SpoolWriter&) = delete;

    Result<void> create(const std::string& spool, const std::string& name);
    Result<void> write(std::string_view octets);
    // Renames into <spool>/new, or into `folder` below it. `sync`: file before, folder after, so
    // that the file survives a power cut once this has succeeded.
    Result<void> publish(bool sync, const std::string& folder = {});

    uint64_t size() const { return size_; }

  private:
    Result<void> flush();
    void abandon();

    FileDescriptor tmp_, file_;
    uint64_t size_ = 0;
    std::string spool_, name_;
    std::string buffer_;
};

}  // namespace postrider
