// What a group commit costs with each way of preallocating a journal segment: decision 0010. Every 10 ms a block of
// records is written and fdatasync'ed; the commits' latency and the process's CPU are printed. The second half runs
// while another thread creates, renames and removes files in the same file system, as an intake does: a sync that must
// commit the file system's own journal then carries that work along.
//
//   journal_preallocation DIRECTORY [commits] [octets per commit]
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kSegment = size_t{64} << 20;
constexpr size_t kAhead = size_t{1} << 20;

enum class Way { append, allocate_size, allocate_keep_size, zero_segment, zero_ahead };

struct Variant {
    Way way;
    const char* name;
};

constexpr Variant kVariants[] = {
    {Way::append, "plain append"},
    {Way::allocate_size, "fallocate 64 MiB"},
    {Way::allocate_keep_size, "fallocate KEEP_SIZE, append"},
    {Way::zero_segment, "zero-filled 64 MiB, overwrite"},
    {Way::zero_ahead, "zero-filled 1 MiB ahead"},
};

[[noreturn]] void die(const char* what) {
    std::perror(what);
    std::exit(1);
}

double now_us() {
    return std::chrono::duration<double, std::micro>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

double thread_cpu_us() {
    rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void write_zeros(int fd, size_t offset, size_t size) {
    static const std::vector<char> zeros(kAhead);
    for (size_t done = 0; done < size; done += kAhead)
        if (pwrite(fd, zeros.data(), kAhead, static_cast<off_t>(offset + done)) != kAhead)
            die("pwrite");
}

void prepare(Way way, int fd) {
    if (way == Way::allocate_size && fallocate(fd, 0, 0, kSegment) != 0) die("fallocate");
    if (way == Way::allocate_keep_size && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, kSegment) != 0)
        die("fallocate");
    if (way == Way::zero_segment) write_zeros(fd, 0, kSegment);
    if (fsync(fd) != 0) die("fsync");
}

void churn(const std::string& dir, const std::atomic<bool>& stop) {
    const std::vector<char> body(10240, 'x');
    for (unsigned n = 0; !stop; ++n) {
        const std::string from = dir + "/churn-" + std::to_string(n % 512);
        const std::string to = from + ".renamed";
        const int fd = open(from.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, body.data(), body.size()) < 0) die("churn");
        close(fd);
        rename(from.c_str(), to.c_str());
        unlink(to.c_str());
        if (n % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void run(const Variant& variant, const std::string& dir, int commits, size_t octets) {
    const std::string path = dir + "/segment";
    const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) die("open");
    const double prepare_from = now_us();
    prepare(variant.way, fd);
    const double prepare_ms = (now_us() - prepare_from) / 1000;
    const std::vector<char> block(octets, 'r');
    std::vector<double> latency_us;
    size_t offset = 0, zeroed = 0;
    double cpu_us = thread_cpu_us();
    for (int i = 0; i < commits; ++i) {
        const double from = now_us();
        if (variant.way == Way::zero_ahead && offset + octets > zeroed) {
            write_zeros(fd, zeroed, kAhead);
            zeroed += kAhead;
        }
        if (pwrite(fd, block.data(), octets, static_cast<off_t>(offset)) < 0) die("pwrite");
        if (fdatasync(fd) != 0) die("fdatasync");
        const double took_us = now_us() - from;
        latency_us.push_back(took_us);
        offset = (offset + octets) % (kSegment - octets);
        if (took_us < 10'000)
            std::this_thread::sleep_for(std::chrono::microseconds(static_cast<long>(10'000 - took_us)));
    }
    cpu_us = thread_cpu_us() - cpu_us;
    std::sort(latency_us.begin(), latency_us.end());
    const size_t n = latency_us.size();
    std::printf("  %-30s prepare %7.1f ms   commit us: median %6.0f  p99 %6.0f  max %6.0f   cpu %4.0f\n",
                variant.name, prepare_ms, latency_us[n / 2], latency_us[n * 99 / 100],
                latency_us[n - 1], cpu_us / commits);
    std::fflush(stdout);
    close(fd);
    unlink(path.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: journal_preallocation DIRECTORY [commits] [octets per commit]\n");
        return 2;
    }
    const std::string dir = argv[1];
    const int commits = argc > 2 ? std::atoi(argv[2]) : 300;
    const size_t octets = argc > 3 ? static_cast<size_t>(std::atoll(argv[3])) : 32'768;
    for (const bool busy : {false, true}) {
        std::printf("%s, %zu octets every 10 ms, %d commits\n",
                    busy ? "files created and removed meanwhile" : "quiet file system", octets, commits);
        for (const auto& variant : kVariants) {
            std::atomic<bool> stop{false};
            std::thread other;
            if (busy) other = std::thread([&] { churn(dir, stop); });
            run(variant, dir, commits, octets);
            stop = true;
            if (other.joinable()) other.join();
        }
    }
}
