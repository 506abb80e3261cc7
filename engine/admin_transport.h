// HTTP over a Unix socket: cpp-httplib speaks TCP only, so its server is fed with streams that we accept, and its client
// connects where we say. TCP addresses go the library's own way.
//
// Who may use it: the Unix socket belongs to the engine's user alone (mode 0600). Over TCP there is no authentication, so
// only loopback is listened on; every user of the machine may then do what the operator may.
//
// A request is hostile until parsed: its octets, its time and the requests at once are bounded; what does not fit is closed.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include <httplib.h>

#include "engine/core/result.h"
#include "engine/io/files.h"

namespace postrider {

// Serves `handlers` set by the caller until destroyed, a few requests at a time, so that a slow client delays no other.
class AdminServer final : private httplib::Server {
  public:
    using httplib::Server::Get;
    using httplib::Server::Post;

    AdminServer();
    ~AdminServer() override;
    // `address`: "/path/to/socket" (made with mode 0600; a left-over one is replaced), or "127.0.0.1:8025".
    Result<void> listen(const std::string& address);

    // The Unix user at the other end, or the address over TCP.
    std::string peer(const httplib::Request& request) const;

  private:
    Result<void> listen_unix(const std::string& path);
    Result<void> listen_tcp(const std::string& address);
    void accept_unix();
    void serve_unix(int peer);

    std::string path_;
    FileDescriptor socket_, end_read_, end_write_;
    std::thread thread_;
    std::unique_ptr<httplib::ThreadPool> workers_;
    std::mutex peers_mutex_;
    std::set<int> peers_;  // being served, or waiting for it
    std::atomic<bool> ending_{false};
};

}  // namespace postrider
