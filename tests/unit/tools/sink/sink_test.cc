// The sink as a whole, over sockets: what it counts, logs and stores, and the misbehaviour only a socket shows.
#include "tools/sink/sink.h"

#include <sys/mman.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "engine/core/hash.h"
#include "tests/unit/tools/sink/plain_client.h"

namespace postrider::sink {
namespace {

using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class Folder {
  public:
    Folder() {
        std::string text = std::filesystem::temp_directory_path() / "postrider-sink-XXXXXX";
        path_ = mkdtemp(text.data());
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    std::string operator/(const char* name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

std::unique_ptr<Sink> start(SinkOptions options) {
    auto sink = Sink::start(std::move(options));
    if (!sink) ADD_FAILURE() << sink.error().text;
    return sink ? std::move(*sink) : nullptr;
}

std::string transaction(std::string_view to, std::string_view header) {
    return "MAIL FROM:<a@b.test>\r\nRCPT TO:<" + std::string(to) + ">\r\nBDAT " + std::to_string(header.size()) +
           " LAST\r\n" + std::string(header);
}

template <class Predicate>
bool eventually(Predicate&& predicate) {
    for (int i = 0; i < 2000; ++i) {
        if (predicate()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
}

TEST(Sink, CountsDeliveriesDuplicatesAndCanaries) {
    const auto sink = start({.check_canary = true, .expect = 3});
    PlainClient client(sink->smtp_port());
    client.hello();
    const auto canary = [](std::string_view address) {
        char text[40];
        std::snprintf(text, sizeof text, "X-Canary: %016lx\r\n\r\n", static_cast<unsigned long>(hash64(address)));
        return std::string(text);
    };
    client.send(transaction("One@d.test", "Message-ID: <1@x>\r\n" + canary("one@d.test")) +
                transaction("one@D.test", "Message-ID: <1@x>\r\n" + canary("one@d.test")) +
                transaction("two@d.test", "Message-ID: <1@x>\r\nX-Canary: none\r\n" + canary("one@d.test")));
    client.lines(9);
    EXPECT_FALSE(sink->wait_expected(0));
    client.send(transaction("two@d.test", "X-Seq: 7\r\nX-Canary: 1\r\n" + canary("two@d.test")));
    client.lines(3);
    EXPECT_TRUE(sink->wait_expected(5000));
    const SinkCounters counters = sink->counters();
    EXPECT_EQ(counters.messages, 4u);
    EXPECT_EQ(counters.distinct, 3u);
    EXPECT_EQ(counters.duplicates, 1u);
    EXPECT_EQ(counters.canary_mismatches, 1u);
    EXPECT_EQ(counters.violations, 0u);
    EXPECT_EQ(counters.open, 1u);
    client.send("QUIT\r\n");
    EXPECT_THAT(client.lines(1), HasSubstr("221"));
    EXPECT_EQ(client.receive(), "");
    EXPECT_TRUE(client.ended());
}

TEST(Sink, WorkersShareAPortAndTheirCountersAddUp) {
    Folder folder;
    const std::string counters_file = folder / "counters";
    const auto sink = start({.threads = 2, .counters_file = counters_file});
    constexpr int kClients = 24;
    std::vector<std::unique_ptr<PlainClient>> clients;
    for (int i = 0; i < kClients; ++i) {
        clients.push_back(std::make_unique<PlainClient>(sink->smtp_port()));
        clients.back()->hello();
        clients.back()->send(transaction("x@d.test", "X-Seq: " + std::to_string(i) + "\r\n\r\n"));
        clients.back()->lines(3);
    }
    EXPECT_EQ(sink->counters().peak_open, static_cast<uint64_t>(kClients));
    clients.clear();
    EXPECT_TRUE(eventually([&] { return sink->counters().open == 0; }));
    EXPECT_EQ(sink->counters().messages, static_cast<uint64_t>(kClients));
    // As a watcher reads the mapped file: messages are the fourth word of each worker.
    std::ifstream file(counters_file, std::ios::binary);
    std::vector<uint64_t> words(4 + 3 * 32);
    file.read(reinterpret_cast<char*>(words.data()), static_cast<std::streamsize>(words.size() * 8));
    EXPECT_EQ(std::memcmp(words.data(), "PRSINK1", 8), 0);
    EXPECT_EQ(words[1], 3u);
    EXPECT_EQ(words[4 + 3] + words[4 + 32 + 3], static_cast<uint64_t>(kClients));
}

TEST(Sink, LogTellsEveryConnectionAndTransaction) {
    Folder folder;
    const std::string log = folder / "sink.jsonl", store = folder / "store";
    SinkOptions options{.log = log, .store = store, .hash = true};
    options.rules = {"rcpt=no@d.test reply=\"550 5.1.1 no\""};
    auto sink = start(options);
    {
        PlainClient client(sink->smtp_port());
        client.hello();
        client.send("MAIL FROM:<a@b.test> BODY=8BITMIME\r\nRCPT TO:<no@d.test>\r\nRCPT TO:<yes@d.test>\r\nDATA\r\n");
        client.lines(4);
        client.send("X-Seq: \"7\xe9\"\r\n\r\n..dot\r\n.\r\nMAIL FROM:<b\xc3\xa9@c.test>\r\n");
        client.lines(2);
    }
    EXPECT_TRUE(eventually([&] { return sink->counters().open == 0; }));
    sink.reset();
    std::vector<nlohmann::json> lines;
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    ASSERT_EQ(lines.size(), 4u);
    EXPECT_EQ(lines[0]["event"], "open");
    const auto& told = lines[1];
    EXPECT_EQ(told["event"], "transaction");
    EXPECT_EQ(told["verdict"], "250 2.0.0 Ok");
    EXPECT_EQ(told["recipients"], nlohmann::json({"yes@d.test"}));
    EXPECT_EQ(told["refused_recipients"], 1);
    EXPECT_EQ(told["parameters"], "BODY=8BITMIME");
    EXPECT_EQ(told["helo"], "me.test");
    EXPECT_EQ(told["size"], 21);
    EXPECT_EQ(told["sha256"].get<std::string>().size(), 64u);
    EXPECT_GE(told["mono_us"], told["mail_us"]);
    EXPECT_EQ(told["x_seq"], "\"7\u00e9\"") << "no UTF-8: its octets as Latin-1";
    EXPECT_EQ(lines[2]["sender"], "b\u00e9@c.test") << "UTF-8 as it came";
    EXPECT_EQ(lines[2]["verdict"], "aborted");
    EXPECT_EQ(lines[3]["event"], "close");
    EXPECT_EQ(lines[3]["connection"], lines[0]["connection"]);
    std::ifstream stored(std::filesystem::path(store) / told["file"].get<std::string>(), std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stored), {}), "X-Seq: \"7\xe9\"\r\n\r\n.dot\r\n");
}

TEST(Sink, ObserverSeesTransactionsAsTheyEnd) {
    std::mutex mutex;
    std::vector<std::string> seen;
    SinkOptions options{.keep_content = true};
    options.observer = [&](const SinkTransaction& t) {
        const std::lock_guard lock(mutex);
        seen.push_back(std::string(t.recipients.at(0)) + " " + std::string(t.content));
    };
    const auto sink = start(options);
    PlainClient client(sink->smtp_port());
    client.hello();
    client.send(transaction("x@d.test", "A: b\r\n"));
    client.lines(3);
    const std::lock_guard lock(mutex);
    EXPECT_THAT(seen, testing::ElementsAre("x@d.test A: b\r\n"));
}

TEST(Sink, LatencyDelaysReadsAndKeepsPipelining) {
    const auto sink = start({.latency_ms = 60});
    PlainClient client(sink->smtp_port());
    auto begun = Clock::now();
    client.hello();
    EXPECT_GE(Clock::now() - begun, std::chrono::milliseconds(115));  // greeting and EHLO
    begun = Clock::now();
    for (int i = 0; i < 5; ++i) {
        client.send(transaction("x@d.test", "X-Seq: " + std::to_string(i) + "\r\n\r\n"));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    client.lines(15);
    const auto took = Clock::now() - begun;
    EXPECT_GE(took, std::chrono::milliseconds(75));   // the last one's 60 ms and the sleeps
    EXPECT_LT(took, std::chrono::milliseconds(250));  // not five times 60 ms
}

TEST(Sink, RulesCloseResetAndHang) {
    SinkOptions options;
    options.rules = {"rcpt=close@* action=close", "rcpt=reset@* action=reset", "rcpt=hang@* action=hang",
                     "dot=kept@* action=reset reply=\"250 kept\""};
    const auto sink = start(options);
    const auto ask = [&](std::string_view who) {
        auto client = std::make_unique<PlainClient>(sink->smtp_port());
        client->hello();
        client->send("MAIL FROM:<a@b.test>\r\nRCPT TO:<" + std::string(who) + "@d.test>\r\n");
        EXPECT_EQ(client->lines(1), "250 2.1.0 Ok\r\n");
        return client;
    };
    auto client = ask("close");
    EXPECT_EQ(client->receive(), "");
    EXPECT_TRUE(client->ended());
    client = ask("reset");
    EXPECT_EQ(client->receive(), "");
    EXPECT_TRUE(client->broken());
    client = ask("hang");
    client->send("NOOP\r\n");
    EXPECT_EQ(client->receive(150), "");
    EXPECT_FALSE(client->ended() || client->broken());
    client = ask("kept");
    EXPECT_EQ(client->lines(1), "250 2.1.5 Ok\r\n");
    client->send("BDAT 2 LAST\r\n\r\n");
    EXPECT_EQ(client->receive(), "");
    EXPECT_TRUE(client->broken());
    EXPECT_EQ(sink->counters().messages, 1u);
}

TEST(Sink, SplitRepliesComeOctetByOctetAndWhole) {
    SinkOptions options;
    options.rules = {"mail=* action=reply-split", "mail=slow@b.test action=slow"};
    const auto sink = start(options);
    PlainClient client(sink->smtp_port());
    client.hello();
    client.send("MAIL FROM:<a@b.test>\r\n");
    size_t pieces = 0;
    std::string reply;
    while (reply.size() < 14) {
        const std::string piece = client.receive();
        ASSERT_FALSE(piece.empty());
        reply += piece;
        ++pieces;
    }
    EXPECT_EQ(reply, "250 2.1.0 Ok\r\n");
    EXPECT_GT(pieces, 3u);
}

TEST(Sink, SlowRepliesComeOneOctetASecond) {
    SinkOptions options;
    options.rules = {"mail=* action=slow"};
    const auto sink = start(options);
    PlainClient client(sink->smtp_port());
    client.hello();
    client.send("MAIL FROM:<a@b.test>\r\n");
    EXPECT_EQ(client.receive(), "2");
    EXPECT_EQ(client.receive(500), "");
    EXPECT_EQ(client.receive(1500), "5");
}

TEST(Sink, ConnectionsPerMxAreLimitedAndFreedAgain) {
    const auto sink = start({.connections_per_mx = 2});
    auto first = std::make_unique<PlainClient>(sink->smtp_port());
    PlainClient second(sink->smtp_port());
    EXPECT_THAT(first->lines(1), HasSubstr("220"));
    EXPECT_THAT(second.lines(1), HasSubstr("220"));
    PlainClient third(sink->smtp_port());
    EXPECT_EQ(third.lines(1), "421 4.7.0 Too many connections\r\n");
    EXPECT_EQ(third.receive(), "");
    EXPECT_TRUE(third.ended());
    EXPECT_EQ(sink->counters().limited_connections, 1u);
    first.reset();
    EXPECT_TRUE(eventually([&] {
        PlainClient again(sink->smtp_port());
        return again.lines(1).starts_with("220");
    }));
}

TEST(Sink, SpreadSitesAreServedAtAddressesOfTheirOwn) {
    const auto sink = start({.sites = 3, .spread = true});
    PlainClient client(sink->smtp_port(), "127.0.1.3");
    ASSERT_TRUE(client.connected());
    EXPECT_THAT(client.lines(1), HasSubstr("220"));
    EXPECT_FALSE(PlainClient(sink->smtp_port(), "127.0.1.4").connected());
}

TEST(Sink, IdleConnectionsAreClosedWhenAsked) {
    const auto sink = start({.idle_close_ms = 100});
    PlainClient client(sink->smtp_port());
    client.hello();
    EXPECT_EQ(client.receive(), "");
    EXPECT_TRUE(client.ended());
}

TEST(Sink, AClientThatDoesNotReadIsNotReadForEver) {
    const auto sink = start({});
    PlainClient client(sink->smtp_port());
    client.hello();
    // HELP's answer is longer than HELP: unread answers pile up until the sink stops reading.
    std::string commands;
    while (commands.size() < (1 << 16)) commands += "HELP\r\n";
    size_t sent = 0;
    while (sent < (size_t{256} << 20)) {
        const ssize_t n = ::send(client.fd(), commands.data(), commands.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            pollfd p{client.fd(), POLLOUT, 0};
            if (poll(&p, 1, 300) == 0) break;
            continue;
        }
        sent += static_cast<size_t>(n);
    }
    EXPECT_LT(sent, size_t{256} << 20);
    PlainClient other(sink->smtp_port());
    EXPECT_THAT(other.lines(1), HasSubstr("220"));
}

TEST(Sink, DnsAnswersOverUdpAndTcp) {
    using namespace std::string_literals;
    const auto sink = start({.dns = "127.0.0.1:0"});
    const std::string query = "\0\7\1\0\0\1\0\0\0\0\0\0\1a\4test\0\0\17\0\1"s;
    PlainClient udp(sink->dns_port(), "127.0.0.1", SOCK_DGRAM);
    udp.send(query);
    const std::string answer = udp.receive();
    EXPECT_THAT(answer, HasSubstr("\2mx\1a\4test\0"s));
    PlainClient tcp(sink->dns_port());
    const std::string framed = "\0"s + static_cast<char>(query.size()) + query;
    tcp.send(framed.substr(0, 5));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    tcp.send(framed.substr(5) + framed);
    std::string got;
    while (got.size() < 2 * (answer.size() + 2)) {
        const std::string more = tcp.receive();
        ASSERT_FALSE(more.empty());
        got += more;
    }
    EXPECT_EQ(got.substr(2, answer.size()), answer);
    EXPECT_EQ(sink->counters().dns_queries, 3u);
}

TEST(Sink, WhatIsWrongIsSaidAtStart) {
    const auto error = [](SinkOptions options) {
        const auto sink = Sink::start(std::move(options));
        return sink ? std::string("started") : sink.error().text;
    };
    EXPECT_THAT(error({.listen = {"localhost"}}), HasSubstr("127.0.0.1:2525"));
    EXPECT_THAT(error({.rules = {"rcpt=*"}}), HasSubstr("needs reply= or action="));
    EXPECT_THAT(error({.log = "/nonexistent/dir/log"}), HasSubstr("/nonexistent/dir/log"));
    EXPECT_THAT(error({.dns = "127.0.0.1:0", .dns_records = {"x A y"}}), HasSubstr("no address"));
    EXPECT_THAT(error({.sites = 3}), HasSubstr("--dns"));
    EXPECT_THAT(error({.dns_map = "x"}), HasSubstr("--dns"));
    Folder folder;
    std::ofstream(folder / "dns.map") << "; names\na.test A 127.0.0.1\nb.test A\n";
    EXPECT_THAT(error({.dns = "127.0.0.1:0", .dns_map = folder / "dns.map"}), HasSubstr("dns.map:3: DNS map line 'b.test A': "));
    const auto sink = start({});
    EXPECT_THAT(error({.listen = sink->smtp_addresses(), .threads = 2}), HasSubstr("Address already in use"));
}

}  // namespace
}  // namespace postrider::sink
