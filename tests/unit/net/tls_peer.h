// The other side of TLS for the tests: wolfSSL's server, over a blocking socket or over memory.
// Included first: the library's options must precede every header of it.
#pragma once

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include <string>
#include <string_view>

namespace postrider::test {

// One context for a peer: it must be the same for all connections that resume each other's
// sessions.
class TlsServer {
  public:
    enum class Version { any, tls12, tls13 };
    explicit TlsServer(Version version = Version::any);
    ~TlsServer();
    TlsServer(const TlsServer&) = delete;
    TlsServer& operator=(const TlsServer&) = delete;

    WOLFSSL* over_socket(int fd);
    // `inbox`: ciphertext for the server, taken from the front; `outbox`: ciphertext from it.
    struct Pipes {
        std::string inbox, outbox;
    };
    WOLFSSL* over_memory(Pipes& pipes);

  private:
    WOLFSSL_CTX* native_;
};

// The name in the SNI of a ClientHello, empty when there is none.
std::string sni_of(std::string_view client_hello);

}  // namespace postrider::test
