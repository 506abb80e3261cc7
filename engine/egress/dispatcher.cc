#include "engine/egress/dispatcher.h"

#include <algorithm>

#include "engine/egress/pooled_connection.h"

namespace postrider {
namespace {

constexpr int64_t kDnsRetryFirstS = 60;
constexpr int64_t kDnsRetryLongestS = 600;
constexpr size_t kBouncesAtOnce = 200;
constexpr size_t kAddressesKept = 1024;

Trouble trouble_of(MailRoute::Kind kind) {
    switch (kind) {
        case MailRoute::Kind::null_mx: return Trouble::null_mx;
        case MailRoute::Kind::no_such_domain: return Trouble::dns_no_domain;
        case MailRoute::Kind::no_usable_host: return Trouble::dns_no_address;
        default: return Trouble::dns_temporary;
    }
}

}  // namespace

Dispatcher::Dispatcher(EgressContext& context, DispatcherOwner& owner, SiteTable& sites,
                       const ShapingRules& shaping, size_t shards)
    : context_(context), owner_(owner), sites_(sites), shaping_(shaping), shards_(shards) {}

void Dispatcher::announce(ReadyWindow& window) {
    if (draining_) return window.abandon();
    Binding& binding = bindings_[window.domain()];
    if (binding.site && binding.expires_ms > context_.reactor.now_ms())
        return owner_.send_window(*binding.site, window, binding.expires_ms);
    ++resolving_;
    spawn(context_.gate, resolve(window));
}

Task<void> Dispatcher::resolve(ReadyWindow& window) {
    const DomainId domain = window.domain();
    auto route = co_await context_.resolver.route(std::string(owner_.domain_name(domain)));
    --resolving_;
    Binding& binding = bindings_[domain];
    if (route->kind == MailRoute::Kind::hosts) {
        bind(window, binding, std::move(route));
    } else if (route->kind == MailRoute::Kind::temporary || draining_) {
        park_domain(window, binding, *route);
    } else {
        co_await bounce_all(window, *route);
    }
}

void Dispatcher::bind(ReadyWindow& window, Binding& binding, std::shared_ptr<const MailRoute> route) {
    const std::string name(owner_.domain_name(window.domain()));
    std::vector<std::string> hosts;
    for (const auto& host : route->hosts) hosts.push_back(host.name);
    // A domain whose block says mx_rollup = false is a site of its own.
    Site& site = sites_.site(shaping_.rolls_up(name) ? route->site : name + "/" + route->site);
    const bool same = binding.site == &site && site.route() &&
                      site.route()->hosts == route->hosts;
    binding.site = &site;
    binding.expires_ms = route->expires_ms;
    binding.dns_failures = 0;
    if (!same) {
        // With one configured source its `sources` blocks hold; with several they are not applied yet (engine.cc warns).
        const std::string only_source = context_.sources.size() == 2 ? context_.sources[1].name : "";
        auto shaping = std::make_shared<EffectiveShaping>(shaping_.effective(name, site.name(), hosts, only_source));
        site.bind(std::move(route), std::move(shaping));
    }
    owner_.send_window(site, window, binding.expires_ms);
}

// DNS says that this domain takes no mail: everything of it bounces, a slice at a time.
Task<void> Dispatcher::bounce_all(ReadyWindow& window, const MailRoute& route) {
    const Outcome outcome = outcome_of(trouble_of(route.kind), Phase::connect, route.why);
    for (;;) {
        for (size_t i = 0; i < kBouncesAtOnce; ++i) {
            const RecordId id = window.pull();
            if (draining_) {
                if (id) context_.owner.put_back(id);
                window.abandon();
                co_return;
            }
            if (!id) {
                context_.owner.refill(window.domain());
                if (!window.empty()) continue;
                if (window.leave()) co_return;
                break;
            }
            if (context_.owner.expired(id))
                context_.owner.expire(id);
            else
                context_.owner.settle_unsent(id, outcome, true);
        }
        co_await Yield(context_.reactor);
    }
}

void Dispatcher::park_domain(ReadyWindow& window, Binding& binding, const MailRoute& route) {
    const int64_t wait_s = std::min(kDnsRetryLongestS, kDnsRetryFirstS << std::min(binding.dns_failures, 4u));
    ++binding.dns_failures;
    const DomainId domain = window.domain();
    const Outcome outcome = outcome_of(Trouble::dns_temporary, Phase::connect, route.why);
    // One recipient tells it; a DNS failure burns no attempt (FAULTS 88).
    if (const RecordId id = window.pull()) {
        if (context_.owner.expired(id))
            context_.owner.expire(id);
        else
            context_.owner.settle_unsent(id, outcome, false);
    }
    window.abandon();
    context_.owner.park(domain, context_.reactor.wall_us() / kUsPerSecond + wait_s, outcome.text);
}

void Dispatcher::attach(Site& site, ReadyWindow& window, int64_t expires_ms) {
    // Nothing is kept at the end: the window may belong to a shard that has nothing more to do.
    if (draining_) return is_home(site) ? window.abandon() : window.drop_reference();
    auto& worker = workers_[site.id()];
    if (!worker) worker = std::make_unique<SiteWorker>(context_, site, is_home(site));
    worker->attach(window, expires_ms);
}

void Dispatcher::tick() {
    for (auto& [id, worker] : workers_) worker->tick();
    if (context_.addresses.size() > kAddressesKept) context_.addresses.sweep();
    // An invited shard goes when it has nothing to do here, so that the home shard gets its share back.
    std::erase_if(workers_, [&](const auto& entry) {
        return entry.second->unused() && !is_home(entry.second->site());
    });
}

void Dispatcher::drain() {
    draining_ = true;
    for (auto& [id, worker] : workers_) worker->drain();
}

}  // namespace postrider
