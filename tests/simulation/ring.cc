// The simulated ring of the seam: engine/io/ring.h over the pipes of a world. A send is whole or in
// part, its octets arrive later, a receive takes what has arrived; all by the world's random
// sequence. wait() never sleeps: it tells the world until when nothing is to be done here.
#include "engine/io/ring.h"

#include <algorithm>
#include <deque>

#include "engine/core/check.h"
#include "tests/simulation/world.h"

namespace postrider {

using simulation::Pipe;
using simulation::World;

struct Ring::Impl {
    struct Finished {
        Event event;
        std::string octets;
    };
    std::deque<Finished> finished;
    std::vector<Event> events;
    std::deque<std::string> buffers;  // of the events handed out
    std::function<void()> early_submit;
};

Ring::Ring(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ring::~Ring() { World::current->sleeping.erase(this); }

Result<std::unique_ptr<Ring>> Ring::make(const Options&) {
    return std::unique_ptr<Ring>(new Ring(std::make_unique<Impl>()));
}

void Ring::send(int fd, const void* data, size_t size, Operation* operation) {
    World& world = *World::current;
    const size_t part =
        world.random.below(4) ? size : 1 + world.random.below(static_cast<uint32_t>(size));
    Pipe& pipe = world.pipes[fd ^ 1];  // the other end
    pipe.octets.append(static_cast<const char*>(data), part);
    pipe.arrive_ns = std::max(pipe.arrive_ns, world.clock_ns + world.random.below(50) * kNsPerMs);
    ++in_flight_;
    impl_->finished.push_back({{operation, static_cast<int32_t>(part), 0}, {}});
}

void Ring::receive(int fd, Operation* operation) {
    Pipe& pipe = World::current->pipes[fd];
    pipe.reader = operation;
    pipe.ring = this;
    ++in_flight_;
}

void Ring::cancel(Operation* operation) {
    for (auto& [fd, pipe] : World::current->pipes) {
        if (pipe.reader != operation || pipe.ring != this) continue;
        pipe.reader = nullptr;
        impl_->finished.push_back({{operation, -ECANCELED, 0}, {}});
    }
}

void Ring::wake(const Ring& other) { World::current->wake(&other); }
void Ring::wake_from_outside() { World::current->wake(this); }
void Ring::before_early_submit(std::function<void()> hook) {
    impl_->early_submit = std::move(hook);
}

std::span<const Ring::Event> Ring::wait(MonoNs now_ns, MonoNs deadline_ns) {
    World& world = *World::current;
    impl_->events.clear();
    impl_->buffers.clear();
    MonoNs wake_ns = deadline_ns;
    for (auto& [fd, pipe] : world.pipes) {
        if (pipe.ring != this || !pipe.reader || pipe.octets.empty()) continue;
        if (pipe.arrive_ns > world.clock_ns) {
            wake_ns = std::min(wake_ns, pipe.arrive_ns);
            continue;
        }
        const auto size =
            static_cast<int32_t>(1 + world.random.below(static_cast<uint32_t>(pipe.octets.size())));
        impl_->finished.push_back(
            {{pipe.reader, size, 1}, pipe.octets.substr(0, static_cast<size_t>(size))});
        pipe.octets.erase(0, static_cast<size_t>(size));
    }
    while (!impl_->finished.empty()) {
        impl_->buffers.push_back(std::move(impl_->finished.front().octets));
        impl_->events.push_back(impl_->finished.front().event);
        impl_->finished.pop_front();
    }
    if (impl_->events.empty() && wake_ns > now_ns) world.sleeping[this] = wake_ns;
    return impl_->events;
}

void Ring::run(const Event& event) {
    const auto at = static_cast<size_t>(&event - impl_->events.data());
    const bool more = event.flags & 1;
    if (!more) --in_flight_;
    event.operation->complete(event.result, more, impl_->buffers[at]);
}

}  // namespace postrider
