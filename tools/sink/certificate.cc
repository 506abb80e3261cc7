#include "tools/sink/certificate.h"

#include <time.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include <memory>

#include <fmt/format.h>

namespace postrider::sink {

namespace {

using namespace std::string_view_literals;

constexpr char kInteger = 0x02, kBitString = 0x03, kOctetString = 0x04, kUtf8 = 0x0c, kUtcTime = 0x17,
               kSequence = 0x30, kSet = 0x31, kVersion = static_cast<char>(0xa0),
               kExtensions = static_cast<char>(0xa3), kDnsName = static_cast<char>(0x82);

std::string der(char tag, std::string_view content) {
    std::string out(1, tag);
    const size_t size = content.size();
    if (size < 128) {
        out += static_cast<char>(size);
    } else if (size < 256) {
        out += "\x81"sv;
        out += static_cast<char>(size);
    } else {
        out += "\x82"sv;
        out += static_cast<char>(size >> 8);
        out += static_cast<char>(size & 255);
    }
    out += content;
    return out;
}

// Object identifiers with their tags.
constexpr std::string_view kEcdsaSha256 = "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"sv;
constexpr std::string_view kCommonName = "\x06\x03\x55\x04\x03"sv;
constexpr std::string_view kBasicConstraints = "\x06\x03\x55\x1d\x13"sv;
constexpr std::string_view kSubjectAltName = "\x06\x03\x55\x1d\x11"sv;

std::string utc_time(time_t at) {
    tm parts;
    gmtime_r(&at, &parts);
    return der(kUtcTime, fmt::format("{:02}{:02}{:02}{:02}{:02}{:02}Z", parts.tm_year % 100,
                                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                                     parts.tm_sec));
}

std::string to_be_signed(std::string_view host, std::string_view public_key, std::string_view serial) {
    const std::string algorithm = der(kSequence, kEcdsaSha256);
    const std::string name =
        der(kSequence, der(kSet, der(kSequence, std::string(kCommonName) + der(kUtf8, host))));
    const time_t now = time(nullptr);
    const std::string validity =
        der(kSequence, utc_time(now - 86'400) + utc_time(now + 3650 * time_t{86'400}));
    const std::string names = der(kSequence, der(kDnsName, host) + der(kDnsName, fmt::format("*.{}", host)) +
                                                 der(kDnsName, "localhost"));
    // A client under test may take it as its trust anchor, so it says CA: TRUE (RFC 5280 4.2.1.9).
    const std::string extensions =
        der(kSequence, std::string(kBasicConstraints) + "\x01\x01\xff" +
                           der(kOctetString, der(kSequence, "\x01\x01\xff"))) +
        der(kSequence, std::string(kSubjectAltName) + der(kOctetString, names));
    return der(kSequence, der(kVersion, der(kInteger, "\x02")) + der(kInteger, serial) + algorithm + name +
                              validity + name + std::string(public_key) +
                              der(kExtensions, der(kSequence, extensions)));
}

struct Keys {
    WC_RNG random;
    ecc_key key;
    Keys() {
        wc_InitRng(&random);
        wc_ecc_init(&key);
    }
    ~Keys() {
        wc_ecc_free(&key);
        wc_FreeRng(&random);
    }
};

}  // namespace

Result<KeyPair> make_self_signed(std::string_view host) {
    const auto keys = std::make_unique<Keys>();
    byte buffer[512];
    KeyPair pair;
    int size = -1;
    if (wc_ecc_make_key_ex(&keys->random, 32, &keys->key, ECC_SECP256R1) == 0)
        size = wc_EccKeyToDer(&keys->key, buffer, sizeof buffer);
    if (size <= 0) return fail(fmt::format("make a key for the sink's certificate: wolfSSL {}", size));
    pair.key_der.assign(reinterpret_cast<char*>(buffer), static_cast<size_t>(size));
    size = wc_EccPublicKeyToDer(&keys->key, buffer, sizeof buffer, 1);
    if (size <= 0) return fail(fmt::format("encode the sink's public key: wolfSSL {}", size));
    const std::string public_key(reinterpret_cast<char*>(buffer), static_cast<size_t>(size));
    byte serial[8];
    if (wc_RNG_GenerateBlock(&keys->random, serial, sizeof serial) != 0)
        return fail("make a serial number for the sink's certificate");
    serial[0] = static_cast<byte>((serial[0] & 0x7f) | 0x40);  // positive, no leading zero

    const std::string body =
        to_be_signed(host, public_key, {reinterpret_cast<char*>(serial), sizeof serial});
    byte digest[WC_SHA256_DIGEST_SIZE];
    word32 signature_size = sizeof buffer;
    if (wc_Sha256Hash(reinterpret_cast<const byte*>(body.data()), static_cast<word32>(body.size()), digest) != 0 ||
        wc_ecc_sign_hash(digest, sizeof digest, buffer, &signature_size, &keys->random, &keys->key) != 0)
        return fail("sign the sink's certificate");
    const std::string signature = std::string(1, '\0') + std::string(reinterpret_cast<char*>(buffer), signature_size);
    pair.certificate_der =
        der(kSequence, body + der(kSequence, kEcdsaSha256) + der(kBitString, signature));
    return pair;
}

}  // namespace postrider::sink
