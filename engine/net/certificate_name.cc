#include "engine/net/certificate_name.h"

#include <algorithm>

namespace postrider {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

}  // namespace

bool speaks_for_host(std::string_view presented, std::string_view host) {
    if (presented.starts_with("*.")) {
        presented.remove_prefix(1);
        const size_t dot = host.find('.');
        if (dot == 0 || dot == std::string_view::npos || presented.find('.', 1) == std::string_view::npos) return false;
        host.remove_prefix(dot);
    }
    return !presented.empty() && std::ranges::equal(presented, host, {}, lower, lower);
}

}  // namespace postrider
