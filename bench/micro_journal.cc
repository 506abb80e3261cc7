// What the journal costs a message, in CPU: records into the buffer, with the write(2) of a commit
// (256 KiB). The file is on the disk of the temporary folder; nothing is synced.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

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
        if (++n % 4096 == 0) {
            journal->before_commit();
            std::vector<int> to_sync;
            if (!journal->begin_commit(to_sync)) return state.SkipWithError("write failed");
        }
        if (n % messages_per_file == 0) journal->forget(file);
    }
}
BENCHMARK(append)->Name("journal/intent+result+write, messages per file")->Arg(1)->Arg(1000);

}  // namespace
}  // namespace postrider
