// One thread of the sink: an epoll set, its listeners (SO_REUSEPORT gives each worker its share) and its connections.
//
// A connection is: talking -> (replies sent) closing: FIN sent, input thrown away until the peer's FIN or 2 s, so that
// unread octets do not turn our last reply into a reset; or hung: input thrown away. Buffers for reading are the
// worker's; a connection holds only what is unsent and what its machine keeps of a begun line.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tools/sink/smtp_machine.h"
#include "tools/sink/tally.h"
#include "tools/sink/tls_server.h"

namespace postrider::sink {

// Connections open on each local address; kept only when a rule or an option limits them.
class OpenByAddress {
  public:
    uint32_t opened(const std::string& local);
    void closed(const std::string& local);

  private:
    std::mutex mutex_;
    std::unordered_map<std::string, uint32_t> open_;
};

// What the workers share; it outlives them.
struct WorkerContext {
    const SinkOptions& options;
    RuleSet* rules = nullptr;
    Ledger& ledger;
    const TlsContext* tls = nullptr;
    OpenByAddress* open_by_address = nullptr;  // null: not counted
};

class Worker {
  public:
    // Takes the listening sockets over.
    Worker(const WorkerContext& context, unsigned index, std::vector<int> listeners);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void run();   // until stop()
    void stop();  // from any thread

  private:
    struct Watched {
        int fd = -1;
        bool listener = false;
    };
    struct Connection : Watched {
        Connection(const MachineContext& machine_context, uint64_t number, std::string peer, std::string local)
            : machine(machine_context, number, std::move(peer), std::move(local)) {}
        SmtpMachine machine;
        std::unique_ptr<TlsServer> tls;
        std::string out;      // replies, as they go on the wire
        size_t sent = 0;
        size_t index = 0;     // in connections_
        uint32_t events = 0;  // asked of epoll
        uint32_t open_here = 0;  // connections on the local address when this one came
        bool ended = false;      // the session is over: our end of stream is sent, or the connection is gone
        bool closing = false, fin_sent = false, hung = false, reset = false, input_ended = false;
        int64_t due_us = 0;   // next octet of a slow reply, or the end of waiting for a FIN; 0: none
        int64_t heard_us = 0;
    };
    enum class Late : uint8_t { greeting, input, end };
    struct Delayed {
        int64_t due_us;
        Connection* connection;  // null: gone meanwhile
        Late what;
        std::string bytes;
    };

    void accept_from(int listener);
    void on_event(Connection& connection, uint32_t events);
    // These return false when the connection is gone.
    bool read_some(Connection& connection);
    bool greet(Connection& connection);
    bool process(Connection& connection, std::string_view bytes);
    bool carry_on(Connection& connection, Flow flow);
    Flow feed_secure(Connection& connection, std::string_view bytes);
    bool flush(Connection& connection);
    bool flushed(Connection& connection);
    bool destroy(Connection& connection, std::string_view why);
    void session_ended(Connection& connection, std::string_view why);

    void watch(Connection& connection, uint32_t events);
    void count(SmtpMachine& machine);
    void run_delayed();
    void run_timed();
    void close_idle();
    int timeout_ms();
    void set_due(Connection& connection, int64_t at_us);

    WorkerContext context_;
    MachineContext machine_context_;
    Tally tally_;
    int epoll_ = -1;
    Watched stop_;
    std::vector<Watched> listeners_;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<Connection*> timed_;
    std::deque<Delayed> delayed_;  // latency is the same for all: due times ascend
    std::vector<char> input_, plain_;
    std::string replies_;
    int64_t now_us_ = 0, log_flushed_us_ = 0, idle_checked_us_ = 0;
};

}  // namespace postrider::sink
