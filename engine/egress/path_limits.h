// The limits of a path, all at once and for all shards: counts of connections, and rates. What binds is the narrowest.
//
//   [limits] connections -> provider (of the source) -> site (all sources) -> path (source x site)
//
// A connection holds a slot of each count from before its SYN until its end: a ConnectionLease. A message takes an event of
// each rate when it is pulled, and gives back what it took when one of them refuses or there is no message after all, so that
// a provider's limit that binds does not burn what the path may send. The numbers live in the objects that count, so a
// change holds for all shards at once; that somebody has set them is the business of Site::view().
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/config/shaping_config.h"
#include "engine/core/gcra.h"

namespace postrider {

class CountLimit {
  public:
    static constexpr uint32_t kNone = UINT32_MAX;

    explicit CountLimit(uint32_t limit = kNone) : limit_(limit) {}
    bool take() {
        uint32_t now = used_.load(std::memory_order_relaxed);
        while (now < limit_.load(std::memory_order_relaxed))
            if (used_.compare_exchange_weak(now, now + 1, std::memory_order_relaxed)) return true;
        return false;
    }
    // Above the limit too: what is counted is there already.
    void take_anyway() { used_.fetch_add(1, std::memory_order_relaxed); }
    void give() { used_.fetch_sub(1, std::memory_order_relaxed); }
    uint32_t used() const { return used_.load(std::memory_order_relaxed); }
    uint32_t limit() const { return limit_.load(std::memory_order_relaxed); }
    // It was lowered below what is in use: true for as many as are above it, who give their slots back soon.
    bool must_leave() {
        uint32_t leaving = leaving_.load(std::memory_order_relaxed);
        while (used() > uint64_t{limit()} + leaving)
            if (leaving_.compare_exchange_weak(leaving, leaving + 1, std::memory_order_relaxed)) return true;
        return false;
    }
    void has_left() { leaving_.fetch_sub(1, std::memory_order_relaxed); }
    void set(std::optional<uint32_t> limit) { limit_.store(limit.value_or(kNone), std::memory_order_relaxed); }

  private:
    std::atomic<uint32_t> used_{0}, leaving_{0};
    std::atomic<uint32_t> limit_;
};

struct alignas(64) RateLimit : Gcra {
    // The weights of the workers that it has refused lately (limit_share.h).
    std::atomic<uint32_t> contending{0};

    // One writer at a time.
    void set_rate(const std::optional<Rate>& rate, MonoNs now);
    std::optional<Rate> rate() const { return rate_; }

  private:
    std::optional<Rate> rate_;
    bool begun_ = false;
};

// What a provider's sites share, for one source.
struct ProviderPath {
    CountLimit connections;
    RateLimit message_rate;
};

// Providers by name; kept until the process ends. Thread-safe.
class ProviderTable {
  public:
    explicit ProviderTable(size_t sources) : sources_(sources) {}
    // Sets the limits as of a version of the shaping; an older one than was seen last changes nothing.
    ProviderPath& path(const ProviderShaping& shaping, size_t source, uint64_t version, MonoNs now);
    // For explain; null: no site of it was used.
    const ProviderPath* find(std::string_view name, size_t source) const;

  private:
    struct Entry {
        ProviderPath limits;
        uint64_t version = 0;
    };
    const size_t sources_;
    mutable std::mutex mutex_;
    std::map<std::string, std::vector<std::unique_ptr<Entry>>, std::less<>> providers_;
};

// A path as its users see it, as of one version; never changed. What it points at lives as long as the process.
struct PathView {
    EffectiveShaping shaping;
    std::vector<CountLimit*> slots;         // broad to narrow
    std::vector<RateLimit*> message_rates;  // those that are limited, broad to narrow
    const RateLimit* site_rate = nullptr;   // the one of them that all sources share
    RateLimit* connection_rate = nullptr;   // null: no limit
    RateLimit* data_rate = nullptr;

    bool paced() const { return !message_rates.empty() || data_rate; }
    // The limit that grants last, and when; null and 0: all grant now.
    std::pair<RateLimit*, MonoNs> binding(MonoNs now) const;
    // A rate beside site_rate does not grant now.
    bool own_binds(MonoNs now) const;
    // One message of about so many octets, of every rate or of none.
    bool acquire(MonoNs now, uint64_t octets) const;
    void give_back(uint64_t octets) const;
    // What a transaction of so many recipients takes of a message rate.
    uint64_t events(size_t recipients) const {
        return shaping.message_rate_counts.value == RateCounts::messages ? 1 : recipients;
    }
    // A further recipient, where recipients count.
    bool acquire_recipient(MonoNs now) const;
    void give_back_recipient() const;
    // What the message has in octets beside what was acquired.
    void correct(uint64_t acquired, uint64_t octets) const;
    // Messages that may go now, and within so many milliseconds from now.
    uint64_t available(MonoNs now) const { return available_within(now, 0); }
    uint64_t available_within(MonoNs now, DurationMs ms) const;
    // The most connections that the counts allow in all.
    uint32_t most_connections() const;
};

// A connection's right to exist, in every scope; it ends with the lease.
class ConnectionLease {
  public:
    ConnectionLease() = default;
    // Empty when one of the scopes has no slot.
    static ConnectionLease take(const PathView& path);
    ConnectionLease(ConnectionLease&& other) noexcept
        : slots_(std::exchange(other.slots_, {})), leaves_(std::exchange(other.leaves_, nullptr)) {}
    ConnectionLease& operator=(ConnectionLease&&) = delete;
    ~ConnectionLease();
    explicit operator bool() const { return !slots_.empty(); }
    // The scopes that hold for the path now: of those that came it takes a slot in any case, as its connection is open, and the
    // slots of those that no longer concern it are free again.
    void adopt(const PathView& path);
    // A limit was lowered below what is in use, and it is for this one to go: as many go as are too many, who are asked first.
    bool over();

  private:
    std::vector<CountLimit*> slots_;
    CountLimit* leaves_ = nullptr;  // whose slot is too many
};

}  // namespace postrider
