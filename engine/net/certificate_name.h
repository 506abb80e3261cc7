// Whether a name in a certificate speaks for a host (RFC 9525 6.3). wolfSSL lets `*` stand anywhere in a name and takes the
// Common Name where there is no other; both are what the RFC forbids.
#pragma once

#include <string_view>

namespace postrider {

// `presented`: a dNSName of the certificate's subjectAltName. `host`: A-labels without the final dot. A wildcard is the whole
// left-most label, stands for one label, and never for one right below a top-level domain.
bool speaks_for_host(std::string_view presented, std::string_view host);

}  // namespace postrider
