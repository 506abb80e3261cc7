#include "engine/io/clock.h"

#include <sys/random.h>
#include <time.h>

#include "engine/core/check.h"

namespace postrider {

MonoNs read_mono_clock() {
    timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * kNsPerSecond + ts.tv_nsec;
}

WallUs read_wall_clock() {
    timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * kUsPerSecond + ts.tv_nsec / 1000;
}

uint64_t random_seed() {
    uint64_t seed = 0;
    const ssize_t got = getrandom(&seed, sizeof seed, 0);
    POSTRIDER_CHECK(got == sizeof seed, "the kernel gives 8 random bytes at once");
    return seed;
}

}  // namespace postrider
