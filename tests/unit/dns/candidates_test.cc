#include "dns/candidates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <set>

#include "dns/mail_route.h"
#include "engine/core/limits.h"

namespace postrider {
namespace {

using Kind = MailRoute::Kind;
using testing::ElementsAre;
using testing::HasSubstr;
using Known = std::vector<std::shared_ptr<const HostAddresses>>;
constexpr int64_t kNowMs = 1'000'000;
constexpr uint16_t kPort = 2525;

SocketAddress address(const std::string& text) { return *SocketAddress::parse(text, 0); }

std::shared_ptr<const HostAddresses> found(const std::vector<std::string>& texts) {
    HostAddresses host;
    host.kind = HostAddresses::Kind::found;
    host.expires_ms = kNowMs + 60'000;
    for (const auto& text : texts) host.addresses.push_back(address(text));
    return std::make_shared<HostAddresses>(host);
}
std::shared_ptr<const HostAddresses> nothing(HostAddresses::Kind kind, std::string why) {
    return std::make_shared<HostAddresses>(
        HostAddresses{kind, {}, kNowMs + 30'000, std::move(why)});
}
MailRoute route_to(std::vector<MxHost> hosts) {
    MailRoute route;
    route.kind = Kind::hosts;
    route.hosts = std::move(hosts);
    route.expires_ms = kNowMs + 300'000;
    return route;
}

class CandidatesTest : public testing::Test {
  protected:
    Candidates order(const MailRoute& route, const Known& known) {
        return order_candidates(route, known, health, random, prohibited, kPort, kNowMs);
    }
    static std::vector<std::string> texts(const Candidates& c) {
        std::vector<std::string> out;
        for (const auto& candidate : c.list) out.push_back(candidate.address.address_text());
        return out;
    }
    HostHealth health;
    Random random{42};
    AddressBlocks prohibited;
};

TEST_F(CandidatesTest, ByPreferenceWithPortAndHost) {
    const auto c = order(route_to({{10, "a.test"}, {20, "b.test"}}),
                         {found({"192.0.2.1"}), found({"192.0.2.2"})});
    EXPECT_EQ(c.kind, Kind::hosts);
    EXPECT_THAT(texts(c), ElementsAre("192.0.2.1", "192.0.2.2"));
    EXPECT_EQ(c.list[1].host, "b.test");
    EXPECT_EQ(c.list[1].preference, 20);
    EXPECT_EQ(c.list[1].address.port(), kPort);
    EXPECT_EQ(c.expires_ms, kNowMs + 60'000);
}

TEST_F(CandidatesTest, EqualsAreShuffledAndNeverLeaveTheirPreference) {
    std::map<std::string, int> first;
    for (int i = 0; i < 600; ++i) {
        const auto c =
            order(route_to({{10, "a.test"}, {10, "b.test"}, {10, "c.test"}, {20, "d.test"}}),
                  {found({"192.0.2.1"}), found({"192.0.2.2"}), found({"192.0.2.3"}),
                   found({"192.0.2.4"})});
        ++first[c.list.front().host];
        ASSERT_EQ(c.list.back().host, "d.test");
    }
    ASSERT_EQ(first.size(), 3u);
    for (const auto& [host, times] : first) EXPECT_GT(times, 140) << host;
}

TEST_F(CandidatesTest, FamiliesAreInterleaved) {
    const auto c =
        order(route_to({{10, "a.test"}}),
              {found({"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"})});
    std::string pattern;
    for (const auto& candidate : c.list) pattern += candidate.address.is_v6() ? '6' : '4';
    EXPECT_EQ(pattern, "64644");
}

TEST_F(CandidatesTest, FirstPlacesGoToDifferentHosts) {
    const auto c = order(route_to({{10, "a.test"}, {10, "b.test"}}),
                         {found({"192.0.2.1", "192.0.2.2"}), found({"192.0.2.3", "192.0.2.4"})});
    ASSERT_EQ(c.list.size(), 4u);
    EXPECT_NE(c.list[0].host, c.list[1].host);
    EXPECT_NE(c.list[2].host, c.list[3].host);
}

TEST_F(CandidatesTest, AddressSharedByHostsIsTriedOnce) {
    EXPECT_THAT(texts(order(route_to({{10, "a.test"}, {20, "b.test"}}),
                            {found({"192.0.2.1"}), found({"192.0.2.1"})})),
                ElementsAre("192.0.2.1"));
}

TEST_F(CandidatesTest, ManyAddressesAreCut) {
    MailRoute route = route_to({});
    Known known;
    for (int i = 0; i < 32; ++i) {
        route.hosts.push_back({10, "h" + std::to_string(i) + ".test"});
        std::vector<std::string> of_host;
        for (int j = 1; j <= 16; ++j)
            of_host.push_back("10.0." + std::to_string(i) + "." + std::to_string(j));
        known.push_back(found(of_host));
    }
    const auto c = order(route, known);
    std::set<std::string> hosts;
    for (const auto& candidate : c.list) hosts.insert(candidate.host);
    EXPECT_EQ(c.list.size(), limits::kAddressesPerSite);
    EXPECT_EQ(hosts.size(), 32u);
}

TEST_F(CandidatesTest, Fault83ProhibitedOnesAreLeftOutWithTheReason) {
    for (const char* block : {"127.0.0.0/8", "::1/128", "169.254.0.0/16"})
        prohibited.push_back(*AddressBlock::parse(block));
    const auto c =
        order(route_to({{10, "a.test"}}),
              {found({"127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.1.1", "192.0.2.1"})});
    EXPECT_THAT(texts(c), ElementsAre("192.0.2.1"));
    EXPECT_THAT(c.why, HasSubstr("a.test: 127.0.0.1 is in prohibited_hosts"));
    const auto all = order(route_to({{10, "a.test"}}), {found({"127.0.0.2"})});
    EXPECT_EQ(all.kind, Kind::no_usable_host);
    EXPECT_THAT(all.why, HasSubstr("127.0.0.2"));
}

TEST_F(CandidatesTest, Fault81NoAddressIsPermanentAndAFailureAmongThemTemporary) {
    const auto none = nothing(HostAddresses::Kind::none, "a.test: NXDOMAIN");
    const auto temporary = nothing(HostAddresses::Kind::temporary, "A b.test: SERVFAIL");
    const auto route = route_to({{10, "a.test"}, {20, "b.test"}});
    EXPECT_EQ(order(route, {none, none}).kind, Kind::no_usable_host);
    const auto mixed = order(route, {none, temporary});
    EXPECT_EQ(mixed.kind, Kind::temporary);
    EXPECT_EQ(mixed.why, "a.test: NXDOMAIN; A b.test: SERVFAIL");
    EXPECT_EQ(order(route, {temporary, found({"192.0.2.1"})}).kind, Kind::hosts);
    EXPECT_EQ(order(route, {none, nullptr}).kind, Kind::temporary);
}

TEST_F(CandidatesTest, Fault89FailedOnesAreTriedLast) {
    const auto route = route_to({{10, "a.test"}, {20, "b.test"}});
    const Known known = {found({"192.0.2.1"}), found({"192.0.2.2"})};
    health.connect_failed(address("192.0.2.1"), ETIMEDOUT, kNowMs);
    EXPECT_THAT(texts(order(route, known)), ElementsAre("192.0.2.2", "192.0.2.1"));
    health.connected(address("192.0.2.1"));
    EXPECT_THAT(texts(order(route, known)), ElementsAre("192.0.2.1", "192.0.2.2"));
    health.host_failed("a.test", kNowMs);
    EXPECT_THAT(texts(order(route, known)), ElementsAre("192.0.2.2", "192.0.2.1"));
    health.host_served("a.test");
    EXPECT_THAT(texts(order(route, known)), ElementsAre("192.0.2.1", "192.0.2.2"));
}

TEST(HostHealth, FailuresExpireAndEachLastsLonger) {
    HostHealth health;
    const auto a = address("192.0.2.1");
    int64_t now_ms = kNowMs;
    for (int64_t expected_ms : {60'000, 120'000, 240'000, 480'000, 900'000, 900'000}) {
        health.connect_failed(a.with_port(25), ECONNREFUSED, now_ms);
        EXPECT_FALSE(health.address_healthy(a, now_ms + expected_ms - 1));
        EXPECT_TRUE(health.address_healthy(a, now_ms + expected_ms));
        now_ms += expected_ms;
    }
    EXPECT_TRUE(health.family_healthy(AF_INET, now_ms));
}

TEST(HostHealth, Fault95LocalTroubleCondemnsNobody) {
    HostHealth health;
    for (int error : {EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN, EADDRNOTAVAIL})
        health.connect_failed(address("2001:db8::1"), error, kNowMs);
    EXPECT_TRUE(health.healthy("a.test", address("2001:db8::1"), kNowMs));
}

TEST(HostHealth, Fault85FamilyWithoutRouteOrReachIsBroken) {
    HostHealth health;
    health.connect_failed(address("2001:db8::1"), ENETUNREACH, kNowMs);
    EXPECT_FALSE(health.family_healthy(AF_INET6, kNowMs));
    EXPECT_TRUE(health.family_healthy(AF_INET, kNowMs));
    EXPECT_TRUE(health.address_healthy(address("2001:db8::1"), kNowMs))
        << "the address is not to blame";
    health.connected(address("2001:db8::2"));
    EXPECT_TRUE(health.family_healthy(AF_INET6, kNowMs));

    for (int i = 0; i < 10; ++i) health.connect_failed(address("2001:db8::7"), ETIMEDOUT, kNowMs);
    EXPECT_TRUE(health.family_healthy(AF_INET6, kNowMs)) << "one dead host is no dead family";
    for (uint32_t i = 1; i < HostHealth::kFamilyFailures; ++i)
        health.connect_failed(address("2001:db8::" + std::to_string(i)), ETIMEDOUT, kNowMs);
    EXPECT_FALSE(health.family_healthy(AF_INET6, kNowMs));
    EXPECT_TRUE(health.family_healthy(AF_INET6, kNowMs + HostHealth::kFirstMs));

    for (int i = 1; i < 50; ++i)
        health.connect_failed(address("192.0.2." + std::to_string(i)), ETIMEDOUT, kNowMs);
    EXPECT_TRUE(health.family_healthy(AF_INET, kNowMs));
}

TEST(HostHealth, ForgetsTheOldestFirst) {
    HostHealth health;
    health.host_failed("old.test", kNowMs);
    for (size_t i = 0; i < HostHealth::kEntries; ++i)
        health.host_failed("h" + std::to_string(i), kNowMs);
    EXPECT_TRUE(health.host_healthy("old.test", kNowMs));
    EXPECT_FALSE(health.host_healthy("h" + std::to_string(HostHealth::kEntries - 1), kNowMs));
    EXPECT_FALSE(health.host_healthy("h" + std::to_string(HostHealth::kEntries * 3 / 4), kNowMs));
}

// A resolver of the test's own: hosts answer after a delay.
class SlowResolver final : public Resolver {
  public:
    explicit SlowResolver(Reactor& r) : reactor(r) {}
    Task<std::shared_ptr<const MailRoute>> route(std::string domain) override {
        co_return std::make_shared<MailRoute>(literal_route(domain, reactor.now_ms()));
    }
    Task<std::shared_ptr<const HostAddresses>> addresses(std::string host) override {
        co_await Sleep(reactor, delays_ms[host]);
        co_return answers[host];
    }
    const MailRoute* cached_route(std::string_view) override { return nullptr; }
    const HostAddresses* cached_addresses(std::string_view) override { return nullptr; }

    Reactor& reactor;
    std::map<std::string, DurationMs> delays_ms;
    std::map<std::string, std::shared_ptr<const HostAddresses>> answers;
};

class CandidatesTaskTest : public CandidatesTest {
  protected:
    Task<void> keep(std::shared_ptr<const MailRoute> route, Candidates& into) {
        into =
            co_await candidates(*resolver, *reactor, std::move(route), health, prohibited, kPort);
    }
    Candidates ask(const MailRoute& route) {
        Candidates result;
        Gate gate;
        spawn(gate, keep(std::make_shared<MailRoute>(route), result));
        while (!gate.empty()) reactor->turn(reactor->now_ns() + 5 * kNsPerMs);
        return result;
    }
    void finish() {
        while (!resolver->background().empty()) reactor->turn(reactor->now_ns() + 5 * kNsPerMs);
    }
    MailExchange exchange{1};
    std::unique_ptr<Reactor> reactor =
        *Reactor::make(0, exchange, {.entries = 64, .receive_buffers = 8});
    std::unique_ptr<SlowResolver> resolver = std::make_unique<SlowResolver>(*reactor);
};

TEST_F(CandidatesTaskTest, AsksAllHostsSideBySide) {
    for (const char* host : {"a.test", "b.test", "c.test"}) resolver->delays_ms[host] = 100;
    resolver->answers = {{"a.test", found({"192.0.2.1"})},
                         {"b.test", nothing(HostAddresses::Kind::none, "b.test: NXDOMAIN")},
                         {"c.test", found({"192.0.2.3"})}};
    const MonoNs start = read_mono_clock();
    const auto c = ask(route_to({{10, "a.test"}, {20, "b.test"}, {30, "c.test"}}));
    EXPECT_THAT(texts(c), ElementsAre("192.0.2.1", "192.0.2.3"));
    EXPECT_LT(read_mono_clock() - start, 290 * kNsPerMs);
}

TEST_F(CandidatesTaskTest, OneSilentHostDoesNotHoldTheOthersBack) {
    resolver->delays_ms["a.test"] = 2'500;
    resolver->answers = {{"a.test", found({"192.0.2.1"})}, {"b.test", found({"192.0.2.2"})}};
    const MonoNs start = read_mono_clock();
    const auto c = ask(route_to({{10, "a.test"}, {20, "b.test"}}));
    EXPECT_LT(read_mono_clock() - start, 2'400 * kNsPerMs);
    EXPECT_THAT(texts(c), ElementsAre("192.0.2.2"));
    finish();
}

TEST_F(CandidatesTaskTest, RouteWithoutHostsPassesThrough) {
    MailRoute route;
    route.kind = Kind::null_mx;
    route.why = "null";
    const auto c = ask(route);
    EXPECT_EQ(c.kind, Kind::null_mx);
    EXPECT_EQ(c.why, "null");
}

}  // namespace
}  // namespace postrider
