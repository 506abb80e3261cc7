// Starting and stopping: rules and map files are read, sockets bound, then one thread a worker and one for DNS.
#include "tools/sink/sink.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

#include <fmt/format.h>

#include "tools/sink/dns_server.h"
#include "tools/sink/rules.h"
#include "tools/sink/sockets.h"
#include "tools/sink/tally.h"
#include "tools/sink/tls_server.h"
#include "tools/sink/worker.h"

namespace postrider {

using namespace sink;

struct Sink::State {
    SinkOptions options;
    std::unique_ptr<RuleSet> rules;
    std::unique_ptr<Ledger> ledger;
    std::unique_ptr<TlsContext> tls;
    OpenByAddress open_by_address;
    std::vector<std::string> addresses;
    uint16_t port = 0;
    std::vector<std::vector<int>> listeners;  // of each worker, until it takes them over
    std::vector<std::unique_ptr<Worker>> workers;
    std::vector<std::thread> threads;
    std::unique_ptr<DnsServer> dns;

    ~State() {
        for (const auto& worker : workers) worker->stop();
        for (std::thread& thread : threads) thread.join();
        for (const auto& fds : listeners)
            for (const int fd : fds) ::close(fd);
    }

    Result<void> read_rules();
    Result<void> listen_on(std::string_view text);
    Result<void> listen_at(SocketAddress& address, bool share);
    Result<void> start_dns();
    void start_workers();
};

namespace {

Result<std::string> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return fail_errno("open " + path);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

void raise_file_limit() {
    rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

}  // namespace

Result<void> Sink::State::read_rules() {
    std::vector<Rule> all;
    for (const std::string& text : options.rules) {
        auto rule = parse_rule(text);
        if (!rule) return std::unexpected(rule.error());
        all.push_back(std::move(*rule));
    }
    if (!options.rules_file.empty()) {
        const auto text = read_file(options.rules_file);
        if (!text) return std::unexpected(text.error());
        auto more = parse_rules_toml(*text, options.rules_file);
        if (!more) return std::unexpected(more.error());
        std::move(more->begin(), more->end(), std::back_inserter(all));
    }
    if (!all.empty()) rules = std::make_unique<RuleSet>(std::move(all), options.seed);
    return {};
}

// One socket a worker on one address; port 0 becomes the port of the first.
Result<void> Sink::State::listen_at(SocketAddress& address, bool share) {
    if (share && address.port() != 0) {
        // Shared ports would let two sinks split a port unseen: a socket that does not share finds out.
        const auto probe = bind_socket(address, SOCK_STREAM, false);
        if (!probe) return std::unexpected(probe.error());
        ::close(*probe);
    }
    for (auto& fds : listeners) {
        const auto fd = bind_socket(address, SOCK_STREAM, share);
        if (!fd) return std::unexpected(fd.error());
        fds.push_back(*fd);
        address.set_port(bound_address(*fd).port());
    }
    return {};
}

Result<void> Sink::State::listen_on(std::string_view text) {
    auto address = parse_socket_address(text);
    if (!address) return std::unexpected(address.error());
    const bool share = options.threads > 1;
    if (auto bound = listen_at(*address, share); !bound) return bound;
    addresses.push_back(address->text());
    if (port == 0) port = address->port();
    if (!options.spread || address->family() != AF_INET) return {};
    for (uint32_t k = 1; k <= options.sites; ++k) {
        SocketAddress site = ipv4_address(site_address(k), address->port());
        if (auto bound = listen_at(site, share); !bound) return bound;
    }
    return {};
}

Result<void> Sink::State::start_dns() {
    DnsRules dns_rules{.ttl_s = options.dns_ttl_s, .sites = options.sites, .spread = options.spread};
    for (const std::string& text : options.listen) {
        const auto address = parse_socket_address(text);
        if (address && address->family() == AF_INET6) dns_rules.ipv6 = true;
    }
    DnsZone zone(dns_rules);
    for (const std::string& line : options.dns_records)
        if (auto added = zone.add_line(line); !added) return added;
    if (!options.dns_map.empty()) {
        const auto text = read_file(options.dns_map);
        if (!text) return std::unexpected(text.error());
        size_t line = 1;
        for (size_t at = 0; at < text->size();) {
            const size_t end = std::min(text->find('\n', at), text->size());
            if (auto added = zone.add_line(std::string_view(*text).substr(at, end - at)); !added)
                return fail(fmt::format("{}:{}: {}", options.dns_map, line, added.error().text));
            at = end + 1;
            ++line;
        }
    }
    auto server = DnsServer::start(options.dns, std::move(zone), ledger->words(options.threads));
    if (!server) return std::unexpected(server.error());
    dns = std::move(*server);
    return {};
}

void Sink::State::start_workers() {
    const bool counted = options.connections_per_mx > 0 || (rules && rules->has_limits());
    const WorkerContext context{options, rules.get(), *ledger, tls.get(),
                                counted ? &open_by_address : nullptr};
    for (unsigned i = 0; i < options.threads; ++i)
        workers.push_back(std::make_unique<Worker>(context, i, std::exchange(listeners[i], {})));
    for (const auto& worker : workers) threads.emplace_back([w = worker.get()] { w->run(); });
}

Result<std::unique_ptr<Sink>> Sink::start(SinkOptions options) {
    if (options.threads == 0 || options.threads > 256) return fail("threads: 1 to 256");
    if (options.spread && options.sites == 0) return fail("spread needs a number of sites");
    if (options.sites > 65'000) return fail("sites: at most 65000");
    // Sites with addresses of their own are of use without our name server.
    if (options.dns.empty() && ((options.sites > 0 && !options.spread) || !options.dns_map.empty()))
        return fail("sites and a DNS map are for the name server: give --dns ADDRESS:PORT too");
    raise_file_limit();
    auto state = std::make_unique<State>();
    state->options = std::move(options);
    if (auto read = state->read_rules(); !read) return std::unexpected(read.error());
    // One block of counters more: the DNS thread's.
    auto ledger = Ledger::open(state->options, state->options.threads + 1);
    if (!ledger) return std::unexpected(ledger.error());
    state->ledger = std::move(*ledger);
    if (state->options.tls) {
        auto tls = TlsContext::make(state->options);
        if (!tls) return std::unexpected(tls.error());
        state->tls = std::move(*tls);
    }
    state->listeners.resize(state->options.threads);
    for (const std::string& text : state->options.listen)
        if (auto bound = state->listen_on(text); !bound) return std::unexpected(bound.error());
    if (!state->options.dns.empty())
        if (auto started = state->start_dns(); !started) return std::unexpected(started.error());
    state->start_workers();
    return std::unique_ptr<Sink>(new Sink(std::move(state)));
}

Sink::Sink(std::unique_ptr<State> state) : state_(std::move(state)) {}
Sink::~Sink() = default;

uint16_t Sink::smtp_port() const { return state_->port; }
uint16_t Sink::dns_port() const { return state_->dns ? state_->dns->port() : 0; }
std::vector<std::string> Sink::smtp_addresses() const { return state_->addresses; }
std::string Sink::dns_address() const { return state_->dns ? state_->dns->address() : std::string(); }
SinkCounters Sink::counters() const { return state_->ledger->sum(); }
bool Sink::wait_expected(int64_t timeout_ms) { return state_->ledger->wait_expected(timeout_ms); }

std::string to_json(const SinkCounters& c) {
    return fmt::format(
        R"({{"connections":{},"open":{},"peak_open":{},"messages":{},"recipients":{},"distinct":{},)"
        R"("duplicates":{},"untracked":{},"canary_mismatches":{},"refused_recipients":{},)"
        R"("refused_messages":{},"aborted":{},"bytes":{},"tls_connections":{},"resumed_sessions":{},)"
        R"("tls_messages":{},"tls_share":{:.4f},"tls_failures":{},"limited_connections":{},)"
        R"("rules_applied":{},"violations":{},"dns_queries":{},"log_failures":{}}})",
        c.connections, c.open, c.peak_open, c.messages, c.recipients, c.distinct, c.duplicates, c.untracked,
        c.canary_mismatches, c.refused_recipients, c.refused_messages, c.aborted, c.bytes, c.tls_connections,
        c.resumed_sessions, c.tls_messages,
        c.messages > 0 ? static_cast<double>(c.tls_messages) / static_cast<double>(c.messages) : 0.0,
        c.tls_failures, c.limited_connections, c.rules_applied, c.violations, c.dns_queries, c.log_failures);
}

}  // namespace postrider
