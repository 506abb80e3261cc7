// EHLO replies: any text a host may put behind 250 becomes capabilities, and nothing else happens.
#include <cstdint>
#include <string>

#include "engine/core/check.h"
#include "engine/smtp/capabilities.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    Reply reply;
    reply.code = 250;
    reply.text.assign(reinterpret_cast<const char*>(data), size);
    const Capabilities once = parse_capabilities(reply);
    POSTRIDER_CHECK(once.size || once.size_limit == 0, "no limit without SIZE");

    // Keywords said twice, and in the other case, offer the same.
    const size_t greeting = reply.text.find('\n');
    if (greeting != std::string::npos) reply.text += std::string(reply.text, greeting);
    POSTRIDER_CHECK(parse_capabilities(reply) == once, "duplicates change nothing");
    for (char& c : reply.text)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    POSTRIDER_CHECK(parse_capabilities(reply) == once, "case changes nothing");
    return 0;
}
