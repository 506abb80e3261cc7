// `.eml`: DESIGN 3.1, RFC 5322 3.4 and 3.6; FAULTS 40-43, 49, 57, 58.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "queue/formats/recipient_text.h"
#include "tests/unit/queue/formats/recorder.h"

namespace postrider {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Recorder eml(std::string_view text, const ContentRules& rules = {}) {
    Recorder r = parse_every_way<EmlParser>(text, rules);
    for (const Recorded& m : r.messages) {
        EXPECT_EQ(m.content.wire_size, wire_form(text, m.content).size()) << text;
        for (size_t i = 0; i < m.recipients.size(); ++i) {
            const auto again = parse_recipient_text(StoredForm::plain, cut_out(text, m.where[i]));
            EXPECT_TRUE(again && again->address == m.recipients[i]) << m.recipients[i];
        }
    }
    return r;
}

const std::string kBlock = "x-sender: s@a.test\r\nx-receiver: r@b.test\r\n";

TEST(Eml, BlockOpensTheFile) {
    const std::string text =
        "X-Sender: s@a.test\r\nx-receiver: r1@b.test\r\nX-RECEIVER:\t<\"r 2\"@c.test> \r\nx-envid: "
        "id=1\r\nx-job: j\r\n"
        "x-virtual-mta: vm\r\nx-campaign: c\r\nx-tenant: t\r\nx-priority: high\r\nx-not-before: "
        "1795456800\r\n"
        "Subject: x\r\nX-Sender: stays\r\nBcc: stays@a.test\r\n\r\n.body\r\n";
    const Recorder r = eml(text);
    ASSERT_EQ(r.error, "");
    ASSERT_THAT(r.messages, SizeIs(1));
    const Recorded& m = r.messages[0];
    EXPECT_EQ(m.envelope.sender, "s@a.test");
    EXPECT_THAT(m.recipients, ElementsAre("r1@b.test", "\"r 2\"@c.test"));
    EXPECT_EQ(m.envelope.envid, "id+3D1") << "xtext, fit for MAIL ENVID=";
    EXPECT_EQ(m.envelope.job, "j");
    EXPECT_EQ(m.envelope.pool, "vm");
    EXPECT_EQ(m.envelope.campaign, "c");
    EXPECT_EQ(m.envelope.tenant, "t");
    EXPECT_EQ(m.envelope.priority, Priority::high);
    EXPECT_EQ(m.envelope.not_before_s, 1'795'456'800);
    EXPECT_EQ(cut_out(text, m.content.stored),
              "Subject: x\r\nX-Sender: stays\r\nBcc: stays@a.test\r\n\r\n.body\r\n");
    EXPECT_TRUE(m.content.crlf_only);
    EXPECT_TRUE(m.content.dots);
    EXPECT_FALSE(m.content.clean_for_data());
}

TEST(Eml, TheFirstOtherLineIsTheMessages) {
    for (const std::string message :
         {"Subject: x\r\n\r\nb\r\n", "\r\nbody at once\r\n", " folded?\r\nx\r\n",
          "x-unknown: y\r\n\r\nb\r\n", "no colon\r\n"}) {
        const Recorder r = eml(kBlock + message);
        ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
        EXPECT_EQ(cut_out(kBlock + message, r.messages[0].content.stored), message);
    }
}

TEST(Eml, ABlockBeginsWithSenderOrReceiverOnly) {
    const std::string text = "X-Campaign: c\r\nFrom: s@a.test\r\nTo: r@b.test\r\n\r\nb\r\n";
    const Recorder r = eml(text);
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_EQ(r.messages[0].envelope.campaign, "");
    EXPECT_EQ(r.messages[0].content.stored.size, text.size());
}

TEST(Eml, NullSenderInABlock) {
    const Recorder r = eml("x-receiver: r@b.test\nx-sender: <>\nSubject: x\n");
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_EQ(r.messages[0].envelope.sender, "");
}

TEST(Eml, RefusesTheFileWithLineOffsetAndMending) {
    for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
             {"x-sender: s@a.test\r\nSubject: x\r\n", "no x-receiver"},
             {"x-receiver: r@b.test\r\nSubject: x\r\n", "no x-sender"},
             {"x-sender: s@a.test\r\nx-sender: s@a.test\r\nx-receiver: r@b.test\r\nx\r\n",
              "line 2, offset 20: x-sender: given twice"},
             {"x-sender: nobody\r\nx-receiver: r@b.test\r\nx\r\n", "line 1, offset 0: x-sender: "},
             {kBlock + "x-priority: soon\r\nx\r\n", "line 3, offset 42: x-priority: "},
             {kBlock, "the message is empty"},
             {"x-sender: s@a.test\r\nx-receiver: r@b.test", "the message is empty"},
             {"", "the message is empty"},
             {kBlock + "Subject: x\r\nX-Receiver: hidden@b.test\r\n\r\nb\r\n",
              "line 4, offset 54: x-receiver in the header"},
             {"From: s@a.test\nTo: r@b.test\nx-receiver: hidden@b.test\n\nb\n",
              "line 3, offset 28: x-receiver in the header"},
             {"From: s@a.test\nTo: r@b.test\n\nbare\rcr\n", "line 4, offset 33: a CR without LF"},
             {"From: s@a.test\nTo: r@b.test\n\nends in cr\r", "a CR without LF"},
             {kBlock + std::string("a\0b\n", 4), "line 3, offset 43: a NUL"},
             {kBlock + std::string(999, 'x'), "a line over 998 octets"},
             {"Subject: x\r\n\r\nb\r\n", "no sender"},
             {"From: s@a.test\r\n\r\nb\r\n", "no recipient"},
             {"From: s@a.test\r\nTo: undisclosed-recipients:;\r\n\r\nb\r\n", "no recipient"},
             {"From: nobody\r\nTo: r@b.test\r\n\r\nb\r\n",
              "line 1, offset 0: the sender cannot be read"},
             {"x-sender: " + std::string(2100, 'x') + "\r\n", "over 2048 octets"}}) {
        const Recorder r = eml(text);
        EXPECT_THAT(r.error, HasSubstr(why)) << text;
        EXPECT_THAT(r.error, HasSubstr("line "));
        EXPECT_THAT(r.messages, IsEmpty());
    }
}

TEST(Eml, XReceiverInTheBodyIsText) {
    EXPECT_THAT(eml(kBlock + "Subject: x\r\n\r\nx-receiver: a@b.test\r\n").messages, SizeIs(1));
    EXPECT_THAT(eml(kBlock + "Subject: x\r\n x-receiver: folded\r\n\r\nb\r\n").messages, SizeIs(1));
}

TEST(Eml, ABadReceiverIsRefusedAlone) {
    const Recorder r =
        eml("x-sender: s@a.test\nx-receiver: bad\nx-receiver: "
            "a..b.@docomo.test\nx-receiver:\nSubject: x\n");
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_THAT(r.messages[0].recipients, ElementsAre("a..b.@docomo.test"));
    EXPECT_THAT(r.messages[0].refused_recipients, ElementsAre("bad", ""));
}

TEST(Eml, RecipientsFromTheHeader) {
    const std::string text =
        "Return-Path: <bounce@a.test>\r\nFrom: \"Sender, The\" <s@a.test>\r\n"
        "To: Plain@b.test, \"Doe, John\" <john@b.test>,\r\n\t=?utf-8?Q?J=C3=BCrgen?= <j@c.test> "
        "(a, comment),,\r\n"
        " Group: g1@d.test, \"G; 2\" <g2@d.test>;, <@route.test,@r2.test:routed@e.test>\r\n"
        "CC: (before) spaced . out @ f . test (after), \"quoted @ local\"@g.test, john@B.TEST, "
        "lit@[192.0.2.1]\r\n"
        "bcc : hidden@h.test,\r\n hidden2@h.test\r\nSubject: x\r\n\r\nTo: not@this.test\r\n";
    const Recorder r = eml(text);
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    const Recorded& m = r.messages[0];
    EXPECT_EQ(m.envelope.sender, "bounce@a.test");
    EXPECT_THAT(m.recipients,
                ElementsAre("Plain@b.test", "john@b.test", "j@c.test", "g1@d.test", "g2@d.test",
                            "routed@e.test", "spaced.out@f.test", "\"quoted @ local\"@g.test",
                            "lit@[192.0.2.1]", "hidden@h.test", "hidden2@h.test"));
    EXPECT_THAT(m.refused_recipients, IsEmpty());
    ASSERT_THAT(m.content.removed, SizeIs(2));
    EXPECT_EQ(cut_out(text, m.content.removed[0]), "Return-Path: <bounce@a.test>\r\n");
    EXPECT_EQ(cut_out(text, m.content.removed[1]), "bcc : hidden@h.test,\r\n hidden2@h.test\r\n");
    EXPECT_FALSE(m.content.crlf_only);
    EXPECT_THAT(wire_form(text, m.content), testing::Not(HasSubstr("hidden")));
}

TEST(Eml, SenderByPrecedence) {
    EXPECT_EQ(eml("From: f@a.test, f2@a.test\nSender: s@a.test\nTo: r@b.test\n")
                  .messages.at(0)
                  .envelope.sender,
              "s@a.test");
    EXPECT_EQ(eml("From: f@a.test, f2@a.test\nTo: r@b.test\n").messages.at(0).envelope.sender,
              "f@a.test");
    EXPECT_EQ(eml("From: f@a.test\nReturn-Path: <>\nTo: r@b.test\n").messages.at(0).envelope.sender,
              "");
    EXPECT_THAT(eml("From: <>\nTo: r@b.test\n").error, HasSubstr("sender"));
}

TEST(Eml, WrongElementsOfAListAreRefusedAlone) {
    const Recorder r =
        eml("From: f@a.test\nTo: nobody, r@b.test, two words@b.test, <>, \"open\" <x@b.test> y, "
            "a@b..test,\n <unclosed@b.test\n\nb\n");
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_THAT(r.messages[0].recipients, ElementsAre("r@b.test", "x@b.test"));
    EXPECT_THAT(r.messages[0].refused_recipients,
                ElementsAre("nobody", "two words@b.test", "", "a@b..test", "<unclosed@b.test"));
}

TEST(Eml, UnclosedQuotesAndCommentsEndWithTheField) {
    const Recorder r =
        eml("From: f@a.test\nTo: \"open <x@b.test>\nCc: (open y@b.test\nBcc: z@b.test\\\n\nb\n");
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_THAT(r.messages[0].recipients, IsEmpty());
    EXPECT_THAT(r.messages[0].refused_recipients, SizeIs(2));
}

TEST(Eml, BccIsRemovedWhereverItStands) {
    for (const std::string text :
         {"Bcc: h@b.test\nFrom: f@a.test\nSubject: x\n\nb\n",
          "From: f@a.test\nBcc: h@b.test\nBCC: h2@b.test\n\nb\n", "From: f@a.test\nBcc: h@b.test",
          "From: f@a.test\r\nBcc: h@b.test\r\n\th2@b.test", "From: f@a.test\nBcc:\n h@b.test\n",
          "From: f@a.test\nTo: t@b.test\nBcc:\nSubject: x\n\nb",
          "From: f@a.test\nTo: t@b.test\nResent-Bcc: h@b.test\nSubject: x\n\nb"}) {
        const Recorder r = eml(text);
        ASSERT_THAT(r.messages, SizeIs(1)) << text << r.error;
        EXPECT_THAT(wire_form(text, r.messages[0].content), testing::Not(HasSubstr("h@b.test")))
            << text;
    }
    EXPECT_THAT(eml("Return-Path: <f@a.test>\nBcc: h@b.test\n").error, HasSubstr("empty"));
}

TEST(Eml, LineEndsMayBeMixedAndTheLastMissing) {
    const std::string text = kBlock + "Subject: x\n\r\na\n.b\r\nc";
    const Recorder r = eml(text);
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_EQ(wire_form(text, r.messages[0].content), "Subject: x\r\n\r\na\r\n.b\r\nc\r\n");
    EXPECT_FALSE(r.messages[0].content.crlf_only);
    EXPECT_TRUE(r.messages[0].content.dots);
    EXPECT_TRUE(eml(kBlock + "Subject: x\r\n").messages.at(0).content.clean_for_data())
        << "header only";
    EXPECT_FALSE(eml(kBlock + "Subject: x").messages.at(0).content.crlf_only);
}

TEST(Eml, ALargeHeaderOfAddressesIsRefusedABlockOfThemStreams) {
    std::string to = "From: f@a.test\nTo: first@b.test", block = "x-sender: f@a.test\n";
    for (int i = 0; i < 100'000; ++i) {
        to += fmt::format(",\n recipient{}@b.test", i);
        block += fmt::format("x-receiver: recipient{}@b.test\n", i);
    }
    EXPECT_THAT(parse<EmlParser>(to + "\n\nb\n", {70'000}).error, HasSubstr("envelope block"));
    const Recorder r = parse<EmlParser>(block + "Subject: x\n\nb\n", {65'536, 131'072});
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_THAT(r.messages[0].recipients, SizeIs(100'000));
}

TEST(Eml, AddressSpecsAreNotJoinedFromWords) {
    RecipientText out;
    EXPECT_FALSE(parse_recipient_text(StoredForm::plain, "two words@b.test", out));
    EXPECT_FALSE(parse_recipient_text(StoredForm::plain, "\"a\rb\"@b.test", out));
    EXPECT_FALSE(parse_recipient_text(StoredForm::plain, "", out));
    ASSERT_TRUE(parse_recipient_text(StoredForm::plain, "a (c) . b @\r\n c.test", out));
    EXPECT_EQ(out.address, "a.b@c.test");
    EXPECT_EQ(out.domain(), "c.test");
}

}  // namespace
}  // namespace postrider
