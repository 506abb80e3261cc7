// What the operator said while the engine ran, kept over a restart: cancels, suspensions, shape overrides; and by how much the
// machine's clock was set.
//
// Two files, <spool>/control.0 and control.1, are written in turn; the valid one with the higher number counts. A file is
//
//   postrider-control 1 NUMBER OCTETS CRC\n     format, a number that grows by one, octets of what follows, their CRC-32C
//   {"holds":[...],"shapes":[...],"clock":...}  JSON, OCTETS long
//   spaces to a whole block
//
// so a write that a crash tears spoils the older file only. Writing over blocks that exist changes nothing but data: one
// sync, which does not wait for the file system's journal (a rename would: it takes part in whatever the intake has just
// claimed and removed).
//
// Failure policy: a state that cannot be written is an error of the command, and nothing changes. Files of which none is
// valid stop the start: cancelled mail must not be sent because a file was damaged.
#pragma once

#include <string>
#include <vector>

#include "engine/core/result.h"
#include "engine/io/files.h"
#include "queue/holds.h"

namespace postrider {

// As ShapingOverride, in the words of the file.
struct KeptShape {
    std::string domain, key, value;
    int64_t expires_s = 0;
    Said said;
};

struct ControlState {
    std::vector<Hold> holds;
    std::vector<KeptShape> shapes;
    int64_t clock_offset_us = 0;  // the wall clock less the spool's time-line (engine/core/time_line.h), as last seen
};

std::string control_text(const ControlState& state);
// Hostile until parsed: names, times and sizes are checked.
Result<ControlState> parse_control_text(std::string_view text);

class ControlFile {
  public:
    // `spool` stays the caller's. A missing file is an empty state.
    static Result<ControlFile> open(int spool, ControlState& state);
    // What was wrong with the older file; empty when nothing.
    const std::string& note() const { return note_; }
    // Durable when it returns.
    Result<void> write(const ControlState& state);

  private:
    FileDescriptor files_[2];
    std::string note_;
    uint64_t number_ = 0;  // of the newest; the next goes to the other file
};

}  // namespace postrider
