#include "dns/host_health.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace postrider {
namespace {

// Trouble of this machine, not of the peer's (FAULTS 95).
bool is_local(int error) {
    switch (error) {
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case ENOBUFS:
        case EAGAIN:
        case EADDRNOTAVAIL:
        case EINTR:
        case ECANCELED:
            return true;
        default:
            return false;
    }
}

bool says_no_such_network(int error) { return error == ENETUNREACH || error == EAFNOSUPPORT; }
bool says_not_reached(int error) { return error == ETIMEDOUT || error == EHOSTUNREACH; }

}  // namespace

void HostHealth::Mark::fail(int64_t now_ms) {
    until_ms = now_ms + std::min(kFirstMs << std::min(failures, 8U), kLongestMs);
    ++failures;
}

template <class Map>
template <class Key>
const HostHealth::Mark* HostHealth::Marks<Map>::find(const Key& key) const {
    if (const auto found = young.find(key); found != young.end()) return &found->second;
    if (const auto found = old.find(key); found != old.end()) return &found->second;
    return nullptr;
}

template <class Map>
template <class Key>
HostHealth::Mark& HostHealth::Marks<Map>::at(const Key& key) {
    if (const auto found = young.find(key); found != young.end()) return found->second;
    Mark known;
    if (const auto found = old.find(key); found != old.end()) known = found->second;
    if (young.size() >= kEntries / 2) old = std::exchange(young, {});
    return young.emplace(key, known).first->second;
}

template <class Map>
template <class Key>
void HostHealth::Marks<Map>::erase(const Key& key) {
    for (auto* map : {&young, &old})
        if (const auto found = map->find(key); found != map->end()) map->erase(found);
}

void HostHealth::connect_failed(const SocketAddress& address, int error, int64_t now_ms) {
    if (is_local(error)) return;
    Family& of = family(address.family());
    if (says_no_such_network(error)) {
        of.mark.fail(now_ms);
        return;
    }
    addresses_.at(address).fail(now_ms);
    if (!address.is_v6()) return;
    if (!says_not_reached(error)) {
        of.in_a_row = 0;  // somebody answered
    } else if (!std::exchange(of.last, address).same_address(address) &&
               ++of.in_a_row >= kFamilyFailures) {
        of.in_a_row = 0;
        of.mark.fail(now_ms);
    }
}

void HostHealth::connected(const SocketAddress& address) {
    addresses_.erase(address);
    family(address.family()) = {};
}

void HostHealth::host_failed(std::string_view host, int64_t now_ms) {
    hosts_.at(host).fail(now_ms);
}

void HostHealth::host_served(std::string_view host) { hosts_.erase(host); }

bool HostHealth::address_healthy(const SocketAddress& address, int64_t now_ms) const {
    const Mark* mark = addresses_.find(address);
    return !mark || !mark->holds(now_ms);
}

bool HostHealth::host_healthy(std::string_view host, int64_t now_ms) const {
    const Mark* mark = hosts_.find(host);
    return !mark || !mark->holds(now_ms);
}

bool HostHealth::family_healthy(int number, int64_t now_ms) const {
    return !(number == AF_INET6 ? v6_ : v4_).mark.holds(now_ms);
}

bool HostHealth::healthy(std::string_view host, const SocketAddress& address,
                         int64_t now_ms) const {
    return family_healthy(address.family(), now_ms) && address_healthy(address, now_ms) &&
           host_healthy(host, now_ms);
}

}  // namespace postrider
