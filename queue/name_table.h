// Interned names shared by all shards: recipient domains, sites, campaigns and tenants become 32-bit ids. A name is
// kept until the process ends. Looking a name up by its id takes no lock; interning takes one of 16 stripes, and each
// shard keeps a NameCache before it so that the stripe is taken once for each name and shard.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/core/hash.h"

namespace postrider {

struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return hash64(text); }
};

class NameTable {
  public:
    NameTable();
    ~NameTable();
    NameTable(const NameTable&) = delete;
    NameTable& operator=(const NameTable&) = delete;

    // Thread-safe. The id of `name`, from 1 on; 0 only for the empty name.
    uint32_t intern(std::string_view name);
    // Thread-safe: it was interned before.
    bool knows(std::string_view name);
    // Thread-safe, no lock. `id` came from intern().
    std::string_view name(uint32_t id) const;
    // Octets resident, about.
    uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
    uint32_t size() const { return next_.load(std::memory_order_relaxed) - 1; }

  private:
    static constexpr uint64_t kBytesBeside = 88;  // of a name: hash node, bucket, cell
    static constexpr uint32_t kBlock = 4096;
    static constexpr uint32_t kBlocks = 1u << 14;
    struct Stripe {
        std::mutex mutex;
        std::unordered_map<std::string, uint32_t, NameHash, std::equal_to<>> ids;
    };
    using Block = std::array<std::atomic<const std::string*>, kBlock>;

    std::array<Stripe, 16> stripes_;
    std::mutex blocks_mutex_;
    std::unique_ptr<std::atomic<Block*>[]> blocks_;
    std::atomic<uint32_t> next_{1};
    std::atomic<uint64_t> bytes_{0};
};

class NameCache {
  public:
    explicit NameCache(NameTable& table) : table_(table) {}
    uint32_t intern(std::string_view name) {
        if (name.empty()) return 0;
        if (name == last_) return last_id_;
        auto found = ids_.find(name);
        const uint32_t id = found != ids_.end() ? found->second : add(name);
        last_ = table_.name(id);
        last_id_ = id;
        return id;
    }

    std::string_view name(uint32_t id) const { return table_.name(id); }

  private:
    uint32_t add(std::string_view name) {
        const uint32_t id = table_.intern(name);
        if (ids_.size() >= kMost) ids_.clear();
        ids_.emplace(table_.name(id), id);
        return id;
    }
    static constexpr size_t kMost = 1 << 17;
    NameTable& table_;
    std::unordered_map<std::string_view, uint32_t, NameHash, std::equal_to<>> ids_;
    std::string_view last_;
    uint32_t last_id_ = 0;
};

}  // namespace postrider
