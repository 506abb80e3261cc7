#include "dns/mail_route.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "engine/config/address_block.h"
#include "engine/core/address.h"
#include "engine/core/hash.h"
#include "engine/core/limits.h"
#include "engine/core/time.h"

namespace postrider {
namespace {

int64_t after_s(int64_t now_ms, uint32_t seconds) { return now_ms + seconds * kMsPerSecond; }

// What an MX may name: letters, digits, hyphens (and the underscores some hosts have), no address.
// The comma of site names and whatever needs an escape can therefore not occur.
bool is_host_name(std::string_view name) {
    if (name.empty() || name.size() > limits::kDomain || is_ip_address(name)) return false;
    char previous = '.';
    for (const char c : name) {
        const bool letter =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!letter && (c != '.' || previous == '.')) return false;
        previous = c;
    }
    return true;
}

// Ascending preference; of a name that occurs twice the better place counts; the worst beyond the
// limit are dropped.
void sort_hosts(std::vector<MxHost>& hosts) {
    std::ranges::sort(hosts, {},
                      [](const MxHost& host) { return std::tie(host.name, host.preference); });
    const auto twice = std::ranges::unique(hosts, {}, &MxHost::name);
    hosts.erase(twice.begin(), twice.end());
    std::ranges::sort(hosts, {},
                      [](const MxHost& host) { return std::tie(host.preference, host.name); });
    if (hosts.size() > limits::kMxPerDomain) hosts.resize(limits::kMxPerDomain);
}

void use_records(MailRoute& route, std::string_view domain, const DnsAnswer& answer) {
    std::string_view unusable;
    bool only_null = true;
    for (const auto& host : answer.mx) {
        if (host.name.empty()) continue;
        only_null = false;
        if (is_host_name(host.name))
            route.hosts.push_back(host);
        else
            unusable = host.name;
    }
    if (only_null) {
        route.kind = MailRoute::Kind::null_mx;
        route.why = fmt::format("MX {}: the domain takes no mail (null MX)", domain);
    } else if (route.hosts.empty()) {
        route.kind = MailRoute::Kind::no_usable_host;
        route.why = fmt::format("MX {}: \"{}\" is not a host name", domain, unusable);
    } else {
        route.kind = MailRoute::Kind::hosts;
        sort_hosts(route.hosts);
        route.site = site_name(route.hosts);
    }
}

Result<SocketAddress> parse_literal(std::string_view domain) {
    constexpr std::string_view kTag = "ipv6:";
    if (domain.size() < 2 || domain.front() != '[' || domain.back() != ']')
        return fail("no literal");
    const std::string inner = normalise_domain(domain.substr(1, domain.size() - 2));
    const bool v6 = inner.starts_with(kTag);
    auto address = SocketAddress::parse(std::string_view(inner).substr(v6 ? kTag.size() : 0), 0);
    if (address && address->is_v6() != v6)
        return fail("the tag IPv6: and the address do not agree");
    return address;
}

}  // namespace

std::string site_name(const std::vector<MxHost>& hosts) {
    std::vector<std::string_view> names;
    names.reserve(hosts.size());
    for (const auto& host : hosts) names.push_back(host.name);
    std::ranges::sort(names);
    std::string site = fmt::format("{}", fmt::join(names, ","));
    if (site.size() > limits::kSiteName)
        site = fmt::format("{}+{:08x}", names.front(), static_cast<uint32_t>(hash64(site)));
    return site;
}

MailRoute make_route(std::string_view domain, const DnsAnswer& answer, int64_t now_ms,
                     int64_t temporary_ms) {
    if (answer.kind == DnsAnswer::Kind::failure || answer.kind == DnsAnswer::Kind::alias)
        return temporary_route(fmt::format("MX {}: {}", domain, answer.why), now_ms + temporary_ms);
    MailRoute route;
    route.expires_ms = after_s(now_ms, answer.ttl_s);
    if (answer.kind == DnsAnswer::Kind::records) {
        use_records(route, domain, answer);
    } else if (answer.kind == DnsAnswer::Kind::no_such_name) {
        route.kind = MailRoute::Kind::no_such_domain;
        route.why = fmt::format("MX {}: NXDOMAIN", domain);
    } else if (!is_host_name(domain)) {
        route.kind = MailRoute::Kind::no_such_domain;
        route.why = fmt::format("MX {}: no such record, and no host name", domain);
    } else {
        route.kind = MailRoute::Kind::hosts;
        route.implicit = true;
        route.hosts = {MxHost{0, std::string(domain)}};
        route.site = site_name(route.hosts);
    }
    return route;
}

MailRoute literal_route(std::string_view domain, int64_t now_ms) {
    MailRoute route;
    route.expires_ms = after_s(now_ms, limits::kTtlMaxS);
    const auto address = parse_literal(domain);
    if (!address) {
        route.kind = MailRoute::Kind::no_such_domain;
        route.why = fmt::format("{}: not an address literal (RFC 5321 4.1.3)", domain);
        return route;
    }
    route.kind = MailRoute::Kind::hosts;
    route.hosts = {MxHost{0, std::string(domain)}};
    route.site = site_name(route.hosts);
    return route;
}

HostAddresses literal_addresses(std::string_view host, int64_t now_ms) {
    HostAddresses found;
    found.expires_ms = after_s(now_ms, limits::kTtlMaxS);
    if (const auto address = parse_literal(host)) {
        found.kind = HostAddresses::Kind::found;
        found.addresses = {*address};
    } else {
        found.kind = HostAddresses::Kind::none;
        found.why = fmt::format("{}: not an address literal (RFC 5321 4.1.3)", host);
    }
    return found;
}

HostAddresses make_addresses(std::string_view host, const DnsAnswer& a, const DnsAnswer& aaaa,
                             int64_t now_ms, int64_t temporary_ms) {
    const auto failed = [](const DnsAnswer& answer) {
        return answer.kind == DnsAnswer::Kind::failure || answer.kind == DnsAnswer::Kind::alias;
    };
    HostAddresses result;
    // Both families get their share of the places.
    for (size_t i = 0; i < limits::kAddressesPerHost; ++i)
        for (const auto* answer : {&aaaa, &a})
            if (i < answer->addresses.size() && result.addresses.size() < limits::kAddressesPerHost)
                result.addresses.push_back(answer->addresses[i]);
    // A family that could not be asked is asked again soon, though the other one serves.
    result.expires_ms = INT64_MAX;
    for (const auto* answer : {&a, &aaaa})
        result.expires_ms =
            std::min(result.expires_ms,
                     failed(*answer) ? now_ms + temporary_ms : after_s(now_ms, answer->ttl_s));
    if (!result.addresses.empty()) {
        result.kind = HostAddresses::Kind::found;
    } else if (failed(a) || failed(aaaa)) {
        result.kind = HostAddresses::Kind::temporary;
        result.why =
            fmt::format("{} {}: {}", failed(a) ? "A" : "AAAA", host, failed(a) ? a.why : aaaa.why);
    } else {
        result.kind = HostAddresses::Kind::none;
        const bool absent =
            a.kind == DnsAnswer::Kind::no_such_name || aaaa.kind == DnsAnswer::Kind::no_such_name;
        result.why = fmt::format("{}: {}", host, absent ? "NXDOMAIN" : "neither A nor AAAA");
    }
    return result;
}

MailRoute temporary_route(std::string why, int64_t expires_ms) {
    MailRoute route;
    route.expires_ms = expires_ms;
    route.why = std::move(why);
    return route;
}

HostAddresses temporary_addresses(std::string why, int64_t expires_ms) {
    HostAddresses result;
    result.expires_ms = expires_ms;
    result.why = std::move(why);
    return result;
}

}  // namespace postrider
