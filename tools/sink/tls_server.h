// The server's half of TLS over memory: cipher text in, plain text out, no socket. TLS 1.3 and 1.2, session tickets.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "tools/sink/sink.h"

struct WOLFSSL;
struct WOLFSSL_CTX;

namespace postrider::sink {

// Shared by all workers; wolfSSL guards what is common (the ticket keys).
class TlsContext {
  public:
    static Result<std::unique_ptr<TlsContext>> make(const SinkOptions& options);
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;
    WOLFSSL_CTX* get() const { return context_; }

  private:
    TlsContext() = default;
    WOLFSSL_CTX* context_ = nullptr;
};

class TlsServer {
  public:
    explicit TlsServer(const TlsContext& context);
    ~TlsServer();
    TlsServer(const TlsServer&) = delete;
    TlsServer& operator=(const TlsServer&) = delete;

    enum class Status : uint8_t { handshaking, open, closed, failed };

    // Takes `cipher` and goes on with the handshake; what is to be sent is appended to `out`.
    void receive(std::string_view cipher) { in_ = cipher; }
    Status handshake(std::string& out);
    // Reads up to `room` octets; 0: more cipher text is needed, or see status().
    size_t read(char* plain, size_t room, std::string& out);
    void write(std::string_view plain, std::string& out);
    void close_notify(std::string& out);
    Status status() const { return status_; }
    std::string_view version() const;
    bool resumed() const;

  private:
    static int on_read(WOLFSSL* ssl, char* buffer, int size, void* self);
    static int on_write(WOLFSSL* ssl, char* buffer, int size, void* self);

    WOLFSSL* ssl_ = nullptr;
    std::string_view in_;
    std::string* out_ = nullptr;
    Status status_ = Status::handshaking;
};

}  // namespace postrider::sink
