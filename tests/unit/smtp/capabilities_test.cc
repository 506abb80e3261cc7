// What EHLO offers, FAULTS 32 and 48.
#include "engine/smtp/capabilities.h"

#include <gtest/gtest.h>

#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

Capabilities offered(std::initializer_list<std::string_view> keywords) {
    std::string octets;
    for (const auto keyword : keywords) octets.append("250-").append(keyword).append("\r\n");
    octets += "250 HELP\r\n";
    return parse_capabilities(reply_of(octets));
}

TEST(Capabilities, EveryKeyword) {
    const Capabilities all =
        offered({"mx.test at your service", "PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME", "SMTPUTF8", "STARTTLS",
                 "ENHANCEDSTATUSCODES", "DSN", "REQUIRETLS", "SIZE 35882577", "AUTH PLAIN LOGIN",
                 "LIMITS MAILMAX=10 RCPTMAX=50 RCPTDOMAINMAX=1"});
    Capabilities expected;
    expected.pipelining = expected.chunking = expected.binarymime = expected.eight_bit_mime = true;
    expected.smtputf8 = expected.starttls = expected.enhanced_status_codes = expected.dsn = true;
    expected.require_tls = expected.auth = expected.size = true;
    expected.size_limit = 35882577;
    expected.mail_max = 10;
    expected.rcpt_max = 50;
    expected.rcpt_domain_max = 1;
    EXPECT_EQ(all, expected);
}

TEST(Capabilities, TheGreetingLineIsNoKeyword) {
    EXPECT_FALSE(offered({"PIPELINING"}).pipelining);
    EXPECT_EQ(parse_capabilities(reply_of("250 STARTTLS\r\n")), Capabilities{});
    EXPECT_EQ(parse_capabilities(reply_of("250\r\n")), Capabilities{});
}

TEST(Capabilities, Fault32CaseDuplicatesAndOldAuth) {
    const Capabilities mixed = offered({"mx", "PipeLining", "pipelining", "8bitmime", "size 10", "SIZE", "Size 5", "AUTH=LOGIN",
                                        "starttls  ", "dsn\tx"});
    EXPECT_TRUE(mixed.pipelining && mixed.eight_bit_mime && mixed.auth && mixed.starttls && mixed.dsn);
    EXPECT_EQ(mixed.size_limit, 5U);
    const Capabilities other = offered({"mx", "PIPELININGX", "X-PIPELINING", "XSTARTTLS", "AUTHX", "8BIT"});
    EXPECT_EQ(other, Capabilities{});
}

TEST(Capabilities, Fault48SizeZeroGarbageAndTooLarge) {
    EXPECT_EQ(offered({"mx", "SIZE"}).size_limit, 0U);
    EXPECT_TRUE(offered({"mx", "SIZE"}).size);
    EXPECT_EQ(offered({"mx", "SIZE 0"}).size_limit, 0U);
    for (const char* garbage : {"SIZE abc", "SIZE 10k", "SIZE -1", "SIZE 1.5", "SIZE 0x10", "SIZE +7"})
        EXPECT_EQ(offered({"mx", garbage}).size_limit, 0U) << garbage;
    EXPECT_EQ(offered({"mx", "SIZE 18446744073709551617"}).size_limit, UINT64_MAX);
    EXPECT_EQ(offered({"mx", "SIZE 18446744073709551615"}).size_limit, UINT64_MAX);
    EXPECT_EQ(offered({"mx", "SIZE 18446744073709551614"}).size_limit, UINT64_MAX - 1);
    EXPECT_EQ(offered({"mx", "SIZE 99999999999999999999999999999999"}).size_limit, UINT64_MAX);
    EXPECT_EQ(offered({"mx", "SIZE 000100"}).size_limit, 100U);
}

TEST(Capabilities, LimitsIgnoreWhatTheyDoNotKnow) {
    const Capabilities limits = offered({"mx", "limits rcptmax=7 FOO=1 MAILMAX RCPTDOMAINMAX=x MAILMAX=0 MAILMAX=99999999999"});
    EXPECT_EQ(limits.rcpt_max, 7U);
    EXPECT_EQ(limits.mail_max, UINT32_MAX);
    EXPECT_EQ(limits.rcpt_domain_max, 0U);
    EXPECT_EQ(offered({"mx", "LIMITS RCPTMAX=9", "LIMITS RCPTMAX=3"}).rcpt_max, 3U);
}

// A banner, then EHLO after TLS: the second reply makes a second struct, nothing of the first is left (FAULTS 64).
TEST(Capabilities, Fault32TheLastEhloCounts) {
    Capabilities host = offered({"mx", "STARTTLS", "PIPELINING", "SIZE 9"});
    host = offered({"mx", "8BITMIME"});
    Capabilities expected;
    expected.eight_bit_mime = true;
    EXPECT_EQ(host, expected);
}

}  // namespace
}  // namespace postrider
