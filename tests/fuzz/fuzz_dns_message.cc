// The parser of DNS answers, and what is made of them. The first octet chooses the record type; the
// question in the input decides the name that is asked for, so that the fuzzer gets past it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "dns/dns_message.h"
#include "dns/mail_route.h"
#include "engine/core/check.h"
#include "engine/core/limits.h"

namespace {

using namespace postrider;

// The question's name as the parser writes it, as far as it needs no escapes.
std::string asked_name(std::span<const uint8_t> message) {
    std::string name;
    for (size_t at = 12; at < message.size() && message[at] != 0 && message[at] < 64;
         at += message[at] + 1U) {
        if (!name.empty()) name += '.';
        for (size_t i = at + 1; i <= at + message[at] && i < message.size(); ++i) {
            const uint8_t octet = message[i];
            name += static_cast<char>(octet >= 'A' && octet <= 'Z' ? octet + 32 : octet);
        }
    }
    return name;
}

void check_mx(const DnsAnswer& answer, const std::string& name) {
    const MailRoute route = make_route(name, answer, 0, 30'000);
    POSTRIDER_CHECK((route.kind == MailRoute::Kind::hosts) == !route.hosts.empty(),
                    "hosts exactly where it says so");
    POSTRIDER_CHECK(route.hosts.size() <= limits::kMxPerDomain, "bounded");
    POSTRIDER_CHECK(route.site.empty() == route.hosts.empty(), "a site has hosts");
    POSTRIDER_CHECK(route.expires_ms >= 30'000, "no answer is forgotten at once");
    for (size_t i = 1; i < route.hosts.size(); ++i)
        POSTRIDER_CHECK(route.hosts[i - 1].preference <= route.hosts[i].preference,
                        "ascending preference");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    static constexpr RecordType kTypes[] = {RecordType::mx, RecordType::a, RecordType::aaaa};
    const RecordType type = kTypes[data[0] % 3];
    const std::span<const uint8_t> message(data + 1, size - 1);
    const std::string name = asked_name(message);
    const DnsAnswer answer = parse_answer(message, name, type);
    POSTRIDER_CHECK(answer.aliases <= limits::kCnameChain, "bounded");
    POSTRIDER_CHECK(answer.addresses.size() <= limits::kAddressesPerHost, "bounded");
    if (answer.kind == DnsAnswer::Kind::failure) {
        POSTRIDER_CHECK(!answer.why.empty(), "a failure says why");
        POSTRIDER_CHECK(answer.mx.empty() && answer.addresses.empty(),
                        "a failure carries no records");
    } else {
        POSTRIDER_CHECK(answer.ttl_s >= limits::kTtlMinS && answer.ttl_s <= limits::kTtlMaxS,
                        "clamped");
    }
    if (type == RecordType::mx)
        check_mx(answer, name);
    else
        make_addresses(name, answer, answer, 0, 30'000);
    return 0;
}
