// What a shard remembers of MX hosts that stumbled, whatever the site: the dialogue that is left to them, and that their
// handshakes fail, and the most octets that they take. All of it is forgotten after a while, so that a host which was mended is met as any other.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>

#include "engine/core/time.h"
#include "engine/smtp/transaction.h"

namespace postrider {

class HostMemory {
  public:
    static constexpr DurationMs kDialogueMs = 3'600'000;
    static constexpr DurationMs kSizeMs = 3'600'000;
    static constexpr DurationMs kNoTlsMs = 600'000;  // where TLS is not demanded
    static constexpr size_t kKept = 4096;

    // The most that is used with the host.
    Dialogue most(const std::string& host, int64_t now_ms) {
        const auto found = dialogues_.find(host);
        if (found == dialogues_.end()) return Dialogue::bdat;
        if (found->second.until_ms > now_ms) return found->second.most;
        dialogues_.erase(found);
        return Dialogue::bdat;
    }
    // Replies were out of step in this dialogue.
    void stumbled(const std::string& host, Dialogue in, int64_t now_ms) {
        make_room(dialogues_, [&](const auto& each) { return each.second.until_ms <= now_ms; });
        const Dialogue less = in == Dialogue::none ? in : static_cast<Dialogue>(static_cast<uint8_t>(in) - 1);
        dialogues_[host] = {std::min(most(host, now_ms), less), now_ms + kDialogueMs};
    }

    bool tls_failed_lately(const std::string& host, int64_t now_ms) {
        const auto found = no_tls_until_ms_.find(host);
        if (found == no_tls_until_ms_.end()) return false;
        if (found->second > now_ms) return true;
        no_tls_until_ms_.erase(found);
        return false;
    }
    size_t size() const { return dialogues_.size() + no_tls_until_ms_.size() + sizes_.size(); }
    void tls_failed(const std::string& host, int64_t now_ms) {
        make_room(no_tls_until_ms_, [&](const auto& each) { return each.second <= now_ms; });
        no_tls_until_ms_[host] = now_ms + kNoTlsMs;
    }

    // Whether the host has said (SIZE, RFC 1870) that it takes no message of so many octets.
    bool too_large(const std::string& host, uint64_t octets, int64_t now_ms) {
        const auto found = sizes_.find(host);
        if (found == sizes_.end()) return false;
        if (found->second.until_ms > now_ms) return octets > found->second.octets;
        sizes_.erase(found);
        return false;
    }
    void takes_at_most(const std::string& host, uint64_t octets, int64_t now_ms) {
        make_room(sizes_, [&](const auto& each) { return each.second.until_ms <= now_ms; });
        sizes_[host] = {octets, now_ms + kSizeMs};
    }

  private:
    template <class Map, class Expired>
    static void make_room(Map& map, Expired expired) {
        if (map.size() < kKept) return;
        std::erase_if(map, expired);
        if (map.size() >= kKept) map.clear();  // it is found out again
    }
    struct Ceiling {
        Dialogue most = Dialogue::bdat;
        int64_t until_ms = 0;
    };
    struct Size {
        uint64_t octets = 0;
        int64_t until_ms = 0;
    };
    std::unordered_map<std::string, Ceiling> dialogues_;
    std::unordered_map<std::string, Size> sizes_;
    std::unordered_map<std::string, int64_t> no_tls_until_ms_;
};

}  // namespace postrider
