// A small DNS server on a free port of 127.0.0.1, UDP and TCP, that does what no real one does. How
// it behaves is said by the first label of the name asked for (hostile_server.cc).
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "message_builder.h"

namespace postrider::dns_test {

class HostileServer {
  public:
    HostileServer();
    ~HostileServer();

    std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
    // Silent to everything.
    void set_dead(bool dead) { dead_ = dead; }
    // Answers REFUSED to everything.
    void set_refusing(bool refusing) { refusing_ = refusing; }
    int queries() const { return queries_; }
    int queries(const std::string& name);
    size_t source_ports();

  private:
    struct Query;
    void serve();
    void serve_udp();
    void serve_tcp();
    bool read_query(const Octets& octets, Query& query);
    void answer_udp(const Query& query);

    uint16_t port_ = 0;
    int udp_ = -1, tcp_ = -1, stop_ = -1, other_ = -1;
    std::atomic<bool> dead_{false}, refusing_{false};
    std::atomic<int> queries_{0};
    std::mutex mutex_;
    std::map<std::string, int> by_name_;
    std::map<uint16_t, int> by_port_;
    std::thread thread_;
};

}  // namespace postrider::dns_test
