// Queries built by hand, answers taken apart by hand.
#include "tools/sink/dns_answer.h"

#include <gtest/gtest.h>

#include "engine/core/hash.h"

namespace postrider::sink {
namespace {

std::string wire_name(std::string_view name) {
    std::string out;
    while (!name.empty()) {
        const size_t dot = std::min(name.find('.'), name.size());
        out += static_cast<char>(dot);
        out += name.substr(0, dot);
        name.remove_prefix(std::min(dot + 1, name.size()));
    }
    return out + '\0';
}

std::string query(std::string_view name, uint16_t type, uint16_t edns = 0) {
    using namespace std::string_literals;
    std::string out = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00"s + (edns != 0 ? '\1' : '\0') + wire_name(name);
    out += static_cast<char>(type >> 8);
    out += static_cast<char>(type & 255);
    out += "\0\1"s;
    if (edns != 0) {
        out += "\0\0\x29"s;
        out += static_cast<char>(edns >> 8);
        out += static_cast<char>(edns & 255);
        out += "\0\0\0\0\0\0"s;
    }
    return out;
}

struct Record {
    std::string owner;
    unsigned type = 0, ttl = 0;
    std::string data;
};

struct Answer {
    unsigned id = 0, flags = 0;
    std::vector<Record> records;
    bool edns = false;
};

// The octets at `at` as a number; a short message is a test failure.
unsigned number(const std::string& bytes, size_t at, size_t size) {
    unsigned value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
    return value;
}

std::string read_name(const std::string& bytes, size_t& at) {
    std::string name;
    bool jumped = false;
    for (size_t p = at;;) {
        const unsigned size = number(bytes, p, 1);
        if (size >= 0xc0) {
            if (!jumped) at = p + 2;
            jumped = true;
            p = number(bytes, p, 2) & 0x3fff;
            continue;
        }
        if (!jumped) at = p + 1 + size;
        if (size == 0) return name;
        if (!name.empty()) name += '.';
        name += bytes.substr(p + 1, size);
        p += 1 + size;
    }
}

Answer parse(const std::string& bytes) {
    Answer answer{number(bytes, 0, 2), number(bytes, 2, 2), {}, false};
    EXPECT_EQ(number(bytes, 4, 2), 1u);
    size_t at = 12;
    read_name(bytes, at);
    at += 4;
    const size_t count = number(bytes, 6, 2), additional = number(bytes, 10, 2);
    for (size_t i = 0; i < count + additional; ++i) {
        Record record;
        record.owner = read_name(bytes, at);
        record.type = number(bytes, at, 2);
        record.ttl = number(bytes, at + 4, 4);
        const size_t size = number(bytes, at + 8, 2);
        at += 10;
        if (record.type == 15) {
            size_t name_at = at + 2;
            record.data = std::to_string(number(bytes, at, 2)) + " " + read_name(bytes, name_at);
        } else if (record.type == 5) {
            size_t name_at = at;
            record.data = read_name(bytes, name_at);
        } else {
            record.data = bytes.substr(at, size);
        }
        at += size;
        if (record.type == 41) answer.edns = true;
        else answer.records.push_back(record);
    }
    EXPECT_EQ(at, bytes.size());
    return answer;
}

constexpr uint16_t kA = 1, kMx = 15, kAaaa = 28, kTxt = 16;

std::string first(const DnsZone& zone, std::string_view name, uint16_t type) {
    const Answer answer = parse(zone.answer(query(name, type), true));
    return answer.records.empty() ? "" : answer.records[0].data;
}

TEST(SinkDns, AnyNameHasAnMxAndAnAddress) {
    const DnsZone zone({.ttl_s = 77});
    const std::string bytes = zone.answer(query("Some.Example", kMx), true);
    const Answer mx = parse(bytes);
    EXPECT_EQ(mx.id, 0x1234u);
    EXPECT_EQ(mx.flags, 0x8580u);  // response, authoritative, RD, RA, no error
    ASSERT_EQ(mx.records.size(), 1u);
    EXPECT_EQ(mx.records[0].owner, "Some.Example");  // the question's case comes back
    EXPECT_EQ(mx.records[0].data, "10 mx.some.example");
    EXPECT_EQ(mx.records[0].ttl, 77u);
    EXPECT_EQ(first(zone, "mx.some.example", kA), std::string("\x7f\0\0\1", 4));
    EXPECT_EQ(first(zone, "mx.some.example", kAaaa), "");
    EXPECT_EQ(first(zone, "some.example", kTxt), "");
    EXPECT_EQ(first(DnsZone({.ipv6 = true}), "x.test", kAaaa), std::string(15, '\0') + '\1');
}

TEST(SinkDns, DomainsShareSites) {
    const DnsZone zone({.sites = 7, .spread = true});
    const auto k = 1 + hash64("shop.example") % 7;
    EXPECT_EQ(first(zone, "SHOP.example", kMx), "10 mx" + std::to_string(k) + ".sink.test");
    EXPECT_EQ(first(zone, "mx7.sink.test", kA), std::string("\x7f\0\1\7", 4));
    EXPECT_EQ(first(zone, "mx8.sink.test", kA), std::string("\x7f\0\0\1", 4));
    EXPECT_EQ(site_address(256), 0x7f000200u);
}

TEST(SinkDns, MapLinesComeFirst) {
    DnsZone zone{DnsRules{}};
    for (const auto* line : {"big.test MX 10 mx1.big.test. ; first", "big.test MX 20 mx2.big.test", "# nothing", "",
                             "mx1.big.test A 127.0.0.3", "v6.test AAAA ::1", "alias.test CNAME big.test",
                             "none.test MX 0 .", "gone.test NXDOMAIN", "ill.test SERVFAIL", "mute.test TIMEOUT",
                             "bare.test NODATA", "bare.test A 127.0.0.4", "*.wild.test MX 5 mx.wild.test",
                             "cut.test TRUNCATE"})
        ASSERT_TRUE(zone.add_line(line)) << line;
    const Answer big = parse(zone.answer(query("big.test", kMx), true));
    ASSERT_EQ(big.records.size(), 2u);
    EXPECT_EQ(big.records[1].data, "20 mx2.big.test");
    EXPECT_EQ(first(zone, "mx1.big.test", kA), std::string("\x7f\0\0\3", 4));
    EXPECT_EQ(first(zone, "v6.test", kA), "");
    const Answer alias = parse(zone.answer(query("alias.test", kMx), true));
    ASSERT_EQ(alias.records.size(), 3u);
    EXPECT_EQ(alias.records[0].data, "big.test");
    EXPECT_EQ(alias.records[1].owner, "big.test");
    EXPECT_EQ(first(zone, "none.test", kMx), "0 ");
    EXPECT_EQ(parse(zone.answer(query("gone.test", kMx), true)).flags & 15, 3u);
    EXPECT_EQ(parse(zone.answer(query("ill.test", kA), true)).flags & 15, 2u);
    EXPECT_TRUE(zone.answer(query("mute.test", kA), true).empty());
    EXPECT_EQ(first(zone, "bare.test", kMx), "");
    EXPECT_EQ(first(zone, "bare.test", kA), std::string("\x7f\0\0\4", 4));
    EXPECT_EQ(first(zone, "a.b.wild.test", kMx), "5 mx.wild.test");
    EXPECT_EQ(parse(zone.answer(query("cut.test", kMx), true)).flags & 0x200, 0x200u);
    EXPECT_EQ(parse(zone.answer(query("cut.test", kMx), false)).records.size(), 1u);
    for (const auto* bad : {"x.test MX mx.x.test", "x.test A 1.2.3", "x.test FOO bar", "x.test CNAME"})
        EXPECT_FALSE(zone.add_line(bad)) << bad;
}

TEST(SinkDns, LongAnswersAreTruncatedToWhatTheClientTakes) {
    DnsZone zone{DnsRules{}};
    for (int i = 0; i < 20; ++i)
        ASSERT_TRUE(zone.add_line("many.test MX 10 a-rather-long-host-name-" + std::to_string(i) + ".many.test"));
    const Answer cut = parse(zone.answer(query("many.test", kMx), true));
    EXPECT_EQ(cut.flags & 0x200, 0x200u);
    EXPECT_TRUE(cut.records.empty());
    const Answer whole = parse(zone.answer(query("many.test", kMx, 4096), true));
    EXPECT_EQ(whole.records.size(), 20u);
    EXPECT_TRUE(whole.edns);
    EXPECT_EQ(parse(zone.answer(query("many.test", kMx), false)).records.size(), 20u);
}

TEST(SinkDns, WhatIsNoQueryGetsNoAnswer) {
    const DnsZone zone{DnsRules{}};
    const std::string good = query("a.test", kMx, 1232);
    for (size_t size = 0; size < 24; ++size) EXPECT_TRUE(zone.answer(good.substr(0, std::min<size_t>(size, 23)), true).empty()) << size;
    std::string response = good;
    response[2] = static_cast<char>(0x81);
    EXPECT_TRUE(zone.answer(response, true).empty());
    std::string pointer = good;
    pointer[12] = static_cast<char>(0xc0);
    EXPECT_TRUE(zone.answer(pointer, true).empty());
}

}  // namespace
}  // namespace postrider::sink
