// Reads one raw DNS answer (RFC 1035 4) of an untrusted peer: MX, A or AAAA with the smallest TTL
// on the way, the aliases that lead there, and the negative TTL. c-ares 1.18 gives no TTL of MX,
// and its parsers stop at the first odd record.
//
// Bounded: names are at most 255 octets, a compression pointer leads strictly backwards (so no
// loop), aliases are followed limits::kCnameChain deep, and every length is checked against the
// message. Pure, allocates only what it returns. Whatever does not add up is `failure`, never a
// guess.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dns/resolver.h"

namespace postrider {

enum class RecordType : uint16_t { a = 1, ns = 2, cname = 5, soa = 6, mx = 15, aaaa = 28 };
std::string_view record_type_name(RecordType type);

struct DnsAnswer {
    enum class Kind : uint8_t {
        records,       // `mx` or `addresses` is not empty
        no_data,       // the name exists, without such records
        no_such_name,  // NXDOMAIN
        alias,         // the answer ends at an alias: `name` is to be asked
        failure,       // `why`: "SERVFAIL", "malformed answer", ...
    };
    Kind kind = Kind::failure;
    std::string name;        // where the chain of aliases ends
    uint32_t aliases = 0;    // links of the chain
    uint32_t ttl_s = 0;      // within limits::kTtlMinS..kTtlMaxS
    std::vector<MxHost> mx;  // as found, in any order; the root is an empty name (RFC 7505)
    std::vector<SocketAddress> addresses;
    std::string why;
};

// `name` as it was asked: lower case, no final dot.
DnsAnswer parse_answer(std::span<const uint8_t> message, std::string_view name, RecordType type);

DnsAnswer failed_answer(std::string why);

// RFC 2181 8: a TTL with the top bit set is zero; then clamped to limits::kTtlMinS..kTtlMaxS.
uint32_t clamp_ttl(uint32_t ttl_s);

}  // namespace postrider
