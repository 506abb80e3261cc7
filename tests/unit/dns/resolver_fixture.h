// A shard's reactor and the real resolver, turned until a look-up has ended.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dns/ares_resolver.h"

namespace postrider::dns_test {

using RoutePtr = std::shared_ptr<const MailRoute>;
using AddressesPtr = std::shared_ptr<const HostAddresses>;

inline Task<void> keep_route(Resolver& resolver, std::string domain, RoutePtr& into) {
    into = co_await resolver.route(std::move(domain));
}
inline Task<void> keep_addresses(Resolver& resolver, std::string host, AddressesPtr& into) {
    into = co_await resolver.addresses(std::move(host));
}

class ResolverFixture : public testing::Test {
  protected:
    void open(std::vector<std::string> servers, int timeout_ms = 2'000, int tries = 3,
              size_t lookups = 256) {
        auto made = AresResolver::make(*reactor, {.servers = std::move(servers),
                                                  .timeout_ms = timeout_ms,
                                                  .tries = tries,
                                                  .lookups = lookups});
        ASSERT_TRUE(made) << made.error().text;
        resolver = std::move(*made);
    }
    void run() {
        while (!gate.empty()) reactor->turn(reactor->now_ns() + 5 * kNsPerMs);
    }
    void run_for(DurationMs duration_ms) {
        const MonoNs until_ns = read_mono_clock() + duration_ms * kNsPerMs;
        while (read_mono_clock() < until_ns) reactor->turn(until_ns);
    }
    MailRoute route(const std::string& domain) {
        RoutePtr result;
        spawn(gate, keep_route(*resolver, domain, result));
        run();
        return *result;
    }
    HostAddresses addresses(const std::string& host) {
        AddressesPtr result;
        spawn(gate, keep_addresses(*resolver, host, result));
        run();
        return *result;
    }
    int64_t left_s(int64_t expires_ms) const {
        return (expires_ms - reactor->now_ms() + 500) / 1000;
    }
    void close() {
        if (!resolver) return;
        spawn(gate, resolver->stop());
        run();
        resolver.reset();
    }
    void TearDown() override {
        close();
        EXPECT_EQ(reactor->ring().in_flight(), 0u);
    }

    MailExchange exchange{1};
    std::unique_ptr<Reactor> reactor =
        *Reactor::make(0, exchange, {.entries = 256, .receive_buffers = 8});
    Gate gate;
    std::unique_ptr<AresResolver> resolver;
};

}  // namespace postrider::dns_test
