#include "dns/ares_transport.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "engine/core/check.h"

namespace postrider {

// One socket of c-ares: a poll for reading and one for writing, each in flight at most once.
class AresWatch {
  public:
    AresWatch(AresTransport& transport, AresChannel& channel, int fd)
        : transport_(transport),
          channel_(&channel),
          fd_(fd),
          read_(*this, POLLIN),
          write_(*this, POLLOUT) {}

    void want(bool read, bool write) {
        read_.wanted = read;
        write_.wanted = write;
        read_.arm();
        write_.arm();
    }
    // c-ares closes the socket now: what is in flight must end before this may be destroyed.
    void close() {
        channel_ = nullptr;
        read_.close();
        write_.close();
    }
    bool idle() const { return !read_.busy && !write_.busy; }
    int fd() const { return fd_; }

  private:
    struct Poll final : Operation {
        AresWatch& watch;
        uint32_t events;
        bool wanted = false;
        bool busy = false;  // in flight, or its completion is being handled

        Poll(AresWatch& owner, uint32_t what) : watch(owner), events(what) {}
        void arm();
        void close();
        void complete(int result, bool more, std::span<const char> buffer) override;
    };

    AresTransport& transport_;
    AresChannel* channel_;  // null once the socket is closed
    int fd_;
    Poll read_, write_;
};

class AresChannel final : private Timer {
  public:
    AresChannel(AresTransport& transport, Reactor& reactor, int timeout_ms)
        : transport_(transport), reactor_(reactor), timeout_ms_(timeout_ms) {}
    ~AresChannel() override;

    Result<void> open(const AresTransport::Options& options);
    void ask(AresQuery& query, const std::string& name, RecordType type);
    void cancel() { ares_cancel(channel_); }
    void ready(int read_fd, int write_fd);
    uint32_t started() const { return started_; }
    uint32_t outstanding() const { return outstanding_; }
    size_t servers() const;
    // Why no socket could be made for the query that ends now. c-ares makes and misses it in the call that ends the query,
    // so what is left is nobody else's.
    int take_socket_fault(bool answered) {
        const int fault = std::exchange(socket_fault_, 0);
        return answered ? 0 : fault;
    }
    int make_socket(int domain, int type, int protocol) {
        const int fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
        const bool local = fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM);
        socket_fault_ = local ? errno : 0;
        return fd;
    }

  private:
    void on_timer() override;
    void arm_within(int64_t delay_ms);
    void watch(int fd, bool read, bool write);
    static void on_socket(void* self, ares_socket_t fd, int readable, int writable) {
        static_cast<AresChannel*>(self)->watch(fd, readable != 0, writable != 0);
    }
    static void on_answer(void* query, int status, int timeouts, unsigned char* message, int size);

    AresTransport& transport_;
    Reactor& reactor_;
    int timeout_ms_;
    ares_channel channel_ = nullptr;
    uint32_t started_ = 0;
    uint32_t outstanding_ = 0;
    int socket_fault_ = 0;
    std::unordered_map<int, std::unique_ptr<AresWatch>> watches_;
};

// c-ares calls it "connection refused" when this process has no descriptor left: who makes the sockets knows better.
const ares_socket_functions kSocketCalls = {
    .asocket = [](int domain, int type, int protocol, void* self) {
        return static_cast<AresChannel*>(self)->make_socket(domain, type, protocol);
    },
    .aclose = [](ares_socket_t fd, void*) { return close(fd); },
    .aconnect = [](ares_socket_t fd, const sockaddr* to, ares_socklen_t size, void*) { return connect(fd, to, size); },
    .arecvfrom = [](ares_socket_t fd, void* data, size_t size, int flags, sockaddr* from, ares_socklen_t* from_size,
                    void*) -> ares_ssize_t { return recvfrom(fd, data, size, flags, from, from_size); },
    .asendv = [](ares_socket_t fd, const iovec* parts, int count, void*) -> ares_ssize_t { return writev(fd, parts, count); },
};

void AresWatch::Poll::arm() {
    if (!wanted || busy) return;
    busy = true;
    watch.transport_.reactor_.ring().poll(watch.fd_, events, this);
}

void AresWatch::Poll::close() {
    wanted = false;
    if (busy) watch.transport_.reactor_.ring().cancel(this);
}

void AresWatch::Poll::complete(int, bool, std::span<const char>) {
    // Whatever the poll says, c-ares finds out by reading: an error shows there. It may close this
    // socket meanwhile; `busy` keeps the watch until the end of this call.
    if (watch.channel_ && wanted) {
        const bool reads = events == POLLIN;
        watch.channel_->ready(reads ? watch.fd_ : ARES_SOCKET_BAD,
                              reads ? ARES_SOCKET_BAD : watch.fd_);
    }
    busy = false;
    if (watch.channel_)
        arm();
    else if (watch.idle())
        watch.transport_.bury(watch);  // destroys this
}

Result<void> AresChannel::open(const AresTransport::Options& options) {
    ares_options set{};
    // NOCHECKRESP: SERVFAIL and REFUSED reach us as what they are; c-ares would turn them into "no
    // contact".
    set.flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP;
    set.timeout = options.timeout_ms;
    set.tries = options.tries;
    set.ednspsz = AresTransport::kEdnsSize;
    set.sock_state_cb = &AresChannel::on_socket;
    set.sock_state_cb_data = this;
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_STATE_CB | ARES_OPT_ROTATE;
    std::string nowhere = "/dev/null";
    if (!options.servers.empty()) {
        set.resolvconf_path = nowhere.data();
        mask |= ARES_OPT_RESOLVCONF;
    }
    int status = ares_init_options(&channel_, &set, mask);
    if (status != ARES_SUCCESS) {
        channel_ = nullptr;
        return fail(fmt::format("dns: c-ares cannot start: {}", ares_strerror(status)));
    }
    ares_set_socket_functions(channel_, &kSocketCalls, this);
    if (options.servers.empty()) return {};
    status = ares_set_servers_ports_csv(channel_, options.servers.c_str());
    if (status != ARES_SUCCESS)
        return fail(fmt::format(
            "dns.servers: \"{}\" is not a list such as 192.0.2.1:53, [2001:db8::1]:53: {}",
            options.servers, ares_strerror(status)));
    return {};
}

AresChannel::~AresChannel() {
    if (channel_)
        ares_destroy(
            channel_);  // ends what is outstanding and closes the sockets, so that watches_ empties
    POSTRIDER_CHECK(outstanding_ == 0 && watches_.empty(), "c-ares reports each end");
}

void AresChannel::ask(AresQuery& query, const std::string& name, RecordType type) {
    query.channel_ = this;
    ++started_;
    ++outstanding_;
    ares_query(channel_, name.c_str(), ns_c_in, static_cast<int>(type), &AresChannel::on_answer,
               &query);
    arm_within(timeout_ms_);
}

// Also called from inside ares_query, for names that cannot be asked.
void AresChannel::on_answer(void* query, int status, int, unsigned char* message, int size) {
    auto* asked = static_cast<AresQuery*>(query);
    --asked->channel_->outstanding_;
    asked->local_fault_ = asked->channel_->take_socket_fault(message != nullptr);
    asked->end(status, message, size);
}

void AresChannel::ready(int read_fd, int write_fd) {
    ares_process_fd(channel_, read_fd, write_fd);
    arm_within(timeout_ms_);  // a query may have begun its next try
}

void AresChannel::on_timer() {
    ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    if (outstanding_ == 0) return;
    timeval left{};
    ares_timeout(channel_, nullptr, &left);
    reactor_.arm_after(*this,
                       std::max<int64_t>(1, left.tv_sec * 1000 + (left.tv_usec + 999) / 1000));
}

void AresChannel::arm_within(int64_t delay_ms) {
    if (outstanding_ == 0) return;
    const int64_t deadline_ms = reactor_.now_ms() + delay_ms;
    if (!armed() || Timer::deadline_ms() > deadline_ms) reactor_.arm(*this, deadline_ms);
}

void AresChannel::watch(int fd, bool read, bool write) {
    const auto found = watches_.find(fd);
    if (read || write) {
        auto& at = found == watches_.end() ? watches_[fd] : found->second;
        if (!at) at = std::make_unique<AresWatch>(transport_, *this, fd);
        at->want(read, write);
    } else if (found != watches_.end()) {
        auto closed = std::move(found->second);
        watches_.erase(found);
        closed->close();
        if (!closed->idle()) transport_.closing_.push_back(std::move(closed));
    }
}

size_t AresChannel::servers() const {
    ares_addr_port_node* list = nullptr;
    if (ares_get_servers_ports(channel_, &list) != ARES_SUCCESS) return 1;
    size_t count = 0;
    for (auto* node = list; node; node = node->next) ++count;
    ares_free_data(list);
    return count;
}

void AresQuery::begin() {
    POSTRIDER_CHECK(!waiter_, "a query is asked once at a time");
    ended_ = false;
    local_fault_ = 0;
    message_.clear();
}

void AresQuery::end(int status, const unsigned char* message, int size) {
    status_ = status;
    if (message && size > 0) message_.assign(message, message + size);
    ended_ = true;
    if (waiter_) reactor_.make_ready(std::exchange(waiter_, {}));
}

AresTransport::AresTransport(Reactor& reactor, Options options)
    : reactor_(reactor), options_(std::move(options)) {}

AresTransport::~AresTransport() {
    retired_.clear();
    current_.reset();
    POSTRIDER_CHECK(closing_.empty(), "a poll in flight belongs to the ring: stop() first");
}

Result<std::unique_ptr<AresTransport>> AresTransport::make(Reactor& reactor, Options options) {
    std::unique_ptr<AresTransport> transport(new AresTransport(reactor, std::move(options)));
    auto channel = transport->make_channel();
    if (!channel) return std::unexpected(channel.error());
    transport->current_ = std::move(*channel);
    transport->servers_ = transport->current_->servers();
    return transport;
}

Result<std::unique_ptr<AresChannel>> AresTransport::make_channel() {
    auto channel = std::make_unique<AresChannel>(*this, reactor_, options_.timeout_ms);
    if (auto opened = channel->open(options_); !opened) return std::unexpected(opened.error());
    ++channels_made_;
    return channel;
}

// A channel that cannot be made (no memory, no descriptors) leaves the old one in service.
void AresTransport::renew_channel() {
    std::erase_if(retired_, [](const auto& channel) { return channel->outstanding() == 0; });
    if (current_->started() < kQueriesPerChannel || retired_.size() >= kRetiredChannels) return;
    auto fresh = make_channel();
    if (!fresh) return;
    retired_.push_back(std::exchange(current_, std::move(*fresh)));
}

void AresTransport::ask(AresQuery& query, const std::string& name, RecordType type) {
    query.begin();
    if (stopped_) {
        query.end(ARES_ECANCELLED, nullptr, 0);
        return;
    }
    renew_channel();
    current_->ask(query, name, type);
}

void AresTransport::stop() {
    stopped_ = true;
    for (auto& channel : retired_) channel->cancel();
    current_->cancel();
    retired_.clear();
    current_.reset();
}

bool AresTransport::quiet() const { return closing_.empty(); }

void AresTransport::bury(AresWatch& watch) {
    std::erase_if(closing_, [&](const auto& held) { return held.get() == &watch; });
}

}  // namespace postrider
