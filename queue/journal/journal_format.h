// The journal's format: pure code, no I/O.
//
// A segment is a file `<shard>-<sequence>.log` (decimal): a header, then records to the end of the file. All numbers
// are little-endian; header and records are multiples of four octets, so that a reader finds its feet again behind
// damage by trying every fourth octet.
//
// Header, 32 octets:
//    0  8  magic "postrjnl"
//    8  4  format version (1)
//   12  2  shard             14  2  zero
//   16  8  sequence
//   24  4  creation time, seconds since 1970
//   28  4  CRC-32C of octets 0 to 27
//
// Every record begins
//    0  4  CRC-32C of octets 4 to its end, continued from the segment's seed
//    4  1  size of the record in words of four octets, this head included
//    5  1  kind
//    6  2  kind's own
// The seed is made of shard and sequence, which the file's name tells too: a record that lay in the blocks of an older
// segment is never taken for one of this, and records are salvaged when the header itself is lost.
//
//   claim      6: 1 form, 1 octets of name   8: file   16: size of the file   24: its mtime in ns
//              32: 4 created   36: 4 zero   40: the original name, zeros to a whole word
//   intent     6: 2 attempt   8: file   16: 4 place   20: 4 recipient                                    (24 octets)
//   results    6: 2 attempt   8: file   16: 4 place   20: 4 recipient   24: 4 time   28: 4 due           (32 octets)
//   synced     6: 2 zero      8: an offset: all before it was durable before this was written            (16 octets)
//   seal       6: 2 zero      8: an offset: all before it must be whole; the segment's last record       (16 octets)
//
// `place` names the message in its file, `recipient` the recipient in its message; file, sizes and offsets have eight
// octets, times are seconds since 1970 in four (unsigned, to 2106). Kinds 3, 6 to 15 and from 32 are free for what comes
// later; a reader counts and skips a whole record of a kind it does not know. A change that a reader must not skip
// takes a new format version.
//
// Records commute. A result of a final kind beats all others, then the higher attempt wins, then the greater of (kind,
// time, due); of intents the highest attempt counts; of two claims the earlier, or else its
// other fields decide. Any order, any number of journals and any repetition give the same state (recovery.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "engine/core/ids.h"
#include "engine/core/limits.h"
#include "engine/core/result.h"

namespace postrider {

enum class RecordKind : uint8_t {
    claim = 1,
    intent = 2,
    synced = 4,
    seal = 5,
    deferred = 16,  // 16 to 31 are results; all but the two deferrals are final
    delivered = 17,
    bounced = 18,
    expired = 19,
    cancelled = 20,
    refusals_told = 21,  // the log has a line for all that was refused of the file (kWholeFile)
    deferred_in_doubt = 22,  // and this attempt or one before it may have arrived
};

inline bool is_result(RecordKind kind) {
    return kind >= RecordKind::deferred && kind <= RecordKind::deferred_in_doubt;
}
inline bool is_final(RecordKind kind) {
    return kind > RecordKind::deferred && kind <= RecordKind::refusals_told;
}

enum class SpoolForm : uint8_t { eml = 0, batch = 1 };

// As place and recipient of a result that tells of the file; greater than those of any recipient.
inline constexpr uint32_t kWholeFile = UINT32_MAX;

struct ClaimFacts {
    FileId file = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    uint32_t created_s = 0;  // the moment of the claim: a message's age counts from it
    SpoolForm form = SpoolForm::eml;
    std::string_view name;  // in new/, at most limits::kFileName octets
};

struct IntentFacts {
    FileId file = 0;
    uint32_t place = 0;
    uint32_t recipient = 0;
    uint16_t attempt = 0;  // counts this one, from 1
};

struct ResultFacts {
    FileId file = 0;
    uint32_t place = 0;
    uint32_t recipient = 0;
    uint16_t attempt = 0;  // 0: no attempt was made (expired while parked)
    RecordKind kind = RecordKind::deferred;
    uint32_t time_s = 0;
    uint32_t due_s = 0;  // of a deferral: when it is tried again
};

// A record as read. What a kind does not have is zero; `name` points into the octets parsed.
struct JournalRecord {
    RecordKind kind{};
    SpoolForm form = SpoolForm::eml;
    uint16_t attempt = 0;
    FileId file = 0;
    uint32_t place = 0;
    uint32_t recipient = 0;
    uint32_t time_s = 0;  // of a claim: created
    uint32_t due_s = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    uint64_t offset = 0;  // synced, seal
    std::string_view name;
};

struct SegmentName {
    ShardId shard = 0;
    uint64_t sequence = 0;
    auto operator<=>(const SegmentName&) const = default;
};

inline constexpr uint32_t kJournalVersion = 1;
inline constexpr size_t kSegmentHeaderSize = 32;
inline constexpr size_t kRecordSizeMax = 40 + (limits::kFileName + 3) / 4 * 4;
inline constexpr size_t kRecordSizeMin = 8;
inline constexpr size_t kIntentSize = 24;
inline constexpr size_t kResultSize = 32;
static_assert(kRecordSizeMax <= 4 * 255, "a record's size fits its octet of words");

using RecordBuffer = std::span<char, kRecordSizeMax>;

std::string segment_file_name(const SegmentName& name);
// False: not a segment's name.
bool parse_segment_file_name(std::string_view text, SegmentName& name);
uint32_t segment_seed(const SegmentName& name);

void encode_header(const SegmentName& name, uint32_t created_s,
                   std::span<char, kSegmentHeaderSize> out);
enum class HeaderState : uint8_t { whole, damaged, newer };
// `damaged` also when it tells of another segment than its file's name.
HeaderState check_header(std::span<const char> octets, const SegmentName& name);

// Each writes one record at `out` and returns its size. Nothing is allocated.
size_t encode_claim(uint32_t seed, const ClaimFacts& claim, RecordBuffer out);
size_t encode_intent(uint32_t seed, const IntentFacts& intent, RecordBuffer out);
size_t encode_result(uint32_t seed, const ResultFacts& result, RecordBuffer out);
size_t encode_mark(uint32_t seed, RecordKind synced_or_seal, uint64_t offset, RecordBuffer out);
// A record as it was read, of a known kind, for another segment.
size_t encode_record(uint32_t seed, const JournalRecord& record, RecordBuffer out);

enum class Parsed : uint8_t {
    known,       // `record` is set
    unknown,     // whole, of a kind from a later version: only `record.kind` is set
    incomplete,  // may become whole with more octets
    bad,
};
// Looks at the record that begins `octets`. `size` is set for known and unknown.
Parsed parse_record(std::span<const char> octets, uint32_t seed, JournalRecord& record, size_t& size);

}  // namespace postrider
