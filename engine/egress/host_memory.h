// What a shard remembers of MX hosts, whatever the site: the dialogue that is left to those that stumbled, that their
// handshakes fail, the most octets that they take. All of it is forgotten after a while, so that a host which was mended is
// met as any other.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>

#include "engine/core/time.h"
#include "engine/smtp/transaction.h"

namespace postrider {

// By host, bounded, each for a time.
template <class Value>
class Fading {
  public:
    static constexpr size_t kKept = 4096;

    // Null: nothing is known, or not any more.
    const Value* find(const std::string& host, int64_t now_ms) {
        const auto found = known_.find(host);
        if (found == known_.end()) return nullptr;
        if (found->second.until_ms > now_ms) return &found->second.value;
        known_.erase(found);
        return nullptr;
    }
    void set(const std::string& host, Value value, int64_t now_ms, DurationMs for_ms) {
        if (known_.size() >= kKept) {
            std::erase_if(known_, [&](const auto& each) { return each.second.until_ms <= now_ms; });
            if (known_.size() >= kKept) known_.clear();  // it is found out again
        }
        known_[host] = {value, now_ms + for_ms};
    }
    size_t size() const { return known_.size(); }

  private:
    struct Entry {
        Value value;
        int64_t until_ms;
    };
    std::unordered_map<std::string, Entry> known_;
};

class HostMemory {
  public:
    static constexpr DurationMs kDialogueMs = 3'600'000;
    static constexpr DurationMs kSizeMs = 3'600'000;
    static constexpr DurationMs kNoTlsMs = 600'000;  // where TLS is not demanded
    static constexpr size_t kKept = Fading<bool>::kKept;

    // The most that is used with the host.
    Dialogue most(const std::string& host, int64_t now_ms) {
        const Dialogue* most = dialogues_.find(host, now_ms);
        return most ? *most : Dialogue::bdat;
    }
    // Replies were out of step in this dialogue.
    void stumbled(const std::string& host, Dialogue in, int64_t now_ms) {
        const Dialogue less = in == Dialogue::none ? in : static_cast<Dialogue>(static_cast<uint8_t>(in) - 1);
        dialogues_.set(host, std::min(most(host, now_ms), less), now_ms, kDialogueMs);
    }

    bool tls_failed_lately(const std::string& host, int64_t now_ms) { return no_tls_.find(host, now_ms) != nullptr; }
    void tls_failed(const std::string& host, int64_t now_ms) { no_tls_.set(host, true, now_ms, kNoTlsMs); }

    // Whether the host has said (SIZE, RFC 1870) that it takes no message of so many octets.
    bool too_large(const std::string& host, uint64_t octets, int64_t now_ms) {
        const uint64_t* most = sizes_.find(host, now_ms);
        return most && octets > *most;
    }
    void takes_at_most(const std::string& host, uint64_t octets, int64_t now_ms) {
        sizes_.set(host, octets, now_ms, kSizeMs);
    }

    size_t size() const { return dialogues_.size() + no_tls_.size() + sizes_.size(); }

  private:
    Fading<Dialogue> dialogues_;
    Fading<uint64_t> sizes_;
    Fading<bool> no_tls_;
};

}  // namespace postrider
