// TLS over memory on the client's side, for the limit alone: as little as wolfSSL lets one do.
#pragma once

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

namespace postrider::limit {

class TlsClient {
  public:
    explicit TlsClient(WOLFSSL_CTX* context) : ssl_(wolfSSL_new(context)) {
        wolfSSL_SetIOReadCtx(ssl_, this);
        wolfSSL_SetIOWriteCtx(ssl_, this);
    }
    ~TlsClient() { wolfSSL_free(ssl_); }
    TlsClient(const TlsClient&) = delete;
    TlsClient& operator=(const TlsClient&) = delete;

    static int on_read(WOLFSSL*, char* buffer, int size, void* context) {
        auto& in = static_cast<TlsClient*>(context)->in;
        const size_t n = std::min(in.size(), static_cast<size_t>(size));
        if (n == 0) return WOLFSSL_CBIO_ERR_WANT_READ;
        std::memcpy(buffer, in.data(), n);
        in.remove_prefix(n);
        return static_cast<int>(n);
    }
    static int on_write(WOLFSSL*, char* buffer, int size, void* context) {
        static_cast<TlsClient*>(context)->out.append(buffer, static_cast<size_t>(size));
        return size;
    }
    // 1 done, 0 more is needed, -1 failed.
    int handshake() {
        const int result = wolfSSL_connect(ssl_);
        if (result == WOLFSSL_SUCCESS) return 1;
        return wolfSSL_get_error(ssl_, result) == WOLFSSL_ERROR_WANT_READ ? 0 : -1;
    }
    int read(char* buffer, int size) { return wolfSSL_read(ssl_, buffer, size); }
    bool write(std::string_view plain) {
        return wolfSSL_write(ssl_, plain.data(), static_cast<int>(plain.size())) > 0;
    }

    std::string_view in;
    std::string out, flight;
    bool secure = false;

  private:
    WOLFSSL* ssl_;
};

}  // namespace postrider::limit
