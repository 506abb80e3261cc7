// `postrider sink`: options, the lines and files that say it is ready, and the end by signal or by --expect.
// Exit codes: 0 good; 1 canary mismatches, missing deliveries, a log that could not be written, with --strict a
// violation of the protocol; 2 usage.
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>

#include <fmt/format.h>

#include "engine/arguments.h"
#include "tools/sink/sink.h"

namespace postrider {

namespace {

constexpr const char* kExamples = R"(Examples:
  postrider sink --listen 127.0.0.1:2525 --dns 127.0.0.1:5353
      everything is accepted; every domain's mail comes here
  postrider sink --listen 127.0.0.1:2525 --dns 127.0.0.1:5353 --sites 100 --spread --log /tmp/sink.jsonl
      domains share 100 sites at 127.0.1.1 .. 127.0.1.100
  postrider sink --listen 127.0.0.1:0 --latency 50ms --summary --expect 100000
      receivers 50 ms away; ends once 100,000 different deliveries have come
  postrider sink --listen 127.0.0.1:2525 \
      --rule 'rcpt=*@busy.test reply="451 4.7.1 greylisted" times=1 per=address' \
      --rule 'dot=*@lost.test action=reset reply="250 2.0.0 kept"' \
      --rule 'mail=* reply="421 4.3.2 closing" probability=0.01'
      greylisting; a message kept whose 250 is lost; one MAIL in a hundred gets a 421
Rules: POINT=PATTERN reply="CODE TEXT" or action=ACTION, then how often.
  points   connect ehlo starttls mail rcpt data dot rset quit; domain=PATTERN for recipients' domains
  actions  reply close reset hang slow reply-split close-after-reply garbage
  how often  after=N times=N per=all|connection|address probability=0.1; limit=N connections, of connect
DNS map: a line for each record, as "a.test MX 10 mx.a.test", "mx.a.test A 127.0.0.2", "b.test CNAME a.test", or
  "NAME NXDOMAIN", NODATA, SERVFAIL, REFUSED, TIMEOUT, TRUNCATE; "*.c.test" is any name below; ; and # begin comments.
The manual, docs/commands.md, has both at length.

Exit codes: 0 good; 1 failed: canaries that do not match, deliveries that --expect misses, a log that could not be written, with
  --strict a client that broke the protocol; 2 usage.)";

struct Extra {
    bool summary = false, strict = false;
    std::string ready_file;
    std::string latency, idle_close;
};

// "50ms", "2s", "1m"; empty is 0.
bool parse_duration_ms(std::string_view text, int64_t& out) {
    if (text.empty()) return true;
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
    const double factor = unit == "ms" ? 1 : unit == "s" ? 1000 : unit == "m" ? 60'000 : 0;
    out = static_cast<int64_t>(number * factor);
    return error == std::errc() && factor > 0 && number >= 0;
}

void declare(CLI::App& app, SinkOptions& o, Extra& extra) {
    app.footer(kExamples);
    app.add_option("--listen", o.listen, "address and port; port 0 takes a free one; repeatable")
        ->capture_default_str()->allow_extra_args(false);
    app.add_option("--dns", o.dns, "catch-all DNS at this address, UDP and TCP");
    app.add_option("--dns-map", o.dns_map, "file of exceptions: '<name> MX 10 <host>', '<name> SERVFAIL', ...");
    app.add_option("--dns-ttl", o.dns_ttl_s, "seconds")->capture_default_str();
    app.add_option("--sites", o.sites, "spread the domains over N MX sites mx1.sink.test ..");
    app.add_flag("--spread", o.spread, "each site has an address of its own: 127.0.1.1 ..");
    app.add_option("--threads", o.threads, "worker threads")->capture_default_str();
    app.add_option("--hostname", o.hostname, "name in the greeting and the certificate")->capture_default_str();
    app.add_flag("--tls,!--no-tls", o.tls, "offer STARTTLS (default)");
    app.add_flag("--require-tls", o.require_tls, "530 to MAIL in clear");
    app.add_flag("--tls12", o.tls12_only, "TLS 1.2 only");
    auto* cert = app.add_option("--cert", o.certificate_file, "PEM chain; else self-signed, made at start");
    auto* key = app.add_option("--key", o.key_file, "PEM key");
    cert->needs(key);
    key->needs(cert);
    app.add_flag("!--no-pipelining", o.pipelining, "do not offer PIPELINING");
    app.add_flag("!--no-chunking", o.chunking, "do not offer CHUNKING");
    app.add_flag("!--no-8bitmime", o.eight_bit_mime, "do not offer 8BITMIME");
    app.add_flag("!--no-smtputf8", o.smtputf8, "do not offer SMTPUTF8");
    app.add_flag("!--no-dsn", o.dsn, "do not offer DSN");
    app.add_flag("!--no-enhanced-codes", o.enhanced_status_codes, "do not offer ENHANCEDSTATUSCODES");
    app.add_option("--size-limit", o.size_limit, "SIZE in octets");
    app.add_option("--rcpt-max", o.recipients_limit, "recipients a message, offered as LIMITS RCPTMAX");
    app.add_option("--mail-max", o.mail_limit, "messages a session, offered as LIMITS MAILMAX");
    app.add_option("--max-connections-per-mx", o.connections_per_mx, "more on one address get 421");
    app.add_option("--latency", extra.latency, "process every read that much later, 50ms");
    app.add_option("--idle-close", extra.idle_close, "close a connection silent for so long, 2s");
    app.add_option("--rule", o.rules, "misbehaviour, see below; repeatable")->allow_extra_args(false);
    app.add_option("--rules", o.rules_file, "TOML file of [[rule]] tables");
    app.add_option("--seed", o.seed, "of probability= rules")->capture_default_str();
    app.add_option("--log", o.log, "JSON Lines: connections and transactions");
    app.add_option("--store", o.store, "folder for contents, one file per transaction");
    app.add_option("--counters", o.counters_file, "mapped counters for a watcher");
    app.add_option("--ready-file", extra.ready_file, "JSON with the addresses, written when ready");
    app.add_flag("--hash", o.hash, "SHA-256 of each content; bare CR and LF count as violations");
    app.add_flag("--check-canary", o.check_canary, "X-Canary must be the hash of the recipient");
    app.add_option("--expect", o.expect, "end once N different deliveries have come");
    app.add_option("--remember", o.remember, "deliveries remembered to find duplicates")->capture_default_str();
    app.add_flag("--summary", extra.summary, "print the counters as JSON at the end");
    app.add_flag("--strict", extra.strict, "exit 1 when the client broke the protocol");
}

bool write_ready_file(const std::string& path, const Sink& sink) {
    std::string smtp;
    for (const std::string& address : sink.smtp_addresses())
        smtp += fmt::format("{}\"{}\"", smtp.empty() ? "" : ",", address);
    const std::string text = fmt::format("{{\"smtp\":[{}],\"dns\":\"{}\",\"pid\":{}}}\n", smtp,
                                         sink.dns_address(), getpid());
    // Complete when it appears: written aside, then renamed.
    const std::string aside = path + ".tmp";
    FILE* file = std::fopen(aside.c_str(), "w");
    if (file == nullptr) return false;
    const bool written = std::fputs(text.c_str(), file) >= 0;
    return (std::fclose(file) == 0) & written && std::rename(aside.c_str(), path.c_str()) == 0;
}

// Until a signal, or until what was expected has come and the clients had a moment to QUIT.
bool wait_for_end(Sink& sink, uint64_t expect, const sigset_t& signals) {
    while (true) {
        const timespec moment{0, 20'000'000};
        if (sigtimedwait(&signals, nullptr, &moment) > 0)
            return expect == 0 || sink.counters().distinct >= expect;
        if (expect == 0 || sink.counters().distinct < expect) continue;
        for (int i = 0; i < 50 && sink.counters().open > 0; ++i)
            if (sigtimedwait(&signals, nullptr, &moment) > 0) break;
        return true;
    }
}

}  // namespace

int run_sink(int argc, char** argv) {
    CLI::App app("A receiver for tests, rehearsals and benchmarks: SMTP and a catch-all DNS", "postrider sink");
    SinkOptions options;
    Extra extra;
    declare(app, options, extra);
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    if (!parse_duration_ms(extra.latency, options.latency_ms) ||
        !parse_duration_ms(extra.idle_close, options.idle_close_ms)) {
        std::fputs("postrider sink: durations are written 50ms, 2s or 1m\n", stderr);
        return 2;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    const uint64_t expect = options.expect;
    const bool check_canary = options.check_canary;
    auto started = Sink::start(std::move(options));
    if (!started) {
        std::fprintf(stderr, "postrider sink: %s\n", started.error().text.c_str());
        return started.error().code != 0 ? 1 : 2;
    }
    std::unique_ptr<Sink> sink = std::move(*started);
    for (const std::string& address : sink->smtp_addresses()) std::printf("smtp %s\n", address.c_str());
    if (sink->dns_port() != 0) std::printf("dns %s\n", sink->dns_address().c_str());
    std::fflush(stdout);
    if (!extra.ready_file.empty() && !write_ready_file(extra.ready_file, *sink)) {
        std::fprintf(stderr, "postrider sink: cannot write %s\n", extra.ready_file.c_str());
        return 1;
    }
    const bool complete = wait_for_end(*sink, expect, signals);
    const SinkCounters counters = sink->counters();
    sink.reset();
    if (extra.summary) std::printf("%s\n", to_json(counters).c_str());
    std::fflush(stdout);
    const bool bad = !complete || counters.log_failures > 0 || (check_canary && counters.canary_mismatches > 0) ||
                     (extra.strict && counters.violations > 0);
    return bad ? 1 : 0;
}

}  // namespace postrider
