#include "engine/admin_transport.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include <fmt/format.h>

namespace postrider {
namespace {

constexpr int kAdminTimeoutMs = 10'000;

bool fill_address(const std::string& path, sockaddr_un& address) {
    address = {};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return true;
}

// A connected socket as the library wants it.
class SocketStream final : public httplib::Stream {
  public:
    explicit SocketStream(int fd) : fd_(fd) {}
    bool is_readable() const override { return wait(POLLIN); }
    bool is_writable() const override { return wait(POLLOUT); }
    ssize_t read(char* data, size_t size) override { return is_readable() ? ::recv(fd_, data, size, 0) : -1; }
    ssize_t write(const char* data, size_t size) override {
        return is_writable() ? ::send(fd_, data, size, MSG_NOSIGNAL) : -1;
    }
    void get_remote_ip_and_port(std::string& ip, int& port) const override {
        ip = "unix";
        port = 0;
    }
    void get_local_ip_and_port(std::string& ip, int& port) const override {
        ip = "unix";
        port = 0;
    }
    socket_t socket() const override { return fd_; }

  private:
    bool wait(short events) const {
        pollfd entry{fd_, events, 0};
        return ::poll(&entry, 1, kAdminTimeoutMs) == 1;
    }
    int fd_;
};

class UnixClient final : public httplib::ClientImpl {
  public:
    explicit UnixClient(std::string path) : httplib::ClientImpl("localhost", 80), path_(std::move(path)) {}

  private:
    bool create_and_connect_socket(Socket& socket, httplib::Error& error) override {
        sockaddr_un address;
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || !fill_address(path_, address) ||
            ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
            if (fd >= 0) ::close(fd);
            error = httplib::Error::Connection;
            return false;
        }
        socket.sock = fd;
        return true;
    }
    std::string path_;
};

}  // namespace

AdminServer::~AdminServer() {
    if (end_write_) {
        const char end = 0;
        [[maybe_unused]] const ssize_t put = ::write(end_write_.get(), &end, 1);
    } else {
        stop();
    }
    if (thread_.joinable()) thread_.join();
    if (!path_.empty()) ::unlink(path_.c_str());
}

Result<void> AdminServer::listen(const std::string& address) {
    return address.starts_with('/') ? listen_unix(address) : listen_tcp(address);
}

Result<void> AdminServer::listen_unix(const std::string& path) {
    sockaddr_un address;
    if (!fill_address(path, address))
        return fail(fmt::format("[server] admin: the path {} is too long for a Unix socket (107 octets)", path));
    socket_ = FileDescriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ::unlink(path.c_str());  // the spool's lock is held: no other engine answers here
    const mode_t before = umask(0177);
    const int bound = ::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    umask(before);
    if (bound != 0 || ::listen(socket_.get(), 16) != 0) return fail_errno("[server] admin: listen on " + path);
    path_ = path;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return fail_errno("pipe");
    end_read_ = FileDescriptor(ends[0]);
    end_write_ = FileDescriptor(ends[1]);
    thread_ = std::thread([this] { accept_unix(); });
    return {};
}

void AdminServer::accept_unix() {
    for (;;) {
        pollfd entries[2] = {{socket_.get(), POLLIN, 0}, {end_read_.get(), POLLIN, 0}};
        if (::poll(entries, 2, -1) < 0 && errno != EINTR) return;
        if (entries[1].revents) return;
        FileDescriptor peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!peer) continue;
        SocketStream stream(peer.get());
        bool closed = false;
        process_request(stream, true, closed, nullptr);
        ::shutdown(peer.get(), SHUT_RDWR);
    }
}

Result<void> AdminServer::listen_tcp(const std::string& address) {
    const size_t colon = address.rfind(':');
    const std::string host = address.substr(0, colon);
    const int port = std::atoi(address.c_str() + colon + 1);
    if (!bind_to_port(host.c_str(), port)) return fail("[server] admin: cannot listen on " + address);
    thread_ = std::thread([this] { listen_after_bind(); });
    return {};
}

Result<std::string> admin_get(const std::string& address, const std::string& path) {
    httplib::Result result = address.starts_with('/') ? UnixClient(address).Get(path.c_str())
                                                      : httplib::Client("http://" + address).Get(path.c_str());
    if (!result)
        return fail(fmt::format("no engine answers at {}: start it with `postrider run`, or name its configuration with "
                                "--config", address));
    if (result->status != 200) return fail(fmt::format("the engine answers {}: {}", result->status, result->body));
    return result->body;
}

}  // namespace postrider
