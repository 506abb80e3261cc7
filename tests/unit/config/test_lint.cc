// Each kind of finding of `postrider check`, with its line, and a file without any.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/config/shaping_keys.h"
#include "engine/config/shaping_lint.h"
#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LintTest : public ConfigFiles {
  protected:
    std::vector<std::string> lint(const std::string& text, const std::vector<std::string>& sources = {}) {
        const auto loaded = shape({text});
        EXPECT_FALSE(has_errors(loaded.problems));
        std::vector<std::string> lines;
        for (const auto& finding : lint_shaping(loaded.rules, sources)) lines.push_back(finding.to_string());
        return lines;
    }
};

TEST_F(LintTest, NothingToSay) {
    EXPECT_THAT(lint("[\"default\"]\nconnection_limit = 10\nmax_connection_rate = \"1/s\"\n"
                     "max_deliveries_per_connection = 100\nmax_message_rate = \"100/s\"\n"
                     "[provider.\"p\"]\nmatch = [{MXSuffix = \".p.test\"}]\nprovider_connection_limit = 10\n"
                     "[\"a.test\".sources.\"ip-1\"]\nconnection_limit = 5\n", {"ip-1", "ip-2"}),
                IsEmpty());
}

TEST_F(LintTest, AProviderWithoutMatch) {
    EXPECT_THAT(lint("# one\n[provider.\"p\"]\nconnection_limit = 5\n"),
                ElementsAre(AllOf(HasSubstr(":2:"), HasSubstr("warning"), HasSubstr("never counts"))));
}

TEST_F(LintTest, AMatchThatCanNotBe) {
    EXPECT_THAT(lint("[provider.\"p\"]\nmatch = [{HostName = \"localhost\"}]\n"),
                ElementsAre(AllOf(HasSubstr(":1:"), HasSubstr("no mail server has that name"))));
}

TEST_F(LintTest, TwoProvidersForTheSame) {
    EXPECT_THAT(lint("[provider.\"p\"]\nmatch = [{MXSuffix = \".p.test\"}]\n"
                     "[provider.\"q\"]\nmatch = [{MXSuffix = \".p.test\"}]\n"),
                ElementsAre(AllOf(HasSubstr(":3:"), HasSubstr("limits of both bind"))));
}

TEST_F(LintTest, AProviderInsideAnother) {
    const std::string narrow = "[provider.\"narrow\"]\nmatch = [{MXSuffix = \".l.p.test\"}, {HostName = \"mx.p.test\"}]\n";
    const std::string wide = "[provider.\"wide\"]\nmatch = [{MXSuffix = \".p.test\"}]\n";
    EXPECT_THAT(lint(wide + narrow),
                ElementsAre(AllOf(HasSubstr(":3:"), HasSubstr("\".l.p.test\" is covered by \".p.test\" of "), HasSubstr(":1 ")),
                            AllOf(HasSubstr(":3:"), HasSubstr("\"mx.p.test\" is covered by \".p.test\" of "))));
    EXPECT_THAT(lint(narrow + wide), ElementsAre(AllOf(HasSubstr(":3:"), HasSubstr("\".p.test\" covers \".l.p.test\" of ")),
                                                 AllOf(HasSubstr(":3:"), HasSubstr("\".p.test\" covers \"mx.p.test\" of "))));
    EXPECT_THAT(lint("[provider.\"a\"]\nmatch = [{DomainSuffix = \".p.test\"}, {HostName = \"p.test\"}]\n" + wide), IsEmpty());
}

TEST_F(LintTest, ADepthThatNoPipeliningUses) {
    EXPECT_THAT(lint("[\"default\"]\npipelining = \"group\"\npipeline_depth = 1\n"
                     "[\"a.test\"]\npipelining = \"group\"\npipeline_depth = 4\n[\"a.test\".sources.\"ip-1\"]\n"
                     "pipelining = \"none\"\n[\"a.test\".sources.\"ip-2\"]\npipelining = \"message\"\n",
                     {"ip-1", "ip-2", "ip-3"}),
                ElementsAre(AllOf(HasSubstr(":6:"), HasSubstr("pipeline_depth needs pipelining = \"message\""),
                                  HasSubstr("\"group\""), HasSubstr(":5)")),
                            AllOf(HasSubstr(":6:"), HasSubstr("\"none\""), HasSubstr(":8)"))));
    EXPECT_THAT(lint("[\"a.test\"]\npipelining = \"message\"\npipeline_depth = 4\n"), IsEmpty());
}

TEST_F(LintTest, ASourceThatIsNotConfigured) {
    EXPECT_THAT(lint("[\"a.test\"]\n[\"a.test\".sources.\"ip-9\"]\nconnection_limit = 5\n", {"ip-1"}),
                ElementsAre(AllOf(HasSubstr(":3:"), HasSubstr("no [[source]] is named \"ip-9\""))));
}

TEST_F(LintTest, TheKernelsChoiceIsASourceWhereThereIsNoOther) {
    const std::string text = "[\"a.test\"]\n[\"a.test\".sources.\"unspecified\"]\nconnection_limit = 5\n";
    EXPECT_THAT(lint(text), IsEmpty());
    EXPECT_THAT(lint(text, {"ip-1"}), ElementsAre(AllOf(HasSubstr(":3:"), HasSubstr("no [[source]] is named \"unspecified\""))));
}

TEST_F(LintTest, AValueThatEachSourceShadows) {
    EXPECT_THAT(lint("[\"a.test\"]\nconnection_limit = 5\n[\"a.test\".sources.\"ip-1\"]\nconnection_limit = 6\n"
                     "[\"a.test\".sources.\"ip-2\"]\nconnection_limit = 7\n", {"ip-1", "ip-2"}),
                ElementsAre(AllOf(HasSubstr(":2:"), HasSubstr("connection_limit: is shadowed"))));
}

TEST_F(LintTest, AProviderNarrowerThanOnePath) {
    EXPECT_THAT(lint("[\"default\"]\nconnection_limit = 40\n[provider.\"p\"]\nmatch = [{MXSuffix = \".p.test\"}]\n"
                     "provider_connection_limit = 20\nprovider_max_message_rate = \"60/min\"\nmax_message_rate = \"2/s\"\n"),
                ElementsAre(AllOf(HasSubstr(":5:"), HasSubstr("connection_limit"), HasSubstr(":2)")),
                            AllOf(HasSubstr(":7:"), HasSubstr("max_message_rate"), HasSubstr(":6)"))));
}

TEST_F(LintTest, ASiteNarrowerThanOnePath) {
    if (!find_shaping_key("site_max_message_rate")->enforced) GTEST_SKIP() << "not enforced yet, so it does not load";
    EXPECT_THAT(lint("[\"a.test\"]\nmax_message_rate = \"10/s\"\nsite_max_message_rate = \"300/min\"\n"
                     "connection_limit = 4\nsite_connection_limit = 3\n"),
                ElementsAre(AllOf(HasSubstr(":4:"), HasSubstr("site_connection_limit")),
                            AllOf(HasSubstr(":2:"), HasSubstr("site_max_message_rate"))));
}

TEST_F(LintTest, ARateThatItsConnectionsCannotCarry) {
    EXPECT_THAT(lint("[\"a.test\"]\nmax_message_rate = \"100/s\"\nmax_connection_rate = \"60/min\"\n"
                     "max_deliveries_per_connection = 20\n"),
                ElementsAre(AllOf(HasSubstr(":2:"), HasSubstr("never reached"), HasSubstr("20/s"))));
}

TEST_F(LintTest, WhereRecipientsCountADeliveryCarriesMany) {
    const std::string text = "[\"a.test\"]\nmessage_rate_counts = \"recipients\"\nmax_connection_rate = \"10/s\"\n"
                             "max_deliveries_per_connection = 10\n";
    EXPECT_THAT(lint(text + "max_message_rate = \"1000/s\"\n"), IsEmpty());
    EXPECT_THAT(lint(text + "max_message_rate = \"1000/s\"\nmax_recipients_per_batch = 5\n"),
                ElementsAre(AllOf(HasSubstr(":5:"), HasSubstr("10 deliveries of 5 recipients each carry 500/s"))));
}

TEST_F(LintTest, ADefaultThatEachSourceShadowsContradictsNothing) {
    const std::string provider = "[provider.\"p\"]\nmatch = [{MXSuffix = \".p.test\"}]\nprovider_max_message_rate = \"10/s\"\n";
    const std::string sources = "[\"default\".sources.\"ip-1\"]\nmax_message_rate = \"5/s\"\n"
                                "[\"default\".sources.\"ip-2\"]\nmax_message_rate = \"5/s\"\n";
    const std::string fallback = "[\"default\"]\nmax_message_rate = \"100/s\"\n";
    const auto shadowed = AllOf(HasSubstr(":2:"), HasSubstr("is shadowed"));
    EXPECT_THAT(lint(fallback + sources + provider, {"ip-1", "ip-2"}), ElementsAre(shadowed));
    EXPECT_THAT(lint(fallback + sources + provider, {"ip-1", "ip-2", "ip-3"}),
                ElementsAre(AllOf(HasSubstr(":9:"), HasSubstr("max_message_rate"), HasSubstr(":2)"))))
        << "ip-3 has the block's value";
    EXPECT_THAT(lint(fallback + sources + provider + "[provider.\"p\".sources.\"ip-1\"]\nprovider_max_message_rate = \"4/s\"\n",
                     {"ip-1", "ip-2"}),
                ElementsAre(shadowed, AllOf(HasSubstr(":11:"), HasSubstr("max_message_rate"), HasSubstr(":4)"))))
        << "its own default counts for ip-1";
}

TEST_F(LintTest, WhatReplacesABaseIsToldWhereItDoes) {
    const auto loaded = shape({"# one\n[provider.\"p\"]\nmatch = [{MXSuffix = \".p.test\"}]\n",
                               "[provider.\"p\"]\nreplace_base = true\nconnection_limit = 2\n"});
    const auto findings = lint_shaping(loaded.rules, {});
    ASSERT_EQ(findings.size(), 1u);
    EXPECT_THAT(findings[0].to_string(), AllOf(HasSubstr("b.toml:1:"), HasSubstr("has no match")));
}

}  // namespace
}  // namespace postrider
