// A site's worker without a connection: what it holds on to while it pulls.
#include "engine/egress/pooled_connection.h"

#include <gtest/gtest.h>

#include "engine/net/session_cache.h"
#include "engine/net/tls_context.h"
#include "tests/unit/queue/intake_fixture.h"

namespace postrider {
namespace {

// DNS never says where the hosts are.
struct NoResolver final : Resolver {
    Task<std::shared_ptr<const MailRoute>> route(std::string) override { co_return std::make_shared<MailRoute>(); }
    Task<std::shared_ptr<const HostAddresses>> addresses(std::string) override { co_return std::make_shared<HostAddresses>(); }
    const MailRoute* cached_route(std::string_view) override { return nullptr; }
    const HostAddresses* cached_addresses(std::string_view) override { return nullptr; }
};

struct Owner final : EgressOwner {
    std::function<void(RecordId)> before_loading;
    size_t settled = 0, returned = 0;
    void settle(QueuedMessage&, size_t, const AttemptPlace&) override { ++settled; }
    bool may_send() override { return true; }
    void before_dot(QueuedMessage&) override {}
    void put_back(RecordId) override { ++returned; }
    void settle_unsent(RecordId, const Outcome&, bool) override { ++settled; }
    bool take_held(RecordId, Site*) override { return false; }
    bool suspended(Site&) override { return false; }
    void local_fault(const std::string&) override {}
    void connection_opened(bool) override {}
    void put_off(RecordId, const Outcome&) override { ++settled; }
    bool expired(RecordId id) override {
        if (before_loading) before_loading(id);
        return false;
    }
    void expire(RecordId) override {}
    void refill(DomainId) override {}
    void park(DomainId, int64_t, const std::string&) override {}
    void invite(Site&, ReadyWindow&, int64_t) override {}
    int64_t retry_wait_s(uint32_t) override { return 60; }
};

using SiteWorkerTest = testing::IntakeTest;

// Another thread may change the shaping at any time. A message that is set apart looks at the view again; the pull goes on with
// the path that it began with.
TEST_F(SiteWorkerTest, TheViewOutlivesThePullThatBeganWithIt) {
    spool_.drop("a.eml", eml({"r@x.example"}));
    spool_.drop("b.eml", eml({"r@x.example"}));
    Run run(*this);
    run.start_and_settle();
    ASSERT_EQ(run.owner.records.size(), 2u);

    Config config;
    const EgressPools pools(config);
    const std::vector<EgressSource> sources{{"unspecified", std::nullopt, "client.test"}};
    ShapingBook book{ShapingRules{}};
    CountLimit sockets;
    SiteTable sites(book, sources, pools, sockets);
    NoResolver resolver;
    HostHealth health;
    BufferPool buffers;
    SessionCache cache;
    auto tls = *TlsContext::make(TlsLevel::opportunistic, cache);
    AddressPool addresses;
    const AddressBlocks prohibited;
    Tracer tracer;
    Owner owner;
    Gate gate;
    EgressContext context{.reactor = *run.loop, .resolver = resolver, .health = health, .buffers = buffers, .tls = *tls,
                          .verified_tls = nullptr, .reader = run.reader, .arena = run.arena, .sockets = sockets,
                          .addresses = addresses, .sources = sources, .shaping = book, .prohibited = prohibited,
                          .tracer = tracer, .owner = owner, .gate = gate};
    auto route = std::make_shared<MailRoute>();
    route->kind = MailRoute::Kind::hosts;
    route->hosts = {{10, "small.test"}, {20, "large.test"}};
    Site& site = sites.site("small.test,large.test");
    site.bind(route, "");

    ReadyWindow window(run.owner.records[0].domain);
    for (const Record& record : run.owner.records) {
        const RecordId id = run.supply.take();
        run.arena[id] = record;
        ASSERT_TRUE(window.push(id, ReadyWindow::message_tag(record)));
    }
    ASSERT_TRUE(window.announce());

    SiteWorker worker(context, site, *pools.find(""), true);
    worker.attach(window, INT64_MAX);
    const auto now_ns = run.loop->now_ns();
    PooledConnection pooled(worker, ConnectionLease::take(site.view(now_ns)->paths[0]), 0);
    pooled.host = "small.test";
    // The first moves the version; the second is loaded after its predecessor was set apart.
    const std::weak_ptr<const SiteView> began_with = site.view(now_ns);
    size_t loads = 0;
    owner.before_loading = [&](RecordId) {
        if (++loads == 1) book.replace_rules({});
        EXPECT_FALSE(began_with.expired()) << "message " << loads << " is filled by limits that are gone";
    };
    EXPECT_EQ(pooled.next({.size_limit = 1}), nullptr) << "both are for the other host";
    EXPECT_EQ(loads, 2u);
    EXPECT_TRUE(began_with.expired()) << "and the next pull has the new one";

    owner.before_loading = {};
    worker.drain();
    EXPECT_TRUE(run.loop.run_until([&] { return gate.empty() && worker.connections() == 0; }));
    EXPECT_EQ(owner.returned, 2u);
}

}  // namespace
}  // namespace postrider
