#include "engine/admin_transport.h"

#include "engine/admin_client.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include <fmt/format.h>

namespace postrider {
namespace {

constexpr int kAdminTimeoutMs = 10'000;
constexpr size_t kWorkers = 8;
constexpr size_t kPeersAtOnce = 64;
constexpr size_t kBodyOctets = 64 * 1024;
constexpr size_t kRequestOctets = 2 * kBodyOctets;  // with its headers
constexpr const char* kPeerHeader = "Postrider-Peer";

bool fill_address(const std::string& path, sockaddr_un& address) {
    address = {};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return true;
}

// A connected socket as the library wants it. The whole request has one deadline, each piece of the answer another.
class SocketStream final : public httplib::Stream {
  public:
    explicit SocketStream(int fd)
        : fd_(fd), until_(std::chrono::steady_clock::now() + std::chrono::milliseconds(kAdminTimeoutMs)) {}
    bool is_readable() const override {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until_ - std::chrono::steady_clock::now());
        return left.count() > 0 && wait(POLLIN, static_cast<int>(left.count()));
    }
    bool is_writable() const override { return wait(POLLOUT, kAdminTimeoutMs); }
    ssize_t read(char* data, size_t size) override {
        if (taken_ >= kRequestOctets || !is_readable()) return -1;
        const ssize_t got = ::recv(fd_, data, size, 0);
        if (got > 0) taken_ += static_cast<size_t>(got);
        return got;
    }
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
    bool wait(short events, int timeout_ms) const {
        pollfd entry{fd_, events, 0};
        return ::poll(&entry, 1, timeout_ms) == 1;
    }
    int fd_;
    std::chrono::steady_clock::time_point until_;
    size_t taken_ = 0;
};

// The user who connected, by the kernel's word.
std::string user_of(int fd) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return "unknown";
    passwd entry, *found = nullptr;
    char buffer[4096];
    if (getpwuid_r(credentials.uid, &entry, buffer, sizeof buffer, &found) == 0 && found) return found->pw_name;
    return fmt::format("uid {}", credentials.uid);
}

class UnixClient final : public httplib::ClientImpl {
  public:
    // `error` takes the errno of a failed connect.
    UnixClient(std::string path, int& error) : httplib::ClientImpl("localhost", 80), path_(std::move(path)), error_(error) {}

  private:
    bool create_and_connect_socket(Socket& socket, httplib::Error& error) override {
        sockaddr_un address;
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || !fill_address(path_, address) ||
            ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
            error_ = errno;
            if (fd >= 0) ::close(fd);
            error = httplib::Error::Connection;
            return false;
        }
        socket.sock = fd;
        return true;
    }
    std::string path_;
    int& error_;
};

}  // namespace

AdminServer::AdminServer() {
    set_payload_max_length(kBodyOctets);
    set_keep_alive_max_count(1);
    set_read_timeout(kAdminTimeoutMs / 1000);
    set_write_timeout(kAdminTimeoutMs / 1000);
    new_task_queue = [] { return new httplib::ThreadPool(kWorkers); };
}

AdminServer::~AdminServer() {
    ending_ = true;
    if (end_write_) {
        const char end = 0;
        [[maybe_unused]] const ssize_t put = ::write(end_write_.get(), &end, 1);
    } else {
        stop();
    }
    if (thread_.joinable()) thread_.join();
    {
        std::scoped_lock lock(peers_mutex_);
        for (const int peer : peers_) ::shutdown(peer, SHUT_RDWR);  // ends what waits for a slow one
    }
    if (workers_) workers_->shutdown();
    if (!path_.empty()) ::unlink(path_.c_str());
}

std::string AdminServer::peer(const httplib::Request& request) const {
    return path_.empty() ? request.remote_addr : request.get_header_value(kPeerHeader);
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
    workers_ = std::make_unique<httplib::ThreadPool>(kWorkers);
    thread_ = std::thread([this] { accept_unix(); });
    return {};
}

void AdminServer::accept_unix() {
    for (;;) {
        pollfd entries[2] = {{socket_.get(), POLLIN, 0}, {end_read_.get(), POLLIN, 0}};
        if (::poll(entries, 2, -1) < 0 && errno != EINTR) return;
        if (entries[1].revents) return;
        const int peer = ::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
        if (peer < 0) continue;
        {
            std::scoped_lock lock(peers_mutex_);
            if (peers_.size() >= kPeersAtOnce) {
                ::close(peer);
                continue;
            }
            peers_.insert(peer);
        }
        workers_->enqueue([this, peer] { serve_unix(peer); });
    }
}

void AdminServer::serve_unix(int peer) {
    if (!ending_) {
        SocketStream stream(peer);
        bool closed = false;
        process_request(stream, true, closed, [&](httplib::Request& request) {
            request.headers.erase(kPeerHeader);  // nobody says himself who he is
            request.set_header(kPeerHeader, user_of(peer));
        });
    }
    std::scoped_lock lock(peers_mutex_);
    peers_.erase(peer);
    ::shutdown(peer, SHUT_RDWR);
    ::close(peer);
}

Result<void> AdminServer::listen_tcp(const std::string& address) {
    const size_t colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (!host.starts_with("127.") && host != "::1" && host != "localhost")
        return fail("[server] admin: " + address + " is not on loopback; there is no authentication, so that is refused");
    const int port = std::atoi(address.c_str() + colon + 1);
    if (!bind_to_port(host.c_str(), port)) return fail("[server] admin: cannot listen on " + address);
    thread_ = std::thread([this] { listen_after_bind(); });
    return {};
}

namespace {

template <class F>
auto ask(const std::string& address, int& error, F&& request) {
    const auto with = [&](httplib::ClientImpl& client) {
        client.set_read_timeout(60);
        return request(client);
    };
    if (address.starts_with('/')) {
        UnixClient client(address, error);
        return with(client);
    }
    const size_t colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    httplib::ClientImpl client(host, std::atoi(address.c_str() + colon + 1));
    return with(client);
}

Result<std::string> answer_of(const std::string& address, const httplib::Result& result, int error) {
    if (!result && (error == EACCES || error == EPERM))
        return fail(fmt::format("{}: permission denied; ask as the user that the engine runs as, or as root", address), ENOTCONN);
    if (!result)
        return fail(fmt::format("no engine answers at {}: start it with `postrider run`, or name its configuration with "
                                "--config", address), ENOTCONN);
    if (result->status == 400) return fail(result->body, EINVAL);
    if (result->status != 200) return fail(fmt::format("the engine answers {}: {}", result->status, result->body));
    return result->body;
}

}  // namespace

std::string query_value(const std::string& text) { return httplib::detail::encode_query_param(text); }

Result<std::string> admin_get(const std::string& address, const std::string& path) {
    int error = 0;
    const auto result = ask(address, error, [&](httplib::ClientImpl& client) { return client.Get(path.c_str()); });
    return answer_of(address, result, error);
}

Result<std::string> admin_post(const std::string& address, const std::string& path, const std::string& body) {
    int error = 0;
    const auto result = ask(address, error, [&](httplib::ClientImpl& client) {
        return client.Post(path.c_str(), body, "application/json");
    });
    return answer_of(address, result, error);
}

}  // namespace postrider
