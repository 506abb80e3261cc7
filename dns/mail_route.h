// From what DNS said to where mail goes: pure functions over parsed answers (FAULTS 78-85).
//
//   MX records                  their hosts by preference; "." among others is ignored (RFC 7505
//   3); a target that is an
//                               address or no host name is unusable
//   one "." alone               null MX
//   name exists, no MX          the domain itself, preference 0 (RFC 5321 5.1)
//   no such name                no such domain; never the A of a domain whose MX hosts all fail
//   anything else               temporary
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dns/dns_message.h"
#include "dns/resolver.h"

namespace postrider {

// `temporary_ms`: how long a failure is remembered.
MailRoute make_route(std::string_view domain, const DnsAnswer& answer, int64_t now_ms,
                     int64_t temporary_ms);

// `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 4.1.3); another literal is `no_such_domain`.
MailRoute literal_route(std::string_view domain, int64_t now_ms);
HostAddresses literal_addresses(std::string_view host, int64_t now_ms);

HostAddresses make_addresses(std::string_view host, const DnsAnswer& a, const DnsAnswer& aaaa,
                             int64_t now_ms, int64_t temporary_ms);

MailRoute temporary_route(std::string why, int64_t expires_ms);
HostAddresses temporary_addresses(std::string why, int64_t expires_ms);

// The canonical MX set (DESIGN 2.3): sorted names joined by ','; over limits::kSiteName octets the
// first, '+' and 8 hex digits of the hash of the whole.
std::string site_name(const std::vector<MxHost>& hosts);

}  // namespace postrider
