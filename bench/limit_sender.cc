// The limit of one core: an SMTP sender with no queue, no DNS and no disk, its message in memory.
// What the engine costs above this is the engine's; what this costs is the kernel's and the
// dialogue's.
//
// A connection keeps the replies it still expects, in order, and each reply moves it on:
//   lock   MAIL | RCPT | DATA | content and dot               one command at a time
//   group  MAIL RCPT DATA | content and dot                   RFC 2920 3.1
//   next   content, dot and the next MAIL RCPT DATA           one flight a message
//   bdat   [RSET] MAIL RCPT BDAT n LAST content               RFC 3030, --depth transactions in
//   flight; RSET when the
//                                                             one before is not answered yet
// Any reply of another class than expected ends the connection; its unanswered messages count as
// failed. One JSON line is printed at the end. Exit code 0: all acknowledged.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/limit/sender.h"

namespace {

using postrider::limit::Dialogue;
using postrider::limit::kDepthMost;
using postrider::limit::Sender;
using postrider::limit::Settings;

bool parse_address(const std::string& text, sockaddr_storage& storage, socklen_t& size) {
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos) return false;
    std::string host = text.substr(0, colon);
    const auto port = htons(static_cast<uint16_t>(std::atoi(text.c_str() + colon + 1)));
    if (!host.empty() && host[0] == '[') {
        auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
        in6.sin6_family = AF_INET6;
        in6.sin6_port = port;
        size = sizeof in6;
        return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &in6.sin6_addr) == 1;
    }
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = port;
    size = sizeof in;
    return inet_pton(AF_INET, host.c_str(), &in.sin_addr) == 1;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("The limit of one core: SMTP from memory, no queue, no DNS, no disk",
                 "limit-sender");
    app.footer(
        "Example:\n  limit-sender --to 127.0.0.1:2525 --dialogue next --messages 200000 --size "
        "10240");
    Settings settings;
    std::string dialogue = "next";
    app.add_option("--to", settings.to, "receiver")->capture_default_str();
    app.add_option("--dialogue", dialogue, "lock, group, next or bdat")
        ->check(CLI::IsMember({"lock", "group", "next", "bdat"}))
        ->capture_default_str();
    app.add_option("--messages", settings.messages)
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--connections", settings.connections)
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--size", settings.size, "octets of a message")->capture_default_str();
    app.add_option("--domains", settings.domains)
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--depth", settings.depth, "bdat: transactions in flight")
        ->check(CLI::Range(1u, kDepthMost))
        ->capture_default_str();
    app.add_option("--reconnect", settings.reconnect, "messages a connection; 0: as many as come");
    app.add_flag("--tls", settings.tls, "STARTTLS, the certificate is not checked");
    CLI11_PARSE(app, argc, argv);
    settings.dialogue = dialogue == "lock"    ? Dialogue::lock
                        : dialogue == "group" ? Dialogue::group
                        : dialogue == "bdat"  ? Dialogue::bdat
                                              : Dialogue::next;
    sockaddr_storage to{};
    socklen_t to_size = 0;
    if (!parse_address(settings.to, to, to_size)) {
        std::fputs("limit-sender: --to is written 127.0.0.1:2525 or [::1]:2525\n", stderr);
        return 2;
    }
    return Sender(settings, to, to_size).run();
}
