// Addresses, paths and address lists of any octets: what is accepted has no line end, lies in the
// text, and is accepted again as it was split.
#include <cstdint>
#include <string>

#include "engine/core/address.h"
#include "engine/core/check.h"
#include "engine/core/limits.h"
#include "queue/formats/address_list.h"

namespace postrider {
namespace {

void check_mailbox(const Mailbox& mailbox) {
    POSTRIDER_CHECK(!mailbox.local.empty() && mailbox.local.size() <= limits::kLocalPart,
                    "64 octets");
    POSTRIDER_CHECK(!mailbox.domain.empty() && mailbox.domain.size() <= limits::kDomain,
                    "255 octets");
    const std::string whole = std::string(mailbox.local) + "@" + std::string(mailbox.domain);
    for (const char c : whole) {
        POSTRIDER_CHECK(static_cast<unsigned char>(c) >= 32 && c != 127,
                        "no control in an address");
    }
    POSTRIDER_CHECK(is_utf8(whole), "an address is UTF-8");
    const auto again = parse_mailbox(whole);
    POSTRIDER_CHECK(again && again->local == mailbox.local && again->domain == mailbox.domain,
                    "an address is read as it was written");
    if (const auto ascii = domain_to_ascii(mailbox.domain)) {
        POSTRIDER_CHECK(parse_mailbox("a@" + *ascii), "an A-label is a domain");
        POSTRIDER_CHECK(domain_to_ascii(*ascii) == *ascii, "of which nothing is left to convert");
    }
}

}  // namespace
}  // namespace postrider

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto mailbox = parse_mailbox(text)) check_mailbox(*mailbox);
    if (const auto path = parse_path(text); path && !path->address.empty()) {
        POSTRIDER_CHECK(path->size <= size && text[path->size - 1] == '>',
                        "a path ends at its bracket");
        check_mailbox(path->mailbox);
    }
    size_t at = 0, before = 0;
    ListedAddress listed;
    std::string plain;
    while (next_address(text, at, listed)) {
        POSTRIDER_CHECK(at > before && at <= size, "a list comes to its end");
        POSTRIDER_CHECK(listed.raw.data() >= text.data() &&
                            listed.raw.data() + listed.raw.size() <= text.data() + size,
                        "an element lies in its list");
        before = at;
        if (!plain_addr_spec(listed.raw, plain)) continue;
        if (const auto mailbox = parse_mailbox(plain)) check_mailbox(*mailbox);
    }
    return 0;
}
