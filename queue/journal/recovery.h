// Recovery: every segment of every shard, in any order, merged into one state by the rules of journal_format.h. It may
// be killed and run again: it changes nothing but the ends of unsealed segments.
//
// What it does about octets that are no record:
// * Torn tail. The last segment of a shard is unsealed after a crash. What lies behind its last `synced` mark was
//   perhaps never synced: bad octets there are no alarm. Records behind them are taken (they are true), octets behind
//   the last record are cut from the file, and the segment is sealed: it will never be written again.
// * Damage. Bad octets before a mark, in a sealed segment, or a segment without its seal that is not its shard's last:
//   reported with file and offset; the records that follow are salvaged by their checksums. Nothing is guessed.
//
// Memory: one buffer of 1 MiB at most, and the state (recovered_state.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "queue/journal/recovered_state.h"

namespace postrider {

struct BadStretch {
    std::string file;
    uint64_t offset = 0;
    uint64_t size = 0;  // 0: something is missing at this offset (a seal)
};

struct RecoveryReport {
    static constexpr size_t kStretchesKept = 1000;

    size_t segments = 0;
    uint64_t octets = 0;
    uint64_t records = 0;
    uint64_t unknown_records = 0;     // of kinds from a later version: skipped
    uint64_t damaged_stretches = 0;   // > 0: the journal is damaged, exit 4 is the caller's
    std::vector<BadStretch> damaged;  // the first kStretchesKept
    uint64_t torn_stretches = 0;
    std::vector<BadStretch> torn;
};

// `journal_dir`: <spool>/journal. `state` has been told what is in active/: what the journals say of other files does not
// matter any more. Fails when a segment cannot be read or sealed, or is of a newer format version.
Result<void> recover_journals(int journal_dir, RecoveredState& state, RecoveryReport& report);

}  // namespace postrider
