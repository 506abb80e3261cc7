// The delivery log: one JSON object a line, one line per recipient and attempt, in the shape of KumoMTA's published log
// record, so that its consumers read ours. One DeliveryLog per shard; all of them append to the same file.
//
// * Whole lines are gathered and handed over by one write(2) to a descriptor opened with O_APPEND: lines of different
//   shards do not mix.
// * A line is durable before the journal result it tells of is written, in the same commit (group_commit.h):
//   after a crash a line may repeat (same id, recipient, num_attempts), never be missing. If it cannot be written, the
//   commit fails, and new work stops as for the journal.
// * A crash may tear the last write. open() cuts what stands behind the last line end: its result is not in the journal,
//   and the next line must begin a line. All shards open before any writes, so no shard cuts another's.
// * reopen() (SIGHUP): what is gathered and all that follows goes into a new file; the old one is closed when a commit
//   has covered its last line. A log that cannot be opened again leaves the old one in use.
//
// The fields, always present unless a condition is given:
//   type, id, sender, recipient, queue, site, size,
//   response{code, enhanced_code{class,subject,detail} or null, content, command or null}, peer_address{name,addr} or null, timestamp, created, event_time, num_attempts,
//   bounce_classification, egress_pool or null, egress_source or null, source_address{address} or null,
//   delivery_protocol or null, tls_cipher and tls_protocol_version and session_id (when there are any),
//   possible_duplicate (when true), meta{campaign, tenant, job, envid, file} (those that are not empty).
// Strings are valid UTF-8: octets that are not become U+FFFD; controls, DEL and C1 controls are escaped.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/ids.h"
#include "engine/core/result.h"
#include "engine/core/time.h"
#include "engine/io/files.h"
#include "queue/journal/group_commit.h"

namespace postrider {

enum class LogType : uint8_t {
    delivery,
    transient_failure,
    bounce,
    expiration,
    admin_bounce,
    rejection,
    reception,
};

// What the peer said, or what we say in its place (code 0 when there was no reply).
struct LoggedResponse {
    uint16_t code = 0;
    uint8_t enhanced_class = 0;  // RFC 3463: 2, 4 or 5; 0: there was no enhanced code
    uint16_t enhanced_subject = 0;
    uint16_t enhanced_detail = 0;
    std::string_view content;  // without the codes; cut at limits::kReplyLogged octets
    std::string_view command;  // "MAIL FROM:<...>", "."; empty: null
};

// Plain views into what the caller holds; empty means absent.
struct LogRecord {
    LogType type = LogType::delivery;
    bool possible_duplicate = false;
    uint16_t num_attempts = 0;
    MessageId id;
    std::string_view sender, recipient, queue, site;
    uint64_t size = 0;
    LoggedResponse response;
    std::string_view peer_name, peer_address;  // MX host, IP address
    WallUs event_us = 0;
    int64_t created_s = 0;
    std::string_view bounce_classification;  // empty: "Uncategorized"
    std::string_view egress_pool, egress_source;
    std::string_view source_address;  // "192.0.2.10:40312", "[2001:db8::1]:40312"
    std::string_view delivery_protocol;
    std::string_view tls_cipher, tls_protocol_version;
    uint64_t session_high = 0, session_low = 0;  // a UUID; both 0: none
    std::string_view campaign, tenant, job, envid, file;
};

// Appends one line with its newline. Keeps the text of the last second, so that the calendar is not asked for each.
class LogFormatter {
  public:
    void append(const LogRecord& record, std::string& out);

  private:
    void set_second(int64_t second);

    int64_t second_ = INT64_MIN;
    char date_time_[20] = {};  // "2026-11-23T18:52:22."
};

// The end of a file to which several shards append. Its mutex is held for a write, of up to 256 KiB, not for a line.
struct LogEnd {
    std::mutex mutex;
    bool torn = false;  // the disk was full in the middle of a line
};

class DeliveryLog final : public CommitParticipant {
  public:
    // Cuts a line that a crash has torn off the end of a log that an earlier run left. Before any writer opens it: a line
    // under way would be cut too.
    static Result<void> mend(const std::string& path);
    // Made with mode 0640 when missing; its directory must be there. A symbolic link is refused.
    static Result<std::unique_ptr<DeliveryLog>> open(std::string path);

    // Written when enough has gathered, whatever the state of the commit: a line may be durable long before its result, and
    // what a long commit or a long turn gathers must not be held in memory.
    void append(const LogRecord& record) {
        formatter_.append(record, buffer_);
        ++records_;
        if (buffer_.size() >= kWriteAt) write_early();
    }

    // What must not wait for the commit, because a restart could not tell it again.
    void write_early();
    Result<void> reopen();

    uint64_t records() const { return records_; }

    // Room behind the log's end is reserved in steps, so that lines of what is in flight find it on a full disk (decision
    // 0018). space_low(): it could not be renewed, take nothing new in. space_out(): it is nearly used, begin nothing new.
    bool space_low() const { return space_low_; }
    bool space_out() const { return space_low_ && reserve_left_ < kReserve / 4; }
    // For the owner's clock while space_low().
    void look_for_space() {
        if (space_low_) renew_reserve();
    }

    bool dirty() const override { return !buffer_.empty() || unsynced_ || !retired_.empty(); }
    // An early write has failed.
    bool urgent() const override { return failure_.has_value(); }
    Result<void> write_urgent() override { return failure_ ? std::unexpected(*failure_) : Result<void>(); }
    Result<void> begin_commit(std::vector<int>& to_sync) override;
    Result<void> end_commit() override;

  private:
    static constexpr size_t kWriteAt = size_t{256} << 10;
    static constexpr uint64_t kReserve = uint64_t{16} << 20;
    static constexpr uint64_t kLookEvery = uint64_t{1} << 20;  // octets written

    Result<void> write_buffer();
    void renew_reserve();
    Result<void> write_at_end(size_t& done);
    void keep_unwritten(size_t written);

    struct Target {
        FileDescriptor fd;
        bool regular = true;  // a device or a pipe is written, never synced
        std::shared_ptr<LogEnd> end;
    };

    explicit DeliveryLog(std::string path) : path_(std::move(path)) {}
    Result<Target> open_target() const;

    std::string path_;
    Target target_;
    std::vector<FileDescriptor> retired_;  // of before a reopen(), not yet synced
    size_t retiring_ = 0;                  // how many of them the commit in flight covers
    LogFormatter formatter_;
    std::string buffer_;
    std::optional<Error> failure_;  // of an early write, told by the next that can
    bool unsynced_ = false;  // written since the last commit began
    bool full_ = false;      // the last write found no space
    bool space_low_ = false;
    bool reserves_ = true;   // the file system can
    uint64_t reserved_to_ = 0, reserve_left_ = 0;
    uint64_t since_look_ = kLookEvery;
    uint64_t records_ = 0;
};

}  // namespace postrider
