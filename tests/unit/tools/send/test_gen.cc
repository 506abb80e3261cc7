// `postrider gen`: what it writes is what the engine's parsers read, and no two messages are alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/core/hash.h"
#include "tests/unit/queue/formats/recorder.h"
#include "tests/unit/tools/send/spool_fixture.h"
#include "tools/gen.h"
#include "tools/gen_message.h"

namespace postrider {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;

class Gen : public SpoolFixture {
  protected:
    int gen(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), {"--spool", spool_});
        return run(run_gen, "gen", std::move(arguments));
    }
    struct Message {
        Recorded parsed;
        std::string wire;
    };
    // Every message in the spool; none refused, everything clean.
    std::vector<Message> messages() {
        std::vector<Message> all;
        for (const SpooledFile& file : spooled()) {
            Recorder r = file.name.ends_with(".eml") ? parse<EmlParser>(file.text)
                                                     : parse<BatchParser>(file.text);
            EXPECT_EQ(r.error, "");
            EXPECT_THAT(r.refused, IsEmpty());
            for (Recorded& m : r.messages) {
                EXPECT_THAT(m.refused_recipients, IsEmpty());
                EXPECT_TRUE(m.content.clean_for_bdat());
                all.push_back({m, wire_form(file.text, m.content)});
            }
        }
        return all;
    }
};

std::string field(const std::string& wire, const std::string& name) {
    const size_t at = wire.find("\r\n" + name + ": ");
    const size_t begin = at == std::string::npos ? 0 : at + name.size() + 4;
    return at == std::string::npos ? "" : wire.substr(begin, wire.find("\r\n", begin) - begin);
}

TEST_F(Gen, BatchFilesHoldWhatWasAsked) {
    ASSERT_EQ(gen({"--messages", "250", "--per-file", "100", "--size", "4KiB", "--domains", "10",
                   "--sender", "b@s.test", "--campaign", "spring", "--json"}),
              0)
        << error_;
    EXPECT_THAT(names_in("new"), SizeIs(3));
    EXPECT_THAT(names_in("tmp"), IsEmpty());
    const auto line = nlohmann::json::parse(output_);
    EXPECT_EQ(line["messages"], 250);
    EXPECT_EQ(line["files"], 3);
    std::set<std::string> ids, sequence;
    std::map<std::string, int> domains;
    for (const Message& m : messages()) {
        EXPECT_EQ(m.parsed.envelope.sender, "b@s.test");
        EXPECT_EQ(m.parsed.envelope.campaign, "spring");
        EXPECT_THAT(m.parsed.content.wire_size, AllOf(Ge(4096u - 16), Le(4096u + 16)));
        ASSERT_THAT(m.parsed.recipients, SizeIs(1));
        const std::string& recipient = m.parsed.recipients[0];
        EXPECT_EQ(field(m.wire, "X-Canary"), canary(recipient));
        EXPECT_THAT(field(m.wire, "To"), HasSubstr("<" + recipient + ">"));
        ids.insert(m.wire.substr(0, m.wire.find("\r\n")));
        sequence.insert(field(m.wire, "X-Seq"));
        ++domains[recipient.substr(recipient.find('@') + 1)];
    }
    EXPECT_THAT(ids, SizeIs(250));
    EXPECT_THAT(sequence, SizeIs(250));
    EXPECT_THAT(domains, SizeIs(10));
    for (const auto& [domain, count] : domains) EXPECT_EQ(count, 25) << domain;
    EXPECT_TRUE(domains.contains("d0007.test"));
}

TEST_F(Gen, SeveralRecipientsShareTheirMessage) {
    ASSERT_EQ(gen({"--messages", "5", "--recipients-per-message", "40", "--format", "eml",
                   "--sender", "<>"}),
              0)
        << error_;
    const auto all = messages();
    ASSERT_THAT(all, SizeIs(5));
    for (const Message& m : all) {
        EXPECT_EQ(m.parsed.envelope.sender, "");
        ASSERT_THAT(m.parsed.recipients, SizeIs(40));
        for (const std::string& recipient : m.parsed.recipients) {
            EXPECT_THAT(m.wire, HasSubstr("\r\nX-Canary: " + canary(recipient) + "\r\n"));
        }
    }
}

TEST_F(Gen, NewslettersAreWellFormedParts) {
    ASSERT_EQ(gen({"--messages", "20", "--size", "20KiB", "--newsletter", "--folders", "3",
                   "--per-file", "5"}),
              0)
        << error_;
    std::set<std::string> folders;
    for (const std::string& name : names_in("new")) folders.insert(name.substr(0, name.find('/')));
    EXPECT_THAT(folders, ElementsAre("g000", "g001", "g002"));
    for (const Message& m : messages()) {
        EXPECT_THAT(m.parsed.content.wire_size, AllOf(Ge(19'000u), Le(22'000u)));
        const std::string type = field(m.wire, "Content-Type");
        const std::string boundary =
            type.substr(type.find('"') + 1, type.size() - type.find('"') - 2);
        EXPECT_TRUE(m.wire.ends_with("\r\n--" + boundary + "--\r\n"));
        for (const char* part :
             {"text/plain", "text/html", "image/png", "quoted-printable", "base64", "=C3=A9"}) {
            EXPECT_THAT(m.wire, HasSubstr(part));
        }
        // RFC 2045 6.7: a line of quoted-printable or base64 has at most 76 characters.
        size_t at = m.wire.find("\r\n\r\n");
        while (at < m.wire.size()) {
            const size_t end = m.wire.find("\r\n", at);
            EXPECT_LE(end - at, 76u) << m.wire.substr(at, end - at);
            at = end + 2;
        }
    }
}

TEST_F(Gen, RealisticSkewGivesProvidersTheirShare) {
    ASSERT_EQ(gen({"--messages", "4000", "--size", "1KiB", "--skew", "realistic", "--providers",
                   "big.test:50,mid.test:20", "--domains", "200"}),
              0)
        << error_;
    std::map<std::string, int> domains;
    for (const Message& m : messages())
        ++domains[m.parsed.recipients[0].substr(m.parsed.recipients[0].find('@') + 1)];
    EXPECT_THAT(domains["big.test"], AllOf(Ge(1800), Le(2200)));
    EXPECT_THAT(domains["mid.test"], AllOf(Ge(650), Le(950)));
    EXPECT_THAT(domains, SizeIs(Ge(100)));
}

TEST_F(Gen, UsageErrorsAreOneLine) {
    for (const std::vector<std::string>& bad :
         {std::vector<std::string>{"--domain-pattern", "same.test"},
          {"--domain-pattern", "%d-%d.test"},
          {"--domain-pattern", "a b%d"},
          {"--size", "large"},
          {"--format", "mbox"},
          {"--sender", "nobody"},
          {"--skew", "realistic", "--providers", "x"},
          {"--skew", "realistic", "--providers", "a.test:60,b.test:60"},
          {"--messages", "0"},
          {"--campaign", "a\nb"}}) {
        EXPECT_EQ(gen(bad), 2) << bad.back();
        EXPECT_EQ(std::ranges::count(error_, '\n'), 1) << error_;
    }
    EXPECT_EQ(run(run_gen, "gen", {"--spool", path("none/such"), "--messages", "1"}), 1);
    EXPECT_THAT(error_, HasSubstr("make it: mkdir -p " + path("none/such")));
    EXPECT_EQ(run(run_gen, "gen", {"--help"}), 0);
    EXPECT_THAT(output_, HasSubstr("Example:"));
}

TEST(Canary, IsTheHashOfTheLowerCaseAddress) {
    EXPECT_EQ(canary("R1@D.test"), canary("r1@d.test"));
    EXPECT_NE(canary("r1@d.test"), canary("r2@d.test"));
    EXPECT_EQ(canary("r1@d.test"), fmt::format("{:016x}", hash64("r1@d.test")));
}

}  // namespace
}  // namespace postrider
