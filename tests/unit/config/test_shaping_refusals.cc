// Every error of a shaping file is told with its place and what is allowed there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::ElementsAre;

struct Refusal {
    std::string_view text, told;
};

class ShapingRefusal : public ConfigFiles, public ::testing::WithParamInterface<Refusal> {};

TEST_P(ShapingRefusal, IsTold) {
    const auto loaded = shape({GetParam().text});
    EXPECT_TRUE(has_errors(loaded.problems));
    EXPECT_THAT(faults(loaded.problems), ElementsAre("a.toml:" + std::string(GetParam().told)));
}

INSTANTIATE_TEST_SUITE_P(
    EveryError, ShapingRefusal,
    ::testing::Values(
        Refusal{"connection_limit = 5",
                "1:1: connection_limit: is an integer outside a block, allowed: blocks such as "
                "[\"default\"], [\"example.com\"], [provider.\"name\"]"},
        Refusal{
            "[\"default\"]\nconection_limit = 5",
            "2:1: [\"default\"].conection_limit: unknown key, did you mean \"connection_limit\"?"},
        Refusal{
            "[\"default\"]\nmax-message-rate = \"5/s\"",
            "2:1: [\"default\"].max-message-rate: unknown key, did you mean \"max_message_rate\"?"},
        Refusal{"[\"default\"]\nqqqqqqq = 5",
                "2:1: [\"default\"].qqqqqqq: unknown key, see docs/configuration.md for the keys"},
        Refusal{
            "[\"default\"]\nconnection_limit = 0",
            "2:20: [\"default\"].connection_limit: is 0, allowed: an integer from 1 to 1000000"},
        Refusal{
            "[\"default\"]\nconnection_limit = -5",
            "2:20: [\"default\"].connection_limit: is -5, allowed: an integer from 1 to 1000000"},
        Refusal{"[\"default\"]\nconnection_limit = \"many\"",
                "2:20: [\"default\"].connection_limit: not a number: \"many\", allowed: digits, "
                "such as "
                "32 or \"1,000\""},
        Refusal{"[\"default\"]\nconnection_limit = [1]",
                "2:20: [\"default\"].connection_limit: is a list, allowed: an integer"},
        Refusal{
            "[\"default\"]\nmax_message_rate = 5",
            "2:20: [\"default\"].max_message_rate: is an integer, allowed: a rate in quotes, such "
            "as \"500/s\""},
        Refusal{
            "[\"default\"]\nmax_message_rate = \"5/fortnight\"",
            "2:20: [\"default\"].max_message_rate: not a rate: \"5/fortnight\", allowed: a number "
            "of at least 1, a slash and s, min, h or d, such as \"500/s\", \"1,000/hr\", "
            "\"100/min,max_burst=10\""},
        Refusal{"[\"default\"]\nidle_timeout = \"2d\"",
                "2:16: [\"default\"].idle_timeout: is 2d, allowed: 1ms to 1d"},
        Refusal{
            "[\"default\"]\nidle_timeout = 5",
            "2:16: [\"default\"].idle_timeout: is an integer, allowed: a duration in quotes, such "
            "as \"30s\""},
        Refusal{"[\"default\"]\nenable_tls = \"required\"",
                "2:14: [\"default\"].enable_tls: is \"required\", allowed: \"Opportunistic\", "
                "\"OpportunisticInsecure\", \"Required\", \"RequiredInsecure\", \"Disabled\""},
        Refusal{"[\"default\"]\nenable_tls = true",
                "2:14: [\"default\"].enable_tls: is true or false, allowed: a policy in quotes, "
                "such as "
                "\"Opportunistic\""},
        Refusal{"[\"default\"]\npipelining = \"all\"",
                "2:14: [\"default\"].pipelining: is \"all\", allowed: \"message\", \"group\", "
                "\"none\""},
        Refusal{"[\"default\"]\npipelining = 1",
                "2:14: [\"default\"].pipelining: is an integer, allowed: \"message\", \"group\" or "
                "\"none\""},
        Refusal{
            "[\"default\"]\nmax_data_rate = 1.5",
            "2:17: [\"default\"].max_data_rate: is a number with a point, allowed: a data rate in "
            "quotes, such as \"10MiB/s\""},
        Refusal{"[\"a.example\"]\nprovider_connection_limit = 5",
                "2:1: [\"a.example\"].provider_connection_limit: is out of place, allowed: in "
                "[provider.\"name\"]"},
        Refusal{
            "[\"a.example\".sources.\"x\"]\nsite_connection_limit = 5",
            "2:1: [\"a.example\".sources.\"x\"].site_connection_limit: counts over all sources, "
            "allowed: outside sources"},
        Refusal{"[\"a.example\"]\nsources = 5",
                "2:11: [\"a.example\"].sources: is an integer, allowed: blocks of sources"},
        Refusal{"[\"a.example\"]\nsources.x = 5",
                "2:13: [\"a.example\"].sources.x: is an integer, allowed: a block"},
        Refusal{"[\"a.example\"]\nmx_rollup = 1",
                "2:13: [\"a.example\"].mx_rollup: is an integer, allowed: true or false"},
        Refusal{"[\"a.example\"]\nreplace_base = \"yes\"",
                "2:16: [\"a.example\"].replace_base: is a string, allowed: true or false"},
        Refusal{"[\"a.example\"]\nautomation = 1",
                "2:14: [\"a.example\"].automation: is an integer, allowed: blocks named "
                "[[...automation]]"},
        Refusal{"[\"a.example\"]\nautomation = [1]",
                "2:15: [\"a.example\"].automation: is an integer, allowed: blocks named "
                "[[...automation]]"},
        Refusal{"[provider]\nx = 1",
                "2:1: x: is an integer outside a block, allowed: blocks such as [\"default\"], "
                "[\"example.com\"], [provider.\"name\"]"},
        Refusal{"[provider.\"p\"]\nmx_rollup = true",
                "2:1: [provider.\"p\"].mx_rollup: is out of place, allowed: in domain blocks, such as [\"example.com\"]"},
        Refusal{"[\"default\"]\nmatch = [{MXSuffix=\".x\"}]",
                "2:1: [\"default\"].match: is out of place, allowed: in [provider.\"name\"]"},
        Refusal{"[\"a.example\"]\nmatch = {MXSuffix=\".x\"}",
                "2:1: [\"a.example\"].match: is out of place, allowed: in [provider.\"name\"]"},
        Refusal{"[\"a.example\".sources.\"x\"]\nreplace_base = true",
                "2:1: [\"a.example\".sources.\"x\"].replace_base: is out of place, allowed: in any block, outside sources"},
        Refusal{"[provider.\"p\".sources.\"x\"]\nmatch = 1",
                "2:1: [provider.\"p\".sources.\"x\"].match: is out of place, allowed: in [provider.\"name\"], outside sources"},
        Refusal{"[provider.\"p\"]\nmatch = \"x\"",
                "2:9: [provider.\"p\"].match: is a string, allowed: a list such as "
                "[{MXSuffix=\".example.com\"}, {DomainSuffix=\".example\"}, "
                "{HostName=\"mx.example.com\"}]"},
        Refusal{"[provider.\"p\"]\nmatch = [\"x\"]",
                "2:10: [provider.\"p\"].match: an element is not one rule, allowed: a list such as "
                "[{MXSuffix=\".example.com\"}, {DomainSuffix=\".example\"}, "
                "{HostName=\"mx.example.com\"}]"},
        Refusal{
            "[provider.\"p\"]\nmatch = [{MxSuffix=\"x\"}]",
            "2:10: [provider.\"p\"].match: \"MxSuffix\" is no rule with a text, allowed: a list "
            "such as [{MXSuffix=\".example.com\"}, {DomainSuffix=\".example\"}, "
            "{HostName=\"mx.example.com\"}]"}));

constexpr std::string_view kRule = "[[\"d.example\".automation]]\n";

class AutomationRefusal : public ConfigFiles, public ::testing::WithParamInterface<Refusal> {};

TEST_P(AutomationRefusal, IsTold) {
    const auto text = std::string(kRule) + std::string(GetParam().text);
    EXPECT_THAT(faults(shape({text}).problems),
                ElementsAre("a.toml:" + std::string(GetParam().told)));
}

INSTANTIATE_TEST_SUITE_P(
    EveryError, AutomationRefusal,
    ::testing::Values(
        Refusal{"action=\"Suspend\"\nduration=\"1h\"",
                "1:1: [\"d.example\"].automation.regex: is missing"},
        Refusal{"regex=\"x\"\nduration=\"1h\"",
                "1:1: [\"d.example\"].automation.action: is missing"},
        Refusal{"regex=\"x\"\naction=\"Suspend\"",
                "1:1: [\"d.example\"].automation.duration: is missing"},
        Refusal{
            "regex=[1]\naction=\"Suspend\"\nduration=\"1h\"",
            "2:8: [\"d.example\"].automation.regex: is an integer, allowed: a pattern in quotes or "
            "a list of them"},
        Refusal{"regex=\"x\"\naction=\"Explode\"\nduration=\"1h\"",
                "3:8: [\"d.example\"].automation.action: is no action, allowed: \"Suspend\", "
                "\"SuspendTenant\", \"SuspendCampaign\", \"Bounce\", \"BounceTenant\", "
                "\"BounceCampaign\", {SetConfig={name=\"key\", value=...}} or SetDomainConfig"},
        Refusal{
            "regex=\"x\"\naction={SetConfig={name=\"conection_limit\", value=1}}\nduration=\"1h\"",
            "3:25: [\"d.example\"].automation.SetConfig.conection_limit: unknown key, did you mean "
            "\"connection_limit\"?"},
        Refusal{
            "regex=\"x\"\naction={SetConfig={name=\"connection_limit\", value=0}}\nduration=\"1h\"",
            "3:51: [\"d.example\"].automation.SetConfig.connection_limit: is 0, allowed: an "
            "integer "
            "from 1 to 1000000"},
        Refusal{"regex=\"x\"\naction=\"Suspend\"\ntrigger={Treshold=\"2/h\"}\nduration=\"1h\"",
                "4:9: [\"d.example\"].automation.trigger: is no trigger, allowed: \"Immediate\", "
                "{Threshold=\"2/hr\"}"},
        Refusal{"regex=\"x\"\naction=\"Suspend\"\nmatch_internal=1\nduration=\"1h\"",
                "4:16: [\"d.example\"].automation.match_internal: is an integer, allowed: true or "
                "false"},
        Refusal{
            "regex=\"x\"\naction=\"Suspend\"\nlength=1\nduration=\"1h\"",
            "4:1: [\"d.example\"].automation.length: unknown key, allowed: regex, action, trigger, "
            "duration, match_internal"}));

}  // namespace
}  // namespace postrider
