// The catch-all DNS on the wire: one thread, UDP and TCP on one port.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "engine/core/result.h"
#include "tools/sink/dns_answer.h"
#include "tools/sink/tally.h"

namespace postrider::sink {

class DnsServer {
  public:
    // Binds `address` ("127.0.0.1:0") and serves; `words` are the counters of this thread.
    static Result<std::unique_ptr<DnsServer>> start(const std::string& address, DnsZone zone,
                                                    std::atomic<uint64_t>* words);
    ~DnsServer();
    DnsServer(const DnsServer&) = delete;
    DnsServer& operator=(const DnsServer&) = delete;
    const std::string& address() const { return address_; }
    uint16_t port() const { return port_; }

  private:
    struct Stream {
        int fd;
        std::string in;
    };
    DnsServer(DnsZone zone, std::atomic<uint64_t>* words) : zone_(std::move(zone)), words_(words) {}
    void serve();
    void serve_datagrams();
    bool serve_stream(Stream& stream);
    void count_query();

    DnsZone zone_;
    std::atomic<uint64_t>* words_;
    std::string address_;
    uint16_t port_ = 0;
    int udp_ = -1, tcp_ = -1, stop_ = -1;
    std::thread thread_;
};

}  // namespace postrider::sink
