#include "dns/mail_route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/core/limits.h"

namespace postrider {
namespace {

using Kind = MailRoute::Kind;
using testing::ElementsAre;
using testing::HasSubstr;
constexpr int64_t kNowMs = 1'000'000;
constexpr int64_t kFailureMs = 30'000;

DnsAnswer records(std::vector<MxHost> mx) {
    DnsAnswer answer;
    answer.kind = DnsAnswer::Kind::records;
    answer.ttl_s = 300;
    answer.mx = std::move(mx);
    return answer;
}
DnsAnswer empty(DnsAnswer::Kind kind) {
    DnsAnswer answer;
    answer.kind = kind;
    answer.ttl_s = 60;
    return answer;
}
MailRoute route(const DnsAnswer& answer) {
    return make_route("example.test", answer, kNowMs, kFailureMs);
}

TEST(MailRoute, OrdersHostsByPreferenceAndNamesTheSite) {
    const auto r = route(records({{20, "b.test"}, {10, "c.test"}, {20, "a.test"}}));
    EXPECT_EQ(r.kind, Kind::hosts);
    EXPECT_FALSE(r.implicit);
    EXPECT_THAT(r.hosts,
                ElementsAre(MxHost{10, "c.test"}, MxHost{20, "a.test"}, MxHost{20, "b.test"}));
    EXPECT_EQ(r.site, "a.test,b.test,c.test");
    EXPECT_EQ(r.expires_ms, kNowMs + 300'000);
    EXPECT_EQ(r.why, "");
}

TEST(MailRoute, SameSetGivesSameSiteWhateverThePreferences) {
    EXPECT_EQ(route(records({{1, "a.test"}, {2, "b.test"}})).site,
              route(records({{5, "b.test"}, {7, "a.test"}})).site);
}

TEST(MailRoute, HostNamedTwiceCountsOnceAtItsBetterPlace) {
    EXPECT_THAT(route(records({{20, "a.test"}, {10, "a.test"}, {15, "b.test"}})).hosts,
                ElementsAre(MxHost{10, "a.test"}, MxHost{15, "b.test"}));
}

TEST(MailRoute, Fault80NoDataMeansTheDomainItself) {
    const auto r = route(empty(DnsAnswer::Kind::no_data));
    EXPECT_EQ(r.kind, Kind::hosts);
    EXPECT_TRUE(r.implicit);
    EXPECT_THAT(r.hosts, ElementsAre(MxHost{0, "example.test"}));
    EXPECT_EQ(r.site, "example.test");
    EXPECT_EQ(r.expires_ms, kNowMs + 60'000);
}

TEST(MailRoute, Fault79NoSuchName) {
    const auto r = route(empty(DnsAnswer::Kind::no_such_name));
    EXPECT_EQ(r.kind, Kind::no_such_domain);
    EXPECT_EQ(r.why, "MX example.test: NXDOMAIN");
    EXPECT_TRUE(r.site.empty());
}

TEST(MailRoute, Fault78FailureIsTemporary) {
    const auto r = route(failed_answer("SERVFAIL"));
    EXPECT_EQ(r.kind, Kind::temporary);
    EXPECT_EQ(r.why, "MX example.test: SERVFAIL");
    EXPECT_EQ(r.expires_ms, kNowMs + kFailureMs);
}

TEST(MailRoute, Fault82NullMxAloneRefusesAndAmongOthersIsIgnored) {
    EXPECT_EQ(route(records({{0, ""}})).kind, Kind::null_mx);
    const auto mixed = route(records({{0, ""}, {10, "a.test"}}));
    EXPECT_EQ(mixed.kind, Kind::hosts);
    EXPECT_THAT(mixed.hosts, ElementsAre(MxHost{10, "a.test"}));
}

TEST(MailRoute, Fault83AddressesAndNonNamesAreUnusable) {
    for (const char* name :
         {"192.0.2.1", "a,b.test", "a\\046b.test", "a..test", "x y.test", "-.\\195"}) {
        const auto r = route(records({{10, name}}));
        EXPECT_EQ(r.kind, Kind::no_usable_host) << name;
        EXPECT_THAT(r.why, HasSubstr(name));
    }
    EXPECT_THAT(route(records({{10, "192.0.2.1"}, {20, "a_1.test"}})).hosts,
                ElementsAre(MxHost{20, "a_1.test"}));
}

TEST(MailRoute, Fault84HundredMxKeepTheBest) {
    std::vector<MxHost> many;
    for (uint16_t i = 100; i > 0; --i) many.push_back({i, "m" + std::to_string(i) + ".test"});
    const auto r = route(records(many));
    ASSERT_EQ(r.hosts.size(), limits::kMxPerDomain);
    EXPECT_EQ(r.hosts.front().preference, 1);
    EXPECT_EQ(r.hosts.back().preference, limits::kMxPerDomain);
}

TEST(MailRoute, LongSitesEndInAHash) {
    std::vector<MxHost> hosts;
    for (int i = 0; i < 20; ++i)
        hosts.push_back({10, "mail-host-" + std::to_string(10 + i) + ".example.test"});
    const auto site = site_name(hosts);
    EXPECT_THAT(site, testing::MatchesRegex("mail-host-10\\.example\\.test\\+[0-9a-f]+"));
    EXPECT_EQ(site.size(), std::string("mail-host-10.example.test+").size() + 8);
    auto other = hosts;
    other.back().name = "mail-host-99.example.test";
    EXPECT_NE(site_name(other), site);
}

TEST(MailRoute, LiteralsAreRoutesOfTheirOwn) {
    for (const auto& [literal, address] :
         {std::pair{"[127.0.0.1]", "127.0.0.1"}, {"[ipv6:::1]", "::1"}, {"[IPv6:::1]", "::1"}}) {
        const auto r = literal_route(literal, kNowMs);
        EXPECT_EQ(r.kind, Kind::hosts) << r.why;
        EXPECT_EQ(r.site, literal);
        const auto found = literal_addresses(r.hosts.at(0).name, kNowMs);
        ASSERT_EQ(found.addresses.size(), 1u);
        EXPECT_EQ(found.addresses[0].address_text(), address);
    }
    for (const char* bad :
         {"[::1]", "[IPv6:127.0.0.1]", "[300.0.0.1]", "[]", "[", "[x-tag:abc]", "[127.0.0.1"}) {
        EXPECT_EQ(literal_route(bad, kNowMs).kind, Kind::no_such_domain) << bad;
        EXPECT_EQ(literal_addresses(bad, kNowMs).kind, HostAddresses::Kind::none) << bad;
    }
}

DnsAnswer addresses(std::initializer_list<const char*> texts, uint32_t ttl_s) {
    auto answer = empty(texts.size() ? DnsAnswer::Kind::records : DnsAnswer::Kind::no_data);
    answer.ttl_s = ttl_s;
    for (const char* text : texts) answer.addresses.push_back(*SocketAddress::parse(text, 0));
    return answer;
}

TEST(HostAddresses, BothFamiliesAndTheShorterTtl) {
    const auto found = make_addresses("h.test", addresses({"192.0.2.1"}, 500),
                                      addresses({"2001:db8::1"}, 100), kNowMs, kFailureMs);
    EXPECT_EQ(found.kind, HostAddresses::Kind::found);
    EXPECT_EQ(found.addresses.size(), 2u);
    EXPECT_EQ(found.expires_ms, kNowMs + 100'000);
}

TEST(HostAddresses, Fault85OneFamilyServesWhileTheOtherFails) {
    const auto found = make_addresses("h.test", addresses({"192.0.2.1"}, 500),
                                      failed_answer("time-out"), kNowMs, kFailureMs);
    EXPECT_EQ(found.kind, HostAddresses::Kind::found);
    EXPECT_EQ(found.expires_ms, kNowMs + kFailureMs);
}

TEST(HostAddresses, NoneAndTemporaryAreToldApart) {
    const auto nothing = addresses({}, 60);
    EXPECT_EQ(make_addresses("h.test", nothing, nothing, kNowMs, kFailureMs).kind,
              HostAddresses::Kind::none);
    const auto temporary =
        make_addresses("h.test", nothing, failed_answer("REFUSED"), kNowMs, kFailureMs);
    EXPECT_EQ(temporary.kind, HostAddresses::Kind::temporary);
    EXPECT_EQ(temporary.why, "AAAA h.test: REFUSED");
}

TEST(HostAddresses, ManyOfOneFamilyDoNotCrowdOutTheOther) {
    auto many = addresses({"192.0.2.1"}, 60);
    many.addresses.resize(limits::kAddressesPerHost, many.addresses[0]);
    const auto found =
        make_addresses("h.test", many, addresses({"2001:db8::1"}, 60), kNowMs, kFailureMs);
    EXPECT_EQ(found.addresses.size(), limits::kAddressesPerHost);
    EXPECT_EQ(std::ranges::count_if(found.addresses, &SocketAddress::is_v6), 1);
}

}  // namespace
}  // namespace postrider
