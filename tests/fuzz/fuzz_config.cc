// Configuration and shaping files: whatever the octets, the loaders answer; every problem is one
// printable line with its file, and the rules that came of it can be asked.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/config/config.h"
#include "engine/core/check.h"

namespace postrider {
namespace {

// A file in memory, for the loaders read files.
class MemoryFile {
  public:
    explicit MemoryFile(const std::string& text) : fd_(memfd_create("config", MFD_CLOEXEC)) {
        POSTRIDER_CHECK(fd_ >= 0, "a file in memory can be made");
        const ssize_t written = write(fd_, text.data(), text.size());
        POSTRIDER_CHECK(written == static_cast<ssize_t>(text.size()), "and written");
    }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    ~MemoryFile() { close(fd_); }
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

  private:
    int fd_;
};

void check_problems(const std::vector<ConfigProblem>& problems) {
    for (const ConfigProblem& problem : problems) {
        POSTRIDER_CHECK(!problem.file.empty() && !problem.text.empty(),
                        "a problem says where and what");
        for (const char c : problem.text) {
            const auto octet = static_cast<unsigned char>(c);
            POSTRIDER_CHECK(octet >= 0x20 && octet != 0x7f, "a problem is one printable line");
        }
    }
}

void run(const std::string& text) {
    const MemoryFile file(text);
    const auto loaded = load_config(file.path(), "host.example.com");
    check_problems(loaded.problems);
    if (loaded.ok()) {
        POSTRIDER_CHECK(is_ehlo_name(loaded.config.server.hostname), "EHLO has a name");
        POSTRIDER_CHECK(!loaded.config.retry.retry_after_ms.empty(), "there is a retry");
    }
    ShapingRules rules;
    std::vector<ConfigProblem> problems;
    load_shaping_file(file.path(), rules, problems);
    load_shaping_file(file.path(), rules, problems);
    check_problems(problems);
    for (const std::string& domain : rules.rollup_domains()) rules.set_site(domain, "mx.example");
    const std::vector<std::string> hosts = {"mx.example"};
    const auto shaping = rules.effective("a.example", "mx.example", hosts, "ip-1");
    POSTRIDER_CHECK(shaping.connection_limit.value > 0, "a path has a connection");
    POSTRIDER_CHECK(shaping.describe().size() >= 21, "every key is told");
}

}  // namespace
}  // namespace postrider

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    postrider::run(std::string(reinterpret_cast<const char*>(data), size));
    return 0;
}
