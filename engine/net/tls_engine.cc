#include <wolfssl/options.h>

#include <wolfssl/error-ssl.h>
#include <wolfssl/openssl/x509v3.h>
#include <wolfssl/ssl.h>

#include "engine/net/tls_engine.h"

#include <algorithm>
#include <cstring>

#include "engine/core/check.h"
#include "engine/net/certificate_name.h"
#include "engine/net/session_cache.h"

namespace postrider {
namespace {

// A record's header, nonce, tag and content type, and room for an alert.
constexpr size_t kRecordOverhead = 64;
constexpr size_t kRecordPlain = 16'384;  // RFC 8446 5.1
constexpr size_t kReadAtLeast = 2048;

// RFC 6066 3: a literal address is not a host name.
bool is_host_name(const std::string& host) {
    return !host.empty() && host.front() != '[' && !SocketAddress::parse(host, 0);
}

}  // namespace

void TlsEngine::install(WOLFSSL_CTX* context) {
    wolfSSL_CTX_SetIORecv(context, &TlsEngine::read_memory);
    wolfSSL_CTX_SetIOSend(context, &TlsEngine::write_memory);
    wolfSSL_CTX_sess_set_new_cb(context, &TlsEngine::keep_session);
}

TlsEngine::TlsEngine(TlsContext& context, std::string host, std::string key, WOLFSSL* ssl)
    : context_(context), host_(std::move(host)), session_key_(std::move(key)), ssl_(ssl) {
    wolfSSL_SetIOReadCtx(ssl_, this);
    wolfSSL_SetIOWriteCtx(ssl_, this);
}

TlsEngine::~TlsEngine() { wolfSSL_free(ssl_); }

Result<std::unique_ptr<TlsEngine>> TlsEngine::make(TlsContext& context, const std::string& host,
                                                   const SocketAddress& peer) {
    WOLFSSL* ssl = wolfSSL_new(context.native());
    if (!ssl) return fail("no memory for a TLS connection", ENOMEM);
    std::unique_ptr<TlsEngine> engine(
        new TlsEngine(context, host, SessionCache::key(host, peer, context.level()), ssl));
    if (is_host_name(host) &&
        wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, host.data(),
                       static_cast<unsigned short>(host.size())) != WOLFSSL_SUCCESS) {
        return fail("TLS: the host name does not fit into SNI");
    }
    // The reference identity is the MX host itself (FAULTS 66); an address literal has no name to check.
    if (context.level() == TlsLevel::verified &&
        (!is_host_name(host) || wolfSSL_check_domain_name(ssl, host.c_str()) != WOLFSSL_SUCCESS)) {
        return fail("TLS: " + host + " is no name that a certificate can be checked against");
    }
    engine->offer_session();
    return engine;
}

void TlsEngine::offer_session() {
    const std::string bytes = context_.sessions().find(session_key_);
    if (bytes.empty()) return;
    const auto* cursor = reinterpret_cast<const unsigned char*>(bytes.data());
    WOLFSSL_SESSION* session =
        wolfSSL_d2i_SSL_SESSION(nullptr, &cursor, static_cast<long>(bytes.size()));
    if (!session) return;
    // A session too old is refused here, and the handshake is a full one.
    wolfSSL_set_session(ssl_, session);
    wolfSSL_SESSION_free(session);
}

// Runs inside handshake() or decrypt(), when the peer has issued a ticket or a session id.
int TlsEngine::keep_session(WOLFSSL* ssl, WOLFSSL_SESSION* session) {
    auto* self = static_cast<TlsEngine*>(wolfSSL_GetIOReadCtx(ssl));
    const int size = wolfSSL_i2d_SSL_SESSION(session, nullptr);
    if (size > 0 && static_cast<size_t>(size) <= SessionCache::kSessionMax) {
        std::string bytes(static_cast<size_t>(size), '\0');
        auto* cursor = reinterpret_cast<unsigned char*>(bytes.data());
        if (wolfSSL_i2d_SSL_SESSION(session, &cursor) == size) {
            if (self->established_)
                self->context_.sessions().store(self->session_key_, std::move(bytes));
            else
                self->early_session_ = std::move(bytes);
        }
    }
    return 0;  // the library keeps its object
}

int TlsEngine::read_memory(WOLFSSL*, char* data, int size, void* self) {
    auto* engine = static_cast<TlsEngine*>(self);
    if (engine->in_.empty()) return WOLFSSL_CBIO_ERR_WANT_READ;
    const size_t taken = std::min(static_cast<size_t>(size), engine->in_.size());
    std::memcpy(data, engine->in_.data(), taken);
    engine->in_.remove_prefix(taken);
    return static_cast<int>(taken);
}

int TlsEngine::write_memory(WOLFSSL*, char* data, int size, void* self) {
    auto* engine = static_cast<TlsEngine*>(self);
    // Nothing is written while no call of ours is under way: freeing a connection sends no alert.
    if (!engine->out_) return WOLFSSL_CBIO_ERR_CONN_CLOSE;
    engine->out_->append({data, static_cast<size_t>(size)});
    return size;
}

TlsEngine::Status TlsEngine::fail_with(std::string_view what, int result) {
    char text[WOLFSSL_MAX_ERROR_SZ] = "";
    const int code = wolfSSL_get_error(ssl_, result);
    wolfSSL_ERR_error_string_n(static_cast<unsigned long>(code), text, sizeof text);
    error_ = std::string(what) + ": " + text;
    WOLFSSL_ALERT_HISTORY alerts{};
    if (wolfSSL_get_alert_history(ssl_, &alerts) == WOLFSSL_SUCCESS && alerts.last_rx.code >= 0) {
        error_ += " (alert " + std::to_string(alerts.last_rx.code) + ")";
    }
    wolfSSL_ERR_clear_error();
    return Status::failed;
}

// The library has checked chain and time, and a name by its own, laxer rule. A session that is resumed was checked when it began.
bool TlsEngine::certificate_names_host() const {
    if (context_.level() != TlsLevel::verified || wolfSSL_session_reused(ssl_) != 0) return true;
    WOLFSSL_X509* certificate = wolfSSL_get_peer_certificate(ssl_);
    if (!certificate) return false;
    bool named = false;
    auto* names = static_cast<WOLFSSL_STACK*>(wolfSSL_X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
    for (int i = 0; i < wolfSSL_sk_GENERAL_NAME_num(names) && !named; ++i) {
        const WOLFSSL_GENERAL_NAME* name = wolfSSL_sk_GENERAL_NAME_value(names, i);
        if (!name || name->type != GEN_DNS) continue;
        named = speaks_for_host({reinterpret_cast<const char*>(wolfSSL_ASN1_STRING_get0_data(name->d.dNSName)),
                                 static_cast<size_t>(wolfSSL_ASN1_STRING_length(name->d.dNSName))}, host_);
    }
    wolfSSL_sk_GENERAL_NAME_pop_free(names, nullptr);
    wolfSSL_X509_free(certificate);
    return named;
}

TlsEngine::Status TlsEngine::handshake(std::string_view& in, Buffer& out) {
    in_ = in;
    out_ = &out;
    const int result = wolfSSL_connect(ssl_);
    Status status = Status::more;
    if (result == WOLFSSL_SUCCESS && !certificate_names_host()) {
        status = Status::failed;
        error_ = "TLS handshake: no DNS name in the certificate's subjectAltName is " + host_ + "'s (RFC 9525)";
        context_.sessions().forget(session_key_);
    } else if (result == WOLFSSL_SUCCESS) {
        status = Status::done;
        established_ = true;
        if (!early_session_.empty()) context_.sessions().store(session_key_, std::move(early_session_));
        resumed_ = wolfSSL_session_reused(ssl_) != 0;
        version_ = wolfSSL_get_version(ssl_);
        const char* cipher = wolfSSL_CIPHER_get_name(wolfSSL_get_current_cipher(ssl_));  // IANA's name
        cipher_ = cipher ? cipher : "";
        wolfSSL_ERR_clear_error();
    } else if (wolfSSL_get_error(ssl_, result) != WOLFSSL_ERROR_WANT_READ) {
        status = fail_with("TLS handshake", result);
        // Whatever the reason: the next attempt does not offer what this one offered.
        context_.sessions().forget(session_key_);
    }
    in = in_;
    in_ = {};
    out_ = nullptr;
    return status;
}

TlsEngine::Status TlsEngine::decrypt(std::string_view in, Buffer& plain, Buffer& out) {
    in_ = in;
    out_ = &out;
    Status status = Status::more;
    for (;;) {
        const auto room = plain.reserve(kReadAtLeast);
        const int result = wolfSSL_read(ssl_, room.data(), static_cast<int>(room.size()));
        if (result > 0) {
            plain.commit(static_cast<size_t>(result));
            continue;
        }
        const int error = wolfSSL_get_error(ssl_, result);
        if (error == WOLFSSL_ERROR_WANT_READ) break;
        status = error == WOLFSSL_ERROR_ZERO_RETURN ? Status::closed : fail_with("TLS", result);
        break;
    }
    if (plain.empty()) plain.release();
    in_ = {};
    out_ = nullptr;
    return status;
}

bool TlsEngine::encrypt(std::string_view plain, Buffer& out) {
    if (plain.empty()) return true;
    out.reserve(plain.size() + (plain.size() / kRecordPlain + 1) * kRecordOverhead);
    out_ = &out;
    const int result = wolfSSL_write(ssl_, plain.data(), static_cast<int>(plain.size()));
    const bool whole = result == static_cast<int>(plain.size());
    if (!whole) fail_with("TLS", result);
    out_ = nullptr;
    return whole;
}

void TlsEngine::close_notify(Buffer& out) {
    out_ = &out;
    wolfSSL_shutdown(ssl_);
    out_ = nullptr;
}

}  // namespace postrider
