// What all TLS connections of one security level have in common: a WOLFSSL_CTX and the table of
// sessions to resume. Made once in the process and shared by all shards: after make() it is only
// read.
//
// TLS 1.2 and 1.3 with SNI; no ALPN (SMTP has none), no compression, no renegotiation.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/core/result.h"

struct WOLFSSL_CTX;

namespace postrider {

class SessionCache;

// Connections and sessions of one level are never used for another (FAULTS 74). Stronger levels are
// numbered above.
enum class TlsLevel : uint8_t {
    opportunistic = 1,  // encrypts with whoever answers: no certificate is judged (RFC 7435)
    verified = 2,       // the chain ends at a root this machine trusts, and the certificate names the host (RFC 9525)
};

class TlsContext {
  public:
    // `sessions` outlives the context and may serve several. `verified` reads the machine's roots: the file that
    // SSL_CERT_FILE names, else Debian's.
    static Result<std::unique_ptr<TlsContext>> make(TlsLevel level, SessionCache& sessions);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    TlsLevel level() const { return level_; }
    SessionCache& sessions() { return sessions_; }
    WOLFSSL_CTX* native() const { return native_; }

  private:
    TlsContext(TlsLevel level, SessionCache& sessions, WOLFSSL_CTX* native)
        : level_(level), sessions_(sessions), native_(native) {}

    TlsLevel level_;
    SessionCache& sessions_;
    WOLFSSL_CTX* native_;
};

}  // namespace postrider
