#include "engine/net/session_cache.h"

#include "engine/core/hash.h"

namespace postrider {

std::string SessionCache::key(std::string_view host, const SocketAddress& address, TlsLevel level) {
    const auto octets = address.octets();
    const uint16_t port = address.port();
    std::string key(host);
    key += '\0';
    key.append(reinterpret_cast<const char*>(octets.data()), octets.size());
    key += static_cast<char>(port >> 8);
    key += static_cast<char>(port & 0xFF);
    key += static_cast<char>(level);
    return key;
}

SessionCache::Stripe& SessionCache::stripe(const std::string& key) {
    return stripes_[hash64(key) % kStripes];
}

void SessionCache::store(const std::string& key, std::string session) {
    if (session.empty() || session.size() > kSessionMax) return;
    Stripe& place = stripe(key);
    std::lock_guard lock(place.mutex);
    if (auto found = place.by_key.find(key); found != place.by_key.end()) {
        found->second->session = std::move(session);
        place.entries.splice(place.entries.begin(), place.entries, found->second);
        return;
    }
    place.entries.push_front(Entry{key, std::move(session)});
    place.by_key.emplace(place.entries.front().key, place.entries.begin());
    if (place.entries.size() > per_stripe_) {
        place.by_key.erase(place.entries.back().key);
        place.entries.pop_back();
    }
}

std::string SessionCache::find(const std::string& key) {
    Stripe& place = stripe(key);
    std::lock_guard lock(place.mutex);
    auto found = place.by_key.find(key);
    if (found == place.by_key.end()) return {};
    place.entries.splice(place.entries.begin(), place.entries, found->second);
    return found->second->session;
}

void SessionCache::forget(const std::string& key) {
    Stripe& place = stripe(key);
    std::lock_guard lock(place.mutex);
    auto found = place.by_key.find(key);
    if (found == place.by_key.end()) return;
    const auto entry = found->second;
    place.by_key.erase(found);
    place.entries.erase(entry);
}

size_t SessionCache::size() const {
    size_t total = 0;
    for (const Stripe& place : stripes_) {
        std::lock_guard lock(place.mutex);
        total += place.entries.size();
    }
    return total;
}

}  // namespace postrider
