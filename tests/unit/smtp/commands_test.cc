// Commands as text; FAULTS 49: no argument writes a command of its own.
#include "engine/smtp/commands.h"

#include <gtest/gtest.h>

namespace postrider {
namespace {

TEST(Commands, Plain) {
    std::string out;
    EXPECT_TRUE(append_ehlo(out, "mail.example.com"));
    EXPECT_TRUE(append_helo(out, "[192.0.2.1]"));
    append_starttls(out);
    append_data(out);
    append_dot(out);
    append_bdat_last(out, 18446744073709551615U);
    append_bdat_last(out, 0);
    append_rset(out);
    append_quit(out);
    EXPECT_EQ(out,
              "EHLO mail.example.com\r\nHELO [192.0.2.1]\r\nSTARTTLS\r\nDATA\r\n.\r\n"
              "BDAT 18446744073709551615 LAST\r\nBDAT 0 LAST\r\nRSET\r\nQUIT\r\n");
}

TEST(Commands, MailWithEveryParameter) {
    std::string out;
    EXPECT_TRUE(append_mail(out, "", {}));
    EXPECT_TRUE(append_mail(out, "a@b.test", {.size = 123, .body_8bitmime = true, .smtputf8 = true,
                                              .ret = DsnReturn::headers, .envid = "QQ314159"}));
    EXPECT_TRUE(append_mail(out, "a@b.test", {.ret = DsnReturn::full}));
    EXPECT_EQ(out,
              "MAIL FROM:<>\r\n"
              "MAIL FROM:<a@b.test> SIZE=123 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159\r\n"
              "MAIL FROM:<a@b.test> RET=FULL\r\n");
}

TEST(Commands, RcptPassesOddAddressesAsTheyAre) {
    std::string out;
    EXPECT_TRUE(append_rcpt(out, "\"a b>\\\"<\"@x.test", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@x.test"));
    EXPECT_TRUE(append_rcpt(out, ".a..b.@docomo.test", ""));
    EXPECT_TRUE(append_rcpt(out, "m\xc3\xbcller@x.test", ""));
    EXPECT_TRUE(append_rcpt(out, "a@[IPv6:2001:db8::1]", ""));
    EXPECT_EQ(out,
              "RCPT TO:<\"a b>\\\"<\"@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@x.test\r\n"
              "RCPT TO:<.a..b.@docomo.test>\r\nRCPT TO:<m\xc3\xbcller@x.test>\r\n"
              "RCPT TO:<a@[IPv6:2001:db8::1]>\r\n");
}

TEST(Commands, Fault49NothingIsInjected) {
    using namespace std::string_view_literals;
    std::string out = "before";
    for (const auto bad : {"a@b\r\nRSET"sv, "a@b\nRSET"sv, "a@b\rx"sv, "a\0@b"sv, "a@b> SIZE=1"sv, "a@b>"sv, "<a@b"sv,
                           "a b@c"sv, "\"a@b"sv, "\"a\r\nb\"@c"sv, "a@b\x7f"sv, "\"a\\\"@b"sv}) {
        EXPECT_FALSE(append_rcpt(out, bad, ""));
        EXPECT_FALSE(append_mail(out, bad, {}));
    }
    EXPECT_FALSE(append_rcpt(out, "", ""));
    EXPECT_FALSE(append_rcpt(out, "a@b", "NOTIFY=NEVER\r\nDATA"));
    EXPECT_FALSE(append_mail(out, "a@b", {.envid = "x\r\nDATA"}));
    EXPECT_FALSE(append_mail(out, "a@b", {.envid = "x SIZE=1"}));
    EXPECT_FALSE(append_ehlo(out, "host\r\nMAIL"));
    EXPECT_FALSE(append_ehlo(out, "host name"));
    EXPECT_FALSE(append_helo(out, ""));
    EXPECT_EQ(out, "before");
}

}  // namespace
}  // namespace postrider
