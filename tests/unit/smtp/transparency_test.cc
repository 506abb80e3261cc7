// The encoder against a plain model of sender and receiver: FAULTS 39-41, 46, 51.
#include "engine/smtp/transparency.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace postrider {
namespace {

struct Encoded {
    std::string wire;
    uint64_t wire_size = 0;
    bool broken = false;
};

// Encodes `file` in blocks and output buffers of the sizes that `random` gives; none: all at once.
Encoded encode(const std::string& file, const Content& content, WireForm form, std::mt19937* random) {
    ContentEncoder encoder;
    encoder.begin(content, form);
    Encoded result;
    std::string_view rest = std::string_view(file).substr(content.stored.offset, content.stored.size);
    std::string_view block;
    std::vector<char> out;
    while (!(rest.empty() && block.empty()) && !encoder.broken()) {
        if (block.empty()) {
            block = rest.substr(0, random != nullptr ? (*random)() % 40 + 1 : rest.size());
            rest.remove_prefix(block.size());
        }
        out.assign(random != nullptr ? (*random)() % 60 + 2 : 3 * block.size() + 16, '#');
        const auto progress = encoder.encode(block, out);
        EXPECT_TRUE(progress.consumed > 0 || encoder.broken()) << "2 octets of room make progress";
        result.wire.append(out.data(), progress.produced);
        block.remove_prefix(progress.consumed);
    }
    char end[ContentEncoder::kFinishRoom];
    result.wire.append(end, encoder.finish(end));
    if (!encoder.broken()) EXPECT_EQ(encoder.consumed(), content.stored.size);
    result.wire_size = encoder.wire_size();
    result.broken = encoder.broken();
    return result;
}

Content content_of(const std::string& file, StoredForm form) {
    Content content;
    content.stored = {0, file.size()};
    content.form = form;
    return content;
}

std::string on_wire(const std::string& stored, StoredForm form, WireForm wire) {
    return encode(stored, content_of(stored, form), wire, nullptr).wire;
}

// The content that the stored form means: lines without their ends, unstuffed. A bare CR makes it no content.
bool lines_of(const std::string& stored, StoredForm form, std::vector<std::string>& lines) {
    lines.clear();
    std::string line;
    bool framed = true;  // the line begins where the batch file's framing begins a line
    for (size_t i = 0; i < stored.size(); ++i) {
        if (stored[i] == '\r' && (i + 1 == stored.size() || stored[i + 1] != '\n')) return false;
        if (stored[i] == '\r') continue;
        const bool ended = stored[i] == '\n';
        if (!ended) {
            line += stored[i];
            if (i + 1 < stored.size()) continue;
        }
        if (framed && form != StoredForm::plain && line.starts_with('.')) line.erase(0, 1);
        if (ended || !line.empty()) lines.push_back(line);
        line.clear();
        framed = form != StoredForm::stuffed_crlf || (i > 0 && stored[i - 1] == '\r');
    }
    return true;
}

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + "\r\n";
    return text;
}

// A strict receiver (RFC 5321 4.5.2): false unless the wire ends exactly with the first CRLF "." CRLF.
bool received(const std::string& wire, std::string& content) {
    content.clear();
    size_t at = 0;
    while (true) {
        const size_t end = wire.find("\r\n", at);
        if (end == std::string::npos) return false;
        std::string line = wire.substr(at, end - at);
        at = end + 2;
        if (line == ".") return at == wire.size();
        if (line.starts_with('.')) line.erase(0, 1);
        content += line + "\r\n";
    }
}

TEST(Transparency, Fault39DotsAreStuffedOnce) {
    EXPECT_EQ(on_wire(".\n", StoredForm::plain, WireForm::data), "..\r\n.\r\n");
    EXPECT_EQ(on_wire(".a\r\n..b\r\nc.\r\n", StoredForm::plain, WireForm::data), "..a\r\n...b\r\nc.\r\n.\r\n");
    EXPECT_EQ(on_wire("..a\r\n..\r\n", StoredForm::stuffed_crlf, WireForm::data), "..a\r\n..\r\n.\r\n");
    EXPECT_EQ(on_wire("..a\r\n..\r\n", StoredForm::stuffed_crlf, WireForm::bdat), ".a\r\n.\r\n");
    EXPECT_EQ(on_wire("..a\n..\n", StoredForm::stuffed_lf, WireForm::data), "..a\r\n..\r\n.\r\n");
}

TEST(Transparency, Fault39AfterABareLfOfACrlfBatch) {
    // The dot behind a bare LF is content, not stuffing: it is stuffed anew.
    EXPECT_EQ(on_wire("a\n.b\r\n", StoredForm::stuffed_crlf, WireForm::data), "a\r\n..b\r\n.\r\n");
    EXPECT_EQ(on_wire("a\n.b\r\n", StoredForm::stuffed_crlf, WireForm::bdat), "a\r\n.b\r\n");
    EXPECT_EQ(on_wire("a\n.\n", StoredForm::stuffed_crlf, WireForm::data), "a\r\n..\r\n.\r\n");
}

TEST(Transparency, Fault40TheLastLineEndAndTheEmptyMessage) {
    EXPECT_EQ(on_wire("a", StoredForm::plain, WireForm::data), "a\r\n.\r\n");
    EXPECT_EQ(on_wire("a", StoredForm::plain, WireForm::bdat), "a\r\n");
    EXPECT_EQ(on_wire("a\r\n", StoredForm::plain, WireForm::data), "a\r\n.\r\n");
    EXPECT_EQ(on_wire("Subject: x\n", StoredForm::plain, WireForm::data), "Subject: x\r\n.\r\n");
    EXPECT_EQ(on_wire("", StoredForm::plain, WireForm::data), ".\r\n");
    EXPECT_EQ(on_wire("", StoredForm::plain, WireForm::bdat), "");
    EXPECT_EQ(on_wire("\n\n", StoredForm::plain, WireForm::data), "\r\n\r\n.\r\n");
}

TEST(Transparency, Fault41NoBareLfAndNoBareCrOnTheWire) {
    EXPECT_EQ(on_wire("a\n.\n\r\nb\n.\r\nc", StoredForm::plain, WireForm::data),
              "a\r\n..\r\n\r\nb\r\n..\r\nc\r\n.\r\n");
    for (const std::string bad : {"a\rb\r\n", "\r", "a\r\r\n", "a\r\n.\r\r\n", "0123456789abcdefghij\rklmnopqrstuvwxyz\r\n"}) {
        const Encoded encoded = encode(bad, content_of(bad, StoredForm::plain), WireForm::data, nullptr);
        EXPECT_TRUE(encoded.broken) << bad;
        EXPECT_FALSE(encoded.wire.ends_with("\r\n.\r\n")) << "a broken content gets no dot (FAULTS 51)";
    }
}

// A batch whose stuffing is not what the intake saw cannot end the content early.
TEST(Transparency, Fault51ALoneDotInAChangedBatchEndsNothing) {
    for (const auto form : {StoredForm::stuffed_crlf, StoredForm::stuffed_lf}) {
        const std::string wire = on_wire("one line of text\r\n.\r\nMAIL FROM:<x@y.test>\r\n", form, WireForm::data);
        EXPECT_EQ(wire, "one line of text\r\n\r\nMAIL FROM:<x@y.test>\r\n.\r\n");
    }
}

TEST(Transparency, RemovedRangesAreLeftOut) {
    const std::string file = "HEAD" "To: a\nBcc: b\n c\nX: y\nReturn-Path: z\n\n.body";
    Content content;
    content.stored = {4, file.size() - 4};
    content.removed = {{10, 10}, {25, 15}};
    EXPECT_EQ(encode(file, content, WireForm::data, nullptr).wire, "To: a\r\nX: y\r\n\r\n..body\r\n.\r\n");
    std::mt19937 random(1);
    for (int i = 0; i < 200; ++i)
        ASSERT_EQ(encode(file, content, WireForm::bdat, &random).wire, "To: a\r\nX: y\r\n\r\n.body\r\n");
}

TEST(Transparency, NothingIsTakenWithoutRoom) {
    const std::string stored = "\n";
    const Content content = content_of(stored, StoredForm::plain);
    ContentEncoder encoder;
    encoder.begin(content, WireForm::data);
    char one[1];
    const auto progress = encoder.encode(stored, one);
    EXPECT_EQ(progress.consumed, 0U);
    EXPECT_EQ(progress.produced, 0U);
}

std::string random_stored(std::mt19937& random) {
    static const std::string_view pieces[] = {"\r\n", "\r\n.", "\r\n..", "\n", "\n.", ".", "..", "a", "\xc3\xa9",
                                              "a long stretch of text that is wider than one vector of octets",
                                              "sixteen octets!!", "\r\n\r\n", "\r"};
    std::string stored;
    const size_t kinds = random() % 8 == 0 ? std::size(pieces) : std::size(pieces) - 1;
    for (unsigned n = random() % 30; n > 0; --n) stored += pieces[random() % kinds];
    return stored;
}

// FAULTS 39-41, 46: what a receiver sees is the stored content with its line ends normalised, however the octets
// are cut, and the size announced is the size sent.
TEST(Transparency, TheReceiverSeesTheStoredContentForAnySplit) {
    std::mt19937 random(39);
    int broken = 0;
    for (int round = 0; round < 30'000; ++round) {
        const std::string stored = random_stored(random);
        for (const auto form : {StoredForm::plain, StoredForm::stuffed_crlf, StoredForm::stuffed_lf}) {
            const Content content = content_of(stored, form);
            std::vector<std::string> lines;
            const bool sound = lines_of(stored, form, lines);
            const Encoded whole = encode(stored, content, WireForm::data, nullptr);
            const Encoded split = encode(stored, content, WireForm::data, &random);
            const Encoded bdat = encode(stored, content, WireForm::bdat, &random);
            ASSERT_EQ(whole.broken, !sound);
            ASSERT_EQ(split.broken, !sound);
            ASSERT_EQ(bdat.broken, !sound);
            ASSERT_EQ(whole.wire, split.wire);
            if (!sound) {
                ++broken;
                continue;
            }
            std::string seen;
            ASSERT_TRUE(received(whole.wire, seen)) << whole.wire;
            ASSERT_EQ(seen, joined(lines));
            ASSERT_EQ(bdat.wire, seen);
            ASSERT_EQ(whole.wire_size, seen.size());
            ASSERT_EQ(bdat.wire_size, seen.size());
        }
    }
    EXPECT_GT(broken, 1'000);
}

TEST(Transparency, RemovedRangesForAnySplit) {
    std::mt19937 random(58);
    for (int round = 0; round < 5'000; ++round) {
        std::string file;
        std::string kept;
        Content content;
        for (unsigned n = random() % 12 + 1; n > 0; --n) {
            const std::string line = std::string(random() % 50, random() % 2 ? '.' : 'x') + (random() % 2 ? "\n" : "\r\n");
            if (random() % 3 == 0) {
                content.removed.push_back({file.size(), line.size()});
            } else {
                kept += line;
            }
            file += line;
        }
        content.stored = {0, file.size()};
        for (const auto wire : {WireForm::data, WireForm::bdat})
            ASSERT_EQ(encode(file, content, wire, &random).wire, on_wire(kept, StoredForm::plain, wire));
    }
}

}  // namespace
}  // namespace postrider
