#include "hostile_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace postrider::dns_test {
namespace {

constexpr uint16_t kServfail = kAnswerFlags | 2, kFormerr = kAnswerFlags | 1,
                   kRefused = kAnswerFlags | 5;
constexpr uint16_t kTruncated = kAnswerFlags | 0x0200;

int bind_loopback(int type, uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    close(fd);
    return -1;
}
uint16_t port_of(int fd) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
}

}  // namespace

struct HostileServer::Query {
    sockaddr_in from{};
    uint16_t id = 0;
    bool edns = false;
    std::string name, label;
    RecordType type = RecordType::mx;

    MessageBuilder reply(uint16_t flags = kAnswerFlags) const {
        return MessageBuilder(name, type, flags, id);
    }
    // A good answer: one MX, or one address.
    Octets good(uint32_t ttl_s = 300, uint16_t with_id = 0) const {
        MessageBuilder message(name, type, kAnswerFlags, with_id ? with_id : id);
        if (type == RecordType::mx)
            return message.answer(name, type, ttl_s, mx_data(10, "mx.hostile"));
        return message.answer(name, type, ttl_s, Octets(type == RecordType::a ? 4 : 16, 10));
    }
};

HostileServer::HostileServer() {
    while (tcp_ < 0) {  // both protocols on one port
        if (udp_ >= 0) close(udp_);
        udp_ = bind_loopback(SOCK_DGRAM, 0);
        port_ = port_of(udp_);
        tcp_ = bind_loopback(SOCK_STREAM, port_);
    }
    listen(tcp_, 16);
    other_ = bind_loopback(SOCK_DGRAM, 0);
    stop_ = eventfd(0, EFD_CLOEXEC);
    thread_ = std::thread([this] { serve(); });
}

HostileServer::~HostileServer() {
    const uint64_t one = 1;
    [[maybe_unused]] const auto put = write(stop_, &one, sizeof one);
    thread_.join();
    for (int fd : {udp_, tcp_, stop_, other_}) close(fd);
}

int HostileServer::queries(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return by_name_[name];
}

size_t HostileServer::source_ports() {
    const std::lock_guard lock(mutex_);
    return by_port_.size();
}

void HostileServer::serve() {
    while (true) {
        std::array<pollfd, 3> fds = {{{udp_, POLLIN, 0}, {tcp_, POLLIN, 0}, {stop_, POLLIN, 0}}};
        poll(fds.data(), fds.size(), -1);
        if (fds[2].revents) return;
        if (fds[0].revents) serve_udp();
        if (fds[1].revents) serve_tcp();
    }
}

bool HostileServer::read_query(const Octets& octets, Query& query) {
    if (octets.size() < 17) return false;
    query.id = static_cast<uint16_t>(octets[0] << 8 | octets[1]);
    query.edns = octets[11] != 0;  // ARCOUNT: the OPT record
    size_t at = 12;
    while (at < octets.size() && octets[at] != 0) {
        if (!query.name.empty()) query.name += '.';
        query.name.append(octets.begin() + static_cast<long>(at) + 1,
                          octets.begin() + static_cast<long>(at) + 1 + octets[at]);
        at += octets[at] + 1U;
    }
    query.label = query.name.substr(0, query.name.find('.'));
    query.type = static_cast<RecordType>(octets[at + 1] << 8 | octets[at + 2]);
    ++queries_;
    const std::lock_guard lock(mutex_);
    ++by_name_[query.name];
    return true;
}

void HostileServer::serve_udp() {
    Octets octets(2048);
    Query query;
    socklen_t size = sizeof query.from;
    const auto got = recvfrom(udp_, octets.data(), octets.size(), 0,
                              reinterpret_cast<sockaddr*>(&query.from), &size);
    if (got <= 0) return;
    octets.resize(static_cast<size_t>(got));
    if (!read_query(octets, query) || dead_) return;
    {
        const std::lock_guard lock(mutex_);
        ++by_port_[ntohs(query.from.sin_port)];
    }
    answer_udp(query);
}

void HostileServer::answer_udp(const Query& query) {
    const auto send_from = [&](int fd, const Octets& octets) {
        sendto(fd, octets.data(), octets.size(), 0, reinterpret_cast<const sockaddr*>(&query.from),
               sizeof query.from);
    };
    const auto send = [&](const Octets& octets) { send_from(udp_, octets); };
    const auto& label = query.label;
    if (refusing_) return send(query.reply(kRefused));
    if (label == "silence") return;
    if (label == "garbage") {  // noise, then noise with the right id, then the answer
        send(Octets(300, 0xC3));
        Octets noise(40, 0xFF);
        noise[0] = static_cast<uint8_t>(query.id >> 8);
        noise[1] = static_cast<uint8_t>(query.id);
        send(noise);
        send(Octets{});
        return send(query.good());
    }
    if (label == "wrong-id") return send(query.good(300, static_cast<uint16_t>(query.id + 1)));
    if (label == "wrong-port") return send_from(other_, query.good());
    if (label == "other-question")
        return send(MessageBuilder("other.hostile", query.type, kAnswerFlags, query.id)
                        .answer("other.hostile", query.type, 300, mx_data(1, "evil.hostile")));
    if (label == "servfail") return send(query.reply(kServfail));
    if (label == "formerr-edns")
        return send(query.edns ? Octets(query.reply(kFormerr)) : query.good());
    if (label == "truncated" || label == "truncated-dead") return send(query.reply(kTruncated));
    if (label == "ttl-negative") return send(query.good(0x80000000));
    if (label == "pointer-loop") {
        auto message = query.reply();
        const auto here = static_cast<uint8_t>(message.size());
        return send(message.answer(Octets{0xC0, here}, query.type, 300, mx_data(10, "mx.hostile")));
    }
    if (label == "slow") usleep(100'000);
    send(query.good());
}

// One question a connection.
void HostileServer::serve_tcp() {
    const int fd = accept4(tcp_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const timeval patience{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    Octets octets(2048);
    size_t have = 0;
    while (have < 2 || have < 2U + (octets[0] << 8 | octets[1])) {
        const auto got = recv(fd, octets.data() + have, octets.size() - have, 0);
        if (got <= 0) break;
        have += static_cast<size_t>(got);
    }
    Query query;
    octets.resize(have);
    if (have > 2 && read_query(Octets(octets.begin() + 2, octets.end()), query) &&
        query.label != "truncated-dead") {
        const Octets answer = query.good();
        Octets framed;
        put16(framed, static_cast<uint32_t>(answer.size()));
        framed.insert(framed.end(), answer.begin(), answer.end());
        // In two pieces, so that the length word comes alone.
        send(fd, framed.data(), 1, MSG_NOSIGNAL);
        usleep(20'000);
        send(fd, framed.data() + 1, framed.size() - 1, MSG_NOSIGNAL);
    }
    close(fd);
}

}  // namespace postrider::dns_test
