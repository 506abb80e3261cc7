#include "tests/simulation/world.h"

#include <fmt/format.h>

#include "engine/core/check.h"

namespace postrider::simulation {

World* World::current = nullptr;

World::World(uint64_t seed, size_t shards) : random(seed), exchange_(shards) {
    current = this;
    for (size_t i = 0; i < shards; ++i) {
        auto made = Reactor::make(static_cast<ShardId>(i), exchange_, {});
        POSTRIDER_CHECK(made, "a simulated ring is always to be had");
        reactors_.push_back(std::move(*made));
    }
    current = nullptr;
}

World::~World() {
    current = this;
    reactors_.clear();
    current = nullptr;
}

void World::note(ShardId shard, const char* what, uint64_t number) {
    trace_ += fmt::format("{} {} {} {}\n", clock_ns / kNsPerMs, shard, what, number);
}

bool World::step(MonoNs until_ns) {
    std::vector<Reactor*> awake;
    MonoNs next_ns = INT64_MAX;
    for (const auto& reactor : reactors_) {
        const auto asleep = sleeping.find(&reactor->ring());
        if (asleep == sleeping.end() || asleep->second <= clock_ns)
            awake.push_back(reactor.get());
        else
            next_ns = std::min(next_ns, asleep->second);
    }
    if (awake.empty()) {
        // Nobody says that octets to a ring that sleeps are on their way: the pipe does.
        for (const auto& [fd, pipe] : pipes)
            if (pipe.reader && !pipe.octets.empty())
                next_ns = std::min(next_ns, std::max(pipe.arrive_ns, clock_ns + 1));
        if (next_ns > until_ns) return false;
        clock_ns = next_ns;
        for (const auto& [fd, pipe] : pipes)
            if (pipe.reader && !pipe.octets.empty() && pipe.arrive_ns <= clock_ns)
                sleeping.erase(pipe.ring);
        return true;
    }
    current = this;
    Reactor* reactor = awake[random.below(static_cast<uint32_t>(awake.size()))];
    sleeping.erase(&reactor->ring());
    reactor->turn(until_ns + 1);
    current = nullptr;
    return true;
}

void World::run(MonoNs until_ns) {
    while (step(until_ns)) {
    }
}

}  // namespace postrider::simulation
