// The encoder: any content in any split is either broken or read by a strict receiver as BDAT would have sent it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/check.h"
#include "engine/smtp/transparency.h"

namespace postrider {
namespace {

struct Encoded {
    std::string wire;
    uint64_t wire_size = 0;
    bool broken = false;
};

Encoded encode(std::string_view stored, const Content& content, WireForm form, size_t in_step, size_t out_step) {
    ContentEncoder encoder;
    encoder.begin(content, form);
    Encoded result;
    std::vector<char> out(out_step);
    while (!stored.empty()) {
        const auto block = stored.substr(0, in_step);
        const auto progress = encoder.encode(block, out);
        result.wire.append(out.data(), progress.produced);
        stored.remove_prefix(progress.consumed);
        if (encoder.broken()) break;
        POSTRIDER_CHECK(progress.consumed > 0, "room makes progress");
    }
    char end[ContentEncoder::kFinishRoom];
    result.wire.append(end, encoder.finish(end));
    result.broken = encoder.broken();
    result.wire_size = encoder.wire_size();
    return result;
}

// RFC 5321 4.5.2, strictly: only CRLF ends a line.
std::string received(const std::string& wire) {
    std::string content;
    for (size_t at = 0;;) {
        const size_t end = wire.find("\r\n", at);
        POSTRIDER_CHECK(end != std::string::npos, "the wire ends with its dot");
        std::string line = wire.substr(at, end - at);
        POSTRIDER_CHECK(line.find_first_of("\r\n") == std::string::npos, "no bare CR, no bare LF");
        at = end + 2;
        if (line == ".") {
            POSTRIDER_CHECK(at == wire.size(), "one dot, at the end");
            return content;
        }
        if (line.starts_with('.')) line.erase(0, 1);
        content += line + "\r\n";
    }
}

}  // namespace
}  // namespace postrider

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace postrider;
    if (size < 5) return 0;
    const std::string_view stored(reinterpret_cast<const char*>(data) + 5, size - 5);
    Content content;
    content.stored = {0, stored.size()};
    content.form = static_cast<StoredForm>(data[0] % 3);
    const uint64_t from = data[3];
    if (data[4] != 0 && from + data[4] <= stored.size()) content.removed.push_back({from, data[4]});
    const size_t in_step = data[1] % 64U + 1;
    const size_t out_step = data[2] % 64U + 2;
    const Encoded whole = encode(stored, content, WireForm::data, stored.size(), 3 * stored.size() + 16);
    const Encoded split = encode(stored, content, WireForm::data, in_step, out_step);
    POSTRIDER_CHECK(whole.broken == split.broken, "any split breaks the same");
    if (whole.broken) return 0;
    POSTRIDER_CHECK(whole.wire == split.wire, "any split gives the same wire");
    const Encoded bdat = encode(stored, content, WireForm::bdat, in_step, out_step);
    POSTRIDER_CHECK(received(whole.wire) == bdat.wire, "DATA and BDAT carry the same content");
    POSTRIDER_CHECK(bdat.wire.size() == bdat.wire_size, "the size announced is the size sent");
    POSTRIDER_CHECK(whole.wire_size == bdat.wire_size, "and the same for DATA");
    return 0;
}
