#include "engine/net/session_cache.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace postrider {
namespace {

const SocketAddress kAddress = *SocketAddress::parse("192.0.2.1:25");

std::string key(const std::string& host) {
    return SessionCache::key(host, kAddress, TlsLevel::opportunistic);
}

TEST(SessionCache, TellsHostsAddressesAndPortsApart) {
    SessionCache cache;
    cache.store(key("a.example"), "A");
    EXPECT_EQ(cache.find(key("a.example")), "A");
    EXPECT_EQ(cache.find(key("b.example")), "");
    const auto level = TlsLevel::opportunistic;
    EXPECT_EQ(cache.find(SessionCache::key("a.example", kAddress.with_port(26), level)), "");
    EXPECT_EQ(
        cache.find(SessionCache::key("a.example", *SocketAddress::parse("192.0.2.2:25"), level)),
        "");
    EXPECT_NE(SessionCache::key("a", kAddress, level),
              SessionCache::key("a", kAddress, TlsLevel{9}));
    cache.store(key("a.example"), "A2");
    EXPECT_EQ(cache.find(key("a.example")), "A2");
    EXPECT_EQ(cache.size(), 1u);
    cache.forget(key("a.example"));
    EXPECT_EQ(cache.find(key("a.example")), "");
    EXPECT_EQ(cache.size(), 0u);
}

TEST(SessionCache, IsBoundedAndKeepsWhatIsUsed) {
    SessionCache cache(160);
    cache.store(key("used"), "U");
    for (int i = 0; i < 5'000; ++i) {
        cache.store(key("host" + std::to_string(i)), "S");
        ASSERT_EQ(cache.find(key("used")), "U");
    }
    EXPECT_LE(cache.size(), 160u + SessionCache::kStripes);
    EXPECT_EQ(cache.find(key("host0")), "");
    EXPECT_EQ(cache.find(key("host4999")), "S");
    cache.store(key("huge"), std::string(SessionCache::kSessionMax + 1, 'x'));
    EXPECT_EQ(cache.find(key("huge")), "");
}

// A session is whole or absent, whoever writes meanwhile.
TEST(SessionCache, SharedByThreads) {
    SessionCache cache(64);
    std::vector<std::thread> threads;
    std::vector<int> torn(4, 0), found(4, 0);
    for (size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&cache, &torn, &found, t] {
            for (size_t i = 0; i < 20'000; ++i) {
                const std::string name = key("host" + std::to_string((i * 7 + t) % 100));
                if (i % 3 == 0) cache.store(name, std::string(100 + t, static_cast<char>('a' + t)));
                if (i % 101 == 0) cache.forget(name);
                const std::string session = cache.find(name);
                if (session.empty()) continue;
                ++found[t];
                const size_t writer = static_cast<size_t>(session[0] - 'a');
                if (session != std::string(100 + writer, session[0])) ++torn[t];
            }
        });
    }
    for (auto& thread : threads) thread.join();
    for (size_t t = 0; t < 4; ++t) {
        EXPECT_EQ(torn[t], 0);
        EXPECT_GT(found[t], 0);
    }
    EXPECT_LE(cache.size(), 64u + SessionCache::kStripes);
}

}  // namespace
}  // namespace postrider
