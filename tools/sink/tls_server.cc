#include "tools/sink/tls_server.h"

#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/core/check.h"
#include "tools/sink/certificate.h"

namespace postrider::sink {

namespace {

Result<void> load_files(WOLFSSL_CTX* context, const std::string& certificate, const std::string& key) {
    if (access(certificate.c_str(), R_OK) != 0) return fail_errno("certificate " + certificate);
    if (access(key.c_str(), R_OK) != 0) return fail_errno("key " + key);
    if (wolfSSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != WOLFSSL_SUCCESS)
        return fail(fmt::format("certificate {}: holds no certificate in PEM", certificate));
    if (wolfSSL_CTX_use_PrivateKey_file(context, key.c_str(), WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
        return fail(fmt::format("key {}: holds no private key in PEM, or one with a password", key));
    if (wolfSSL_CTX_check_private_key(context) != WOLFSSL_SUCCESS)
        return fail(fmt::format("key {}: is not that of the certificate {}", key, certificate));
    return {};
}

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::make(const SinkOptions& options) {
    wolfSSL_Init();
    std::unique_ptr<TlsContext> made(new TlsContext);
    made->context_ =
        wolfSSL_CTX_new(options.tls12_only ? wolfTLSv1_2_server_method() : wolfSSLv23_server_method());
    if (made->context_ == nullptr) return fail("make a TLS context: out of memory");
    if (!options.tls12_only) wolfSSL_CTX_SetMinVersion(made->context_, WOLFSSL_TLSV1_2);
    if (options.certificate_file.empty()) {
        const auto pair = make_self_signed(options.hostname);
        if (!pair) return std::unexpected(pair.error());
        const auto load = [](const std::string& der) {
            return std::pair(reinterpret_cast<const unsigned char*>(der.data()), static_cast<long>(der.size()));
        };
        const auto [c, c_size] = load(pair->certificate_der);
        const auto [k, k_size] = load(pair->key_der);
        if (wolfSSL_CTX_use_certificate_buffer(made->context_, c, c_size, WOLFSSL_FILETYPE_ASN1) != WOLFSSL_SUCCESS ||
            wolfSSL_CTX_use_PrivateKey_buffer(made->context_, k, k_size, WOLFSSL_FILETYPE_ASN1) != WOLFSSL_SUCCESS)
            return fail("wolfSSL does not take the sink's own certificate");
    } else if (auto loaded = load_files(made->context_, options.certificate_file, options.key_file); !loaded) {
        return std::unexpected(loaded.error());
    }
    return made;
}

TlsContext::~TlsContext() {
    if (context_ != nullptr) wolfSSL_CTX_free(context_);
    wolfSSL_Cleanup();
}

TlsServer::TlsServer(const TlsContext& context) : ssl_(wolfSSL_new(context.get())) {
    POSTRIDER_CHECK(ssl_ != nullptr, "a TLS session needs memory");
    wolfSSL_SSLSetIORecv(ssl_, &TlsServer::on_read);
    wolfSSL_SSLSetIOSend(ssl_, &TlsServer::on_write);
    wolfSSL_SetIOReadCtx(ssl_, this);
    wolfSSL_SetIOWriteCtx(ssl_, this);
}

TlsServer::~TlsServer() { wolfSSL_free(ssl_); }

int TlsServer::on_read(WOLFSSL*, char* buffer, int size, void* context) {
    auto* self = static_cast<TlsServer*>(context);
    const size_t n = std::min(static_cast<size_t>(size), self->in_.size());
    if (n == 0) return WOLFSSL_CBIO_ERR_WANT_READ;
    std::memcpy(buffer, self->in_.data(), n);
    self->in_.remove_prefix(n);
    return static_cast<int>(n);
}

int TlsServer::on_write(WOLFSSL*, char* buffer, int size, void* context) {
    static_cast<TlsServer*>(context)->out_->append(buffer, static_cast<size_t>(size));
    return size;
}

TlsServer::Status TlsServer::handshake(std::string& out) {
    out_ = &out;
    const int result = wolfSSL_accept(ssl_);
    if (result == WOLFSSL_SUCCESS) status_ = Status::open;
    else if (wolfSSL_get_error(ssl_, result) != WOLFSSL_ERROR_WANT_READ) status_ = Status::failed;
    return status_;
}

size_t TlsServer::read(char* plain, size_t room, std::string& out) {
    out_ = &out;
    size_t have = 0;
    while (have < room) {
        const int n = wolfSSL_read(ssl_, plain + have, static_cast<int>(room - have));
        if (n > 0) {
            have += static_cast<size_t>(n);
            continue;
        }
        const int error = wolfSSL_get_error(ssl_, n);
        if (error == WOLFSSL_ERROR_ZERO_RETURN) status_ = Status::closed;
        else if (error != WOLFSSL_ERROR_WANT_READ) status_ = Status::failed;
        break;
    }
    return have;
}

void TlsServer::write(std::string_view plain, std::string& out) {
    out_ = &out;
    // The output is memory, so a write never waits.
    if (!plain.empty() && wolfSSL_write(ssl_, plain.data(), static_cast<int>(plain.size())) <= 0)
        status_ = Status::failed;
}

void TlsServer::close_notify(std::string& out) {
    out_ = &out;
    wolfSSL_shutdown(ssl_);
}

std::string_view TlsServer::version() const { return wolfSSL_get_version(ssl_); }

bool TlsServer::resumed() const { return wolfSSL_session_reused(ssl_) == 1; }

}  // namespace postrider::sink
