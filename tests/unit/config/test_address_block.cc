#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/config/config.h"

namespace postrider {
namespace {

std::vector<uint8_t> octets(const char* text) {
    std::vector<uint8_t> out(4);
    if (inet_pton(AF_INET, text, out.data()) == 1) return out;
    out.resize(16);
    EXPECT_EQ(inet_pton(AF_INET6, text, out.data()), 1) << text;
    return out;
}

bool within(const char* block, const char* address) {
    return AddressBlock::parse(block).value().contains(octets(address));
}

TEST(AddressBlock, Contains) {
    EXPECT_TRUE(within("127.0.0.0/8", "127.255.255.255"));
    EXPECT_FALSE(within("127.0.0.0/8", "128.0.0.0"));
    EXPECT_TRUE(within("192.0.2.1", "192.0.2.1"));
    EXPECT_FALSE(within("192.0.2.1", "192.0.2.2"));
    EXPECT_TRUE(within("0.0.0.0/0", "203.0.113.9"));
    EXPECT_TRUE(within("fe80::/10", "febf::1"));
    EXPECT_FALSE(within("fe80::/10", "fec0::1"));
    EXPECT_TRUE(within("::/0", "2001:db8::1"));
    EXPECT_FALSE(within("0.0.0.0/0", "2001:db8::1"));
    EXPECT_FALSE(within("::/0", "192.0.2.1"));
}

TEST(AddressBlock, AMappedAddressIsTheIpv4AddressItStandsFor) {
    EXPECT_TRUE(within("127.0.0.0/8", "::ffff:127.0.0.1"));
    EXPECT_FALSE(within("127.0.0.0/8", "::ffff:128.0.0.1"));
    EXPECT_TRUE(within("::ffff:0:0/96", "::ffff:192.0.2.1"));
}

TEST(AddressBlock, DefaultsRefuseWhatMustNotBeMailed) {
    const auto blocks = default_prohibited_hosts();
    for (const char* bad : {"127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1",
                            "224.0.0.1", "::ffff:127.0.0.1", "::", "ff02::1"}) {
        EXPECT_TRUE(any_contains(blocks, octets(bad))) << bad;
    }
    for (const char* good : {"192.0.2.1", "10.0.0.1", "2001:db8::1", "::2"}) {
        EXPECT_FALSE(any_contains(blocks, octets(good))) << good;
    }
    const std::vector<uint8_t> odd(5, 127);
    EXPECT_FALSE(any_contains(blocks, odd));
}

TEST(AddressBlock, Refused) {
    using namespace std::string_view_literals;
    for (const auto text : {""sv, "/"sv, "127.0.0.0/"sv, "127.0.0.0/33"sv, "127.0.0.0/-1"sv,
                            "::/129"sv, "127.0.0.0/8x"sv, "127.0.0/8"sv, "localhost"sv,
                            "fe80::1%eth0"sv, "127.0.0.1\0/8"sv, "127.0.0.0/999"sv}) {
        EXPECT_FALSE(AddressBlock::parse(text)) << text;
    }
    EXPECT_EQ(AddressBlock::parse("127.0.0.1/8").error().text,
              "bits are set beyond the prefix: did you mean 127.0.0.0/8?, allowed: an address or a "
              "block such as \"127.0.0.0/8\", \"fe80::/10\"");
    EXPECT_EQ(AddressBlock::parse("10.0.0.0/40").error().text,
              "the prefix length is not between 0 and 32, allowed: an address or a block such as "
              "\"127.0.0.0/8\", \"fe80::/10\"");
}

// Against arithmetic on 32-bit integers.
TEST(AddressBlock, AgreesWithArithmetic) {
    std::mt19937 random(3);
    for (int i = 0; i < 20'000; ++i) {
        const auto prefix = random() % 33;
        const uint32_t mask = prefix == 0 ? 0 : ~0U << (32 - prefix);
        const uint32_t base = static_cast<uint32_t>(random()) & mask;
        const uint32_t address =
            random() % 2 == 0 ? static_cast<uint32_t>(random()) : base ^ (1U << (random() % 32));
        const uint32_t base_network = htonl(base), network = htonl(address);
        char text[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &base_network, text, sizeof text);
        const auto block = AddressBlock::parse(std::string(text) + '/' + std::to_string(prefix));
        ASSERT_TRUE(block) << text << '/' << prefix;
        const std::span bytes(reinterpret_cast<const uint8_t*>(&network), 4);
        EXPECT_EQ(block->contains(bytes), (address & mask) == base);
        EXPECT_EQ(AddressBlock::parse(block->to_string()).value(), *block);
    }
}

}  // namespace
}  // namespace postrider
