#include "queue/journal/journal_format.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <string>

#include "engine/core/check.h"
#include "engine/core/hash.h"

namespace postrider {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are stored as they lie");

constexpr std::string_view kMagic = "postrjnl";
constexpr size_t kHeadSize = 8;
constexpr size_t kMarkSize = 16;
constexpr size_t kClaimSize = 40;  // without the name

template <class T>
void put(char* at, T value) {
    std::memcpy(at, &value, sizeof value);
}

template <class T>
T get(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// Head and checksum of the record whose other octets are in place.
size_t seal_record(uint32_t seed, RecordKind kind, size_t size, char* out) {
    out[4] = static_cast<char>(size / 4);
    out[5] = static_cast<char>(kind);
    put(out, crc32c(out + 4, size - 4, seed));
    return size;
}

size_t claim_size(size_t name_size) { return kClaimSize + (name_size + 3) / 4 * 4; }

// 0: the kind is not known. A claim's size depends on its name; the second octet of its own tells.
size_t known_size(RecordKind kind, const char* octets) {
    switch (kind) {
        case RecordKind::claim:
            return claim_size(static_cast<unsigned char>(octets[7]));
        case RecordKind::intent:
            return kIntentSize;
        case RecordKind::synced:
        case RecordKind::seal:
            return kMarkSize;
        default:
            return is_result(kind) ? kResultSize : 0;
    }
}

void read_fields(const char* octets, JournalRecord& record) {
    if (record.kind == RecordKind::synced || record.kind == RecordKind::seal) {
        record.offset = get<uint64_t>(octets + 8);
        return;
    }
    record.file = get<uint64_t>(octets + 8);
    if (record.kind == RecordKind::claim) {
        record.form = octets[6] == 0 ? SpoolForm::eml : SpoolForm::batch;
        record.size = get<uint64_t>(octets + 16);
        record.mtime_ns = get<int64_t>(octets + 24);
        record.time_s = get<uint32_t>(octets + 32);
        record.name = {octets + kClaimSize, static_cast<unsigned char>(octets[7])};
        return;
    }
    record.attempt = get<uint16_t>(octets + 6);
    record.place = get<uint32_t>(octets + 16);
    record.recipient = get<uint32_t>(octets + 20);
    if (!is_result(record.kind)) return;
    record.time_s = get<uint32_t>(octets + 24);
    record.due_s = get<uint32_t>(octets + 28);
}

}  // namespace

std::string segment_file_name(const SegmentName& name) {
    return fmt::format("{}-{}.log", name.shard, name.sequence);
}

bool parse_segment_file_name(std::string_view text, SegmentName& name) {
    const char* end = text.data() + text.size();
    const auto shard = std::from_chars(text.data(), end, name.shard);
    if (shard.ec != std::errc() || shard.ptr == end || *shard.ptr != '-') return false;
    const auto sequence = std::from_chars(shard.ptr + 1, end, name.sequence);
    if (sequence.ec != std::errc()) return false;
    // Only the name that we would have given: no leading zeros, one file for one segment.
    return std::string_view(sequence.ptr, end) == ".log" && segment_file_name(name) == text;
}

uint32_t segment_seed(const SegmentName& name) {
    const uint64_t mixed = mix64(mix64(kJournalVersion, name.shard), name.sequence);
    return static_cast<uint32_t>(mixed ^ (mixed >> 32));
}

void encode_header(const SegmentName& name, uint32_t created_s,
                   std::span<char, kSegmentHeaderSize> out) {
    std::memcpy(out.data(), kMagic.data(), kMagic.size());
    put(out.data() + 8, kJournalVersion);
    put(out.data() + 12, name.shard);
    put(out.data() + 14, uint16_t{0});
    put(out.data() + 16, name.sequence);
    put(out.data() + 24, created_s);
    put(out.data() + 28, crc32c(out.data(), 28));
}

HeaderState check_header(std::span<const char> octets, const SegmentName& name) {
    if (octets.size() < kSegmentHeaderSize) return HeaderState::damaged;
    const char* at = octets.data();
    if (std::string_view(at, kMagic.size()) != kMagic || get<uint32_t>(at + 28) != crc32c(at, 28))
        return HeaderState::damaged;
    if (get<uint32_t>(at + 8) != kJournalVersion) return HeaderState::newer;
    const bool same = get<uint16_t>(at + 12) == name.shard && get<uint64_t>(at + 16) == name.sequence;
    return same ? HeaderState::whole : HeaderState::damaged;
}

size_t encode_claim(uint32_t seed, const ClaimFacts& claim, RecordBuffer out) {
    POSTRIDER_CHECK(claim.name.size() <= limits::kFileName, "a file's name is bounded");
    const size_t size = claim_size(claim.name.size());
    char* at = out.data();
    std::memset(at, 0, size);
    at[6] = static_cast<char>(claim.form);
    at[7] = static_cast<char>(claim.name.size());
    put(at + 8, claim.file);
    put(at + 16, claim.size);
    put(at + 24, claim.mtime_ns);
    put(at + 32, claim.created_s);
    std::memcpy(at + kClaimSize, claim.name.data(), claim.name.size());
    return seal_record(seed, RecordKind::claim, size, at);
}

size_t encode_intent(uint32_t seed, const IntentFacts& intent, RecordBuffer out) {
    char* at = out.data();
    put(at + 6, intent.attempt);
    put(at + 8, intent.file);
    put(at + 16, intent.place);
    put(at + 20, intent.recipient);
    return seal_record(seed, RecordKind::intent, kIntentSize, at);
}

size_t encode_result(uint32_t seed, const ResultFacts& result, RecordBuffer out) {
    POSTRIDER_CHECK(is_result(result.kind), "a result's kind is one of the results");
    char* at = out.data();
    put(at + 6, result.attempt);
    put(at + 8, result.file);
    put(at + 16, result.place);
    put(at + 20, result.recipient);
    put(at + 24, result.time_s);
    put(at + 28, result.due_s);
    return seal_record(seed, result.kind, kResultSize, at);
}

size_t encode_mark(uint32_t seed, RecordKind synced_or_seal, uint64_t offset, RecordBuffer out) {
    put(out.data() + 6, uint16_t{0});
    put(out.data() + 8, offset);
    return seal_record(seed, synced_or_seal, kMarkSize, out.data());
}

size_t encode_record(uint32_t seed, const JournalRecord& record, RecordBuffer out) {
    switch (record.kind) {
        case RecordKind::claim:
            return encode_claim(seed,
                                {record.file, record.size, record.mtime_ns, record.time_s,
                                 record.form, record.name},
                                out);
        case RecordKind::intent:
            return encode_intent(
                seed, {record.file, record.place, record.recipient, record.attempt}, out);
        case RecordKind::synced:
        case RecordKind::seal:
            return encode_mark(seed, record.kind, record.offset, out);
        default:
            return encode_result(seed,
                                 {record.file, record.place, record.recipient, record.attempt,
                                  record.kind, record.time_s, record.due_s},
                                 out);
    }
}

Parsed parse_record(std::span<const char> octets, uint32_t seed, JournalRecord& record,
                    size_t& size) {
    if (octets.size() < kHeadSize) return Parsed::incomplete;
    const char* at = octets.data();
    size = size_t{4} * static_cast<unsigned char>(at[4]);
    if (size < kRecordSizeMin) return Parsed::bad;
    const auto kind = static_cast<RecordKind>(at[5]);
    const size_t expected = known_size(kind, at);
    if (expected != 0 && expected != size) return Parsed::bad;
    if (octets.size() < size) return Parsed::incomplete;
    if (get<uint32_t>(at) != crc32c(at + 4, size - 4, seed)) return Parsed::bad;
    record = JournalRecord{};
    record.kind = kind;
    if (expected == 0) return Parsed::unknown;
    read_fields(at, record);
    return Parsed::known;
}

}  // namespace postrider
