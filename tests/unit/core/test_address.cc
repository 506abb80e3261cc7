// Mailboxes and paths: RFC 5321 4.1.2, 4.5.3.1, RFC 6531; FAULTS 45, 49, 50.
#include <gtest/gtest.h>

#include <string>

#include "engine/core/address.h"

namespace postrider {
namespace {

TEST(Mailbox, PassesByteForByte) {
    for (const std::string text :
         {"a@b.test", "First.Last+tag@Sub.Example.TEST", "a@b", "x_y!#$%&'*/=?^`{|}~-@b-c.test",
          "\"a b\"@x.test", "\"a@b\"@x.test", "\"\\\"q\\\\\"@x.test", "\"\"@x.test",
          "\"a>b\"@x.test", "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[ipv6:::1]", "a@b.test.",
          "a@1.2.3.4", "a@xn--mnchen-3ya.test"}) {
        const auto mailbox = parse_mailbox(text);
        ASSERT_TRUE(mailbox) << text << ": " << mailbox.error().text;
        EXPECT_EQ(std::string(mailbox->local) + "@" + std::string(mailbox->domain), text);
        EXPECT_FALSE(mailbox->needs_smtputf8);
        EXPECT_FALSE(mailbox->utf8_domain);
    }
}

TEST(Mailbox, SplitsAtTheSeparatorNotAtAnAtInsideQuotes) {
    const auto mailbox = parse_mailbox("\"a@b\"@x.test");
    ASSERT_TRUE(mailbox);
    EXPECT_EQ(mailbox->local, "\"a@b\"");
    EXPECT_EQ(mailbox->domain, "x.test");
}

TEST(Mailbox, MisplacedDotsOfTheLocalPartPassAsTheyAre) {
    for (const std::string text :
         {".a@docomo.test", "a.@docomo.test", "a..b@docomo.test", ".@docomo.test"}) {
        const auto mailbox = parse_mailbox(text);
        ASSERT_TRUE(mailbox) << text;
        EXPECT_EQ(mailbox->domain, "docomo.test");
    }
}

TEST(Mailbox, RefusesWhatTheGrammarDoesNotKnow) {
    for (const std::string text : {"",
                                   "a",
                                   "@b.test",
                                   "a@",
                                   "a@@b.test",
                                   "a b@c.test",
                                   "a@b c.test",
                                   "a@b..test",
                                   "a@.b.test",
                                   "a@.",
                                   "a@-b.test",
                                   "a@b-.test",
                                   "a@b_c.test",
                                   "a@b.test..",
                                   "\"a@b.test",
                                   "\"a\"b@c.test",
                                   "a\"b\"@c.test",
                                   "<a@b.test>",
                                   "a@b.test>",
                                   "a,b@c.test",
                                   "a(c)@b.test",
                                   "a@[192.0.2.256]",
                                   "a@[192.0.2]",
                                   "a@[",
                                   "a@[]",
                                   "a@[IPv6:1.2.3.4]",
                                   "a@[IPv6:]",
                                   "a@[X-tag:1]",
                                   "a@[192.0.2.1].test",
                                   "\"a\\\"@x.test",
                                   "a@b.test ",
                                   " a@b.test",
                                   "a;b@c.test",
                                   "a:b@c.test",
                                   "a\\b@c.test"}) {
        const auto mailbox = parse_mailbox(text);
        EXPECT_FALSE(mailbox) << text;
    }
}

TEST(Mailbox, RefusesControlsAnywhere) {
    const std::string whole = "\"a b\"@bc.test";
    for (int control = 0; control < 33; ++control) {
        const char c = control == 32 ? '\x7f' : static_cast<char>(control);
        for (size_t at = 0; at <= whole.size(); ++at) {
            std::string text = whole;
            text.insert(at, 1, c);
            const auto mailbox = parse_mailbox(text);
            ASSERT_FALSE(mailbox) << control << " at " << at;
            for (const char shown : mailbox.error().text)
                EXPECT_GE(static_cast<unsigned char>(shown), 32);
        }
    }
    EXPECT_FALSE(parse_mailbox("a\xc2\x85@b.test")) << "C1 controls end lines for some";
}

TEST(Mailbox, LimitsAre64And255) {
    const std::string domain_255 = std::string(63, 'a') + "." + std::string(63, 'b') + "." +
                                   std::string(63, 'c') + "." + std::string(63, 'd');
    ASSERT_EQ(domain_255.size(), 255u);
    EXPECT_TRUE(parse_mailbox(std::string(64, 'l') + "@b.test"));
    EXPECT_FALSE(parse_mailbox(std::string(65, 'l') + "@b.test"));
    EXPECT_TRUE(parse_mailbox("a@" + domain_255));
    EXPECT_FALSE(parse_mailbox("a@" + domain_255 + "."));
    EXPECT_TRUE(parse_mailbox("a@" + std::string(63, 'x') + ".test"));
    EXPECT_FALSE(parse_mailbox("a@" + std::string(64, 'x') + ".test"));
    EXPECT_LT(parse_mailbox(std::string(1 << 20, 'x')).error().text.size(), 200u);
}

TEST(Mailbox, Utf8IsToldApart) {
    const auto local = parse_mailbox("j\xc3\xbcrgen@b.test");
    ASSERT_TRUE(local);
    EXPECT_TRUE(local->needs_smtputf8);
    EXPECT_FALSE(local->utf8_domain);
    const auto domain = parse_mailbox("a@m\xc3\xbcnchen.test");
    ASSERT_TRUE(domain);
    EXPECT_FALSE(domain->needs_smtputf8) << "an A-label will do";
    EXPECT_TRUE(domain->utf8_domain);
    for (const std::string bad :
         {"\xff@b.test", "\xc0\xaf@b.test", "\xed\xa0\x80@b.test", "a@\xc3.test",
          "\xf4\x90\x80\x80@b.test", "\xe2\x82@b.test", "\"\x80\"@b.test"}) {
        EXPECT_FALSE(parse_mailbox(bad)) << bad;
    }
}

TEST(Path, EndsAtItsBracket) {
    const std::string text = "<\"a>b\"@x.test> NOTIFY=NEVER";
    const auto path = parse_path(text);
    ASSERT_TRUE(path);
    EXPECT_EQ(path->address, "\"a>b\"@x.test");
    EXPECT_EQ(text.substr(path->size), " NOTIFY=NEVER");
    const auto null_path = parse_path("<> RET=HDRS");
    ASSERT_TRUE(null_path);
    EXPECT_TRUE(null_path->address.empty());
    EXPECT_EQ(null_path->size, 2u);
}

TEST(Path, SkipsASourceRoute) {
    const auto path = parse_path("<@a.test,@b.test:c@d.test>");
    ASSERT_TRUE(path);
    EXPECT_EQ(path->address, "c@d.test");
    EXPECT_EQ(path->size, 26u);
    EXPECT_FALSE(parse_path("<@a.test>"));
    EXPECT_FALSE(parse_path("<@a.test:>"));
}

TEST(Path, RefusesWhatIsNotClosed) {
    for (const std::string text :
         {"", "a@b.test", "<a@b.test", "<", "<a@b.test x>", "<\r\n>", "< >", "<a@b.test\r>"}) {
        EXPECT_FALSE(parse_path(text)) << text;
    }
}

TEST(Domain, NormalisesCaseAndOneDot) {
    EXPECT_EQ(normalise_domain("Example.TEST."), "example.test");
    EXPECT_EQ(normalise_domain("[IPv6:2001:DB8::1]"), "[ipv6:2001:db8::1]");
    std::string out = "what was there before";
    normalise_domain("A.b", out);
    EXPECT_EQ(out, "a.b");
}

TEST(Domain, ULabelsBecomeALabels) {
    EXPECT_EQ(domain_to_ascii("M\xc3\xbcnchen.Test.").value(), "xn--mnchen-3ya.test");
    EXPECT_EQ(domain_to_ascii("fa\xc3\x9f.test").value(), "xn--fa-hia.test")
        << "IDNA 2008, not 2003";
    EXPECT_EQ(domain_to_ascii("Plain.Test.").value(), "plain.test");
    EXPECT_FALSE(domain_to_ascii("\xff.test"));
    EXPECT_FALSE(domain_to_ascii("\xe2\x80\x8b.test"));
}

TEST(Address, OnlyDomainsBecomeALabels) {
    std::string room;
    EXPECT_EQ(address_to_ascii("news@m\xc3\xbcnchen.example", room), "news@xn--mnchen-3ya.example");
    EXPECT_EQ(address_to_ascii("\"a@\xc3\xbc\"@b.test", room), "\"a@\xc3\xbc\"@b.test") << "RFC 6531: the local part needs SMTPUTF8";
    for (const char* same : {"", "a@b.test", "A@B.Test.", "a@[192.0.2.1]", "a@\xff.test", "\xc3\xbc@\xc3\xbc.test"})
        EXPECT_EQ(address_to_ascii(same, room), same);
}

}  // namespace
}  // namespace postrider
