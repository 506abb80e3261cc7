#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/config/shaping_keys.h"
#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using ShapingTest = ConfigFiles;

// A value of each kind, its text in a file and as `explain` shows it.
struct Sample {
    std::string toml, shown;
};

Sample sample(const ShapingKey& key) {
    switch (key.kind) {
        case KeyKind::count:
            return {"7", "7"};
        case KeyKind::rate:
            return {"\"1,000/hr,max_burst=3\"", "1000/h,max_burst=3"};
        case KeyKind::data_rate:
            return {"\"1MiB/s,max_burst=2KiB\"", "1048576/s,max_burst=2048"};
        case KeyKind::duration:
            return {"\"11m\"", "11m"};
        case KeyKind::tls:
            return {"\"RequiredInsecure\"", "RequiredInsecure"};
        case KeyKind::pipelining:
            return {"\"group\"", "group"};
        case KeyKind::rate_counts:
            return {"\"recipients\"", "recipients"};
        case KeyKind::opaque:
            return {"\"x\"", ""};
    }
    return {};
}

TEST_F(ShapingTest, EveryKeyReachesItsPlace) {
    for (const ShapingKey& key : shaping_keys()) {
        if (key.describe == nullptr) continue;
        SCOPED_TRACE(key.name);
        const auto [toml, shown] = sample(key);
        const auto loaded =
            shape({"# one\n[\"default\"]\n" + std::string(key.name) + " = " + toml});
        EXPECT_THAT(faults(loaded.problems), IsEmpty());
        const auto lines = loaded.rules.effective("a.example", "mx", {}, "").describe();
        for (const auto& line : lines) {
            const bool this_one = line.key == key.name;
            if (this_one) EXPECT_EQ(line.value, shown);
            EXPECT_EQ(line.from, this_one ? (folder_ / "a.toml").string() + ":3 [\"default\"]"
                                          : "built-in default");
        }
        EXPECT_TRUE(std::ranges::any_of(lines, [&](const auto& l) { return l.key == key.name; }));
    }
}

TEST_F(ShapingTest, AKeyThatIsNotEnforcedWarnsOrIsRefusedByItsOwner) {
    for (const ShapingKey& key : shaping_keys()) {
        SCOPED_TRACE(key.name);
        const auto loaded =
            shape({"[provider.\"p\"]\n" + std::string(key.name) + " = " + sample(key).toml});
        if (key.enforced) {
            EXPECT_THAT(told(loaded.problems), IsEmpty());
            continue;
        }
        ASSERT_EQ(loaded.problems.size(), 1U);
        EXPECT_EQ(loaded.problems[0].severity,
                  key.owner == KeyOwner::kumomta ? Severity::warning : Severity::error);
        EXPECT_THAT(
            told(loaded.problems)[0],
            HasSubstr("[provider.\"p\"]." + std::string(key.name) + ": is not enforced yet"));
    }
}

TEST_F(ShapingTest, Defaults) {
    const auto shaping = ShapingRules().effective("a.example", "mx.a.example", {}, "");
    std::vector<std::string> lines;
    for (const auto& line : shaping.describe()) lines.push_back(line.key + " = " + line.value);
    EXPECT_THAT(
        lines, ElementsAre("connection_limit = 32", "max_connection_rate = no limit",
                           "max_message_rate = no limit", "max_data_rate = no limit",
                           "site_connection_limit = no limit", "site_max_message_rate = no limit",
                            "message_rate_counts = messages",
                           "max_deliveries_per_connection = 1024", "max_recipients_per_batch = 100",
                           "enable_tls = Opportunistic", "pipelining = message",
                           "pipeline_depth = 1", "connect_timeout = 30s", "banner_timeout = 5m",
                           "ehlo_timeout = 5m", "starttls_timeout = 2m", "mail_from_timeout = 5m",
                           "rcpt_to_timeout = 5m", "data_timeout = 2m", "data_dot_timeout = 10m",
                           "rset_timeout = 20s", "idle_timeout = 30s"));
}

constexpr std::string_view kLayers = R"(
["default"]
connection_limit = 10
max_deliveries_per_connection = 11
idle_timeout = "12s"
rset_timeout = "13s"
[provider."big"]
match = [{MXSuffix=".big.example"}, {HostName="mx.other.example"}]
max_deliveries_per_connection = 20
idle_timeout = "21s"
rset_timeout = "22s"
provider_connection_limit = 40
provider_max_message_rate = "50/s"
[provider."big".sources."ip-1"]
idle_timeout = "31s"
provider_connection_limit = 4
["mail.example"]
rset_timeout = "41s"
["mail.example".sources."ip-1"]
rset_timeout = "51s"
)";

TEST_F(ShapingTest, TheMoreSpecificBlockWins) {
    const auto loaded = shape({kLayers});
    EXPECT_THAT(faults(loaded.problems), IsEmpty());
    const std::vector<std::string> hosts = {"a.big.example", "mx.other.example"};
    const auto one = loaded.rules.effective("mail.example", "s", hosts, "ip-1");
    EXPECT_EQ(one.connection_limit.value, 10U);
    EXPECT_EQ(one.max_deliveries_per_connection.value, 20U);
    EXPECT_EQ(one.idle_timeout.value, 31'000);
    EXPECT_EQ(one.rset_timeout.value, 51'000);
    EXPECT_EQ(one.rset_timeout.from.block, "[\"mail.example\".sources.\"ip-1\"]");
    EXPECT_EQ(one.rset_timeout.from.line, 20U);
    ASSERT_EQ(one.providers.size(), 1U);
    EXPECT_EQ(one.providers[0].name, "big");
    EXPECT_EQ(one.providers[0].connection_limit.value, 4U);
    EXPECT_EQ(one.providers[0].max_message_rate.value, (Rate{50, 1, {}}));
    const auto other = loaded.rules.effective("mail.example", "s", hosts, "");
    EXPECT_EQ(other.idle_timeout.value, 21'000);
    EXPECT_EQ(other.rset_timeout.value, 41'000);
    EXPECT_EQ(other.providers.at(0).connection_limit.value, 40U);
    const auto stranger = loaded.rules.effective("x.example", "s", {}, "ip-1");
    EXPECT_EQ(stranger.idle_timeout.value, 12'000);
    EXPECT_THAT(stranger.providers, IsEmpty());
    const auto lines = one.describe();
    EXPECT_EQ(lines.back().key, "provider_max_message_rate of big");
    EXPECT_EQ(lines.back().value, "50/s (max_burst 5)");
}

// KumoMTA's name for it.
TEST_F(ShapingTest, TheKernelsChoiceIsTheSourceUnspecified) {
    const auto rules = shape({"[\"default\".sources.\"unspecified\"]\nconnection_limit = 3\n[provider.\"p\"]\n"
                              "match = [{MXSuffix=\".p\"}]\nprovider_connection_limit = 9\n"
                              "[provider.\"p\".sources.\"unspecified\"]\n"
                              "provider_connection_limit = 2\n"}).rules;
    const std::vector<std::string> hosts = {"mx.p"};
    const auto shaping = rules.effective("a.example", "s", hosts, "");
    EXPECT_EQ(shaping.connection_limit.value, 3U);
    EXPECT_EQ(shaping.providers.at(0).connection_limit.value, 2U);
    EXPECT_EQ(rules.effective("a.example", "s", hosts, "ip-1").connection_limit.value, 32U);
}

TEST_F(ShapingTest, ADomainThatBlendsProvidersBelongsToNeither) {
    const auto rules = shape({kLayers}).rules;
    const std::vector<std::string> blended = {"a.big.example", "mx.elsewhere.example"};
    EXPECT_THAT(rules.effective("d.example", "s", blended, "").providers, IsEmpty());
    const std::vector<std::string> lookalike = {"notbig.example"};
    EXPECT_THAT(rules.effective("d.example", "s", lookalike, "").providers, IsEmpty());
}

TEST_F(ShapingTest, DomainSuffixNeedsNoMx) {
    const auto rules = shape({"[provider.\"p\"]\nmatch=[{DomainSuffix=\".Example\"}]\n"}).rules;
    EXPECT_EQ(rules.effective("a.example", "", {}, "").providers.size(), 1U);
    EXPECT_EQ(rules.effective("example", "", {}, "").providers.size(), 0U);
}

TEST_F(ShapingTest, LaterFilesWinKeyByKey) {
    const auto loaded =
        shape({"[\"A.Example.\"]\nconnection_limit = 1\nrset_timeout = \"1s\"\n"
               "[\"A.Example.\".sources.\"x\"]\nconnection_limit = 9\n",
               "[\"a.example\"]\nconnection_limit = 2\n"});
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    const auto shaping = loaded.rules.effective("a.example", "s", {}, "");
    EXPECT_EQ(shaping.connection_limit.value, 2U);
    EXPECT_THAT(shaping.connection_limit.from.file, HasSubstr("b.toml"));
    EXPECT_EQ(shaping.rset_timeout.value, 1'000);
    EXPECT_THAT(shaping.rset_timeout.from.file, HasSubstr("a.toml"));
    EXPECT_EQ(loaded.rules.effective("a.example", "s", {}, "x").connection_limit.value, 9U);
}

TEST_F(ShapingTest, ReplaceBaseDropsWhatEarlierFilesSaidInTheBlock) {
    const auto loaded =
        shape({"[\"default\"]\nidle_timeout = \"7s\"\n"
               "[\"a.example\"]\nmx_rollup = false\nconnection_limit = 1\nrset_timeout = \"1s\"\n"
               "[\"a.example\".sources.\"x\"]\nconnection_limit = 9\n"
               "[provider.\"p\"]\nmatch=[{MXSuffix=\".p\"}]\nconnection_limit = 3\n",
               "[\"a.example\"]\nconnection_limit = 2\nreplace_base = true\n"
               "[provider.\"p\"]\nreplace_base = true\nmatch=[{MXSuffix=\".q\"}]\n"});
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    const auto shaping = loaded.rules.effective("a.example", "s", {}, "x");
    EXPECT_EQ(shaping.connection_limit.value, 2U);
    EXPECT_EQ(shaping.rset_timeout.value, 20'000);
    EXPECT_EQ(shaping.idle_timeout.value, 7'000);
    EXPECT_TRUE(loaded.rules.rolls_up("a.example"));
    const std::vector<std::string> p = {"mx.p"}, q = {"mx.q"};
    EXPECT_THAT(loaded.rules.effective("b.example", "s", p, "").providers, IsEmpty());
    const auto of_q = loaded.rules.effective("b.example", "s", q, "");
    EXPECT_EQ(of_q.providers.size(), 1U);
    EXPECT_EQ(of_q.connection_limit.value, 32U);
}

TEST_F(ShapingTest, ADomainBlockSpeaksForItsSiteOnceThatIsKnown) {
    auto rules = shape({"[\"gmail.com\"]\nconnection_limit = 5\n"}).rules;
    EXPECT_THAT(rules.rollup_domains(), ElementsAre("gmail.com"));
    EXPECT_EQ(rules.effective("gmail.com", "mx.google", {}, "").connection_limit.value, 5U);
    EXPECT_EQ(rules.effective("googlemail.com", "mx.google", {}, "").connection_limit.value, 32U);
    EXPECT_FALSE(rules.set_site("gmail.com", "mx.google"));
    EXPECT_EQ(rules.effective("googlemail.com", "mx.google", {}, "").connection_limit.value, 5U);
    EXPECT_EQ(rules.effective("gmail.com", "mx.google", {}, "").connection_limit.value, 5U);
    EXPECT_EQ(rules.effective("other.example", "mx.other", {}, "").connection_limit.value, 32U);
    EXPECT_FALSE(rules.set_site("unknown.example", "mx.google"));
}

TEST_F(ShapingTest, TwoBlocksOnOneSiteMergeInFileOrderWithAWarning) {
    auto rules = shape({"[\"b.example\"]\nconnection_limit = 5\nidle_timeout = \"5s\"\n",
                        "[\"a.example\"]\nconnection_limit = 6\n"})
                     .rules;
    EXPECT_FALSE(rules.set_site("b.example", "mx"));
    const auto warning = rules.set_site("a.example", "mx");
    ASSERT_TRUE(warning);
    EXPECT_EQ(
        told({*warning}).at(0),
        "b.toml:1:1: warning: [\"a.example\"]: has the same mail servers as a.toml:1 "
        "[\"b.example\"], so the two blocks are merged in file order; set mx_rollup = false in "
        "one to keep it apart");
    for (const char* domain : {"a.example", "b.example", "c.example"}) {
        const auto shaping = rules.effective(domain, "mx", {}, "");
        EXPECT_EQ(shaping.connection_limit.value, 6U);
        EXPECT_EQ(shaping.idle_timeout.value, 5'000);
    }
}

TEST_F(ShapingTest, WithoutRollupABlockIsItsDomainsAlone) {
    auto rules = shape({"[\"a.example\"]\nmx_rollup = false\nconnection_limit = 5\n"}).rules;
    EXPECT_FALSE(rules.rolls_up("a.example"));
    EXPECT_TRUE(rules.rolls_up("b.example"));
    EXPECT_THAT(rules.rollup_domains(), IsEmpty());
    EXPECT_FALSE(rules.set_site("a.example", "mx"));
    EXPECT_EQ(rules.effective("a.example", "mx", {}, "").connection_limit.value, 5U);
    EXPECT_EQ(rules.effective("b.example", "mx", {}, "").connection_limit.value, 32U);
}

TEST_F(ShapingTest, CountsAsTextAndNamesInUtf8) {
    const auto loaded = shape({"[\"B\u00dccher.example\"]\nconnection_limit = \"local:1,000\"\n"});
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    EXPECT_EQ(loaded.rules.effective("xn--bcher-kva.example", "s", {}, "").connection_limit.value,
              1000U);
}

constexpr std::string_view kAutomation = R"(
["default"]
connection_limit = 10
[["default".automation]]
regex = ['''temporarily \d+''', "limited"]
action = ["Suspend", {SetConfig={name="max_message_rate", value="1/minute"}}, {SetDomainConfig={name="connection_limit", value=1}}]
trigger = {Threshold="2/hr"}
duration = "90m"
match_internal = true
[[provider."p".automation]]
regex = "RL0000"
action = "SuspendTenant"
trigger = "Immediate"
duration = "2 hours"
)";

TEST_F(ShapingTest, AutomationIsKeptAndAnnouncedAsNotEnforced) {
    const auto loaded = shape({kAutomation});
    EXPECT_THAT(
        told(loaded.problems),
        ElementsAre(HasSubstr("warning: [\"default\"].automation: is not enforced yet"),
                    HasSubstr("warning: [provider.\"p\"].automation: is not enforced yet")));
    const auto& rule = loaded.rules.default_block()->automation.at(0);
    EXPECT_THAT(rule.regex, ElementsAre("temporarily \\d+", "limited"));
    EXPECT_THAT(rule.action, ElementsAre("Suspend", "SetConfig", "SetDomainConfig"));
    ASSERT_EQ(rule.set_config.size(), 2U);
    EXPECT_EQ(rule.set_config[0].name, "max_message_rate");
    EXPECT_THAT(rule.set_config[0].value, HasSubstr("1/minute"));
    EXPECT_EQ(rule.set_config[1].value, "1");
    EXPECT_EQ(rule.threshold, (Rate{2, 3600, {}}));
    EXPECT_EQ(rule.duration_ms, 5'400'000);
    EXPECT_TRUE(rule.match_internal);
    const auto& other = loaded.rules.providers().at(0).automation.at(0);
    EXPECT_THAT(other.action, ElementsAre("SuspendTenant"));
    EXPECT_FALSE(other.threshold);
    EXPECT_EQ(other.from.line, 10U);
}

TEST_F(ShapingTest, ANameThatIsNoDomainIsRefused) {
    const auto loaded = shape({"[\"\u2603.example\"]\nconnection_limit = 5\n"});
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_THAT(told(loaded.problems)[0], HasSubstr("a.toml:1:2: [\"\u2603.example\"]: "));
    EXPECT_THAT(loaded.problems[0].text, HasSubstr("allowed: a domain in quotes"));
    EXPECT_TRUE(loaded.rules.domains().empty());
}

TEST_F(ShapingTest, AnUnquotedDomainIsExplained) {
    const auto loaded = shape({"[gmail.com]\nconnection_limit = 5\n"});
    EXPECT_THAT(
        told(loaded.problems),
        ElementsAre("a.toml:1:2: warning: [\"gmail\"]: is a domain of one label; a domain with a "
                    "dot needs quotes, such as [\"gmail.com\"]",
                    "a.toml:1:8: [\"gmail\"].com: unknown block, allowed: sources; a domain "
                    "needs quotes, such as [\"gmail.com\"]"));
}

TEST_F(ShapingTest, WarningsLeaveTheFileUsable) {
    const auto loaded = shape({"[\"default\"]\ndata_dot_timeout = \"60s\"\nmx_rollup = true\n"});
    EXPECT_FALSE(has_errors(loaded.problems));
    EXPECT_THAT(
        told(loaded.problems),
        ElementsAre("a.toml:2:1: warning: [\"default\"].data_dot_timeout: is under the 10m of "
                    "RFC 5321 4.5.3.2.6; a receiver that takes longer will get the message "
                    "twice",
                    "a.toml:3:13: warning: [\"default\"].mx_rollup: means nothing in the default "
                    "block, allowed: in domain blocks"));
    EXPECT_EQ(loaded.rules.effective("d", "s", {}, "").data_dot_timeout.value, 60'000);
}

TEST_F(ShapingTest, ProblemsComeInFileOrder) {
    const auto loaded = shape({"[\"z.example\"]\nzzzzzzzz = 1\n[\"a.example\"]\naaaaaaaaaa = 1\n"});
    ASSERT_EQ(loaded.problems.size(), 2U);
    EXPECT_EQ(loaded.problems[0].line, 2U);
    EXPECT_EQ(loaded.problems[1].line, 4U);
}

// A file as KumoMTA's documentation of the schema has them (docs.kumomta.com/userguide/configuration/trafficshaping): what we
// do not enforce yet warns, nothing is an error, and what we do enforce holds.
TEST_F(ShapingTest, AFileWrittenForKumoMtaLoads) {
    const auto loaded = shape({R"toml(
["default"]
connection_limit = 10
max_connection_rate = "100/min"
max_deliveries_per_connection = 100
max_message_rate = "100/s"
idle_timeout = "60s"
data_timeout = "30s"
data_dot_timeout = "600s"
enable_tls = "Opportunistic"
consecutive_connection_failures_before_delay = 100

[["default".automation]]
regex = [
    '/Messages from \d+\.\d+\.\d+\.\d+ temporarily deferred/',
    "/All messages from .* will be permanently deferred/",
]
action = "Suspend"
duration = "2 hours"

[provider."bigmail"]
match = [{MXSuffix=".bigmail.example"}, {HostName="mx.big.example"}]
provider_connection_limit = 30
provider_max_message_rate = "local:1,000/min,max_burst=10"
max_deliveries_per_connection = 20

[provider."bigmail".sources."ip-1"]
provider_connection_limit = 3

["big.example"]
mx_rollup = true
max_deliveries_per_connection = 10

[["big.example".automation]]
regex = "too many connections"
action = [{SetConfig={name="connection_limit", value=1}}]
trigger = {Threshold="10/hr"}
duration = "90m"

["big.example".sources."ip-1"]
max_message_rate = "3/s"

["alone.example"]
mx_rollup = false
replace_base = true
connection_limit = 1
)toml"});
    for (const auto& problem : loaded.problems) EXPECT_EQ(problem.severity, Severity::warning) << problem.to_string();
    EXPECT_THAT(faults(loaded.problems), IsEmpty());
    const std::vector<std::string> hosts = {"mx1.bigmail.example", "mx.big.example"};
    const auto path = loaded.rules.effective("big.example", "site", hosts, "ip-1");
    EXPECT_EQ(path.connection_limit.value, 10u);
    EXPECT_EQ(path.max_deliveries_per_connection.value, 10u);
    EXPECT_EQ(path.max_message_rate.value, (Rate{3, 1, {}}));
    ASSERT_EQ(path.providers.size(), 1u);
    EXPECT_EQ(path.providers[0].connection_limit.value, 3u);
    EXPECT_EQ(path.providers[0].max_message_rate.value, (Rate{1'000, 60, 10}));
    EXPECT_EQ(path.idle_timeout.value, 60'000);
}

}  // namespace
}  // namespace postrider
