// A TLS client over memory: ciphertext goes in, ciphertext and plaintext come out; it knows no
// socket and never waits. The library's read callback takes octets from the caller's span, its
// write callback appends to the caller's buffer, which always accepts: a half-done write, to be
// repeated with the same octets, cannot occur (FAULTS 54).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "engine/core/socket_address.h"
#include "engine/net/buffer_pool.h"
#include "engine/net/tls_context.h"

struct WOLFSSL;
struct WOLFSSL_SESSION;

namespace postrider {

class TlsEngine {
  public:
    enum class Status : uint8_t {
        more,    // wants more ciphertext
        done,    // handshake(): established
        closed,  // the peer's close_notify
        failed,  // error_text(); an alert may be waiting in `out`
    };

    // Offers the session that the context's table holds for (host, peer), and stores there what the
    // peer issues.
    static Result<std::unique_ptr<TlsEngine>> make(TlsContext& context, const std::string& host,
                                                   const SocketAddress& peer);
    ~TlsEngine();
    TlsEngine(const TlsEngine&) = delete;
    TlsEngine& operator=(const TlsEngine&) = delete;

    // Takes what it needs from the front of `in`; empty to begin with. What is left when it is done
    // belongs to decrypt().
    Status handshake(std::string_view& in, Buffer& out);
    // Takes all of `in`: more, closed or failed. Tickets and key updates are answered inside
    // (FAULTS 76).
    Status decrypt(std::string_view in, Buffer& plain, Buffer& out);
    // False: failed.
    bool encrypt(std::string_view plain, Buffer& out);
    void close_notify(Buffer& out);

    const std::string& error_text() const { return error_; }
    bool resumed() const { return resumed_; }
    std::string_view version() const { return version_; }
    std::string_view cipher() const { return cipher_; }

    // The callbacks of every engine of a context; called once by the context.
    static void install(WOLFSSL_CTX* context);

  private:
    TlsEngine(TlsContext& context, std::string host, std::string key, WOLFSSL* ssl);
    void offer_session();
    Status fail_with(std::string_view what, int result);
    bool certificate_names_host() const;
    static int read_memory(WOLFSSL* ssl, char* data, int size, void* self);
    static int write_memory(WOLFSSL* ssl, char* data, int size, void* self);
    static int keep_session(WOLFSSL* ssl, WOLFSSL_SESSION* session);

    TlsContext& context_;
    std::string host_, session_key_;
    WOLFSSL* ssl_;
    std::string_view in_;    // during a call: ciphertext not yet taken
    Buffer* out_ = nullptr;  // during a call
    std::string error_;
    std::string_view version_, cipher_;  // static texts of the library
    std::string early_session_;  // issued before the certificate was judged
    bool established_ = false;
    bool resumed_ = false;
};

}  // namespace postrider
