// The intake of a shard: takes files from new/ (and the folders one level below it) into active/, reads each once, and
// hands its recipients out as records. Each shard claims the files whose names hash to it, so no two meet.
//
//   names (scan, inotify) -> look -> claim (rename) -> read and parse, index beside -> publish -> owner
//        \-> bad/ with a reason                    \-> bad/ with a reason
//
// Works in slices of the shard's turn: a file of any size is read, and a file of any number of recipients published,
// a block at a time. A file is read to its end before anything of it is handed out. At the start the files in active/
// are published again, less what the journals know to be settled.
//
// A file with refused recipients or messages is read twice: the first reading finds that the file as a whole is good, the
// second tells what was refused, block by block, so that no list of any length is held.
//
// Failure policy: a refused file or message goes to bad/ and the others go on. A local fault (disk full, too many open
// files) leaves the file where it is and the intake waits a second before it looks again; it is told once. A fault of one
// file (a bad sector, no permission) holds up no other: in new/ it is tried again every few seconds, in active/ a few times
// and then refused.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/io/reactor.h"
#include "queue/file_table.h"
#include "queue/formats/batch_parser.h"
#include "queue/formats/eml_parser.h"
#include "queue/journal/recovery.h"
#include "queue/message_reader.h"
#include "queue/name_table.h"
#include "queue/record.h"
#include "queue/spool_index.h"

namespace postrider {

struct RefusedRecipient {
    const SpoolFile* file = nullptr;
    // Of its message: where it lies, as the message's other recipients know it, or its number when it has no place because
    // all of it is refused. The envelope is null where there are too many to keep until it is known.
    std::optional<uint32_t> place;
    uint32_t number = 0;
    const Envelope* envelope = nullptr;
    std::string_view text;  // the address as it stood
    std::string_view why;
};
struct RefusedMessage {
    uint32_t number = 0;
    Range whole;
    uint64_t size = 0;
    std::string sender;
    Error why;
};

// What the intake asks of its shard.
class IntakeOwner {
  public:
    virtual ~IntakeOwner() = default;
    // False while the memory budget is used up or the journal has no room: no file is begun, no more of one published.
    virtual bool has_room() = 0;
    // Records of any domains; each file's slot counts them as pending already.
    virtual void publish(RecordChain chain) = 0;
    // The time of a claim made now of a file that came into new/ at `submitted_ns` (holds.h).
    virtual int64_t claim_time_s(int64_t submitted_ns) = 0;
    // When mail of a file claimed at `created_s` expires, by the wall clock; 0: never.
    virtual int64_t expires_s(int64_t created_s) = 0;
    // The file is in active/: its claim must be journalled, before anything else of it, unless the journals have it.
    virtual void claimed(const SpoolFile& file, bool journalled) = 0;
    virtual void refused_recipient(const RefusedRecipient& refused) = 0;
    virtual void refused_message(const SpoolFile& file, const RefusedMessage& refused, const std::string& bad_name) = 0;
    virtual void refused_file(FileId id, const std::string& name, uint64_t size, const std::string& why) = 0;
    // All that was refused of the file has been told: to be remembered once the log has it.
    virtual void refusals_told(FileId file) = 0;
    // The intake's own hold on the file ends once everything appended so far is durable.
    virtual void publishing_done(FileSlot slot) = 0;
    // What was written into bad/: durable before publishing_done() of what was read meanwhile.
    virtual void set_aside(std::vector<FileDescriptor>) {}
    // False: so much of it waits for a commit, which is on its way, that no more is written for now.
    virtual bool may_set_aside() { return true; }
    // Local trouble, for the operator.
    virtual void trouble(const Error& error) = 0;
};

class Intake final : private Operation, private Timer {
  public:
    Intake(Reactor& reactor, size_t shards, const SpoolDirectory& spool, FileTable& table, RecordArena& arena,
           RecordSupply& supply, NameTable& domains, NameTable& labels, const ContentRules& rules,
           IntakeOwner& owner);
    ~Intake() override;

    // `recovered`: the files in active/, listed before any shard could claim, and what the journals know of them. This shard
    // publishes its part of them again, and holds it until it has.
    Result<void> start(std::shared_ptr<RecoveredState> recovered);
    // One slice; true when there is more to do at once. For Reactor::each_turn.
    bool slice();
    // No new file is begun; one that is being read is finished.
    void stop() { stopping_ = true; }
    // Nothing is being read or published and no name waits.
    bool idle() const;
    // Nothing is being read, or a local fault keeps it from that; names may wait. A file that is being published can be left:
    // it is published again.
    bool idle_now() const;
    // Ends the watch; then idle() of the ring.
    void close();
    bool closed() const { return !watching_; }

    uint64_t files() const { return files_; }
    uint64_t messages() const { return messages_; }
    uint64_t recipients() const { return recipients_; }
    uint64_t refused() const { return refused_; }
    // Something in new/ could not be taken when it was last looked at.
    bool left_behind() const { return left_behind_; }

  private:
    static constexpr size_t kReadBlock = 256 * 1024;
    static constexpr size_t kReportedBlock = 1024;  // may hold fifty messages to be set aside, with two files each
    static constexpr unsigned kTries = 5;           // at what may be unreadable for good, a second between
    struct Job;
    class JobHandler;
    struct Name {
        std::string folder;  // below new/, empty: new/ itself
        std::string name;
    };

    // Names.
    bool mine(std::string_view name) const;
    void scan(std::string folder);
    bool read_names();
    void list_again(const Error& error);
    void watch(const std::string& folder);
    void cannot_watch(const std::string& folder, const Error& error);
    void complete(int result, bool more, std::span<const char> buffer) override;
    void read_notices();
    bool refused_by_kind(const std::string& folder, const std::string& name) const;
    void on_timer() override;
    void list_later(const std::string& folder);
    void leave_behind(const Name& name, const Error& error);

    // Claims.
    bool begin_next();
    bool left_to_recover();
    bool begin_recovered();
    Result<FileDescriptor> look_at_recovered(SpoolFile& file, const RecoveredFile& known);
    void begin(const Name& name);
    void refuse_claimed(SpoolFile file, const RecoveredFile* recovered, const std::string& why);
    void end_job();
    void put_off(const Name& name, const Error& error);
    void pause(const Error& error);
    void trouble_over();
    // Reading.
    void begin_job(SpoolFile file, FileDescriptor data, const RecoveredFile* recovered);
    bool work();
    void begin_parsing(Job& job);
    void end_parsing(Job& job);
    Result<std::span<const char>> next_block(Job& job);
    Result<void> parse_block(Job& job, std::span<const char> octets);
    Result<void> read_block(Job& job);
    Result<void> report_block(Job& job);
    Result<void> finish_reading(Job& job);
    void read_through(Job& job);
    void refuse_small(Job& job, const std::string& recipient, const Error& why);
    void refuse_job(const std::string& why);
    // Publishing.
    Result<DomainId> intern_domain(Job& job, std::string_view domain);
    void begin_publishing(Job& job);
    Result<void> open_index(Job& job, bool verify);
    Result<void> publish_step(Job& job);
    void publish_small(Job& job);
    void publish_recipients(Job& job, RecordChain chain, uint32_t place, const Envelope& envelope);

    Reactor& reactor_;
    size_t shards_;
    const SpoolDirectory& spool_;
    FileTable& table_;
    RecordArena& arena_;
    RecordSupply& supply_;
    NameTable& domain_table_;
    NameCache domains_, labels_;
    ContentRules rules_;
    IntakeOwner& owner_;

    std::deque<Name> names_;
    std::deque<std::string> scans_;  // folders to be listed; empty name: new/ itself
    std::string scanning_;
    files::Listing listing_;
    int notify_ = -1;
    bool watching_ = false;
    std::vector<std::pair<int, std::string>> watches_;
    bool closing_ = false;
    std::vector<std::string> listed_later_;  // folders that could not be watched, or where something could not be taken
    int64_t list_again_ms_ = 0;
    bool told_unwatched_ = false;
    bool left_behind_ = false, left_for_now_ = false;  // the last: until a local fault passes
    std::set<std::pair<std::string, int>> told_left_;
    std::shared_ptr<RecoveredState> recovered_;
    size_t next_folder_ = 0;               // of it
    std::vector<FileId> recovering_;       // of the folder before that
    std::vector<FileId> recovering_last_;  // could not be read when their turn came
    std::unordered_map<FileId, unsigned> recovery_tries_;
    std::unique_ptr<Job> job_;
    std::string block_;
    SmallMessage small_;
    int64_t paused_until_ms_ = 0;
    int told_code_ = 0;  // of the local fault that pauses it, told once
    bool in_trouble_ = false;
    bool stopping_ = false;
    uint64_t files_ = 0, messages_ = 0, recipients_ = 0, refused_ = 0;
};

}  // namespace postrider
