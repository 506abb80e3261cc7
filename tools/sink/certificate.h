// A self-signed certificate made in memory: ECDSA P-256, valid from yesterday for ten years, names: the host's, all of
// its subdomains, localhost. wolfSSL is built without its certificate generator, so the DER is written here (X.509,
// RFC 5280 4.1).
#pragma once

#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider::sink {

struct KeyPair {
    std::string certificate_der;
    std::string key_der;  // SEC 1 ECPrivateKey (RFC 5915)
};

Result<KeyPair> make_self_signed(std::string_view host);

}  // namespace postrider::sink
