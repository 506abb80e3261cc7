// Reads a queued message again when its turn has come: envelope and content facts from the index, or, for a small .eml
// without one, by parsing it again; then the content, straight into the caller's buffer.
//
// One per shard, with its own bounded set of open files (no lock on the way of a message). What is read is compared with
// what was claimed: a file whose size, time or inode has changed is never sent (FAULTS 51); the caller asks unchanged()
// after the last octet was read and before the dot.
#pragma once

#include <list>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/core/result.h"
#include "queue/file_table.h"
#include "queue/formats/content_scan.h"
#include "queue/formats/recipient_text.h"
#include "queue/index_blocks.h"
#include "queue/message.h"
#include "queue/record.h"
#include "queue/spool_index.h"

namespace postrider {

// A file larger than this, or with more recipients, gets an index.
inline constexpr uint64_t kSmallFile = 128 * 1024;
inline constexpr size_t kSmallRecipients = 8;
// A small file is parsed when it is loaded; up to this size its octets are kept for the sending.
inline constexpr uint64_t kKeptWhole = 16 * 1024;

// Parses a small .eml, held whole; the result is the same each time. `where` and `domain` of its recipients.
struct SmallMessage {
    struct Recipient {
        Range where;
        std::string domain;  // as written
    };
    struct Refused {
        std::string text;
        Error why;
    };
    Envelope envelope;
    Content content;
    std::vector<Recipient> recipients;
    std::vector<Refused> refused;

    Result<void> parse(std::span<const char> file, const ContentRules& rules);
};

struct OpenFile {
    FileDescriptor data, index;
    SpoolFile file;
    uint32_t users = 0;  // loaded messages that still read from it
    std::list<FileSlot>::iterator age;
};

// A message made ready to be sent. Strings keep their capacity from message to message.
struct LoadedMessage {
    Envelope envelope;
    Content content;
    MessageId id;
    OpenFile* open = nullptr;
    uint32_t place = 0;
    uint32_t recipients = 0;               // of the whole message
    std::vector<Range> small_recipients;   // without an index
    RecipientEntry last_entry{};           // with one: of its last recipient
    std::string only_recipient;            // its text as it lies in the file, when it is known
    std::string whole;                     // a file of at most kKeptWhole octets: read once
    std::string text;                      // scratch

    const SpoolFile& file() const { return open->file; }
};

class MessageReader {
  public:
    static constexpr size_t kOpenFiles = 128;

    MessageReader(const SpoolDirectory& spool, FileTable& table, const ContentRules& rules)
        : spool_(spool), table_(table), rules_(rules) {}

    // The error's code is ESTALE when the file is not what was claimed, else an errno (EMFILE and the like are local
    // faults). After success the caller calls unload() when it is done with the message.
    Result<void> load(const Record& record, LoadedMessage& message);
    void unload(LoadedMessage& message);

    // The address of recipient number `recipient`.
    Result<void> recipient(LoadedMessage& message, uint32_t recipient, RecipientText& out);

    // Octets of the stored content from `offset` within the file.
    Result<void> read(const LoadedMessage& message, uint64_t offset, std::span<char> into);
    // The file still has the size, time and inode it was claimed with.
    bool unchanged(const LoadedMessage& message) const;

    // The file was removed: its descriptor would keep the disk space. Nothing loaded may use it.
    void forget(FileSlot slot);
    // The same of a file that another shard has removed: what has its slot now is left alone.
    void forget_removed(FileSlot slot, FileId id);

  private:
    Result<OpenFile*> open(FileSlot slot);
    Result<void> load_indexed(const Record& record, LoadedMessage& message);
    Result<void> load_small(LoadedMessage& message);

    const SpoolDirectory& spool_;
    FileTable& table_;
    ContentRules rules_;
    std::unordered_map<FileSlot, std::unique_ptr<OpenFile>> open_;
    std::list<FileSlot> ages_;  // the most recent first
    SmallMessage small_;
    IndexBlocks blocks_;
    std::string block_;
};

MessageId message_id(FileId file, uint32_t place);

}  // namespace postrider
