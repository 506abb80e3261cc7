// What the files of a spool cost alone: each file of <spool>/new is opened, read whole, closed,
// renamed into <spool>/active/<2 hex>/ and unlinked there, one system call at a time, on one
// thread. An engine that takes one file for each message cannot do less than this. Names are listed
// before, as part of the cost. Prints one JSON line.
//
//   file-costs SPOOL
//
// Exit codes: 0 done, 1 a call failed, 2 usage.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr size_t kBlock = 256 * 1024;

int failed(const char* what, const std::string& name) {
    fmt::print(stderr, "file-costs: {} {}: {}\n", what, name, std::strerror(errno));
    return 1;
}

// The file's octets; negative when a call failed.
ssize_t read_whole(int folder, const std::string& name, std::array<char, kBlock>& block) {
    const int fd = openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t total = 0, n = 0;
    while ((n = read(fd, block.data(), block.size())) > 0) total += n;
    close(fd);
    return n < 0 ? n : total;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("file-costs SPOOL: opens, reads, renames and unlinks every file of SPOOL/new\n",
                   stderr);
        return 2;
    }
    const std::string spool = argv[1];
    const std::string active_path = spool + "/active";
    mkdir(active_path.c_str(), 0700);
    const int from = open((spool + "/new").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int active = open(active_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0 || active < 0) return failed("open", spool);
    for (unsigned i = 0; i < 256; ++i) mkdirat(active, fmt::format("{:02x}", i).c_str(), 0700);

    std::vector<std::string> names;
    DIR* listing = fdopendir(dup(from));
    if (listing == nullptr) return failed("list", spool);
    while (const dirent* entry = readdir(listing))
        if (entry->d_name[0] != '.' && entry->d_type == DT_REG) names.emplace_back(entry->d_name);
    closedir(listing);

    static std::array<char, kBlock> block;
    uint64_t octets = 0;
    for (size_t i = 0; i < names.size(); ++i) {
        const ssize_t size = read_whole(from, names[i], block);
        if (size < 0) return failed("read", names[i]);
        octets += static_cast<uint64_t>(size);
        const std::string claimed = fmt::format("{:02x}/{:016x}", i % 256, i);
        if (renameat(from, names[i].c_str(), active, claimed.c_str()) != 0)
            return failed("rename", names[i]);
        if (unlinkat(active, claimed.c_str(), 0) != 0) return failed("unlink", claimed);
    }
    fmt::print("{{\"files\":{},\"octets\":{}}}\n", names.size(), octets);
    return 0;
}
