#include "engine/egress/dispatcher.h"

#include <algorithm>
#include <cstdio>

#include "engine/egress/pooled_connection.h"

namespace postrider {
namespace {

constexpr int64_t kParkedFirstS = 60;
constexpr int64_t kParkedLongestS = 600;
constexpr size_t kBouncesAtOnce = 200;
constexpr DurationMs kFullDiskMs = 100;  // between looks whether outcomes can be recorded again
constexpr size_t kAddressesKept = 1024;
constexpr size_t kTickedLeast = 128;  // sites in one tick, or as many
constexpr size_t kTickedWithin = 10;  // that all have had theirs in so many ticks
constexpr DurationMs kSitesKnownWithinMs = 5'000;  // DNS may fail for a domain that has nothing but a block
constexpr DurationMs kSitesKnownAskedMs = 5;
constexpr DurationMs kLookUpAgainMs = 10'000;

void tell(const std::optional<ConfigProblem>& warning) {
    if (warning) std::fprintf(stderr, "postrider: %s\n", warning->to_string().c_str());
}

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
                       ShapingBook& shaping, size_t shards)
    : context_(context), owner_(owner), sites_(sites), shaping_(shaping), shards_(shards) {}

void Dispatcher::announce(ReadyWindow& window) {
    if (draining_) return window.abandon();
    Binding& binding = bindings_[window.domain()];
    if (!owner_.pool(window.domain())) {
        const std::string pool(owner_.pool_name(window.domain()));
        return park_domain(window, binding, outcome_of(Trouble::no_such_pool, Phase::connect, pool));
    }
    if (binding.site && binding.expires_ms > context_.reactor.now_ms() && binding.version == shaping_.binding_version())
        return owner_.send_window(*binding.site, window, binding.expires_ms);
    ++resolving_;
    spawn(context_.gate, resolve(window));
}

Task<void> Dispatcher::resolve(ReadyWindow& window) {
    const DomainId domain = window.domain();
    auto route = co_await context_.resolver.route(std::string(owner_.domain_name(domain)));
    // A block of another domain may speak for this site.
    const int64_t patience_ms = context_.reactor.now_ms() + kSitesKnownWithinMs;
    while (!shaping_.sites_known() && !draining_ && context_.reactor.now_ms() < patience_ms)
        co_await Sleep(context_.reactor, kSitesKnownAskedMs);
    --resolving_;
    Binding& binding = bindings_[domain];
    if (route->kind == MailRoute::Kind::hosts) {
        bind(window, binding, std::move(route));
    } else if (route->kind == MailRoute::Kind::temporary || draining_) {
        park_domain(window, binding, outcome_of(Trouble::dns_temporary, Phase::connect, route->why));
    } else {
        co_await bounce_all(window, *route);
    }
}

void Dispatcher::bind(ReadyWindow& window, Binding& binding, std::shared_ptr<const MailRoute> route) {
    const std::string name(owner_.domain_name(window.domain()));
    binding.version = shaping_.binding_version();
    Site& site = sites_.site(shaping_.site_of(name, route->site));
    const bool speaks = shaping_.speaks_for_site(name);
    if (speaks) tell(shaping_.set_site(name, site.name()));
    binding.site = &site;
    binding.expires_ms = route->expires_ms;
    binding.failures = 0;
    site.bind(std::move(route), speaks ? name : "");
    owner_.send_window(site, window, binding.expires_ms);
}

// DNS says that this domain takes no mail: everything of it bounces, a slice at a time.
Task<void> Dispatcher::bounce_all(ReadyWindow& window, const MailRoute& route) {
    const Outcome outcome = outcome_of(trouble_of(route.kind), Phase::connect, route.why);
    for (;;) {
        while (!context_.owner.may_send() && !draining_) co_await Sleep(context_.reactor, kFullDiskMs);
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
            if (context_.holds && context_.owner.take_held(id, nullptr)) continue;
            if (context_.owner.expired(id))
                context_.owner.expire(id);
            else
                context_.owner.settle_unsent(id, outcome, true);
        }
        co_await Yield(context_.reactor);
    }
}

void Dispatcher::park_domain(ReadyWindow& window, Binding& binding, const Outcome& outcome) {
    const int64_t wait_s = std::min(kParkedLongestS, kParkedFirstS << std::min(binding.failures, 4u));
    ++binding.failures;
    const DomainId domain = window.domain();
    // One recipient tells it; what is no host's fault burns no attempt (FAULTS 88).
    if (const RecordId id = window.pull()) {
        if (context_.holds && context_.owner.take_held(id, nullptr))
            ;  // it tells nothing
        else if (context_.owner.expired(id))
            context_.owner.expire(id);
        else
            context_.owner.settle_unsent(id, outcome, false);
    }
    window.abandon();
    context_.owner.park(domain, context_.reactor.steady_us() / kUsPerSecond + wait_s, outcome.text);
}

void Dispatcher::attach(Site& site, ReadyWindow& window, int64_t expires_ms) {
    // Nothing is kept at the end: the window may belong to a shard that has nothing more to do.
    if (draining_) return is_home(site) ? window.abandon() : window.drop_reference();
    const EgressPool& pool = *owner_.pool(window.domain());  // which was there when it was announced
    auto& worker = workers_[{site.id(), pool.id}];
    if (!worker) {
        worker = std::make_unique<SiteWorker>(context_, site, pool, is_home(site));
        in_turn_.push_back(worker.get());
    }
    worker->attach(window, expires_ms);
}

// The limits of a domain with a block hold at its site, whether or not mail for that very domain comes (DESIGN 3.2).
void Dispatcher::keep_sites_known() {
    const int64_t now_ms = context_.reactor.now_ms();
    const uint64_t version = shaping_.version();
    if (draining_ || looking_up_ > 0 || (version == sites_looked_up_at_ && now_ms < look_up_again_ms_)) return;
    sites_looked_up_at_ = version;
    look_up_again_ms_ = now_ms + kLookUpAgainMs;
    for (auto& domain : shaping_.rollup_domains()) {
        const auto known = site_expires_ms_.find(domain);
        if (known != site_expires_ms_.end() && known->second > now_ms) continue;
        ++looking_up_;
        spawn(context_.gate, look_up_site(std::move(domain)));
    }
    if (looking_up_ == 0) shaping_.set_sites_known();
}

Task<void> Dispatcher::look_up_site(std::string domain) {
    auto route = co_await context_.resolver.route(domain);
    if (route->kind == MailRoute::Kind::hosts) tell(shaping_.set_site(domain, route->site));
    site_expires_ms_[domain] = route->kind == MailRoute::Kind::temporary
                                   ? context_.reactor.now_ms() + kLookUpAgainMs
                                   : route->expires_ms;
    if (--looking_up_ == 0) shaping_.set_sites_known();
}

void Dispatcher::tick() {
    if (context_.reactor.shard() == 0) keep_sites_known();
    // With many sites a part of them each time; all when limits have changed, which hold at once.
    size_t due = std::max(kTickedLeast, in_turn_.size() / kTickedWithin);
    if (const uint64_t version = shaping_.version(); version != ticked_version_) {
        ticked_version_ = version;
        due = in_turn_.size();
    }
    for (due = std::min(due, in_turn_.size()); due > 0 && !in_turn_.empty(); --due) {
        if (turn_ >= in_turn_.size()) turn_ = 0;
        SiteWorker& worker = *in_turn_[turn_];
        worker.tick();
        // An invited shard goes when it has nothing to do here, so that the home shard gets its share back.
        if (worker.unused() && !is_home(worker.site())) {
            in_turn_[turn_] = in_turn_.back();
            in_turn_.pop_back();
            workers_.erase({worker.site().id(), worker.pool().id});
        } else {
            ++turn_;
        }
    }
    if (context_.addresses.size() > kAddressesKept) context_.addresses.sweep();
}

void Dispatcher::drain() {
    draining_ = true;
    for (auto& [key, worker] : workers_) worker->drain();
}

}  // namespace postrider
