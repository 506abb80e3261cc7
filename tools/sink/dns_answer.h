// A catch-all name server as a pure function: a query's octets (RFC 1035 4) to an answer's.
//
// Any name has `MX 10 mx.<name>`, or with N sites `MX 10 mx<k>.sink.test` where k is a hash of the name, and any
// name has an A record; AAAA only when the sink listens on IPv6 (else no data). What a map line says of a name
// comes first:
//
//   big.test        MX    10 mx1.big.test     ; several lines, several records
//   mx1.big.test    A     127.0.0.3
//   v6.test         AAAA  ::1
//   alias.test      CNAME big.test
//   none.test       MX    0 .                 ; null MX (RFC 7505)
//   gone.test       NXDOMAIN                  ; or SERVFAIL, REFUSED, NODATA (all types), TIMEOUT, TRUNCATE (UDP)
//   *.wild.test     MX    10 mx.wild.test     ; any name below
//
// A listed name has only what its lines say: other types have no data, but a name with only MX lines still has an
// address, and one with only addresses an MX of the catch-all, unless NODATA is among its lines.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/result.h"

namespace postrider::sink {

enum class DnsType : uint16_t { A = 1, CNAME = 5, MX = 15, TXT = 16, AAAA = 28, OPT = 41 };
enum class DnsFault : uint8_t { none, nxdomain, servfail, refused, nodata, timeout, truncate };

struct DnsRecord {
    DnsType type = DnsType::A;
    uint16_t preference = 0;  // MX
    std::string value;        // A, AAAA: network order; MX, CNAME: name without final dot; TXT: text
};

struct DnsRules {
    uint32_t ttl_s = 300;
    uint32_t sites = 0;
    bool spread = false;      // mx<k>.sink.test has 127.0.1.0 + k, else `address`
    uint32_t address = 0x7f000001;  // A of any name
    bool ipv6 = false;        // AAAA ::1 of any name
};

class DnsZone {
  public:
    explicit DnsZone(DnsRules rules) : rules_(rules) {}
    Result<void> add_line(std::string_view line);  // one line of the map; comment and empty lines are fine

    // Empty: no answer at all (TIMEOUT, or not a query). `udp` bounds the size (RFC 1035 4.2.1, RFC 6891 6.2.3).
    std::string answer(std::string_view query, bool udp) const;

  private:
    struct Entry {
        DnsFault fault = DnsFault::none;
        std::vector<DnsRecord> records;
    };
    const Entry* find(const std::string& name) const;
    std::vector<DnsRecord> catch_all(const std::string& name, DnsType type) const;

    DnsRules rules_;
    std::map<std::string, Entry, std::less<>> entries_;  // lower case; "*.x" for wildcards
};

// The address of site k, network order bytes of A.
uint32_t site_address(uint32_t k);

}  // namespace postrider::sink
