// What arrives is what was stored, octet for octet (FAULTS 39-41, 53), and a message whose file fails is never ended with
// a dot (FAULTS 51, 52).
#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::MemoryFeed;
using test::MemoryMessage;
using test::quick_options;
using test::talk;
using test::Wire;
using enum OutcomeKind;

std::string lines(size_t size, std::string_view end, bool dots) {
    std::string text;
    for (uint32_t i = 0; text.size() < size; ++i) {
        if (dots && i % 7 == 0) text += i % 14 == 0 ? "." : "...";
        text += "line " + std::to_string(i) + " of a message";
        text += end;
        if (i % 11 == 0) text += end;
    }
    return text;
}

// A batch file's DATA: dots doubled behind the framing's line ends.
std::string stuffed(std::string_view text, std::string_view end) {
    std::string out;
    while (!text.empty()) {
        if (text.starts_with('.')) out += '.';
        const size_t at = text.find(end);
        const size_t next = at == std::string_view::npos ? text.size() : at + end.size();
        out += text.substr(0, next);
        text.remove_prefix(next);
    }
    return out;
}

struct Stored {
    std::string name, file;
    StoredForm form = StoredForm::plain;
};

std::vector<Stored> variants() {
    std::vector<Stored> all = {
        {"empty", ""},
        {"a dot alone", ".\r\n"},
        {"dot without line end", "."},
        {"header only", "Subject: x\r\n"},
        {"no final newline", "Subject: x\r\n\r\nlast"},
        {"bare LF", "Subject: x\n\n.\n..\n.a\nb\n"},
        {"LF dot LF among CRLF", "Subject: x\r\n\r\na\n.\nb\r\n.\r\nc\n.\r\n"},
        {"8-bit", "Subject: x\r\n\r\n\xc3\xa4\xff\r\n"},
    };
    for (const size_t size : {500u, 59'000u, 62'000u, 300'000u}) {
        const std::string n = std::to_string(size) + " octets, ";
        all.push_back({n + "clean", lines(size, "\r\n", false)});
        all.push_back({n + "dots", lines(size, "\r\n", true)});
        all.push_back({n + "LF", lines(size, "\n", false)});
        all.push_back({n + "LF and dots", lines(size, "\n", true)});
        all.push_back({n + "batch CRLF", stuffed(lines(size, "\r\n", true), "\r\n"), StoredForm::stuffed_crlf});
        all.push_back({n + "batch LF", stuffed(lines(size, "\n", true), "\n"), StoredForm::stuffed_lf});
        all.push_back({n + "bare LF in a batch of CRLF", stuffed(lines(size, "\r\n", true) + "a\n.b\n..c\r\n.d\r\n", "\r\n"),
                       StoredForm::stuffed_crlf});
    }
    return all;
}

TEST(SessionContent, F39_F40_F41_EachFormArrivesAsItIs) {
    const auto all = variants();
    MemoryFeed feed;
    for (const Stored& each : all) feed.add(each.file, each.form);
    talk(feed, [&](Wire& wire) {
        wire.greet();
        for (size_t i = 0; i < all.size(); ++i) {
            wire.envelope();
            std::string text;
            ASSERT_TRUE(wire.content(text)) << all[i].name;
            EXPECT_TRUE(text == feed.messages[i]->wire) << all[i].name;
            wire.say("250 ok\r\n");
        }
        wire.end();
    });
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(feed.messages[i]->kind(), delivered) << all[i].name;
}

TEST(SessionContent, F53_ThirtyMegabytesThroughASmallReceiveBuffer) {
    for (const bool dots : {false, true}) {
        MemoryFeed feed;
        auto& large = feed.add(lines(30'000'000, "\r\n", dots));
        feed.add();
        talk(
            feed,
            [&](Wire& wire) {
                wire.greet();
                wire.envelope();
                std::string text;
                ASSERT_TRUE(wire.content(text));
                EXPECT_TRUE(text == large.wire);
                wire.say("250 ok\r\n");
                wire.take_message();
                wire.end();
            },
            quick_options(), 8 * 1024);
        EXPECT_EQ(large.kind(), delivered);
        EXPECT_EQ(feed.messages[1]->kind(), delivered);
    }
}

// Small and streamed, as it lies and through the encoder.
std::vector<std::string> sizes() {
    return {lines(2'000, "\r\n", false), lines(2'000, "\n", true), lines(400'000, "\r\n", false),
            lines(400'000, "\n", true)};
}

TEST(SessionContent, F51_ChangedFileIsNotEndedWithADot) {
    for (const std::string& file : sizes()) {
        MemoryFeed feed;
        auto& message = feed.add(file);
        message.changed = true;
        auto& other = feed.add();
        talk(feed, [](Wire& wire) {
            wire.greet();
            wire.envelope();
            std::string text;
            EXPECT_FALSE(wire.content(text));
        });
        EXPECT_EQ(message.kind(), transient);
        EXPECT_EQ(message.outcome().scope, Scope::engine);
        EXPECT_TRUE(feed.intents.empty());
        EXPECT_EQ(feed.waiting.front(), &other);
    }
}

TEST(SessionContent, F51_FileOfAnotherSizeThanWasAnnounced) {
    for (const std::string& file : {lines(2'000, "\n", true), lines(400'000, "\n", true)}) {
        MemoryFeed feed;
        auto& message = feed.add(file);
        message.content.wire_size += 1;
        talk(feed, [](Wire& wire) {
            wire.greet();
            wire.envelope();
            std::string text;
            EXPECT_FALSE(wire.content(text));
        });
        EXPECT_EQ(message.kind(), transient);
    }
}

TEST(SessionContent, F52_ReadErrorInTheMiddle) {
    for (const std::string& file : sizes()) {
        MemoryFeed feed;
        auto& message = feed.add(file);
        message.fail_read = file.size() > 60'000 ? 5 : 1;
        talk(feed, [](Wire& wire) {
            wire.greet();
            wire.envelope();
            std::string text;
            EXPECT_FALSE(wire.content(text));
        });
        EXPECT_EQ(message.kind(), transient);
        EXPECT_TRUE(feed.intents.empty());
    }
}

}  // namespace
}  // namespace postrider
