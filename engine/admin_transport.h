// HTTP over a Unix socket: cpp-httplib speaks TCP only, so its server is fed with streams that we accept, and its client
// connects where we say. TCP addresses go the library's own way.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include <httplib.h>

#include "engine/core/result.h"
#include "engine/io/files.h"

namespace postrider {

// Serves `handlers` set by the caller until destroyed. One request at a time: the admin socket is for people.
class AdminServer final : private httplib::Server {
  public:
    using httplib::Server::Delete;
    using httplib::Server::Get;
    using httplib::Server::Post;

    AdminServer() = default;
    ~AdminServer() override;
    // `address`: "/path/to/socket" (made with mode 0600; a left-over one is replaced), or "127.0.0.1:8025".
    Result<void> listen(const std::string& address);

  private:
    Result<void> listen_unix(const std::string& path);
    Result<void> listen_tcp(const std::string& address);
    void accept_unix();

    std::string path_;
    FileDescriptor socket_, end_read_, end_write_;
    std::thread thread_;
};

// GET or POST; the body of a 200 answer. The error says what to do when no engine answers.
Result<std::string> admin_get(const std::string& address, const std::string& path);

}  // namespace postrider
