#include "engine/io/crash_points.h"

#ifdef POSTRIDER_CRASH_POINTS

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace postrider {
namespace {

[[noreturn]] void refuse(const char* variable, const char* value, const char* want) {
    std::fprintf(stderr, "postrider: %s=%s: %s\n", variable, value, want);
    std::_Exit(2);
}

// Read from the environment once. State of the process, in builds for tests only.
struct CrashPlan {
    size_t number = SIZE_MAX;
    uint64_t hit = 1;
    std::atomic<uint64_t> hits{0};

    CrashPlan() {
        const char* text = std::getenv("POSTRIDER_CRASH_AT");
        if (!text || !*text) return;
        const std::string_view wish = text;
        const size_t colon = wish.find(':');
        for (size_t i = 0; i < std::size(kCrashPoints); ++i)
            if (kCrashPoints[i] == wish.substr(0, colon)) number = i;
        if (colon != wish.npos) hit = std::strtoull(text + colon + 1, nullptr, 10);
        if (number == SIZE_MAX || hit == 0)
            refuse("POSTRIDER_CRASH_AT", text, "name:n is wanted; `postrider run --list-crash-points` tells the names");
    }
};

struct FaultPlan {
    uint64_t first = UINT64_MAX, last = 0;
    int code = 0;
    bool cut = false;
    int told = 0;  // POSTRIDER_COUNT_IO
    std::atomic<uint64_t> operations{0};

    FaultPlan() {
        if (const char* count = std::getenv("POSTRIDER_COUNT_IO")) told = std::atoi(count);
        const char* text = std::getenv("POSTRIDER_FAIL_IO");
        if (text && *text) read(text);
    }
    ~FaultPlan() {
        if (told)
            std::fprintf(stderr, "postrider: %llu file operations\n", static_cast<unsigned long long>(operations.load()));
    }
    void read(const char* text) {
        constexpr const char* kWant = "n[-[m]]:EIO|ENOSPC|EDQUOT|EINTR|EMFILE|ENOMEM|EROFS[:short] or n:short is wanted";
        char* end = nullptr;
        first = last = std::strtoull(text, &end, 10);
        if (*end == '-') last = end[1] == ':' ? (++end, UINT64_MAX) : std::strtoull(end + 1, &end, 10);
        std::string rest = *end == ':' ? end + 1 : "";
        if (rest.ends_with("short")) {
            cut = true;
            rest.resize(rest.size() - (rest == "short" ? 5 : std::min<size_t>(6, rest.size())));
        }
        constexpr std::pair<const char*, int> kCodes[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
                                                          {"EINTR", EINTR},   {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM},
                                                          {"EROFS", EROFS}};
        for (const auto& [name, value] : kCodes)
            if (rest == name) code = value;
        if (first == 0 || (code == 0 && !(cut && rest.empty()))) refuse("POSTRIDER_FAIL_IO", text, kWant);
    }
};

CrashPlan& crash_plan() {
    static CrashPlan plan;
    return plan;
}
FaultPlan& fault_plan() {
    static FaultPlan plan;
    return plan;
}

}  // namespace

void reach_crash_point(size_t number) {
    CrashPlan& plan = crash_plan();
    if (number != plan.number || ++plan.hits != plan.hit) return;
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
}

FileFault file_fault(const char* operation, size_t size) {
    FaultPlan& plan = fault_plan();
    const uint64_t number = ++plan.operations;
    if (plan.told > 1)
        std::fprintf(stderr, "postrider: file operation %llu: %s\n", static_cast<unsigned long long>(number), operation);
    const bool cuts = plan.cut && size > 1 && number == plan.first;
    // After a cut the next operation meets what cut it short.
    const uint64_t behind = plan.cut && plan.code ? 1 : 0;
    const bool fails = plan.code && number >= plan.first + behind && number <= plan.last + (plan.last == UINT64_MAX ? 0 : behind);
    if (!cuts && !fails) return {0, size};
    std::fprintf(stderr, "postrider: injected at file operation %llu: %s %s\n", static_cast<unsigned long long>(number),
                 operation, cuts ? "is cut short" : std::strerror(plan.code));
    return cuts ? FileFault{0, size / 2} : FileFault{plan.code, size};
}

}  // namespace postrider

#endif
