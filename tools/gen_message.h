// What `postrider gen` writes: whom messages go to, and what is in them. Deterministic for a seed.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/result.h"

namespace postrider {

// "d%04d.test" and 7 give "d0007.test": one %d with an optional width, 0-filled when it begins with
// 0.
Result<std::vector<std::string>> domain_names(std::string_view pattern, uint64_t count);

// Chooses the domain of each message.
class DomainChoice {
  public:
    // Every domain in turn.
    static DomainChoice flat(std::vector<std::string> domains);
    // `providers` is "gmail.test:34,outlook.test:19,...", percent of all messages each; what is
    // left goes to `domains`, the first ones more often: a long tail.
    static Result<DomainChoice> realistic(std::vector<std::string> domains,
                                          std::string_view providers, uint64_t seed);

    const std::string& next();

  private:
    struct Provider {
        std::string domain;
        double until = 0;  // share of this one and those before it, 0 to 1
    };
    std::vector<std::string> domains_;
    std::vector<Provider> providers_;
    std::mt19937_64 random_;
    uint64_t turn_ = 0;
};

// Lines of text until about `size` octets, CRLF line ends, no line begins with a dot.
std::string plain_body(size_t size);

// A multipart body of about `size` octets: text and HTML as quoted-printable, an image as base64.
std::string newsletter_body(size_t size, std::string_view boundary, uint64_t seed);

}  // namespace postrider
