// The simulated clock of the seam: engine/io/clock.h in the world whose turn it is.
#include "engine/io/clock.h"

#include "engine/core/check.h"
#include "tests/simulation/world.h"

namespace postrider {

using simulation::World;

MonoNs read_mono_clock() {
    POSTRIDER_CHECK(World::current, "the clock is read inside a turn only");
    return World::current->clock_ns;
}

WallUs read_wall_clock() {
    const MonoNs now = read_mono_clock();
    return 1'700'000'000 * kUsPerSecond + now / 1000 + World::current->set_by_us;
}

uint64_t random_seed() {
    POSTRIDER_CHECK(World::current, "seeds are drawn inside a turn only");
    return World::current->random.next();
}

}  // namespace postrider
