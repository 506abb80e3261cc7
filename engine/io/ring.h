// One io_uring, owned by one shard (SINGLE_ISSUER | DEFER_TASKRUN). Part of the simulation seam: a simulator links
// its own ring.cc with the same interface.
//
// Rules
// * An Operation in flight is not destroyed: between its start and its last completion it belongs to the ring.
// * Completions are copied out by wait() and run afterwards (Reactor): nothing is resumed while the completion queue
//   is walked.
// * Results are the kernel's: >= 0, or -errno.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/core/result.h"
#include "engine/core/time.h"

namespace postrider {

class Operation {
  public:
    virtual ~Operation() = default;
    // `more`: a multishot operation stays armed. `buffer`: octets received into a provided buffer, valid during
    // the call only; empty for every other operation.
    virtual void complete(int result, bool more, std::span<const char> buffer) = 0;
};

class Ring {
  public:
    struct Options {
        uint32_t entries = 4096;         // submission queue; the completion queue has four times as many
        uint32_t receive_buffers = 512;  // provided buffers, a power of two
        uint32_t receive_buffer_size = 8192;
    };
    struct Event {
        Operation* operation;
        int32_t result;
        uint32_t flags;
    };

    // The thread that makes the ring is the only one that may use it. The error names what the kernel lacks.
    static Result<std::unique_ptr<Ring>> make(const Options& options);
    ~Ring();

    void connect(int fd, const sockaddr* address, socklen_t size, Operation* operation);
    void send(int fd, const void* data, size_t size, Operation* operation);
    void receive(int fd, Operation* operation);  // multishot, into provided buffers
    void poll(int fd, uint32_t events, Operation* operation);  // one shot
    void read(int fd, void* data, size_t size, uint64_t offset, Operation* operation);
    void fdatasync(int fd, Operation* operation);
    void fsync(int fd, Operation* operation);
    // Asks for the operation's end; it completes with -ECANCELED, or as it would have.
    void cancel(Operation* operation);
    // Makes `other` return from wait(): the doorbell between shards. Call from this ring's thread.
    void wake(const Ring& other);
    // Makes this ring return from wait(); from any thread or signal handler.
    void wake_from_outside();

    // Submits what was queued and, until `deadline_ns` (CLOCK_BOOTTIME; 0: do not wait), waits for a completion.
    // Returns what has completed; the span is valid until the next call.
    std::span<const Event> wait(MonoNs now_ns, MonoNs deadline_ns);

    // Runs one event: hands the buffer out, then gives it back to the kernel.
    void run(const Event& event);

    // Called before a submission that a full queue forces in mid-turn: what must precede the turn's sends still does.
    void before_early_submit(std::function<void()> hook);

    size_t in_flight() const { return in_flight_; }

  private:
    struct Impl;
    explicit Ring(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
    size_t in_flight_ = 0;
};

}  // namespace postrider
