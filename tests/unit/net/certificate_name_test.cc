// RFC 9525 6.3: which names of a certificate speak for a host.
#include <gtest/gtest.h>

#include "engine/net/certificate_name.h"

namespace postrider {
namespace {

TEST(CertificateName, SpeaksForItsHost) {
    EXPECT_TRUE(speaks_for_host("mx.b.test", "mx.b.test"));
    EXPECT_TRUE(speaks_for_host("MX.b.Test", "mx.B.test")) << "case does not count";
    EXPECT_TRUE(speaks_for_host("*.b.test", "mx.b.test"));
    EXPECT_TRUE(speaks_for_host("*.xn--mnchen-3ya.test", "mx.xn--mnchen-3ya.test"));
}

TEST(CertificateName, AWildcardIsOneWholeLabelOnTheLeft) {
    for (const char* bad : {"*", "*.", "*.test", "m*.b.test", "*x.b.test", "mx.*.test", "mx.b.*", "**.b.test", "*.*.test", "", ".",
                            "mx.b.test.", ".b.test", "b.test", "x.b.test"})
        EXPECT_FALSE(speaks_for_host(bad, "mx.b.test")) << bad;
    EXPECT_FALSE(speaks_for_host("*.b.test", "b.test"));
    EXPECT_FALSE(speaks_for_host("*.b.test", "a.mx.b.test"));
    EXPECT_FALSE(speaks_for_host("*.b.test", ".b.test"));
    EXPECT_FALSE(speaks_for_host("*.test", "b.test"));
    EXPECT_FALSE(speaks_for_host(std::string_view("mx.b.test\0.e.test", 17), "mx.b.test"));
}

}  // namespace
}  // namespace postrider
