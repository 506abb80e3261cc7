// What is said with the mail servers of a site, for those who listen (`postrider trace`).
//
//   Session -> TraceTap (of its connection) -> Tracer: who listens to this site -> TraceListener -> the admin socket
//
// Without listeners a session pays one load for a command or a reply. A listener that does not keep up loses lines, never the
// engine its time. Contents are not told, only their sizes.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/time.h"
#include "engine/smtp/reply.h"

namespace postrider {

enum class TraceKind : uint8_t { note, sent, received };
std::string_view name_of(TraceKind kind);

// Where a session tells what it says and hears.
class TraceTap {
  public:
    virtual ~TraceTap() = default;
    // Asked before anything is made to be told.
    virtual bool listening() = 0;
    // `lines`, with or without the last CRLF; whatever octets they have.
    virtual void tell(TraceKind kind, std::string_view lines) = 0;
};

// The reply that the parser has read, line by line as it came; of a bad one what is known of it.
[[gnu::noinline]] void tell_reply(TraceTap& tap, const ReplyParser& parser);

// The connection that a line belongs to.
struct TracePlace {
    uint64_t session_high = 0, session_low = 0;  // of the delivery log's session_id; 0: none yet
    std::string_view host, address;              // empty: none yet
};

struct TraceLine {
    WallUs at_us = 0;
    uint64_t session_high = 0, session_low = 0;
    std::string host, address;
    TraceKind kind = TraceKind::note;
    std::string text;  // printable, at most limits::kReplyLogged octets
};

// The lines of one site for one who listens; between two threads or more.
class TraceListener {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr size_t kLinesKept = 4096;

    TraceListener(uint64_t id, std::string site) : id_(id), site_(std::move(site)) {}
    uint64_t id() const { return id_; }
    const std::string& site() const { return site_; }

    void put(const TracePlace& place, TraceKind kind, std::string_view lines, WallUs at_us);
    struct Taken {
        std::deque<TraceLine> lines;
        uint64_t lost = 0;  // so many found no room behind them
    };
    // What has come, waiting for the first of it; nothing when nothing comes.
    Taken take(std::chrono::milliseconds patience);
    Clock::time_point taken_at() const;

  private:
    const uint64_t id_;
    const std::string site_;
    mutable std::mutex mutex_;
    std::condition_variable came_;
    Taken kept_;
    Clock::time_point taken_at_ = Clock::now();
};

class Tracer {
  public:
    using Listeners = std::vector<std::shared_ptr<TraceListener>>;
    static constexpr size_t kListenersMost = 4;
    static constexpr std::chrono::seconds kUnheard{20};  // one that takes nothing for so long has gone

    // Null: as many listen as may.
    std::shared_ptr<TraceListener> listen(std::string site);
    // Null: it has ended.
    std::shared_ptr<TraceListener> find(uint64_t id) const;
    void end(uint64_t id);
    // Ends those that have gone; many times a second.
    void sweep();

    // Moves with every change of who listens to what. A session compares it to what it has seen.
    uint64_t version() const { return version_.load(std::memory_order_relaxed); }
    Listeners listeners(std::string_view site) const;

  private:
    mutable std::mutex mutex_;
    Listeners all_;
    uint64_t last_id_ = 0;
    std::atomic<size_t> count_{0};
    std::atomic<uint64_t> version_{0};
};

}  // namespace postrider
