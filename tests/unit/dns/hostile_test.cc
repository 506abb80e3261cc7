// The resolver against a server that misbehaves, and against none at all.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/core/limits.h"
#include "hostile_server.h"
#include "resolver_fixture.h"

namespace postrider {
namespace {

using namespace dns_test;
using Kind = MailRoute::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

class HostileTest : public ResolverFixture {
  protected:
    void SetUp() override { open({server.address()}, 150, 2); }
    void expect_temporary(const std::string& domain, const std::string& why) {
        const auto r = route(domain);
        EXPECT_EQ(r.kind, Kind::temporary) << domain;
        EXPECT_THAT(r.why, HasSubstr(why)) << domain;
    }
    // Look-ups of different names, all at once.
    std::vector<RoutePtr> storm(const std::string& prefix, int names) {
        std::vector<RoutePtr> routes(static_cast<size_t>(names));
        for (int i = 0; i < names; ++i)
            spawn(gate, keep_route(*resolver, prefix + std::to_string(i) + ".hostile",
                                   routes[static_cast<size_t>(i)]));
        run();
        return routes;
    }
    HostileServer server;
};

TEST_F(HostileTest, Fault78ServfailAndSilenceAreTemporary) {
    expect_temporary("servfail.hostile", "SERVFAIL");
    EXPECT_EQ(server.queries("servfail.hostile"), 1) << "one server, one question";
    expect_temporary("silence.hostile", "time-out");
    EXPECT_EQ(server.queries("silence.hostile"), 2) << "tries";
    EXPECT_EQ(addresses("silence.hostile").kind, HostAddresses::Kind::temporary);
    EXPECT_EQ(addresses("servfail.hostile").kind, HostAddresses::Kind::temporary);
}

TEST_F(HostileTest, Fault86NoiseBeforeTheAnswerIsIgnored) {
    EXPECT_THAT(route("garbage.hostile").hosts, ElementsAre(MxHost{10, "mx.hostile"}));
}

TEST_F(HostileTest, Fault86And87ForgedAnswersAreIgnored) {
    for (const char* domain :
         {"wrong-id.hostile", "wrong-port.hostile", "other-question.hostile"}) {
        const auto r = route(domain);
        EXPECT_EQ(r.kind, Kind::temporary) << domain;
        EXPECT_TRUE(r.hosts.empty());
    }
}

TEST_F(HostileTest, Fault86TruncatedComesByTcp) {
    EXPECT_EQ(route("truncated.hostile").kind, Kind::hosts);
    EXPECT_EQ(addresses("truncated.hostile").addresses.size(), 2u);
    EXPECT_EQ(route("truncated-dead.hostile").kind, Kind::temporary);
    EXPECT_EQ(route("fine.hostile").kind, Kind::hosts);
}

TEST_F(HostileTest, Fault86ServerWithoutEdnsIsAskedWithoutIt) {
    EXPECT_EQ(route("formerr-edns.hostile").kind, Kind::hosts);
    EXPECT_EQ(addresses("formerr-edns.hostile").addresses.size(), 2u);
}

TEST_F(HostileTest, Fault86NegativeTtlIsTheSmallest) {
    EXPECT_EQ(left_s(route("ttl-negative.hostile").expires_ms), limits::kTtlMinS);
}

TEST_F(HostileTest, CompressionLoopIsTemporary) {
    expect_temporary("pointer-loop.hostile", "malformed");
}

TEST_F(HostileTest, LookUpsOfOneNameAreOneQuery) {
    std::vector<RoutePtr> routes(100);
    for (auto& r : routes) spawn(gate, keep_route(*resolver, "slow.hostile", r));
    run();
    for (const auto& r : routes) EXPECT_EQ(r, routes[0]);
    EXPECT_EQ(routes[0]->kind, Kind::hosts);
    EXPECT_EQ(server.queries("slow.hostile"), 1);
    EXPECT_EQ(resolver->counters().joined, 99u);
}

// No descriptor is left for a socket: no word on the name nor on the server. The look-up waits and is then answered.
TEST_F(HostileTest, Fault95WithoutDescriptorsALookUpWaits) {
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    RoutePtr result;
    const int lowest_free = dup(0);
    ASSERT_GE(lowest_free, 0);
    ::close(lowest_free);
    const rlimit none{static_cast<rlim_t>(lowest_free), before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 20; ++i) spawn(gate, keep_route(*resolver, "n" + std::to_string(i) + ".hostile", result));
    run_for(600);
    EXPECT_EQ(result, nullptr);
    EXPECT_EQ(server.queries(), 0);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    run();
    EXPECT_EQ(result->kind, Kind::hosts) << result->why;
    EXPECT_EQ(resolver->counters().silent, 0u);
    EXPECT_EQ(resolver->counters().turned_away, 0u);
}

TEST_F(HostileTest, AnotherServerIsAskedWhenOneRefuses) {
    close();
    HostileServer refusing;
    refusing.set_refusing(true);
    open({refusing.address(), server.address()}, 150, 2);
    for (int i = 0; i < 6; ++i)
        EXPECT_EQ(route("n" + std::to_string(i) + ".hostile").kind, Kind::hosts);
    EXPECT_GT(refusing.queries(), 0);
}

TEST_F(HostileTest, PortsChange) {
    storm("port", 1'000);
    EXPECT_GE(server.source_ports(), 5u);
}

TEST_F(HostileTest, Fault88DeadServerIsLeftAloneAndRecoveryBringsNoStorm) {
    server.set_dead(true);
    for (const auto& r : storm("dead", 600)) {
        EXPECT_EQ(r->kind, Kind::temporary);
        EXPECT_LE(r->expires_ms, reactor->now_ms() + 31'000);
    }
    const int asked = server.queries();
    // The slots that were taken, what slipped in before the silence was judged, and a probe; two
    // tries each.
    constexpr size_t kAsked = AresResolver::kLookups + ServerHealth::kSilent + 1;
    EXPECT_LE(asked, 2 * static_cast<int>(kAsked)) << "those in line were turned away";
    EXPECT_GE(resolver->counters().turned_away, 600 - kAsked);
    const auto r = storm("again", 500);
    EXPECT_THAT(r[0]->why, HasSubstr("do not answer"));
    EXPECT_LE(server.queries(), asked + 2) << "a probe at most";

    server.set_dead(false);
    run_for(4'200);  // the back-off after two failed probes
    const int before = server.queries();
    RoutePtr probe, other;
    spawn(gate, keep_route(*resolver, "probe.hostile", probe));
    spawn(gate, keep_route(*resolver, "other.hostile", other));
    run();
    EXPECT_EQ(probe->kind, Kind::hosts) << probe->why;
    EXPECT_EQ(other->kind, Kind::temporary) << "waits for the probe";
    EXPECT_EQ(server.queries(), before + 1);
    for (const auto& back : storm("back", 300)) EXPECT_EQ(back->kind, Kind::hosts) << back->why;
}

TEST_F(HostileTest, NobodyListeningIsTemporary) {
    close();
    std::string address;
    {
        HostileServer gone;
        address = gone.address();
    }
    open({address}, 150, 2);
    EXPECT_EQ(route("a.hostile").kind, Kind::temporary);
    EXPECT_EQ(addresses("a.hostile").kind, HostAddresses::Kind::temporary);
}

TEST_F(HostileTest, StopEndsEveryLookUpAndLeavesNothingInTheRing) {
    std::vector<RoutePtr> routes(700);
    std::vector<AddressesPtr> hosts(50);
    for (size_t i = 0; i < routes.size(); ++i)
        spawn(gate, keep_route(*resolver, "silence.n" + std::to_string(i % 650), routes[i]));
    for (size_t i = 0; i < hosts.size(); ++i)
        spawn(gate, keep_addresses(*resolver, "silence.h" + std::to_string(i), hosts[i]));
    run_for(30);
    close();
    for (const auto& r : routes) {
        ASSERT_NE(r, nullptr);
        EXPECT_EQ(r->kind, Kind::temporary);
        EXPECT_THAT(r->why, HasSubstr("shutting down"));
    }
    for (const auto& h : hosts) EXPECT_EQ(h->kind, HostAddresses::Kind::temporary);
}

TEST_F(HostileTest, BadServerIsNamed) {
    const auto made = AresResolver::make(*reactor, {.servers = {"not an address"}});
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().text, HasSubstr("not an address"));
}

TEST_F(HostileTest, FailedNameIsRemembered) {
    EXPECT_EQ(left_s(route("servfail.hostile").expires_ms), 30);
    EXPECT_NE(resolver->cached_route("servfail.hostile"), nullptr);
    route("servfail.hostile");
    EXPECT_EQ(server.queries("servfail.hostile"), 1);
}

}  // namespace
}  // namespace postrider
