// The index beside a claimed file (active/<2 hex>/<id>.idx): where each message and each recipient lies, so that neither
// sending nor recovery parses the file again. It is a cache: rebuilt from the file when it is missing or damaged, hence
// never synced. Deterministic: a rebuilt index has the same places.
//
//   header       64 octets, written last; its checksum covers everything behind it
//   per message  its RecipientEntries (16 octets each), its MessageEntry (64), its text (sender, labels, removed ranges,
//                and the recipient as it lies in the file when there is one only) padded to 16. The recipients come first,
//                so that a message of any number of them streams.
//   domains      per distinct recipient domain: u16 length, the name; RecipientEntry::domain counts them from 0
//
// Positions in the index are counted in units of 16 octets: Record::place is the unit of the MessageEntry, and its
// recipient i of n is at unit place - n + i. Integers are little-endian.
#pragma once

#include <cstdint>
#include <memory_resource>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/core/result.h"
#include "queue/file_table.h"
#include "queue/message.h"
#include "queue/name_table.h"

namespace postrider {

inline constexpr char kIndexSuffix[] = ".idx";
inline constexpr size_t kIndexUnit = 16;

struct IndexHeader {
    char magic[8];  // "PRIDX\0\0\4", the last octet is the version
    uint64_t file_id;
    uint64_t file_size;
    int64_t file_mtime_ns;
    uint64_t domains_offset;
    uint32_t recipients;
    uint32_t refusals;  // of recipients and messages: told in the log, not in the index
    uint32_t domains;
    uint32_t messages;
    uint32_t body_checksum;    // CRC-32C of everything behind the header
    uint32_t header_checksum;  // of the octets before this field
};
static_assert(sizeof(IndexHeader) == 64);

struct RecipientEntry {
    static constexpr uint32_t kTag = 0x54504352;  // "RCPT"
    uint32_t tag;
    uint32_t domain;
    uint64_t where;  // offset << 16 | size
    Range range() const { return {where >> 16, where & 0xffff}; }
};
static_assert(sizeof(RecipientEntry) == kIndexUnit);

struct MessageEntry {
    static constexpr uint32_t kTag = 0x4753454d;  // "MESG"
    uint32_t tag;
    uint32_t recipients;
    uint64_t offset, size, wire_size;
    uint32_t not_before_s;
    uint16_t sender, envid, job, campaign, tenant, pool;  // lengths of the texts behind the entry
    uint32_t removed;                                     // ranges behind the texts
    StoredForm form;
    uint8_t flags;
    Priority priority;
    DsnReturn ret;
    uint16_t recipient;  // length of the only recipient's text, behind the ranges; 0: not kept
    uint8_t reserved[6];

    static constexpr uint8_t kEightBit = 1, kCrlfOnly = 2, kDots = 4, kSmtpUtf8 = 8,
                             kRefused = 16,
                             kTooLate = 32;  // refused for its x-not-before: its text is there all the same, so that places stay
    size_t text_size() const {
        const size_t octets =
            size_t{sender} + envid + job + campaign + tenant + pool + removed * sizeof(Range) + recipient;
        return (octets + kIndexUnit - 1) / kIndexUnit * kIndexUnit;
    }
};
static_assert(sizeof(MessageEntry) == 64);

// Writes an index while the parser runs.
class IndexWriter {
  public:
    IndexWriter(int fd, const SpoolFile& file);
    void add_recipient(Range where, DomainId domain, std::string_view text);
    // `too_late`: readers pass it by, and its recipients.
    void add_message(const Envelope& envelope, const Content& content, bool too_late = false);
    // The recipients since the last message belong to a refused one: readers pass them by.
    void drop_recipients();
    // Writes what is buffered, the domains and the header.
    Result<void> finish(const NameTable& domains, uint64_t refusals);
    uint64_t recipients() const { return header_.recipients; }
    uint32_t messages() const { return header_.messages; }

  private:
    void put(const void* data, size_t size);
    void write_out();

    int fd_;
    IndexHeader header_{};
    std::string buffer_;
    uint64_t written_;
    uint32_t checksum_ = 0;
    uint32_t recipients_here_ = 0;  // of the message being written
    std::string recipient_;         // the text of its last one
    std::pmr::monotonic_buffer_resource nodes_;
    std::pmr::unordered_map<DomainId, uint32_t> domain_refs_{&nodes_};
    std::vector<DomainId> domains_;
    Result<void> state_;
};

// Walks an index from its begin to its end, in large reads.
class IndexReader {
  public:
    // Reads and checks the header; `verify` also checks the body's checksum (one pass over the file).
    static Result<IndexReader> open(int fd, const SpoolFile& file, bool verify);

    const IndexHeader& header() const { return header_; }
    Result<std::vector<std::string>> domains() const;

    // A message, then its recipients in runs: whoever walks an index can stop between any two, however many there are.
    // Pointers are good until the next call.
    struct Step {
        enum class Kind : uint8_t { message, recipients, end } kind = Kind::end;
        uint32_t place = 0;                       // message: its unit
        const MessageEntry* message = nullptr;
        const char* text = nullptr;               // message: its text
        const RecipientEntry* entries = nullptr;  // recipients: the next of them
        size_t count = 0;
    };
    Result<Step> next();

  private:
    IndexReader(int fd, IndexHeader header) : fd_(fd), header_(header) {}
    Result<void> fill(size_t wanted);
    Result<void> skip(size_t size);
    Result<Step> find_message();

    int fd_;
    IndexHeader header_;
    std::string block_;
    size_t begin_ = 0;
    uint64_t offset_ = sizeof(IndexHeader);  // of block_[begin_] in the file
    std::string ahead_;    // scratch of find_message()
    std::string message_;  // the entry and the text of the message at hand
    uint32_t left_ = 0;    // of its recipients
    bool behind_ = false;  // its entry is still to be skipped
};

// The entry's texts and flags as Envelope and Content; strings keep their capacity. Returns the text of the only recipient,
// or nothing.
std::string_view read_entry(const MessageEntry& entry, const char* text, Envelope& envelope, Content& content);

}  // namespace postrider
