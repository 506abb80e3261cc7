// What the operator has said about queued mail: cancels and suspensions of a domain, site, provider, campaign or tenant.
//
// A cancel costs nothing by recipient. It is a stamp in seconds of the spool's time-line (engine/core/time_line.h), as the
// claims' are and the end of a suspension: a recipient dies when its file was claimed at or before it.
// Claims that come after a cancel are stamped later than it (created_s below), so the comparison is exact although it counts
// in seconds, and it holds over a restart, because the journal keeps the time of each claim. A file that already lay in
// new/ when the cancel came, but was not claimed yet, belongs to what was cancelled: the file system's time of its rename
// tells, and its claim is stamped as if it had been made then.
//
// A HoldTable never changes once it is made. Each shard keeps the one in force; a null pointer says that nothing was ever
// held, and is all that a pull has to look at.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/core/ids.h"
#include "queue/name_table.h"

namespace postrider {

enum class HoldScope : uint8_t { domain, site, provider, campaign, tenant };
inline constexpr std::string_view kHoldScopes[] = {"domain", "site", "provider", "campaign", "tenant"};

inline std::string_view name_of(HoldScope scope) { return kHoldScopes[static_cast<size_t>(scope)]; }
std::optional<HoldScope> hold_scope_of(std::string_view name);

// Who did it, when and why: for the log and for `queue list`.
struct Said {
    int64_t at_s = 0;  // seconds since 1970 by the wall clock, as it was then
    std::string who, reason;
};

// What is in force for one selection.
struct Hold {
    HoldScope scope = HoldScope::domain;
    std::string name;
    bool suspended = false;
    int64_t until_s = 0;          // of the suspension; 0: until it is resumed
    Said suspended_by;
    int64_t cancelled_to_s = 0;   // recipients of files claimed at or before this die; 0: never cancelled
    int64_t cancelled_at_ns = 0;  // when, by the clock with which the file system stamps a rename: the wall's
    Said cancelled_by;
};

class HoldTable {
  public:
    struct Verdict {
        int64_t dies_to_s = 0;
        bool suspended = false;
        const Hold* cancelled_by = nullptr;  // of the table that judged
        bool any() const { return suspended || dies_to_s != 0; }
        bool dies(int64_t created_s) const { return created_s <= dies_to_s; }
        void join(const Verdict& other) {
            if (other.dies_to_s > dies_to_s) {
                dies_to_s = other.dies_to_s;
                cancelled_by = other.cancelled_by;
            }
            suspended |= other.suspended;
        }
    };

    // Labels become ids by interning; `queues`: the names of DomainId (queue_name.h).
    HoldTable(std::vector<Hold> holds, const NameTable& queues, NameTable& labels);

    Verdict of(DomainId domain, LabelId campaign, LabelId tenant) const;
    Verdict of_site(std::string_view site) const { return find(sites_, site); }
    Verdict of_provider(std::string_view provider) const { return find(providers_, provider); }
    bool speaks_of_sites() const { return !sites_.empty() || !providers_.empty(); }
    // The latest stamp that a cancel gave; 0: nothing is cancelled.
    int64_t cancelled_to_s() const { return cancels_.empty() ? 0 : cancels_.back().to_s; }
    // When the first suspension ends by itself; INT64_MAX: none does.
    int64_t next_end_s() const { return next_end_s_; }

    // The time a claim is stamped with, `now_s` where no cancel has a say. `submitted_ns`: when the file came into new/.
    int64_t created_s(int64_t now_s, int64_t submitted_ns) const;

    std::span<const Hold> holds() const { return holds_; }

  private:
    struct Cancel {
        int64_t at_ns, to_s;
    };
    using ById = std::unordered_map<uint32_t, Verdict>;
    using ByName = std::unordered_map<std::string, Verdict, NameHash, std::equal_to<>>;
    static Verdict find(const ById& map, uint32_t id) {
        const auto found = map.find(id);
        return found == map.end() ? Verdict{} : found->second;
    }
    static Verdict find(const ByName& map, std::string_view name) {
        const auto found = map.find(name);
        return found == map.end() ? Verdict{} : found->second;
    }

    std::vector<Hold> holds_;
    const NameTable& queues_;
    ById campaigns_, tenants_;
    ByName domains_, sites_, providers_;
    std::vector<Cancel> cancels_;  // ascending by time
    int64_t next_end_s_ = INT64_MAX;
};

}  // namespace postrider
