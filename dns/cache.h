// Answers by name, and who waits for one. Lives on one shard.
//
// An answer is held until its own `expires_ms`; at most `capacity` names, the least recently used
// go first. Single flight: whoever finds neither an answer nor a flight takes off, all others join,
// and the landing wakes them in a later step of the reactor, never inside land(). A name that fails
// again and again is remembered for longer each time.
#pragma once

#include <coroutine>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dns/text_key.h"
#include "engine/core/intrusive_list.h"
#include "engine/io/reactor.h"

namespace postrider {

struct LookupOrder;

// T has `expires_ms`.
template <class T>
class LookupCache {
  public:
    using Value = std::shared_ptr<const T>;

    class Flight {
      public:
        // co_await flight.join(): the answer, when it lands.
        class Join {
          public:
            explicit Join(Flight& flight) : flight_(flight) {}
            bool await_ready() const { return false; }
            void await_suspend(std::coroutine_handle<> handle) {
                handle_ = handle;
                flight_.joined_.push_back(this);
            }
            Value await_resume() { return std::move(value_); }

          private:
            friend class LookupCache;
            Flight& flight_;  // gone once the answer is here
            std::coroutine_handle<> handle_;
            Value value_;
        };
        Join join() { return Join(*this); }

      private:
        friend class LookupCache;
        std::vector<Join*> joined_;
    };

    LookupCache(Reactor& reactor, size_t capacity) : reactor_(reactor), capacity_(capacity) {}

    // Null when there is none or it has expired. Valid until the caller suspends.
    const Value* find(std::string_view name) {
        const auto found = entries_.find(name);
        if (found == entries_.end()) return nullptr;
        Entry& entry = found->second;
        if (!entry.value || entry.value->expires_ms <= reactor_.now_ms()) return nullptr;
        entry.unlink();
        order_.push_back(entry);
        return &entry.value;
    }

    // Null when nobody asks for the name; then the caller may take off.
    Flight* flight(std::string_view name) {
        const auto found = flights_.find(name);
        return found == flights_.end() ? nullptr : &found->second;
    }
    void take_off(const std::string& name) { flights_.try_emplace(name); }

    // Failures of this name in a row, as known from earlier landings.
    uint32_t failures(std::string_view name) const {
        const auto found = entries_.find(name);
        return found == entries_.end() ? 0 : found->second.failures;
    }

    // Ends the flight: stores the answer and hands it to all who joined.
    Value land(const std::string& name, T answer, bool failed) {
        const Value value = std::make_shared<const T>(std::move(answer));
        Entry& entry = make_entry(name);
        entry.failures = failed ? entry.failures + 1 : 0;
        entry.value = value;
        auto node = flights_.extract(name);
        for (auto* join : node.mapped().joined_) {
            join->value_ = value;
            reactor_.make_ready(join->handle_);
        }
        return value;
    }

    size_t size() const { return entries_.size(); }
    size_t flights() const { return flights_.size(); }

  private:
    struct Entry : ListNode<LookupOrder> {
        const std::string* name = nullptr;
        Value value;
        uint32_t failures = 0;
    };

    Entry& make_entry(const std::string& name) {
        const auto [at, fresh] = entries_.try_emplace(name);
        Entry& entry = at->second;
        entry.name = &at->first;
        entry.unlink();
        order_.push_back(entry);
        if (fresh && entries_.size() > capacity_)
            entries_.erase(entries_.find(*order_.front().name));
        return entry;
    }

    Reactor& reactor_;
    size_t capacity_;
    std::unordered_map<std::string, Entry, TextHash, TextEqual> entries_;
    std::unordered_map<std::string, Flight, TextHash, TextEqual> flights_;
    IntrusiveList<Entry, LookupOrder> order_;  // the least recently used first
};

}  // namespace postrider
