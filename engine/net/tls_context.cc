#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "engine/net/tls_context.h"

#include <cstdlib>
#include <string>

#include "engine/net/tls_engine.h"

namespace postrider {

Result<std::unique_ptr<TlsContext>> TlsContext::make(TlsLevel level, SessionCache& sessions) {
    // Once in the process, whoever comes first; the library counts further calls.
    static const int initialised = wolfSSL_Init();
    if (initialised != WOLFSSL_SUCCESS) return fail("wolfSSL does not start");
    WOLFSSL_CTX* native = wolfSSL_CTX_new(wolfSSLv23_client_method());
    if (!native) return fail("wolfSSL: no memory for a context", ENOMEM);
    std::unique_ptr<TlsContext> context(new TlsContext(level, sessions, native));
    // RFC 8996: 1.0 and 1.1 are gone.
    if (wolfSSL_CTX_SetMinVersion(native, WOLFSSL_TLSV1_2) != WOLFSSL_SUCCESS) {
        return fail("wolfSSL: TLS 1.2 is not built in");
    }
    if (level == TlsLevel::verified) {
        const char* named = std::getenv("SSL_CERT_FILE");
        const char* roots = named ? named : "/etc/ssl/certs/ca-certificates.crt";
        // One root of a bundle that cannot be read must not cost the others.
        if (wolfSSL_CTX_load_verify_locations_ex(native, roots, nullptr, WOLFSSL_LOAD_FLAG_IGNORE_ERR) !=
            WOLFSSL_SUCCESS)
            return fail(std::string("no root certificates in ") + roots +
                        "; install ca-certificates, or name a file with SSL_CERT_FILE");
        wolfSSL_CTX_set_verify(native, WOLFSSL_VERIFY_PEER, nullptr);
    } else {
        // RFC 7435 and FAULTS 65: at this level an expired or self-signed certificate beats none.
        wolfSSL_CTX_set_verify(native, WOLFSSL_VERIFY_NONE, nullptr);
    }
    // Sessions live in SessionCache alone: the library's own table is global and locked.
    wolfSSL_CTX_set_session_cache_mode(native,
                                       WOLFSSL_SESS_CACHE_CLIENT | WOLFSSL_SESS_CACHE_NO_INTERNAL);
    // Tickets in TLS 1.2 too.
    wolfSSL_CTX_UseSessionTicket(native);
    TlsEngine::install(native);
    return context;
}

TlsContext::~TlsContext() { wolfSSL_CTX_free(native_); }

}  // namespace postrider
