// The resolver over c-ares. Lives on one shard.
//
//   look-up: cached -> done;  in flight -> joins it (single flight);  else waits in line for one of
//   kLookups slots -> asks a slot's look-up: one MX query, or A and AAAA side by side; an alias
//   that leads out of the answer is asked again
//
// Failure policy (FAULTS 78, 88): a failed name is remembered for 30 s, doubling to 5 min (RFC
// 2308 7.1), and with several servers it is asked of another one first. When no server says a word
// (server_health.h), every look-up that is not cached is `temporary` at once until a probe is
// answered, so that nothing piles up and recovery brings no storm. A local fault (FAULTS 95: no descriptor for a
// socket) is no word on the name or the servers: the look-up waits and asks again, for a minute.
#pragma once

#include <coroutine>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dns/ares_transport.h"
#include "dns/cache.h"
#include "dns/resolver.h"
#include "dns/server_health.h"
#include "engine/io/reactor.h"

namespace postrider {

class AresResolver final : public Resolver {
  public:
    static constexpr size_t kLookups = 256;  // in flight; an address look-up is two queries
    static constexpr int64_t kFirstFailureMs = 30'000;
    static constexpr int64_t kLongestFailureMs = 300'000;
    static constexpr int64_t kLocalFaultMs = 250;
    static constexpr int64_t kLocalFaultPatienceMs = 60'000;

    struct Options {
        std::vector<std::string> servers;  // DnsConfig::servers; empty: the system's
        int timeout_ms = 3'000;  // of the first try; doubled with each round over the servers
        int tries = 3;
        size_t cache_entries = 65'536;  // names; routes and addresses each have as many
        size_t lookups = kLookups;
    };
    struct Counters {
        uint64_t queries = 0;      // handed to c-ares; its own repetitions are not counted
        uint64_t silent = 0;       // of these: no server answered
        uint64_t failures = 0;     // of these: SERVFAIL, REFUSED, nonsense
        uint64_t hits = 0;         // look-ups answered from the cache
        uint64_t joined = 0;       // look-ups that joined one in flight
        uint64_t turned_away = 0;  // look-ups answered `temporary` because the servers are dead
    };

    // The error names what is wrong with the servers. `reactor` outlives the resolver.
    static Result<std::unique_ptr<AresResolver>> make(Reactor& reactor, const Options& options);
    // After stop() has ended, or when nothing was ever asked.
    ~AresResolver() override;

    Task<std::shared_ptr<const MailRoute>> route(std::string domain) override;
    Task<std::shared_ptr<const HostAddresses>> addresses(std::string host) override;
    const MailRoute* cached_route(std::string_view domain) override;
    const HostAddresses* cached_addresses(std::string_view host) override;

    // Ends every look-up with `temporary` and waits until the ring holds nothing of ours. Once, as
    // the last call.
    Task<void> stop();

    const Counters& counters() const { return counters_; }
    size_t in_flight() const { return options_.lookups - free_slots_; }
    size_t waiting() const { return line_.size(); }
    const AresTransport& transport() const { return *transport_; }

  private:
    // A place among the look-ups in flight; passes on to the first in line when it is given up.
    class Slot {
      public:
        explicit Slot(AresResolver& resolver) : resolver_(&resolver) {}
        Slot(Slot&& other) noexcept : resolver_(std::exchange(other.resolver_, nullptr)) {}
        Slot& operator=(Slot&&) = delete;
        ~Slot();

      private:
        AresResolver* resolver_;
    };
    struct SlotAwaiter {
        AresResolver& resolver;
        bool await_ready();
        void await_suspend(std::coroutine_handle<> handle) { resolver.line_.push_back(handle); }
        Slot await_resume() { return Slot(resolver); }
    };

    AresResolver(Reactor& reactor, const Options& options,
                 std::unique_ptr<AresTransport> transport);
    // Empty, or why nobody may ask now; `expires_ms` then says until when.
    std::string turned_away(int64_t& expires_ms);
    Task<MailRoute> ask_route(std::string domain);
    Task<HostAddresses> ask_addresses(std::string host);
    void ask(AresQuery& query, const std::string& name, RecordType type);
    // Waits for `query`, which asks for `name`, and for what its aliases lead to.
    Task<DnsAnswer> follow(AresQuery& query, std::string name, RecordType type);
    DnsAnswer judge(const AresQuery& query, std::string_view name, RecordType type);
    static int64_t failure_ms(uint32_t failures);

    Reactor& reactor_;
    Options options_;
    std::unique_ptr<AresTransport> transport_;
    ServerHealth health_;
    LookupCache<MailRoute> routes_;
    LookupCache<HostAddresses> addresses_;
    size_t free_slots_;
    std::deque<std::coroutine_handle<>> line_;
    Gate lookups_;  // route() and addresses() that are suspended
    bool stopping_ = false;
    Counters counters_;
};

}  // namespace postrider
