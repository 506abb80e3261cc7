#include "dns/ares_resolver.h"

#include <ares.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "dns/mail_route.h"
#include "engine/core/address.h"
#include "engine/core/limits.h"

namespace postrider {

Result<std::unique_ptr<AresResolver>> AresResolver::make(Reactor& reactor, const Options& options) {
    auto transport =
        AresTransport::make(reactor, {.servers = fmt::format("{}", fmt::join(options.servers, ",")),
                                      .timeout_ms = options.timeout_ms,
                                      .tries = options.tries});
    if (!transport) return std::unexpected(transport.error());
    return std::unique_ptr<AresResolver>(new AresResolver(reactor, options, std::move(*transport)));
}

AresResolver::AresResolver(Reactor& reactor, const Options& options,
                           std::unique_ptr<AresTransport> transport)
    : reactor_(reactor),
      options_(options),
      transport_(std::move(transport)),
      routes_(reactor, options.cache_entries),
      addresses_(reactor, options.cache_entries),
      free_slots_(options.lookups) {}

AresResolver::~AresResolver() = default;

const MailRoute* AresResolver::cached_route(std::string_view domain) {
    const auto* hit = routes_.find(domain);
    return hit ? hit->get() : nullptr;
}

const HostAddresses* AresResolver::cached_addresses(std::string_view host) {
    const auto* hit = addresses_.find(host);
    return hit ? hit->get() : nullptr;
}

Task<std::shared_ptr<const MailRoute>> AresResolver::route(std::string domain) {
    domain = normalise_domain(domain);
    if (const auto* hit = routes_.find(domain)) {
        ++counters_.hits;
        co_return *hit;
    }
    const auto holder = lookups_.hold();
    if (auto* flight = routes_.flight(domain)) {
        ++counters_.joined;
        co_return co_await flight->join();
    }
    routes_.take_off(domain);
    MailRoute answer = co_await ask_route(domain);
    const bool failed = answer.kind == MailRoute::Kind::temporary;
    co_return routes_.land(domain, std::move(answer), failed);
}

Task<std::shared_ptr<const HostAddresses>> AresResolver::addresses(std::string host) {
    host = normalise_domain(host);
    if (const auto* hit = addresses_.find(host)) {
        ++counters_.hits;
        co_return *hit;
    }
    const auto holder = lookups_.hold();
    if (auto* flight = addresses_.flight(host)) {
        ++counters_.joined;
        co_return co_await flight->join();
    }
    addresses_.take_off(host);
    HostAddresses answer = co_await ask_addresses(host);
    const bool failed = answer.kind == HostAddresses::Kind::temporary;
    co_return addresses_.land(host, std::move(answer), failed);
}

Task<MailRoute> AresResolver::ask_route(std::string domain) {
    if (is_address_literal(domain)) co_return literal_route(domain, reactor_.now_ms());
    const Slot slot = co_await SlotAwaiter{*this};
    int64_t expires_ms = 0;
    if (const auto why = turned_away(expires_ms); !why.empty())
        co_return temporary_route(fmt::format("MX {}: {}", domain, why), expires_ms);
    AresQuery query(reactor_);
    ask(query, domain, RecordType::mx);
    const DnsAnswer answer = co_await follow(query, domain, RecordType::mx);
    co_return make_route(domain, answer, reactor_.now_ms(), failure_ms(routes_.failures(domain)));
}

Task<HostAddresses> AresResolver::ask_addresses(std::string host) {
    if (is_address_literal(host)) co_return literal_addresses(host, reactor_.now_ms());
    const Slot slot = co_await SlotAwaiter{*this};
    int64_t expires_ms = 0;
    if (const auto why = turned_away(expires_ms); !why.empty())
        co_return temporary_addresses(fmt::format("A {}: {}", host, why), expires_ms);
    AresQuery query_v4(reactor_), query_v6(reactor_);
    ask(query_v4, host, RecordType::a);
    ask(query_v6, host, RecordType::aaaa);
    const DnsAnswer v4 = co_await follow(query_v4, host, RecordType::a);
    const DnsAnswer v6 = co_await follow(query_v6, host, RecordType::aaaa);
    co_return make_addresses(host, v4, v6, reactor_.now_ms(),
                             failure_ms(addresses_.failures(host)));
}

void AresResolver::ask(AresQuery& query, const std::string& name, RecordType type) {
    ++counters_.queries;
    transport_->ask(query, name, type);
}

Task<DnsAnswer> AresResolver::follow(AresQuery& query, std::string name, RecordType type) {
    // Servers are asked in turn (ARES_OPT_ROTATE), so that asking again asks another one. A FORMERR
    // deserves a second query in any case: c-ares has switched EDNS off by then.
    size_t others = std::min<size_t>(transport_->servers() - 1, 2);
    bool formerr_seen = false;
    uint32_t aliases = 0;
    uint32_t ttl_s = limits::kTtlMaxS;
    const int64_t patience_ms = reactor_.now_ms() + kLocalFaultPatienceMs;
    while (true) {
        co_await query;
        if (query.local_fault() != 0 && !stopping_ && reactor_.now_ms() < patience_ms) {
            co_await Sleep(reactor_, kLocalFaultMs);
            ask(query, name, type);
            continue;
        }
        DnsAnswer answer = judge(query, name, type);
        if (answer.kind == DnsAnswer::Kind::failure && !query.message().empty()) {
            const bool formerr = answer.why == "FORMERR" && !std::exchange(formerr_seen, true);
            if (formerr || others > 0) {
                if (!formerr) --others;
                ask(query, name, type);
                continue;
            }
        }
        answer.ttl_s = ttl_s = std::min(ttl_s, answer.ttl_s);
        aliases += answer.aliases;
        if (aliases > limits::kCnameChain)
            co_return failed_answer(
                fmt::format("a loop or more than {} aliases", limits::kCnameChain));
        if (answer.kind != DnsAnswer::Kind::alias) co_return answer;
        name = std::move(answer.name);
        ask(query, name, type);
    }
}

// What an ended query means, for its name and for the servers.
DnsAnswer AresResolver::judge(const AresQuery& query, std::string_view name, RecordType type) {
    if (!query.message().empty()) {
        health_.answered();
        DnsAnswer answer = parse_answer(query.message(), name, type);
        if (answer.kind == DnsAnswer::Kind::failure) ++counters_.failures;
        return answer;
    }
    if (query.local_fault() != 0) {
        health_.inconclusive(reactor_.now_ms());
        ++counters_.failures;
        return failed_answer(fmt::format("no socket to ask from: {}", std::strerror(query.local_fault())));
    }
    switch (query.status()) {
        case ARES_ETIMEOUT:
            health_.silent(reactor_.now_ms());
            ++counters_.silent;
            return failed_answer("time-out");
        case ARES_ECONNREFUSED:
            health_.silent(reactor_.now_ms());
            ++counters_.silent;
            return failed_answer("no DNS server could be reached");
        case ARES_EBADNAME: {  // a label over 63 octets and the like: nobody can have such a name
            health_.inconclusive(reactor_.now_ms());
            DnsAnswer answer;
            answer.kind = DnsAnswer::Kind::no_such_name;
            answer.ttl_s = limits::kTtlMaxS;
            return answer;
        }
        default:
            health_.inconclusive(reactor_.now_ms());
            ++counters_.failures;
            return failed_answer(stopping_ ? "shutting down" : ares_strerror(query.status()));
    }
}

std::string AresResolver::turned_away(int64_t& expires_ms) {
    const int64_t now_ms = reactor_.now_ms();
    if (stopping_) {
        expires_ms = now_ms + kFirstFailureMs;
        return "shutting down";
    }
    if (health_.admit(now_ms)) return {};
    ++counters_.turned_away;
    expires_ms = health_.retry_ms(now_ms);
    return "the DNS servers do not answer";
}

int64_t AresResolver::failure_ms(uint32_t failures) {
    return std::min(kFirstFailureMs << std::min(failures, 8U), kLongestFailureMs);
}

bool AresResolver::SlotAwaiter::await_ready() {
    if (resolver.free_slots_ == 0) return false;
    --resolver.free_slots_;
    return true;
}

AresResolver::Slot::~Slot() {
    if (!resolver_) return;
    if (resolver_->line_.empty()) {
        ++resolver_->free_slots_;
        return;
    }
    resolver_->reactor_.make_ready(resolver_->line_.front());  // the place is handed over
    resolver_->line_.pop_front();
}

Task<void> AresResolver::stop() {
    stopping_ = true;
    transport_->stop();
    while (!lookups_.empty() || !background().empty() || !transport_->quiet())
        co_await Sleep(reactor_, 1);
}

}  // namespace postrider
