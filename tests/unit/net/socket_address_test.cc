#include "engine/core/socket_address.h"

#include <gtest/gtest.h>

#include <array>
#include <unordered_set>

namespace postrider {
namespace {

TEST(SocketAddress, ReadsWhatItPrints) {
    for (const char* text : {"192.0.2.1:25", "[2001:db8::1]:2525", "[::1]:0", "0.0.0.0:65535"}) {
        const auto address = SocketAddress::parse(text);
        ASSERT_TRUE(address) << text;
        EXPECT_EQ(address->text(), text);
        EXPECT_EQ(*SocketAddress::parse(address->address_text(), address->port()), *address);
        EXPECT_EQ(SocketAddress::from(address->data(), address->size()), *address);
    }
    EXPECT_EQ(SocketAddress::parse("[2001:DB8::0:1]", 25)->text(), "[2001:db8::1]:25");
}

TEST(SocketAddress, RefusesWhatIsNoAddress) {
    for (const char* text :
         {"", ":25", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1:25x",
          "2001:db8::1:25", "[192.0.2.1]:25", "192.0.2.256:25", "mx.example:25", "[::1]25"}) {
        EXPECT_FALSE(SocketAddress::parse(text)) << text;
    }
    EXPECT_FALSE(SocketAddress::parse("localhost", 25));
}

TEST(SocketAddress, ComparesAddressAndPort) {
    const std::array<uint8_t, 4> octets = {192, 0, 2, 7};
    const auto a = SocketAddress::v4(octets, 25);
    EXPECT_EQ(a, *SocketAddress::parse("192.0.2.7:25"));
    EXPECT_NE(a, a.with_port(26));
    EXPECT_TRUE(a.same_address(a.with_port(26)));
    EXPECT_NE(a, *SocketAddress::parse("[::ffff:192.0.2.7]:25"));
    EXPECT_NE(a, SocketAddress());
    EXPECT_EQ(SocketAddress(), SocketAddress());
    EXPECT_FALSE(SocketAddress().specified());
    const std::unordered_set<SocketAddress> set = {a, a, a.with_port(26), SocketAddress()};
    EXPECT_EQ(set.size(), 3u);
}

}  // namespace
}  // namespace postrider
