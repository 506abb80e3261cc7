// A receiver for tests, rehearsals and benchmarks: SMTP (RFC 5321) that accepts everything and counts it, and
// a catch-all DNS that sends every domain to it. It shares the machine with the sender under test, so the
// plain path is light: one read, one scan for the final dot, one send; no allocation per message.
//
//   smtp_machine   RFC 5321 as a pure state machine: bytes in, replies out
//   data_scanner   the end of data and the transparency dots, split anywhere
//   rules          misbehaviour chosen by address: 4xx, 5xx, 421, reset, hang, garbage
//   dns_answer     a query's bytes to an answer's bytes
//   worker         one thread: epoll, sockets, TLS, latency
//   tally          counters, duplicates, canaries, log, stored content
//
// Tests use it in their own process:
//
//   SinkOptions options;
//   options.dns = "127.0.0.1:0";
//   options.rules = {"rcpt=*@busy.test reply=\"451 4.7.1 greylisted\" times=1"};
//   auto sink = Sink::start(options);              // Result<std::unique_ptr<Sink>>
//   ... (*sink)->smtp_port(), (*sink)->dns_port() ...
//   (*sink)->counters().messages
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/result.h"

namespace postrider {

// One transaction as it ended. The views are valid during the observer's call only.
struct SinkTransaction {
    uint64_t connection = 0;         // counts from 1
    std::string_view peer;           // "127.0.0.1:40112"
    std::string_view local;          // the address that was dialled: the MX
    std::string_view helo;
    std::string_view tls;            // "TLSv1.3", "TLSv1.2"; empty in clear
    std::string_view mail_parameters;  // behind the reverse-path, "SIZE=10 BODY=8BITMIME"
    std::string_view sender;
    std::vector<std::string_view> recipients;  // accepted ones
    uint64_t refused_recipients = 0;
    uint64_t size = 0;               // octets of content, transparency dots removed
    bool bdat = false;               // content came by BDAT (RFC 3030)
    std::string_view message_id, x_seq;  // header values as received
    std::span<const uint64_t> canaries;  // of each X-Canary field
    std::string_view content;        // with SinkOptions::keep_content or `store`
    std::string_view sha256;         // hex, with SinkOptions::hash
    std::string_view verdict;        // the reply's first line, or "aborted"
    bool accepted = false;
    int64_t mail_us = 0;             // CLOCK_MONOTONIC of MAIL
    int64_t end_us = 0;              // CLOCK_MONOTONIC of the verdict
};

struct SinkOptions {
    // Where to listen; port 0 picks a free one. IPv6: "[::1]:2525".
    std::vector<std::string> listen = {"127.0.0.1:0"};
    std::string dns;                 // "127.0.0.1:0": UDP and TCP on one port; empty: no DNS
    std::vector<std::string> dns_records;  // lines of the map file, see dns_answer.h
    std::string dns_map;             // file of such lines
    uint32_t dns_ttl_s = 300;
    uint32_t sites = 0;              // N: domains hash onto mx1.sink.test .. mxN.sink.test
    bool spread = false;             // the N sites have addresses 127.0.1.1, 127.0.1.2, ..., all served
    unsigned threads = 1;

    std::string hostname = "sink.test";
    bool tls = true;                 // offer STARTTLS
    bool require_tls = false;        // 530 to MAIL in clear
    bool tls12_only = false;
    std::string certificate_file, key_file;  // PEM; empty: self-signed, made at start
    bool pipelining = true, chunking = true, eight_bit_mime = true, smtputf8 = true, dsn = true;
    bool enhanced_status_codes = true;
    uint64_t size_limit = 0;         // SIZE; 0: announced without a limit
    uint32_t recipients_limit = 0;   // LIMITS RCPTMAX (RFC 9422); 0: none
    uint32_t mail_limit = 0;         // LIMITS MAILMAX

    int64_t latency_ms = 0;          // every read is processed that much later
    int64_t idle_close_ms = 0;       // close a connection that is silent for so long; 0: never
    uint32_t connections_per_mx = 0; // more on one local address: 421; 0: no limit
    std::vector<std::string> rules;  // see rules.h
    std::string rules_file;          // TOML
    uint64_t seed = 1;               // of `probability=` rules

    std::string log;                 // JSON Lines
    std::string store;               // folder for contents, one file per transaction
    std::string counters_file;       // mapped counters for a watcher, layout in tally.h
    bool hash = false;               // SHA-256 of each content; bare CR and LF become violations
    bool keep_content = false;       // hand the content to the observer
    bool check_canary = false;       // each recipient needs its X-Canary: hash64(lower case), 16 hex digits
    uint64_t expect = 0;             // see Sink::wait_expected
    uint64_t remember = 4'000'000;   // deliveries remembered to find duplicates, 16 bytes each

    // Called by the worker's thread at the end of each transaction.
    std::function<void(const SinkTransaction&)> observer;
};

struct SinkCounters {
    uint64_t connections = 0, open = 0, peak_open = 0;
    uint64_t messages = 0;           // accepted transactions
    uint64_t recipients = 0;         // deliveries: accepted messages times their recipients
    uint64_t distinct = 0;           // deliveries not seen before
    uint64_t duplicates = 0;         // same Message-ID (or X-Seq) and recipient again
    uint64_t untracked = 0;          // without Message-ID and X-Seq, or beyond `remember`
    uint64_t canary_mismatches = 0;
    uint64_t refused_recipients = 0, refused_messages = 0, aborted = 0;
    uint64_t bytes = 0;              // octets of accepted content
    uint64_t tls_connections = 0, resumed_sessions = 0, tls_messages = 0, tls_failures = 0;
    uint64_t limited_connections = 0;  // refused by connections_per_mx or a `limit=` rule
    uint64_t rules_applied = 0;
    uint64_t violations = 0;         // of the protocol by the client, see smtp_machine.h
    uint64_t dns_queries = 0;
    uint64_t log_failures = 0;       // log or store could not be written
};

class Sink {
  public:
    static Result<std::unique_ptr<Sink>> start(SinkOptions options);
    ~Sink();  // stops and joins the threads, closes every connection, writes the log out
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;

    uint16_t smtp_port() const;      // of the first `listen`
    uint16_t dns_port() const;       // 0 without DNS
    std::vector<std::string> smtp_addresses() const;  // "127.0.0.1:41234", in the order of `listen`
    std::string dns_address() const;
    SinkCounters counters() const;
    // True once `expect` distinct deliveries were counted, false after the time.
    bool wait_expected(int64_t timeout_ms);

  private:
    struct State;
    explicit Sink(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

std::string to_json(const SinkCounters& counters);

// `postrider sink`.
int run_sink(int argc, char** argv);

}  // namespace postrider
