// The half of Connection that speaks TLS: handshake, records in, records out.
#include "engine/net/connection.h"

#include "engine/core/check.h"
#include "engine/net/tls_engine.h"

namespace postrider {

Task<TlsResult> Connection::start_tls(TlsContext& context, std::string host, int64_t deadline_ms) {
    POSTRIDER_CHECK(state_ == State::open && tls_state_ == Tls::none && !reserved_,
                    "TLS starts once, on an open connection");
    TlsResult result;
    if (!input_.empty() || unseen()) {
        result.error = "octets behind the reply that starts TLS";
        tls_failed();
        co_return result;
    }
    auto engine = TlsEngine::make(context, host, peer_);
    if (!engine) {
        result.error = engine.error().text;
        tls_failed();
        co_return result;
    }
    tls_ = std::move(*engine);
    tls_state_ = Tls::handshake;
    take_handshake({});  // writes the ClientHello
    const IoStatus status = co_await wait_for(Waiting::For::secured, deadline_ms);
    if (tls_state_ == Tls::secured) {
        result.ok = true;
        result.resumed = tls_->resumed();
        result.version = tls_->version();
        result.cipher = tls_->cipher();
        co_return result;
    }
    result.timed_out = status == IoStatus::timeout;
    result.error = result.timed_out              ? "TLS handshake: timed out"
                   : !tls_->error_text().empty() ? tls_->error_text()
                   : error_ != 0                 ? "TLS handshake: " + error_text()
                                                 : "TLS handshake: the peer closed the connection";
    tls_failed();
    co_return result;
}

void Connection::take_handshake(std::string_view octets) {
    const auto status = tls_->handshake(octets, gathering_);
    if (status == TlsEngine::Status::done) tls_state_ = Tls::secured;
    if (status == TlsEngine::Status::failed) tls_failed();
    flushed_ = gathering_.size();
    send_next();
    // A server may speak in the same flight: tickets at once, and data with them.
    if (tls_state_ == Tls::secured) take_records(octets);
}

void Connection::take_records(std::string_view octets) {
    const size_t before = input_.size();
    const size_t wire_before = gathering_.size();
    const auto status = tls_->decrypt(octets, input_, gathering_);
    received_ += input_.size() - before;
    if (status == TlsEngine::Status::closed) end_input(0);
    if (status == TlsEngine::Status::failed) tls_failed();
    if (gathering_.size() > wire_before) {  // a key update is answered, a bad record gets an alert
        flushed_ = gathering_.size();
        send_next();
        if (gathering_.size() > kAnswersMax) end_input(EMSGSIZE);
    }
}

void Connection::encrypt() {
    if (plain_.empty()) return;
    const bool whole = tls_state_ == Tls::secured && tls_->encrypt(plain_.view(), gathering_);
    if (!whole) {
        if (tls_state_ == Tls::secured) tls_failed();
        fail_output(EPROTO);
        return;
    }
    plain_.release();
}

void Connection::tls_failed() {
    tls_state_ = Tls::failed;
    end_input(EPROTO);
}

bool Connection::secured() const { return tls_state_ == Tls::secured; }

std::string_view Connection::tls_version() const {
    return secured() ? tls_->version() : std::string_view();
}

std::string_view Connection::tls_cipher() const {
    return secured() ? tls_->cipher() : std::string_view();
}

}  // namespace postrider
