// What the delivery log costs a message, in CPU: one line of JSON into the buffer, with a long
// reply and every field set.
#include <benchmark/benchmark.h>

#include <string>

#include "engine/log/delivery_log.h"

namespace postrider {
namespace {

void log_record(benchmark::State& state) {
    LogFormatter formatter;
    std::string buffer;
    LogRecord r;
    r.id = {0x0123456789abcdef, 42};
    r.sender = "newsletter-bounce+12345@mail.sender.example";
    r.recipient = "firstname.lastname@gmail.com";
    r.queue = "spring:acme@gmail.com";
    r.site =
        "alt1.gmail-smtp-in.l.google.com,alt2.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google."
        "com";
    r.size = 10240;
    r.response = {
        250, 2, 0, 0, "OK  1678069691 a15-20020a170902b58f00b0019a8e1d0a8dsi1234567pls.123 - gsmtp",
        "."};
    r.peer_name = "gmail-smtp-in.l.google.com";
    r.peer_address = "142.251.2.27";
    r.event_us = 1'678'069'691'000'042;
    r.created_s = 1'678'069'600;
    r.num_attempts = 1;
    r.egress_pool = "pool0";
    r.egress_source = "ip-1";
    r.source_address = "192.0.2.10:40312";
    r.delivery_protocol = "ESMTP";
    r.tls_cipher = "TLS_AES_128_GCM_SHA256";
    r.tls_protocol_version = "TLSv1.3";
    r.session_high = 0x9bcd689e23d941b7;
    r.session_low = 0xa01563a1382f8b57;
    r.campaign = "spring";
    r.tenant = "acme";
    r.file = "batch-000123.bsmtp";
    size_t octets = 0;
    for (auto _ : state) {
        r.event_us += 7;
        if (buffer.size() > size_t{256} << 10) buffer.clear();
        const size_t before = buffer.size();
        formatter.append(r, buffer);
        octets += buffer.size() - before;
    }
    state.SetBytesProcessed(static_cast<int64_t>(octets));
}
BENCHMARK(log_record)->Name("log/record");

}  // namespace
}  // namespace postrider
