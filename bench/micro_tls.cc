// TLS 1.3 as the sender uses it, over memory: sealing a message of 10 KiB, and what a handshake
// costs our side, full and resumed. The other side is the sink's; its time is not in the figures.
#include <benchmark/benchmark.h>

#include <chrono>
#include <string>

#include "bench/micro_content.h"
#include "engine/net/session_cache.h"
#include "engine/net/tls_engine.h"
#include "tools/sink/tls_server.h"

namespace postrider {
namespace {

using Clock = std::chrono::steady_clock;

// A client and a server in one process.
struct Pair {
    SessionCache sessions;
    std::unique_ptr<TlsContext> client_context =
        *TlsContext::make(TlsLevel::opportunistic, sessions);
    std::unique_ptr<sink::TlsContext> server_context = *sink::TlsContext::make({});
    SocketAddress peer = *SocketAddress::parse("192.0.2.1:25");
    BufferPool pool;
    Buffer plain{pool}, out{pool};
    std::unique_ptr<TlsEngine> client;
    std::unique_ptr<sink::TlsServer> server;
    std::string to_client;
    std::chrono::duration<double> client_time{0};

    // True when both are open. `host` names the session to resume.
    bool open(const std::string& host) {
        client_time = {};
        server = std::make_unique<sink::TlsServer>(*server_context);
        const auto begun = Clock::now();
        client = *TlsEngine::make(*client_context, host, peer);
        client_time += Clock::now() - begun;
        std::string_view in;
        auto status = step(in);
        for (int i = 0; i < 8 && status == TlsEngine::Status::more; ++i) {
            server_turn();
            in = to_client;
            status = step(in);
        }
        server_turn();  // takes the client's Finished and issues tickets
        plain.release();
        return status == TlsEngine::Status::done &&
               client->decrypt(to_client, plain, out) == TlsEngine::Status::more;
    }

  private:
    TlsEngine::Status step(std::string_view& in) {
        const auto begun = Clock::now();
        const auto status = client->handshake(in, out);
        client_time += Clock::now() - begun;
        return status;
    }
    void server_turn() {
        to_client.clear();
        server->receive(out.view());
        if (server->status() == sink::TlsServer::Status::handshaking) server->handshake(to_client);
        char drop[1024];
        while (server->status() == sink::TlsServer::Status::open &&
               server->read(drop, sizeof drop, to_client) > 0) {
        }
        out.release();
    }
};

void seal(benchmark::State& state) {
    Pair pair;
    if (!pair.open("mx.example.com")) return state.SkipWithError("the handshake failed");
    const std::string message = bench::make_message(static_cast<size_t>(state.range(0)), "\r\n");
    for (auto _ : state) {
        if (!pair.client->encrypt(message, pair.out)) return state.SkipWithError("encrypt failed");
        pair.out.release();
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(message.size()));
}
BENCHMARK(seal)->Name("tls/seal a message of octets")->Arg(10 * 1024)->Arg(100 * 1024);

void handshake(benchmark::State& state, bool resumed) {
    Pair pair;
    if (resumed && !pair.open("mx.example.com"))
        return state.SkipWithError("the first handshake failed");
    uint64_t number = 0;
    for (auto _ : state) {
        const std::string host =
            resumed ? "mx.example.com" : "mx" + std::to_string(++number) + ".example.com";
        if (!pair.open(host)) return state.SkipWithError("the handshake failed");
        if (pair.client->resumed() != resumed)
            return state.SkipWithError("resumed, or not, against what was asked");
        state.SetIterationTime(pair.client_time.count());
    }
}
BENCHMARK_CAPTURE(handshake, full, false)->Name("tls/handshake, our side, full")->UseManualTime();
BENCHMARK_CAPTURE(handshake, resumed, true)
    ->Name("tls/handshake, our side, resumed")
    ->UseManualTime();

}  // namespace
}  // namespace postrider
