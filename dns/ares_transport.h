// c-ares on the shard's ring: sockets are watched by one-shot polls, re-armed while c-ares wants
// them, time-outs by a timer of the wheel. It carries raw queries and answers; what they mean is
// the resolver's business.
//
// c-ares callbacks are re-entrancy traps: ours copies the answer and makes the waiting coroutine
// ready, nothing else. It goes on in a later step of the reactor, where it may ask again. Channels
// are made and destroyed only from there.
//
// c-ares 1.18 keeps a UDP socket for as long as queries are outstanding, so that under load all of
// them would share a source port; a channel therefore retires after kQueriesPerChannel and one with
// fresh ports takes over (RFC 5452 9.2). That also reads a changed /etc/resolv.conf.
//
// Shutdown is terminate, join, close: stop() ends the queries, their coroutines go on and end,
// quiet() says when the ring holds nothing of ours any more, and only then may the transport be
// destroyed.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dns/dns_message.h"
#include "engine/core/result.h"
#include "engine/io/reactor.h"

namespace postrider {

class AresChannel;
class AresWatch;

// One question and its raw answer; lives in the asking coroutine's frame. co_await it; may be asked
// again after its end.
class AresQuery {
  public:
    explicit AresQuery(Reactor& reactor) : reactor_(reactor) {}
    AresQuery(const AresQuery&) = delete;
    AresQuery& operator=(const AresQuery&) = delete;

    bool await_ready() const { return ended_; }
    void await_suspend(std::coroutine_handle<> handle) { waiter_ = handle; }
    void await_resume() const {}

    int status() const { return status_; }  // ARES_*
    // errno when this process could not make a socket for it (no descriptors, no memory): nobody was asked.
    int local_fault() const { return local_fault_; }
    const std::vector<uint8_t>& message() const {
        return message_;
    }  // empty when no server sent one

  private:
    friend class AresChannel;
    friend class AresTransport;
    void begin();
    void end(int status, const unsigned char* message, int size);

    Reactor& reactor_;
    AresChannel* channel_ = nullptr;
    bool ended_ = false;
    int status_ = 0;
    int local_fault_ = 0;
    std::vector<uint8_t> message_;
    std::coroutine_handle<> waiter_;
};

class AresTransport {
  public:
    static constexpr uint32_t kQueriesPerChannel = 100;
    static constexpr size_t kRetiredChannels = 8;  // with so many still busy, the current one stays
    static constexpr int kEdnsSize = 1232;         // fits every path without fragments

    struct Options {
        std::string servers;  // "192.0.2.1:53,[2001:db8::1]:53"; empty: the system's
        int timeout_ms = 3'000;
        int tries = 3;
    };

    static Result<std::unique_ptr<AresTransport>> make(Reactor& reactor, Options options);
    ~AresTransport();

    // From a step of the reactor, never from a c-ares callback. `query` stays until it has ended.
    void ask(AresQuery& query, const std::string& name, RecordType type);

    void stop();
    bool quiet() const;

    size_t servers() const { return servers_; }
    uint64_t channels_made() const { return channels_made_; }

  private:
    friend class AresChannel;
    friend class AresWatch;
    AresTransport(Reactor& reactor, Options options);
    Result<std::unique_ptr<AresChannel>> make_channel();
    void renew_channel();
    void bury(AresWatch& watch);

    Reactor& reactor_;
    Options options_;
    bool stopped_ = false;
    size_t servers_ = 1;
    uint64_t channels_made_ = 0;
    std::unique_ptr<AresChannel> current_;
    std::vector<std::unique_ptr<AresChannel>> retired_;
    std::vector<std::unique_ptr<AresWatch>>
        closing_;  // their socket is closed, a poll is still in flight
};

}  // namespace postrider
