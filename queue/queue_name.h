// The name of a queue: the recipient domain, and where x-pool names a pool of sources, a zero octet and the pool. What goes
// out from one pool is a queue of its own, with its own window, binding and park: a pool whose addresses a host refuses does
// not hold the others' mail.
#pragma once

#include <string>
#include <string_view>

namespace postrider {

// Of mail that names no pool, or this one.
inline constexpr std::string_view kDefaultPool = "default";

inline bool is_default_pool(std::string_view pool) { return pool.empty() || pool == kDefaultPool; }

inline std::string_view pool_or_default(std::string_view pool) { return is_default_pool(pool) ? kDefaultPool : pool; }

inline void append_pool(std::string& domain, std::string_view pool) {
    if (is_default_pool(pool)) return;
    domain += '\0';
    domain += pool;
}
inline std::string_view domain_of(std::string_view queue) { return queue.substr(0, queue.find('\0')); }
// Empty for the default pool.
inline std::string_view pool_of(std::string_view queue) {
    const size_t at = queue.find('\0');
    return at == std::string_view::npos ? std::string_view() : queue.substr(at + 1);
}

}  // namespace postrider
