// Batch SMTP: DESIGN 3.1, RFC 2442; FAULTS 39-43, 49, 50.
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

std::string crlf(std::string text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') out += '\r';
        out += c;
    }
    return out;
}

Recorder batch(std::string_view text, const ContentRules& rules = {}) {
    return parse_every_way<BatchParser>(text, rules);
}

// One message whose content is given octet by octet, in a file of CRLF.
std::string framed(std::string_view content) {
    return "MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\n" + std::string(content) +
           ".\r\n";
}

const std::string kTwo = crlf(
    "EHLO client\nMAIL FROM:<s@a.test> SIZE=999 BODY=8BITMIME RET=HDRS ENVID=QQ+2B\n"
    "RCPT TO:<r1@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;r1@b.test\nRCPT TO:<\"r "
    "2\"@C.test>\nDATA\n"
    "Subject: one\n\nbody\n..dot\n.\nRSET\nNOOP x\nmail from: <>\nrcpt to: "
    "<r3@d.test>\ndata\nSubject: two\n\n\n.\nQUIT\n");

TEST(Batch, ReadsMessagesInFileOrder) {
    for (const bool lf : {false, true}) {
        std::string text = kTwo;
        if (lf) std::erase(text, '\r');
        const Recorder r = batch(text);
        ASSERT_EQ(r.error, "");
        ASSERT_THAT(r.messages, SizeIs(2));
        const Recorded& one = r.messages[0];
        EXPECT_EQ(one.number, 1u);
        EXPECT_EQ(one.envelope.sender, "s@a.test");
        EXPECT_EQ(one.envelope.envid, "QQ+2B");
        EXPECT_EQ(one.envelope.ret, DsnReturn::headers);
        EXPECT_FALSE(one.envelope.smtputf8);
        EXPECT_THAT(one.recipients, ElementsAre("r1@b.test", "\"r 2\"@C.test"));
        EXPECT_THAT(one.dsn, ElementsAre("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;r1@b.test", ""));
        EXPECT_EQ(one.content.form, lf ? StoredForm::stuffed_lf : StoredForm::stuffed_crlf);
        EXPECT_EQ(wire_form(text, one.content), "Subject: one\r\n\r\nbody\r\n.dot\r\n");
        EXPECT_EQ(one.content.wire_size, wire_form(text, one.content).size());
        EXPECT_TRUE(one.content.dots);
        EXPECT_EQ(one.content.clean_for_data(), !lf);
        EXPECT_FALSE(one.content.clean_for_bdat());
        const Recorded& two = r.messages[1];
        EXPECT_EQ(two.number, 2u);
        EXPECT_EQ(two.envelope.sender, "");
        EXPECT_EQ(two.envelope.envid, "") << "nothing of the message before";
        EXPECT_EQ(two.envelope.ret, DsnReturn::none);
        EXPECT_EQ(wire_form(text, two.content), "Subject: two\r\n\r\n\r\n");
        EXPECT_EQ(two.content.clean_for_bdat(), !lf);
    }
}

TEST(Batch, RecipientsAreReadAgainFromWhereTheyLie) {
    const Recorder r = batch(kTwo);
    for (const Recorded& m : r.messages) {
        for (size_t i = 0; i < m.recipients.size(); ++i) {
            const auto again = parse_recipient_text(m.content.form, cut_out(kTwo, m.where[i]));
            ASSERT_TRUE(again) << again.error().text;
            EXPECT_EQ(again->address, m.recipients[i]);
            EXPECT_EQ(again->dsn, m.dsn[i]);
            EXPECT_EQ(again->address.substr(again->domain_at), again->domain());
        }
    }
    EXPECT_FALSE(parse_recipient_text(StoredForm::stuffed_crlf, "<>"));
    EXPECT_FALSE(parse_recipient_text(StoredForm::stuffed_crlf, "<a@b.test>NOTIFY=NEVER"));
    EXPECT_FALSE(parse_recipient_text(StoredForm::stuffed_crlf, "<a@b.test> X=1"));
}

TEST(Batch, ParametersOthersRefuseTheFile) {
    for (const std::string bad :
         {"MAIL FROM:<s@a.test> AUTH=<>", "MAIL FROM:<s@a.test> BODY=BINARYMIME",
          "MAIL FROM:<s@a.test> RET=SOME", "MAIL FROM:<s@a.test> ENVID=a=b",
          "MAIL FROM:<s@a.test> SIZE=1 SIZE=2", "MAIL FROM:<s@a.test>SIZE=1",
          "MAIL FROM:<s@a.test> SMTPUTF8=1", "MAIL FROM:<s@a.test> MT-PRIORITY=3",
          "MAIL FROM:<s@a.test> REQUIRETLS"}) {
        const Recorder r = batch(crlf("NOOP\n" + bad + "\nRCPT TO:<r@b.test>\nDATA\nx\n.\n"));
        EXPECT_THAT(r.error, HasSubstr("line 2, offset 6: ")) << bad;
        EXPECT_THAT(r.messages, IsEmpty());
    }
    for (const std::string bad :
         {"RCPT TO:<r@b.test> NOTIFY=NEVER,DELAY", "RCPT TO:<r@b.test> NOTIFY=",
          "RCPT TO:<r@b.test> ORCPT=r@b.test", "RCPT TO:<r@b.test> ORCPT=rfc822;a b",
          "RCPT TO:<r@b.test> ORCPT=rfc822;a+2b", "RCPT TO:<r@b.test> X=1",
          "RCPT TO:<r@b.test> NOTIFY=NEVER NOTIFY=NEVER", "RCPT TO:<r@b.test>x"}) {
        EXPECT_THAT(batch(crlf("MAIL FROM:<s@a.test>\n" + bad + "\nDATA\nx\n.\n")).error,
                    HasSubstr("line 2, "))
            << bad;
    }
    const Recorder utf8 =
        batch(crlf("MAIL FROM:<s@a.test> SMTPUTF8\nRCPT TO:<r@b.test>\nDATA\nx\n.\n"));
    ASSERT_THAT(utf8.messages, SizeIs(1));
    EXPECT_TRUE(utf8.messages[0].envelope.smtputf8);
}

TEST(Batch, Utf8LocalPartNeedsSmtputf8) {
    const Recorder r =
        batch(crlf("MAIL FROM:<s@a.test>\nRCPT TO:<j\xc3\xbcrgen@b.test>\nDATA\nx\n.\n"));
    ASSERT_THAT(r.messages, SizeIs(1));
    EXPECT_TRUE(r.messages[0].envelope.smtputf8);
}

TEST(Batch, ABrokenFrameRefusesTheFile) {
    for (const std::string text :
         {"",
          "QUIT\n",
          "HELO x\nNOOP\n",
          "RCPT TO:<r@b.test>\n",
          "DATA\n",
          "MAIL FROM:<s@a.test>\nDATA x\n",
          "MAIL FROM:<s@a.test>\nMAIL FROM:<s@a.test>\n",
          "MAIL FROM:s@a.test\n",
          "MAIL FROM:\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:r@b.test\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nQUIT\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx\n.",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx-campaign: c\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx\n.\nQUIT",
          "\n",
          "Subject: x\n\n",
          "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx\n.\n\nMAIL FROM:<>\n",
          "VRFY x\n",
          "DATAX\n"}) {
        for (const bool lf : {false, true}) {
            const Recorder r = batch(lf ? text : crlf(text));
            EXPECT_THAT(r.error, HasSubstr("line ")) << text;
            EXPECT_THAT(r.error, HasSubstr(", offset ")) << text;
            EXPECT_EQ(r.error.find('\n'), std::string::npos);
        }
    }
}

TEST(Batch, TheFirstLinesEndingIsTheFiles) {
    EXPECT_THAT(batch("MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\nDATA\r\nx\r\n.\r\n").error,
                HasSubstr("line 2, offset 22"));
    EXPECT_THAT(batch("MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\r\nDATA\nx\n.\n").error,
                HasSubstr("line 2, "));
    EXPECT_THAT(batch("NOOP\r\nMAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\nx-campaign: "
                      "c\nx\r\n.\r\n")
                    .error,
                HasSubstr("line 5, "));
}

TEST(Batch, ADotLineWithTheOtherEndingIsNeverGuessedAt) {
    EXPECT_THAT(batch(framed("x\r\n.\nMAIL FROM:<evil@a.test>\r\n")).error, HasSubstr("dot line"));
    EXPECT_THAT(batch(framed(".\nx\r\n")).error, HasSubstr("dot line"));
    const std::string lf = "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx\n.\r\n";
    EXPECT_THAT(batch(lf + "y\n.\n").error, HasSubstr("dot line"));
}

// SMTP smuggling (CVE-2023-51764 and its kin): what is no CRLF . CRLF does not end the message, and
// what a receiver could take for it is changed or refused.
TEST(Batch, BareLineFeedsOfACrlfFileAreContent) {
    for (const auto& [content, wire] :
         std::vector<std::pair<std::string, std::string>>{{"a\n.\nb\r\n", "a\r\n.\r\nb\r\n"},
                                                          {"a\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"},
                                                          {"a\n..\r\nb\r\n", "a\r\n..\r\nb\r\n"},
                                                          {"a\n\n.\n\r\n", "a\r\n\r\n.\r\n\r\n"},
                                                          {"a\r\n..\nb\r\n", "a\r\n.\r\nb\r\n"},
                                                          {"..\r\n", ".\r\n"},
                                                          {".a\r\n", "a\r\n"}}) {
        const std::string text = framed(content);
        const Recorder r = batch(text);
        ASSERT_EQ(r.error, "") << content;
        ASSERT_THAT(r.messages, SizeIs(1)) << content;
        const Content& c = r.messages[0].content;
        EXPECT_EQ(cut_out(text, c.stored), content);
        EXPECT_EQ(wire_form(text, c), wire);
        EXPECT_EQ(c.wire_size, wire.size());
        EXPECT_TRUE(c.dots);
        EXPECT_FALSE(c.clean_for_bdat()) << "a stuffed dot would be sent as it lies";
        EXPECT_EQ(c.clean_for_data(), content.find("a\n") == std::string::npos &&
                                          content.find(".\n") == std::string::npos);
    }
}

TEST(Batch, BareCrNulAndLongLinesSetTheMessageAsideAlone) {
    const std::string good = framed("Subject: x\r\n\r\nok\r\n");
    for (const auto& [content, why] : std::vector<std::pair<std::string, std::string>>{
             {"a\rb\r\n", "a CR without LF"},
             {"a\r\r\n", "a CR without LF"},
             {"a\r.\r\n", "a CR without LF"},
             {"a\r\n.\rb\r\n", "a CR without LF"},
             {"a\r\n.\r\r\n", "a CR without LF"},
             {"\r\r\n", "a CR without LF"},
             {std::string("a\0b\r\n", 5), "a NUL"},
             {std::string("a\r\n\0.\r\n", 7), "a NUL"},
             {std::string("\r\n\0\r\n", 5), "a NUL"},
             {std::string(999, 'x') + "\r\n", "a line over 998 octets"},
             {"a\r\n" + std::string(999, 'x') + "\n" + "\r\n", "a line over 998 octets"},
             {"", "the message is empty"}}) {
        const std::string middle = framed(content);
        const Recorder r = batch(good + middle + good);
        ASSERT_EQ(r.error, "") << content;
        EXPECT_THAT(r.messages, SizeIs(2));
        ASSERT_THAT(r.refused, SizeIs(1)) << content;
        EXPECT_EQ(r.refused[0].number, 2u);
        EXPECT_THAT(r.refused[0].error, HasSubstr(why));
        EXPECT_THAT(r.refused[0].recipients, ElementsAre("r@b.test"));
        EXPECT_EQ(cut_out(good + middle + good, r.refused[0].whole), middle);
        EXPECT_EQ(r.messages[1].number, 3u);
    }
}

TEST(Batch, ErrorsTellLineAndOffset) {
    const Recorder r = batch(framed("Subject: x\r\n\r\nab\rc\r\n"));
    ASSERT_THAT(r.refused, SizeIs(1));
    EXPECT_EQ(r.refused[0].error,
              "line 6, offset 64: a CR without LF; end every line with CRLF or LF");
}

TEST(Batch, LinesOf998PassAndLongerOnesByRule) {
    const std::string stuffed =
        framed("." + std::string(998, '.') + "\r\n" + std::string(998, 'x') + "\r\n");
    EXPECT_THAT(batch(stuffed).messages, SizeIs(1)) << "a stuffed dot is not counted";
    const Recorder r = batch(framed(std::string(5000, 'x') + "\r\n"), {.long_lines_send = true});
    EXPECT_THAT(r.messages, SizeIs(1));
}

TEST(Batch, SizeLimitCountsTheWire) {
    EXPECT_THAT(batch(framed("0123456789\r\n"), {.max_message_size = 12}).messages, SizeIs(1));
    EXPECT_THAT(batch(framed("..12345678\r\nx\n\r\n"), {.max_message_size = 15}).refused,
                SizeIs(1));
    EXPECT_THAT(batch(framed("..12345678\r\nx\n\r\n"), {.max_message_size = 16}).messages,
                SizeIs(1));
}

TEST(Batch, ABadAddressRefusesItsRecipientOnly) {
    const Recorder r = batch(
        crlf("MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nRCPT TO:<no domain>\nRCPT TO:<>\nRCPT "
             "TO:<a..b.@docomo.test>\n"
             "RCPT TO:<r@b..test>\nDATA\nx\n.\nMAIL FROM:<s@a.test>\nRCPT TO:<bad\nDATA\nx\n.\n"));
    ASSERT_EQ(r.error, "");
    ASSERT_THAT(r.messages, SizeIs(2));
    EXPECT_THAT(r.messages[0].recipients, ElementsAre("r@b.test", "a..b.@docomo.test"));
    EXPECT_THAT(r.messages[0].refused_recipients, ElementsAre("no domain", "<>", "r@b..test"));
    EXPECT_THAT(r.messages[1].recipients, IsEmpty());
    EXPECT_THAT(r.messages[1].refused_recipients, SizeIs(1));
}

TEST(Batch, CrAndNulInAnAddressNeverPass) {
    for (const std::string& bad :
         {std::string("r\rRCPT TO:<x@b.test>@b.test"), std::string("r\0@b.test", 9)}) {
        const Recorder r =
            batch("MAIL FROM:<s@a.test>\r\nRCPT TO:<" + bad + ">\r\nDATA\r\nx\r\n.\r\n");
        EXPECT_THAT(r.messages.at(0).recipients, IsEmpty());
        EXPECT_THAT(r.messages.at(0).refused_recipients, SizeIs(1));
    }
}

TEST(Batch, ABadSenderOrNoRecipientSetsTheMessageAside) {
    const Recorder r = batch(
        crlf("MAIL FROM:<s@a..test>\nRCPT TO:<r@b.test>\nDATA\nx\n.\n"
             "MAIL FROM:<s@a.test>\nDATA\nx\n.\nMAIL FROM:<>\nRCPT TO:<r@b.test>\nDATA\nx\n.\n"));
    ASSERT_EQ(r.error, "");
    EXPECT_THAT(r.messages, SizeIs(1));
    ASSERT_THAT(r.refused, SizeIs(2));
    EXPECT_THAT(r.refused[1].error, HasSubstr("no recipient"));
}

TEST(Batch, RsetInMidEnvelopeIsToldNotDropped) {
    const std::string text = crlf("MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nRSET\n");
    const Recorder r = batch(text + framed("x\r\n"));
    ASSERT_EQ(r.error, "");
    ASSERT_THAT(r.refused, SizeIs(1));
    EXPECT_THAT(r.refused[0].recipients, SizeIs(1));
    EXPECT_EQ(cut_out(text, r.refused[0].whole), text);
    EXPECT_THAT(r.messages, SizeIs(1));
    EXPECT_THAT(r.messages[0].recipients, ElementsAre("r@b.test"));
}

TEST(Batch, OurLinesMayOpenEachData) {
    const std::string text = framed(
        "X-Campaign: spring sale\r\nx-tenant:t1\r\nx-priority: HIGH\r\nx-pool: p \r\nx-not-before: "
        "2026-11-23T18:00:00Z\r\n"
        "X-Job: an ordinary header\r\nSubject: x\r\n\r\nX-Campaign: no\r\n");
    const Recorder r = batch(text + framed("Subject: y\r\n"));
    ASSERT_THAT(r.messages, SizeIs(2)) << r.log;
    const Recorded& m = r.messages[0];
    EXPECT_EQ(m.envelope.campaign, "spring sale");
    EXPECT_EQ(m.envelope.tenant, "t1");
    EXPECT_EQ(m.envelope.priority, Priority::high);
    EXPECT_EQ(m.envelope.pool, "p");
    EXPECT_EQ(m.envelope.not_before_s, 1'795'456'800);
    EXPECT_EQ(wire_form(text, m.content),
              "X-Job: an ordinary header\r\nSubject: x\r\n\r\nX-Campaign: no\r\n");
    EXPECT_EQ(r.messages[1].envelope.campaign, "");
    EXPECT_EQ(r.messages[1].envelope.priority, Priority::normal);
}

TEST(Batch, BadOpeningLinesSetTheMessageAside) {
    for (const std::string line :
         {"x-priority: urgent", "x-not-before: tomorrow",
          "x-campaign:", "x-campaign: a\r\nx-campaign: b", "x-pool: a\r\nx-virtual-mta: b",
          "x-tenant: \xff", "x-receiver: hidden@b.test",
          "x-sender: s@a.test\r\nx-receiver: r@b.test\r\nx-job: j", "X-Sender: <>", "x-campaign: a\r\nx-sender: s@a.test"}) {
        const Recorder r = batch(framed(line + "\r\nSubject: x\r\n") + framed("x\r\n"));
        ASSERT_EQ(r.error, "") << line;
        EXPECT_THAT(r.refused, SizeIs(1)) << line;
        EXPECT_THAT(r.messages, SizeIs(1)) << line;
    }
    EXPECT_THAT(batch(framed("x-campaign: a\r\n")).refused, SizeIs(1))
        << "nothing but our lines is empty";
}

TEST(Batch, TheBlockOfAnEmlSaysWhyItIsSetAside) {
    const std::string text = framed("x-sender: s@a.test\r\nx-receiver: r@b.test\r\nSubject: x\r\n");
    const Recorder r = batch(text);
    ASSERT_THAT(r.refused, SizeIs(1));
    EXPECT_THAT(r.refused[0].error, HasSubstr("envelope block of an .eml"));
    EXPECT_EQ(cut_out(text, r.refused[0].whole), text);
    const Recorder sent = batch(framed("Subject: x\r\nX-Sender: s@a.test\r\n"));
    EXPECT_THAT(sent.messages, SizeIs(1)) << "further down it is an ordinary header field";
}

TEST(Batch, EightBitAndBigContent) {
    std::string body = "Subject: x\r\n\r\n";
    for (int i = 0; i < 3000; ++i)
        body += "a line of ordinary length, number " + std::to_string(i) + ", ends.\r\n";
    const Recorder clean = batch(framed(body));
    ASSERT_THAT(clean.messages, SizeIs(1));
    EXPECT_FALSE(clean.messages[0].content.eight_bit);
    EXPECT_TRUE(clean.messages[0].content.clean_for_bdat());
    EXPECT_EQ(clean.messages[0].content.wire_size, body.size());
    body[70'000] = '\xe9';
    EXPECT_TRUE(batch(framed(body)).messages.at(0).content.eight_bit);
}

TEST(Batch, AHundredThousandRecipientsAndALineWithoutEnd) {
    std::string text = "MAIL FROM:<s@a.test>\r\n";
    for (int i = 0; i < 100'000; ++i) text += fmt::format("RCPT TO:<r{}@d{}.test>\r\n", i, i % 997);
    text += "DATA\r\nx\r\n.\r\n";
    const Recorder r = parse<BatchParser>(text, {1000, 65'536, 1'000'000});
    ASSERT_THAT(r.messages, SizeIs(1));
    EXPECT_THAT(r.messages[0].recipients, SizeIs(100'000));
    EXPECT_EQ(r.messages[0].recipients[99'999], "r99999@d299.test");
    EXPECT_THAT(batch("MAIL FROM:<" + std::string(3000, 'x')).error, HasSubstr("over 2048 octets"));
}

TEST(Batch, ReadsTheNextFileAfterReset) {
    Recorder recorder;
    BatchParser parser(recorder, {});
    const std::string broken = "MAIL FROM:<s@a.test>\nRCPT TO:<r@b.test>\nDATA\nx",
                      good = framed("x\r\n");
    ASSERT_TRUE(parser.feed(broken));
    ASSERT_FALSE(parser.finish());
    parser.reset();
    ASSERT_TRUE(parser.feed(good));
    ASSERT_TRUE(parser.finish());
    EXPECT_EQ(recorder.messages.at(0).number, 1u);
    EXPECT_EQ(cut_out(good, recorder.messages.at(0).content.stored), "x\r\n");
}

}  // namespace
}  // namespace postrider
