// A world of its own for the engine's io: one clock, one random sequence, any number of rings, all
// of them turned on one thread. The simulated clock.cc and ring.cc ask the world whose turn it is;
// time stands still inside a turn and passes only when every shard of the world sleeps, then to the
// next moment that somebody waits for.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/io/reactor.h"

namespace postrider::simulation {

// What the simulated rings carry: octets written to one end of a pipe come out of the other, some
// time later.
struct Pipe {
    std::string octets;
    MonoNs arrive_ns = 0;
    Operation* reader = nullptr;  // waits, in `ring`
    Ring* ring = nullptr;
};

class World {
  public:
    World(uint64_t seed, size_t shards);
    ~World();
    World(const World&) = delete;

    Reactor& shard(ShardId id) { return *reactors_[id]; }
    // Turns of all shards, in an order drawn from the seed, until the clock has passed `until_ns`.
    void run(MonoNs until_ns);
    // One turn of one shard, so that two worlds can be run by turns. False: `until_ns` is reached.
    bool step(MonoNs until_ns);

    void note(ShardId shard, const char* what, uint64_t number);
    const std::string& trace() const { return trace_; }

    // The world whose turn it is; null: the engine reads a clock or makes a ring out of turn.
    static World* current;

    // What the simulated seam works on.
    MonoNs clock_ns = 0;
    WallUs set_by_us = 0;  // the wall clock was set by so much
    Random random;
    std::map<int, Pipe> pipes;
    std::map<const Ring*, MonoNs> sleeping;  // until when
    void wake(const Ring* ring) { sleeping.erase(ring); }

  private:
    MailExchange exchange_;
    std::vector<std::unique_ptr<Reactor>> reactors_;
    std::string trace_;
};

}  // namespace postrider::simulation
