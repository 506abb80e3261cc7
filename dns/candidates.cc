#include "dns/candidates.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <span>

#include "engine/core/limits.h"

namespace postrider {
namespace {

constexpr size_t kWhySize = 512;
constexpr size_t kGathered =
    4 * limits::kAddressesPerSite;  // looked at before the healthy ones are taken
// How long the other hosts' addresses are waited for when some are known: one silent name server
// must not hold back mail for hosts that can be reached (the idea of RFC 8305 3, in DNS's time
// rather than a handshake's).
constexpr DurationMs kEnoughMs = 1'000;

template <class T>
void shuffle(std::span<T> items, Random& random) {
    for (size_t left = items.size(); left > 1; --left)
        std::swap(items[left - 1], items[random.below(static_cast<uint32_t>(left))]);
}

void say(std::string& why, std::string_view reason) {
    if (why.size() + reason.size() > kWhySize) return;
    if (!why.empty()) why += "; ";
    why += reason;
}

// One host's addresses of one family, to be dealt out in turn with those of its equals.
struct Hand {
    const MxHost* host;
    std::vector<SocketAddress> v6, v4;
};

class Ordering {
  public:
    Ordering(const HostHealth& health, Random& random, const AddressBlocks& prohibited,
             uint16_t port)
        : health_(health), random_(random), prohibited_(prohibited), port_(port) {}

    void add(const MxHost& host, const HostAddresses* known);
    // Deals the hosts added since the last call: they are equals (RFC 5321 5.1).
    void close_group();
    Candidates finish(const MailRoute& route, int64_t now_ms);

  private:
    bool append(const MxHost& host, const SocketAddress& address);

    const HostHealth& health_;
    Random& random_;
    const AddressBlocks& prohibited_;
    uint16_t port_;
    std::vector<Hand> group_;
    Candidates result_;
    bool temporary_ = false;
    int64_t expires_ms_ = INT64_MAX;
};

void Ordering::add(const MxHost& host, const HostAddresses* known) {
    if (known) expires_ms_ = std::min(expires_ms_, known->expires_ms);
    if (!known || known->kind != HostAddresses::Kind::found) {
        temporary_ |= !known || known->kind == HostAddresses::Kind::temporary;
        say(result_.why, known ? known->why : host.name + ": no answer from DNS yet");
        return;
    }
    Hand hand{&host, {}, {}};
    for (const auto& address : known->addresses) {
        if (any_contains(prohibited_, address.octets()))
            say(result_.why,
                fmt::format("{}: {} is in prohibited_hosts", host.name, address.address_text()));
        else
            (address.is_v6() ? hand.v6 : hand.v4).push_back(address);
    }
    // The cache would hand the same address out first for as long as it lives.
    shuffle(std::span(hand.v6), random_);
    shuffle(std::span(hand.v4), random_);
    group_.push_back(std::move(hand));
}

// False when there are enough. Hosts that share an address do not try it twice.
bool Ordering::append(const MxHost& host, const SocketAddress& address) {
    if (result_.list.size() == kGathered) return false;
    const bool known = std::ranges::any_of(result_.list, [&](const Candidate& candidate) {
        return candidate.address.same_address(address);
    });
    if (!known) result_.list.push_back({address.with_port(port_), host.name, host.preference});
    return true;
}

// Round by round: of each host an IPv6 and an IPv4 address, so that neither a dead family nor a
// dead host takes all the first places (RFC 8305 4).
void Ordering::close_group() {
    shuffle(std::span(group_), random_);
    size_t rounds = 0;
    for (const auto& hand : group_) rounds = std::max({rounds, hand.v6.size(), hand.v4.size()});
    for (size_t round = 0; round < rounds; ++round)
        for (const auto& hand : group_)
            for (const auto* family : {&hand.v6, &hand.v4})
                if (round < family->size() && !append(*hand.host, (*family)[round])) break;
    group_.clear();
}

Candidates Ordering::finish(const MailRoute& route, int64_t now_ms) {
    std::vector<Candidate> ordered, failed;
    for (auto& candidate : result_.list)
        (health_.healthy(candidate.host, candidate.address, now_ms) ? ordered : failed)
            .push_back(std::move(candidate));
    std::ranges::move(failed, std::back_inserter(ordered));
    result_.list = std::move(ordered);
    if (result_.list.size() > limits::kAddressesPerSite)
        result_.list.resize(limits::kAddressesPerSite);
    if (!result_.list.empty())
        result_.kind = MailRoute::Kind::hosts;
    else
        result_.kind = temporary_ ? MailRoute::Kind::temporary : MailRoute::Kind::no_usable_host;
    result_.expires_ms = std::min(route.expires_ms, expires_ms_);
    return std::move(result_);
}

// What candidates() and the look-ups it starts share: a slow one may end after it has gone on
// without.
struct Gathering {
    Gathering(Reactor& reactor, size_t hosts) : known(hosts), changed(reactor) {}
    std::vector<std::shared_ptr<const HostAddresses>> known;
    size_t missing = 0;
    bool found = false;
    Event changed;
};

Task<void> gather(Resolver& resolver, std::string host, size_t index,
                  std::shared_ptr<Gathering> into) {
    auto answer = co_await resolver.addresses(std::move(host));
    into->found |= answer->kind == HostAddresses::Kind::found;
    into->known[index] = std::move(answer);
    --into->missing;
    into->changed.notify();
}

}  // namespace

Candidates order_candidates(const MailRoute& route,
                            const std::vector<std::shared_ptr<const HostAddresses>>& hosts,
                            const HostHealth& health, Random& random,
                            const AddressBlocks& prohibited, uint16_t port, int64_t now_ms) {
    Ordering ordering(health, random, prohibited, port);
    for (size_t i = 0; i < route.hosts.size(); ++i) {
        if (i > 0 && route.hosts[i].preference != route.hosts[i - 1].preference)
            ordering.close_group();
        ordering.add(route.hosts[i], i < hosts.size() ? hosts[i].get() : nullptr);
    }
    ordering.close_group();
    return ordering.finish(route, now_ms);
}

Task<Candidates> candidates(Resolver& resolver, Reactor& reactor,
                            std::shared_ptr<const MailRoute> route, HostHealth& health,
                            const AddressBlocks& prohibited, uint16_t port) {
    if (route->kind != MailRoute::Kind::hosts)
        co_return Candidates{route->kind, {}, route->expires_ms, route->why};
    auto gathering = std::make_shared<Gathering>(reactor, route->hosts.size());
    gathering->missing = route->hosts.size();
    for (size_t i = 0; i < route->hosts.size(); ++i)
        spawn(resolver.background(), gather(resolver, route->hosts[i].name, i, gathering));
    const int64_t enough_ms = reactor.now_ms() + kEnoughMs;
    while (gathering->missing > 0) {
        const bool changed =
            co_await gathering->changed.wait(gathering->found ? enough_ms : TimerWheel::kNever);
        if (!changed) break;
    }
    co_return order_candidates(*route, gathering->known, health, reactor.random(), prohibited, port,
                               reactor.now_ms());
}

}  // namespace postrider
