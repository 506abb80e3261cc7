#include "engine/io/ring.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>

#include "engine/core/check.h"
#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr uint16_t kBufferGroup = 1;
constexpr uint64_t kNoOperation = 0;  // cancel requests and doorbells: nobody waits for them
constexpr size_t kEventsPerTurn = 1024;

// Fires for ever: writes to the eventfd by other threads end the wait.
class WakePoll final : public Operation {
  public:
    int fd = -1;
    void complete(int, bool, std::span<const char>) override {
        uint64_t count;
        [[maybe_unused]] const ssize_t got = ::read(fd, &count, sizeof count);
    }
};

}  // namespace

struct Ring::Impl {
    io_uring uring{};
    bool ready = false;
    io_uring_buf_ring* buffer_ring = nullptr;
    size_t buffer_ring_bytes = 0;
    std::vector<char> buffers;
    uint32_t buffer_count = 0;
    uint32_t buffer_size = 0;
    std::vector<Event> events;
    WakePoll wake_poll;
    int wake_fd = -1;
    std::function<void()> early_submit;
#ifdef POSTRIDER_CRASH_POINTS
    std::unordered_map<Operation*, int> faults;  // their results, whatever the kernel says
#endif

    ~Impl() {
        if (ready) io_uring_queue_exit(&uring);
        if (buffer_ring) munmap(buffer_ring, buffer_ring_bytes);
        if (wake_fd >= 0) close(wake_fd);
    }

    io_uring_sqe* sqe() {
        io_uring_sqe* entry = io_uring_get_sqe(&uring);
        while (!entry) {  // the queue is full: hand it over and go on
            if (early_submit) early_submit();
            io_uring_submit(&uring);
            entry = io_uring_get_sqe(&uring);
        }
        return entry;
    }

    // A file operation that a build for tests lets fail is not done: an empty one takes its place.
    void prepare_file_operation([[maybe_unused]] io_uring_sqe* entry, [[maybe_unused]] const char* name,
                                [[maybe_unused]] Operation* operation) {
#ifdef POSTRIDER_CRASH_POINTS
        const FileFault fault = file_fault(name);
        if (fault.code == 0) return;
        faults[operation] = -fault.code;
        io_uring_prep_nop(entry);
#endif
    }
    int result_of([[maybe_unused]] Operation* operation, int result) {
#ifdef POSTRIDER_CRASH_POINTS
        if (auto fault = faults.find(operation); fault != faults.end()) {
            result = fault->second;
            faults.erase(fault);
        }
#endif
        return result;
    }

    char* buffer(uint16_t id) { return buffers.data() + size_t{id} * buffer_size; }
    void give_back(uint16_t id) {
        io_uring_buf_ring_add(buffer_ring, buffer(id), buffer_size, id,
                              io_uring_buf_ring_mask(buffer_count), 0);
        io_uring_buf_ring_advance(buffer_ring, 1);
    }
    void arm_wake_poll() {
        io_uring_sqe* entry = sqe();
        io_uring_prep_poll_multishot(entry, wake_fd, POLLIN);
        io_uring_sqe_set_data(entry, static_cast<Operation*>(&wake_poll));
    }
    Result<void> provide_buffers(const Options& options);
};

Result<void> Ring::Impl::provide_buffers(const Options& options) {
    buffer_count = options.receive_buffers;
    buffer_size = options.receive_buffer_size;
    POSTRIDER_CHECK((buffer_count & (buffer_count - 1)) == 0, "a power of two");
    buffer_ring_bytes = buffer_count * sizeof(io_uring_buf);
    void* memory = mmap(nullptr, buffer_ring_bytes, PROT_READ | PROT_WRITE,
                        MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (memory == MAP_FAILED) return fail_errno("memory for receive buffers");
    buffer_ring = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<uint64_t>(buffer_ring);
    registration.ring_entries = buffer_count;
    registration.bgid = kBufferGroup;
    const int rc = io_uring_register_buf_ring(&uring, &registration, 0);
    if (rc < 0) return fail_errno("io_uring: provided buffer rings (Linux 5.19)", -rc);
    io_uring_buf_ring_init(buffer_ring);
    buffers.resize(size_t{buffer_count} * buffer_size);
    for (uint32_t id = 0; id < buffer_count; ++id) give_back(static_cast<uint16_t>(id));
    return {};
}

Ring::Ring(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ring::~Ring() = default;

Result<std::unique_ptr<Ring>> Ring::make(const Options& options) {
    auto impl = std::make_unique<Impl>();
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                   IORING_SETUP_CLAMP;
    params.cq_entries = options.entries * 4;
    const int rc = io_uring_queue_init_params(options.entries, &impl->uring, &params);
    if (rc < 0)
        return fail_errno(
            "io_uring is not available (Linux 6.1 or newer is needed, and kernel.io_uring_disabled = 0)",
            -rc);
    impl->ready = true;
    if (!(params.features & IORING_FEAT_EXT_ARG))
        return fail("io_uring lacks waits with a time limit: Linux 6.1 or newer is needed");
    io_uring_register_ring_fd(&impl->uring);
    if (auto provided = impl->provide_buffers(options); !provided)
        return std::unexpected(provided.error());
    impl->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (impl->wake_fd < 0) return fail_errno("eventfd");
    impl->wake_poll.fd = impl->wake_fd;
    impl->events.reserve(kEventsPerTurn);
    impl->arm_wake_poll();
    return std::unique_ptr<Ring>(new Ring(std::move(impl)));
}

void Ring::connect(int fd, const sockaddr* address, socklen_t size, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_connect(entry, fd, address, size);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::send(int fd, const void* data, size_t size, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_send(entry, fd, data, size, MSG_NOSIGNAL);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::receive(int fd, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_recv_multishot(entry, fd, nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = kBufferGroup;
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::poll(int fd, uint32_t events, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_poll_add(entry, fd, events);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::read(int fd, void* data, size_t size, uint64_t offset, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_read(entry, fd, data, static_cast<unsigned>(size), offset);
    impl_->prepare_file_operation(entry, "ring read", operation);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::fdatasync(int fd, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
    impl_->prepare_file_operation(entry, "ring fdatasync", operation);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::fsync(int fd, Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_fsync(entry, fd, 0);
    impl_->prepare_file_operation(entry, "ring fsync", operation);
    io_uring_sqe_set_data(entry, operation);
    ++in_flight_;
}

void Ring::cancel(Operation* operation) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_cancel(entry, operation, 0);
    io_uring_sqe_set_data64(entry, kNoOperation);
}

void Ring::wake(const Ring& other) {
    io_uring_sqe* entry = impl_->sqe();
    io_uring_prep_msg_ring(entry, other.impl_->uring.ring_fd, 0, kNoOperation, 0);
    io_uring_sqe_set_data64(entry, kNoOperation);
}

void Ring::wake_from_outside() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = ::write(impl_->wake_fd, &one, sizeof one);
}

void Ring::before_early_submit(std::function<void()> hook) { impl_->early_submit = std::move(hook); }

std::span<const Ring::Event> Ring::wait(MonoNs now_ns, MonoNs deadline_ns) {
    io_uring* uring = &impl_->uring;
    impl_->events.clear();
    int rc = 0;
    if (deadline_ns > now_ns) {
        const int64_t left = deadline_ns - now_ns;
        __kernel_timespec timeout{left / kNsPerSecond, left % kNsPerSecond};
        io_uring_cqe* first = nullptr;
        rc = io_uring_submit_and_wait_timeout(uring, &first, 1, &timeout, nullptr);
    } else {
        rc = io_uring_submit_and_get_events(uring);  // deferred completions arrive only when asked for
    }
    POSTRIDER_CHECK(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN ||
                        rc == -ENOMEM,
                    "io_uring_enter fails for want of memory or time only");
    unsigned head;
    unsigned seen = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(uring, head, cqe) {
        if (seen == kEventsPerTurn) break;
        ++seen;
        auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(cqe));
        if (operation)
            impl_->events.push_back(Event{operation, impl_->result_of(operation, cqe->res), cqe->flags});
    }
    io_uring_cq_advance(uring, seen);
    return impl_->events;
}

void Ring::run(const Event& event) {
    const bool more = event.flags & IORING_CQE_F_MORE;
    if (event.operation == &impl_->wake_poll) {
        event.operation->complete(event.result, more, {});
        if (!more) impl_->arm_wake_poll();
        return;
    }
    if (!more) --in_flight_;
    if (event.flags & IORING_CQE_F_BUFFER) {
        const auto id = static_cast<uint16_t>(event.flags >> IORING_CQE_BUFFER_SHIFT);
        const size_t size = static_cast<size_t>(std::max(event.result, 0));
        event.operation->complete(event.result, more, {impl_->buffer(id), size});
        impl_->give_back(id);
    } else {
        event.operation->complete(event.result, more, {});
    }
}

}  // namespace postrider
