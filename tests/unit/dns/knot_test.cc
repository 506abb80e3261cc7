// The resolver against Knot, a real server, with a zone that holds what a server can produce of
// FAULTS 78-86.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "dns/candidates.h"
#include "engine/core/limits.h"
#include "resolver_fixture.h"

namespace postrider {
namespace {

using namespace dns_test;
using Kind = MailRoute::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

std::string zone_text() {
    std::string zone = R"($ORIGIN test.
$TTL 600
@ 3600 SOA ns admin 1 3600 600 86400 120
@ NS ns
ns A 127.0.0.1
mx1 A 192.0.2.1
mx1 AAAA 2001:db8::1
mx2 A 192.0.2.2
local A 127.0.0.1
plain 300 MX 20 mx2
plain 300 MX 10 MX1.TEST.
twin MX 10 mx2
twin MX 20 mx1
implicit A 192.0.2.9
text-only TXT "no address, no MX"
null MX 0 .
mixed MX 0 .
mixed MX 10 mx1
literal MX 10 192.0.2.1.
alias CNAME plain
alias-out CNAME target.other.
alias-nowhere CNAME not-there
mx-alias MX 10 mx-cname
mx-cname CNAME mx1
loop1 CNAME loop2
loop2 CNAME loop1
dangling MX 10 not-there
foreign MX 10 host.refused.
looped MX 10 local
v6only AAAA 2001:db8::6
ttl-zero 0 MX 10 mx1
ttl-long 2147483647 MX 10 mx1
*.many MX 10 mx1
)";
    for (int i = 0; i < 10; ++i)
        zone += "chain" + std::to_string(i) + " CNAME chain" + std::to_string(i + 1) + "\n";
    zone += "chain10 MX 10 mx1\n";
    for (int i = 1; i <= 100; ++i) {
        const auto n = std::to_string(i);
        zone += "hundred MX " + n + " a-rather-long-host-name-" + n + "\n";
        zone += "hundred-a A 10.0.0." + n + "\n";
        zone += "hundred-a AAAA 2001:db8::" + n + "\n";
    }
    return zone;
}

constexpr std::string_view kOtherZone = R"($ORIGIN other.
$TTL 90
@ SOA ns.test. admin.test. 1 3600 600 86400 120
@ NS ns.test.
target MX 5 mx1.test.
)";

// A knotd of the test's own on a free port of 127.0.0.1, ended by its id.
class Knot {
  public:
    Knot() {
        char folder[] = "/tmp/postrider-knot-XXXXXX";
        folder_ = mkdtemp(folder);
        port_ = free_port();
        write("test.zone", zone_text());
        write("other.zone", std::string(kOtherZone));
        write("knot.conf", "server:\n  listen: 127.0.0.1@" + std::to_string(port_) +
                               "\n  rundir: " + folder_ + "\ndatabase:\n  storage: " + folder_ +
                               "\nlog:\n  - target: stderr\n    any: error\n" + "zone:\n" +
                               zone_entry("test") + zone_entry("other"));
        start();
    }
    ~Knot() {
        if (pid_ > 0) {
            kill(pid_, SIGTERM);
            waitpid(pid_, nullptr, 0);
        }
        std::filesystem::remove_all(folder_);
    }
    bool wait_until_ready() const {
        sockaddr_in address = loopback(port_);
        for (int i = 0; i < 200; ++i) {
            const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            const int rc = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
            ::close(fd);
            if (rc == 0) return true;
            if (waitpid(pid_, nullptr, WNOHANG) == pid_) return false;
            usleep(50'000);
        }
        return false;
    }
    std::string server() const { return "127.0.0.1:" + std::to_string(port_); }

  private:
    static sockaddr_in loopback(uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return address;
    }
    static uint16_t free_port() {
        sockaddr_in address = loopback(0);
        socklen_t size = sizeof address;
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bind(fd, reinterpret_cast<sockaddr*>(&address), size);
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
        ::close(fd);
        return ntohs(address.sin_port);
    }
    std::string zone_entry(const std::string& name) const {
        return "  - domain: " + name + "\n    storage: " + folder_ + "\n    file: " + name +
               ".zone\n";
    }
    void write(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ + "/" + name) << text;
    }
    void start() {
        const std::string root = POSTRIDER_KNOT, program = root + "/usr/sbin/knotd",
                          conf = folder_ + "/knot.conf";
        const std::string libraries =
            root + "/usr/lib/x86_64-linux-gnu:" + root + "/lib/x86_64-linux-gnu";
        pid_ = fork();
        if (pid_ != 0) return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("LD_LIBRARY_PATH", libraries.c_str(), 1);
        execl(program.c_str(), "knotd", "-c", conf.c_str(), nullptr);
        execlp("knotd", "knotd", "-c", conf.c_str(), nullptr);
        _exit(127);
    }

    std::string folder_;
    uint16_t port_ = 0;
    pid_t pid_ = 0;
};

class KnotTest : public ResolverFixture {
  protected:
    static void SetUpTestSuite() {
        knot = new Knot;
        ready = knot->wait_until_ready();
    }
    static void TearDownTestSuite() { delete std::exchange(knot, nullptr); }
    void SetUp() override {
        ASSERT_TRUE(ready) << "knotd does not start: run tools/setup";
        open({knot->server()});
    }
    Task<void> keep(std::string domain, Candidates& into) {
        auto known = co_await resolver->route(std::move(domain));
        into = co_await candidates(*resolver, *reactor, known, health, prohibited, 25);
    }
    Candidates candidates_of(const std::string& domain) {
        Candidates result;
        spawn(gate, keep(domain, result));
        run();
        return result;
    }

    static inline Knot* knot = nullptr;
    static inline bool ready = false;
    HostHealth health;
    AddressBlocks prohibited;
};

TEST_F(KnotTest, MxByPreferenceAndCachedWithItsTtl) {
    const auto r = route("Plain.Test.");
    EXPECT_EQ(r.kind, Kind::hosts);
    EXPECT_THAT(r.hosts, ElementsAre(MxHost{10, "mx1.test"}, MxHost{20, "mx2.test"}));
    EXPECT_EQ(left_s(r.expires_ms), 300);
    EXPECT_EQ(r.site, route("twin.test").site);
    ASSERT_NE(resolver->cached_route("plain.test"), nullptr);
    const auto queries = resolver->counters().queries;
    route("plain.test");
    EXPECT_EQ(resolver->counters().queries, queries);
    EXPECT_EQ(resolver->counters().hits, 1u);
}

TEST_F(KnotTest, Fault78RefusedIsTemporary) {
    const auto r = route("somewhere.refused");
    EXPECT_EQ(r.kind, Kind::temporary);
    EXPECT_EQ(r.why, "MX somewhere.refused: REFUSED");
    EXPECT_EQ(left_s(r.expires_ms), 30);
}

TEST_F(KnotTest, Fault79NoSuchDomain) {
    for (const char* domain : {"not-there.test", "a.b.not-there.test", "alias-nowhere.test"}) {
        const auto r = route(domain);
        EXPECT_EQ(r.kind, Kind::no_such_domain) << domain;
        EXPECT_EQ(left_s(r.expires_ms), 120) << "the SOA's minimum (RFC 2308 5)";
    }
}

TEST_F(KnotTest, NamesThatCannotBeAskedDoNotExist) {
    EXPECT_EQ(route(std::string(64, 'a') + ".test").kind, Kind::no_such_domain);
    EXPECT_EQ(addresses(std::string(64, 'a') + ".test").kind, HostAddresses::Kind::none);
}

TEST_F(KnotTest, Fault80ImplicitMx) {
    const auto r = route("implicit.test");
    EXPECT_TRUE(r.implicit);
    EXPECT_THAT(r.hosts, ElementsAre(MxHost{0, "implicit.test"}));
    const auto c = candidates_of("implicit.test");
    ASSERT_EQ(c.list.size(), 1u);
    EXPECT_EQ(c.list[0].address.text(), "192.0.2.9:25");
    EXPECT_EQ(candidates_of("text-only.test").kind, Kind::no_usable_host);
}

TEST_F(KnotTest, Fault81TargetsThatDoNotResolve) {
    EXPECT_EQ(candidates_of("dangling.test").kind, Kind::no_usable_host);
    const auto foreign = candidates_of("foreign.test");
    EXPECT_EQ(foreign.kind, Kind::temporary);
    EXPECT_THAT(foreign.why, HasSubstr("host.refused: REFUSED"));
}

TEST_F(KnotTest, Fault82NullMx) {
    EXPECT_EQ(route("null.test").kind, Kind::null_mx);
    EXPECT_THAT(route("mixed.test").hosts, ElementsAre(MxHost{10, "mx1.test"}));
}

TEST_F(KnotTest, Fault83LiteralTargetAliasTargetAndLoopback) {
    EXPECT_EQ(route("literal.test").kind, Kind::no_usable_host);
    const auto c = candidates_of("mx-alias.test");
    ASSERT_EQ(c.list.size(), 2u);
    EXPECT_EQ(c.list[0].host, "mx-cname.test");
    prohibited.push_back(*AddressBlock::parse("127.0.0.0/8"));
    const auto looped = candidates_of("looped.test");
    EXPECT_EQ(looped.kind, Kind::no_usable_host);
    EXPECT_THAT(looped.why, HasSubstr("127.0.0.1 is in prohibited_hosts"));
}

TEST_F(KnotTest, Fault84AliasesAreFollowedWithinTheLimit) {
    EXPECT_THAT(route("alias.test").hosts,
                ElementsAre(MxHost{10, "mx1.test"}, MxHost{20, "mx2.test"}));
    EXPECT_THAT(route("chain3.test").hosts, ElementsAre(MxHost{10, "mx1.test"}));
    for (const char* domain : {"loop1.test", "chain0.test"}) {
        const auto r = route(domain);
        EXPECT_EQ(r.kind, Kind::temporary) << domain;
        EXPECT_THAT(r.why, HasSubstr("aliases"));
    }
}

TEST_F(KnotTest, AliasIntoAnotherZoneIsAskedThere) {
    const auto r = route("alias-out.test");
    EXPECT_THAT(r.hosts, ElementsAre(MxHost{5, "mx1.test"}));
    EXPECT_EQ(left_s(r.expires_ms), 90);
}

TEST_F(KnotTest, Fault84And86HundredRecordsComeByTcpAndAreCut) {
    const auto r = route("hundred.test");
    ASSERT_EQ(r.hosts.size(), limits::kMxPerDomain);
    EXPECT_EQ(r.hosts.front().name, "a-rather-long-host-name-1.test");
    const auto found = addresses("hundred-a.test");
    ASSERT_EQ(found.addresses.size(), limits::kAddressesPerHost);
    EXPECT_EQ(std::ranges::count_if(found.addresses, &SocketAddress::is_v6),
              static_cast<long>(limits::kAddressesPerHost / 2));
}

TEST_F(KnotTest, Fault85OneFamilyOnly) {
    const auto found = addresses("v6only.test");
    ASSERT_EQ(found.addresses.size(), 1u);
    EXPECT_EQ(found.addresses[0].address_text(), "2001:db8::6");
    EXPECT_EQ(addresses("mx1.test").addresses.size(), 2u);
    EXPECT_EQ(addresses("text-only.test").kind, HostAddresses::Kind::none);
}

TEST_F(KnotTest, Fault86TtlsAreClamped) {
    EXPECT_EQ(left_s(route("ttl-zero.test").expires_ms), limits::kTtlMinS);
    EXPECT_EQ(left_s(route("ttl-long.test").expires_ms), limits::kTtlMaxS);
}

TEST_F(KnotTest, LiteralsNeedNoDns) {
    EXPECT_EQ(candidates_of("[IPv6:2001:db8::5]").list.at(0).address.text(), "[2001:db8::5]:25");
    EXPECT_EQ(candidates_of("[192.0.2.5]").list.at(0).host, "[192.0.2.5]");
    EXPECT_EQ(resolver->counters().queries, 0u);
}

TEST_F(KnotTest, ThousandsAtOnceStayWithinTheBoundAndChangePorts) {
    constexpr size_t kNames = 3'000;
    std::vector<RoutePtr> routes(kNames);
    for (size_t i = 0; i < kNames; ++i)
        spawn(gate, keep_route(*resolver, "d" + std::to_string(i) + ".many.test", routes[i]));
    EXPECT_EQ(resolver->in_flight(), AresResolver::kLookups);
    EXPECT_EQ(resolver->waiting(), kNames - AresResolver::kLookups);
    run();
    for (const auto& r : routes) ASSERT_EQ(r->kind, Kind::hosts) << r->why;
    EXPECT_EQ(resolver->in_flight(), 0u);
    EXPECT_GE(resolver->transport().channels_made(), 10u);
}

TEST_F(KnotTest, CachedRouteCostsLessThanAMicrosecond) {
    std::vector<std::string> names;
    for (int i = 0; i < 500; ++i) names.push_back("c" + std::to_string(i) + ".many.test");
    for (const auto& name : names) route(name);
    MonoNs best_ns = INT64_MAX;
    for (int batch = 0; batch < 50; ++batch) {
        const MonoNs start = read_mono_clock();
        for (const auto& name : names) ASSERT_NE(resolver->cached_route(name), nullptr);
        best_ns =
            std::min(best_ns, (read_mono_clock() - start) / static_cast<MonoNs>(names.size()));
    }
    RecordProperty("cached_route_ns", static_cast<int>(best_ns));
    EXPECT_LT(best_ns, 1'000);
}

}  // namespace
}  // namespace postrider
