// FAULTS 55: ten thousand personal messages over several connections to a server that stalls, splits, refuses and
// disconnects at random. No recipient gets another's message, none is lost, and a repetition was ambiguous before.
#include <atomic>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <unordered_map>

#include "tests/unit/egress/session_fixture.h"

namespace postrider {
namespace {

using test::MemoryMessage;
using test::Shard;
using test::Wire;

constexpr size_t kMessages = 10'000;
constexpr int kConnections = 4;

std::string canary(std::string_view recipient) { return "X-Canary: " + std::string(recipient) + "\r\n"; }

// Serves each connection in a thread of its own, from a seed.
class MoodyServer {
  public:
    explicit MoodyServer(uint64_t seed) : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const auto any = *SocketAddress::parse("127.0.0.1:0");
        POSTRIDER_CHECK(::bind(listener_, any.data(), any.size()) == 0, "loopback is there");
        POSTRIDER_CHECK(::listen(listener_, 64) == 0, "it listens");
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&storage), &size);
        address = SocketAddress::from(reinterpret_cast<sockaddr*>(&storage), size);
        thread_ = std::thread([this, seed] {
            for (uint64_t number = 0;; ++number) {
                const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
                if (fd < 0) return;
                const int on = 1;
                ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                serving_.emplace_back([this, fd, seed, number] {
                    std::mt19937_64 random(seed * 1'000'003 + number);
                    serve(fd, random);
                    ::close(fd);
                });
            }
        });
    }
    ~MoodyServer() {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        for (auto& each : serving_) each.join();
        ::close(listener_);
    }

    SocketAddress address;
    std::mutex mutex;
    std::unordered_map<std::string, int> taken;  // by recipient
    std::atomic<int> mixed{0}, cut{0};

  private:
    // 1 of `n`.
    static bool chance(std::mt19937_64& random, uint64_t n) { return random() % n == 0; }
    // Says it in one go, in pieces, late; false: the connection has ended instead.
    bool say(Wire& wire, std::mt19937_64& random, std::string_view text) {
        if (chance(random, 60)) ::usleep(static_cast<useconds_t>(random() % 3'000));
        if (chance(random, 400)) {
            ++cut;
            if (chance(random, 2)) wire.reset();
            return false;
        }
        if (!chance(random, 20)) {
            wire.say(text);
            return true;
        }
        const size_t at = random() % text.size();
        wire.say(text.substr(0, at));
        ::usleep(200);
        wire.say(text.substr(at));
        return true;
    }
    void serve(int fd, std::mt19937_64& random) {
        Wire wire(fd);
        wire.say("220 moody\r\n");
        (void)wire.line();
        wire.say(chance(random, 4) ? "250 moody\r\n" : "250-moody\r\n250 PIPELINING\r\n");
        std::string rcpt;
        for (;;) {
            const std::string line = wire.line();
            if (line.starts_with("MAIL")) {
                rcpt.clear();
                if (chance(random, 500)) return (void)say(wire, random, "421 4.3.2 enough\r\n");
                if (!say(wire, random, "250 ok\r\n")) return;
            } else if (line.starts_with("RCPT TO:<")) {
                if (!chance(random, 100)) rcpt = line.substr(9, line.size() - 10);
                if (!say(wire, random, rcpt.empty() ? "451 4.7.1 later\r\n" : "250 ok\r\n")) return;
            } else if (line == "DATA") {
                if (rcpt.empty()) {
                    if (!say(wire, random, "503 5.5.1 nobody\r\n")) return;
                    continue;
                }
                if (!say(wire, random, "354 go\r\n") || !take(wire, random, rcpt)) return;
            } else if (line == "RSET") {
                if (!say(wire, random, "250 ok\r\n")) return;
            } else {
                if (line == "QUIT") wire.say("221 bye\r\n");
                return;
            }
        }
    }
    bool take(Wire& wire, std::mt19937_64& random, const std::string& rcpt) {
        std::string text;
        if (!wire.content(text)) return false;
        const std::string own = canary(rcpt);
        if (!text.starts_with(own) || !text.ends_with(own) || text.find("X-Canary", own.size()) != text.size() - own.size())
            ++mixed;
        if (chance(random, 200)) return say(wire, random, "451 4.3.0 not now\r\n");
        {
            std::scoped_lock lock(mutex);
            ++taken[rcpt];
        }
        return say(wire, random, "250 2.0.0 taken\r\n");
    }

    int listener_;
    std::vector<std::thread> serving_;
    std::thread thread_;
};

// All connections pull from one queue, into which comes back what was not delivered.
class CommonFeed final : public SessionFeed {
  public:
    explicit CommonFeed(size_t count) : ambiguous(count + 1), delivered(count + 1) {
        for (RecordId id = 1; id <= count; ++id) waiting.push_back(id);
    }
    OutgoingMessage* next(const Capabilities&) override {
        if (waiting.empty()) return nullptr;
        const RecordId id = waiting.front();
        waiting.pop_front();
        const std::string own = canary("r" + std::to_string(id) + "@test.example");
        // One in two hundred is streamed, some need the encoder.
        std::string body = own + (id % 5 == 0 ? ".\n" : "x\r\n") + std::string(id % 200 == 0 ? 70'000 : id % 3'000, 'b');
        held.push_back(std::make_unique<MemoryMessage>(id, body + "\r\n" + own));
        return held.back().get();
    }
    void before_dot(OutgoingMessage&) override { ++intents; }
    void settled(OutgoingMessage& message) override {
        const RecordId id = message.transaction.record(0);
        switch (message.transaction.outcome(0).kind) {
            case OutcomeKind::delivered: ++delivered[id]; break;
            case OutcomeKind::bounced: ++bounced; break;
            case OutcomeKind::ambiguous: ++ambiguous[id]; [[fallthrough]];
            default: waiting.push_back(id); break;
        }
        std::erase_if(held, [&](const auto& each) { return each.get() == &message; });
    }
    std::deque<RecordId> waiting;
    std::vector<std::unique_ptr<MemoryMessage>> held;
    std::vector<int> ambiguous, delivered;
    size_t intents = 0, bounced = 0;
};

Task<void> keep_sending(Shard& shard, SocketAddress to, CommonFeed& feed) {
    while (!feed.waiting.empty()) {
        test::Dialogued out;
        co_await test::converse(shard, to, test::quick_options(), feed, out);
    }
}

TEST(Canary, F55_NoTwoMessagesAreMixed) {
    const uint64_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    CommonFeed feed(kMessages);
    {
        MoodyServer server(seed);
        Shard shard;
        shard.reactor->turn(0);
        for (int i = 1; i < kConnections; ++i) spawn(shard.gate, keep_sending(shard, server.address, feed));
        shard.run(keep_sending(shard, server.address, feed));
        std::scoped_lock lock(server.mutex);  // a serving thread may still be at its last line
        EXPECT_EQ(server.mixed, 0);
        EXPECT_GT(server.cut, 20);  // the server was moody indeed
        EXPECT_EQ(server.taken.size(), kMessages);
        for (RecordId id = 1; id <= kMessages; ++id) {
            const int taken = server.taken["r" + std::to_string(id) + "@test.example"];
            EXPECT_EQ(feed.delivered[id], 1) << id;
            EXPECT_GE(taken, 1) << id;
            EXPECT_LE(taken, 1 + feed.ambiguous[id]) << id;
        }
    }
    EXPECT_EQ(feed.bounced, 0u);
    EXPECT_TRUE(feed.held.empty());
    EXPECT_GE(feed.intents, kMessages);
}

}  // namespace
}  // namespace postrider
