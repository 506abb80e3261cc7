#include "tests/unit/net/tls_peer.h"

#include <algorithm>
#include <cstring>

#include "engine/core/check.h"

namespace postrider::test {
namespace {

// Made for these tests and used nowhere else:
// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj
// /CN=mx.test.example
constexpr char kKey[] = R"(-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWR2CXoETkwXxh6R5
RZSQnuDE4MQgN5kQJFVRfWSQqTChRANCAAQ7INemhT69qP5uqQf/RYSB4hpkwzBP
V/zdgQ71QXo+0cPrCUw02nXvS8/5Bw04qjmTDRfdAwZOdhj3CmAzU7+H
-----END PRIVATE KEY-----
)";
constexpr char kCertificate[] = R"(-----BEGIN CERTIFICATE-----
MIIBijCCATGgAwIBAgIUeNvpXqIarupUMvTD2M6QCYWbgs0wCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPbXgudGVzdC5leGFtcGxlMCAXDTI2MTEyMzE5MDgyM1oYDzIx
MjYxMDMwMTkwODIzWjAaMRgwFgYDVQQDDA9teC50ZXN0LmV4YW1wbGUwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQ7INemhT69qP5uqQf/RYSB4hpkwzBPV/zdgQ71
QXo+0cPrCUw02nXvS8/5Bw04qjmTDRfdAwZOdhj3CmAzU7+Ho1MwUTAdBgNVHQ4E
FgQU7MU1EB22o70aA/fpb+XZEBMhcDgwHwYDVR0jBBgwFoAU7MU1EB22o70aA/fp
b+XZEBMhcDgwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBUFm99
4UE185hAx66RDe0IQPN+Hs12LiRvJdpSiYQL6QIgXIvomRwQl0k8YKwYvZEo02ig
hfRIGmxeJ1gKF16C1ww=
-----END CERTIFICATE-----
)";

int read_pipe(WOLFSSL*, char* data, int size, void* context) {
    auto& inbox = static_cast<TlsServer::Pipes*>(context)->inbox;
    if (inbox.empty()) return WOLFSSL_CBIO_ERR_WANT_READ;
    const size_t taken = std::min(static_cast<size_t>(size), inbox.size());
    std::memcpy(data, inbox.data(), taken);
    inbox.erase(0, taken);
    return static_cast<int>(taken);
}

int write_pipe(WOLFSSL*, char* data, int size, void* context) {
    static_cast<TlsServer::Pipes*>(context)->outbox.append(data, static_cast<size_t>(size));
    return size;
}

WOLFSSL_METHOD* method_for(TlsServer::Version version) {
    if (version == TlsServer::Version::tls12) return wolfTLSv1_2_server_method();
    if (version == TlsServer::Version::tls13) return wolfTLSv1_3_server_method();
    return wolfSSLv23_server_method();
}

}  // namespace

TlsServer::TlsServer(Version version) {
    wolfSSL_Init();
    native_ = wolfSSL_CTX_new(method_for(version));
    POSTRIDER_CHECK(native_, "a server context");
    const auto* certificate = reinterpret_cast<const unsigned char*>(kCertificate);
    const auto* key = reinterpret_cast<const unsigned char*>(kKey);
    POSTRIDER_CHECK(
        wolfSSL_CTX_use_certificate_buffer(native_, certificate, sizeof kCertificate - 1,
                                           WOLFSSL_FILETYPE_PEM) == WOLFSSL_SUCCESS,
        "the certificate loads");
    POSTRIDER_CHECK(wolfSSL_CTX_use_PrivateKey_buffer(native_, key, sizeof kKey - 1,
                                                      WOLFSSL_FILETYPE_PEM) == WOLFSSL_SUCCESS,
                    "the key loads");
}

TlsServer::~TlsServer() { wolfSSL_CTX_free(native_); }

WOLFSSL* TlsServer::over_socket(int fd) {
    WOLFSSL* ssl = wolfSSL_new(native_);
    wolfSSL_set_fd(ssl, fd);
    return ssl;
}

WOLFSSL* TlsServer::over_memory(Pipes& pipes) {
    WOLFSSL* ssl = wolfSSL_new(native_);
    wolfSSL_SSLSetIORecv(ssl, read_pipe);
    wolfSSL_SSLSetIOSend(ssl, write_pipe);
    wolfSSL_SetIOReadCtx(ssl, &pipes);
    wolfSSL_SetIOWriteCtx(ssl, &pipes);
    return ssl;
}

std::string sni_of(std::string_view client_hello) {
    unsigned char name[256];
    unsigned size = sizeof name;
    const auto* octets = reinterpret_cast<const unsigned char*>(client_hello.data());
    const int result = wolfSSL_SNI_GetFromBuffer(octets, static_cast<unsigned>(client_hello.size()),
                                                 WOLFSSL_SNI_HOST_NAME, name, &size);
    return result == WOLFSSL_SUCCESS ? std::string(reinterpret_cast<char*>(name), size)
                                     : std::string();
}

}  // namespace postrider::test
