// What the journal and the delivery log cost a message, in CPU: records into the buffer, with the write(2) of a commit
// (256 KiB), and a log line. The file is on the disk of the temporary folder; nothing is synced.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/log/delivery_log.h"
#include "queue/journal/journal.h"

namespace postrider {
namespace {

struct Folder {
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "micro-XXXXXX").string();
        path = mkdtemp(pattern.data());
        fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    ~Folder() {
        close(fd);
        std::filesystem::remove_all(path);
    }
    std::string path;
    int fd;
};

void encode(benchmark::State& state) {
    char out[kRecordSizeMax];
    IntentFacts intent{0x1234567890abcdef, 0, 0, 1};
    for (auto _ : state) {
        ++intent.place;
        benchmark::DoNotOptimize(encode_intent(7, intent, out));
        benchmark::ClobberMemory();
    }
}
BENCHMARK(encode)->Name("journal/encode intent");

// Intent and result of one message; `files` messages share a file.
void append(benchmark::State& state) {
    Folder folder;
    Journal::Options options;
    options.segment_bytes = uint64_t{1} << 30;
    auto journal = std::move(*Journal::open(folder.fd, 0, 1, options));
    const auto messages_per_file = static_cast<uint64_t>(state.range(0));
    uint64_t n = 0;
    for (auto _ : state) {
        const FileId file = 1 + n / messages_per_file;
        const auto place = static_cast<uint32_t>(n % messages_per_file);
        journal->intent({file, place, 0, 1});
        journal->result({file, place, 0, 1, RecordKind::delivered, 1, 0});
        if (++n % 4096 == 0)
            if (!journal->write_gathered()) return state.SkipWithError("write failed");
        if (n % messages_per_file == 0) journal->forget(file);
    }
}
BENCHMARK(append)->Name("journal/intent+result+write, messages per file")->Arg(1)->Arg(1000)->Iterations(2'000'000);

void log_record(benchmark::State& state) {
    LogFormatter formatter;
    std::string buffer;
    LogRecord r;
    r.id = {0x0123456789abcdef, 42};
    r.sender = "newsletter-bounce+12345@mail.sender.example";
    r.recipient = "firstname.lastname@gmail.com";
    r.queue = "spring:acme@gmail.com";
    r.site = "alt1.gmail-smtp-in.l.google.com,alt2.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google.com";
    r.size = 10240;
    r.response = {250, 2, 0, 0, "OK  1678069691 a15-20020a170902b58f00b0019a8e1d0a8dsi1234567pls.123 - gsmtp", "."};
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

BENCHMARK_MAIN();
