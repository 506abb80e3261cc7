// Names in shaping files: what is plainly meant is brought into the form that names are compared in, and what could never
// match anything is refused with its place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ShapingNames : public ConfigFiles {
  protected:
    std::vector<std::string> told_of_match(const std::string& rule) {
        return told(shape({"[provider.\"p\"]\nmatch = [" + rule + "]\n"}).problems);
    }

    // One provider with the rule matches the MX host.
    bool matches(const std::string& rule, const std::string& host, const std::string& domain = "d.example") {
        const auto loaded = shape({"[provider.\"p\"]\nmatch = [" + rule + "]\n"});
        EXPECT_THAT(told(loaded.problems), IsEmpty()) << rule;
        const std::vector<std::string> hosts = {host};
        return !loaded.rules.effective(domain, "s", hosts, "").providers.empty();
    }
};

TEST_F(ShapingNames, AMatchIsComparedInTheFormOfHosts) {
    EXPECT_TRUE(matches("{MXSuffix=\".Example.COM.\"}", "mx.example.com"));
    EXPECT_TRUE(matches("{MXSuffix=\".b\u00fccher.example\"}", "mx.xn--bcher-kva.example"));
    EXPECT_TRUE(matches("{MXSuffix=\"-in.example.com\"}", "mx-in.example.com"));
    EXPECT_TRUE(matches("{MXSuffix=\"_mx.example\"}", "a_mx.example"));
    EXPECT_TRUE(matches("{HostName=\"MX.example.com.\"}", "mx.example.com"));
    EXPECT_TRUE(matches("{HostName=\"mx.b\u00fccher.example\"}", "mx.xn--bcher-kva.example"));
    EXPECT_TRUE(matches("{DomainSuffix=\".B\u00fccher.example.\"}", "mx.test", "a.xn--bcher-kva.example"));
    EXPECT_FALSE(matches("{MXSuffix=\".example.com.\"}", "mx.example.org"));
}

TEST_F(ShapingNames, AMatchThatCanMatchNothingIsRefused) {
    for (const std::string text : {"*.example.com", "mx*.example.com", " .example.com", ".example.com ", ".a..example", ".", "..",
                                   "a@example.com", ".example.com..", ".\u2603.example", "mx1.a,mx2.a", "http://x.test"}) {
        EXPECT_THAT(told_of_match("{MXSuffix=\"" + text + "\"}"),
                    ElementsAre("a.toml:2:20: [provider.\"p\"].match: MXSuffix \"" + text +
                                "\" can match nothing, allowed: the end of a host name, such as \".example.com\""));
    }
    EXPECT_THAT(told_of_match("{DomainSuffix=\"@example.com\"}"),
                ElementsAre("a.toml:2:24: [provider.\"p\"].match: DomainSuffix \"@example.com\" can match nothing, allowed: the "
                            "end of a domain, such as \".example\""));
    EXPECT_THAT(told_of_match("{HostName=\".example.com\"}"),
                ElementsAre("a.toml:2:20: [provider.\"p\"].match: HostName \".example.com\" can match nothing, allowed: a host "
                            "name, such as \"mx.example.com\""));
}

TEST_F(ShapingNames, ABlockOfWhatIsNoDomainIsRefused) {
    for (const std::string name : {"*.example.com", "a@example.com", "http://x.test", "x .test", "a..b", "mx1.a,mx2.a", ""}) {
        const auto loaded = shape({"[\"" + name + "\"]\nconnection_limit = 1\n"});
        EXPECT_THAT(told(loaded.problems),
                    ElementsAre("a.toml:1:2: [\"" + name + "\"]: is no domain, allowed: a domain in quotes, such as "
                                "[\"example.com\"]; a block for many is [provider.\"name\"] with a match"));
        EXPECT_TRUE(has_errors(loaded.problems));
        EXPECT_THAT(loaded.rules.domains(), IsEmpty());
    }
    EXPECT_THAT(told(shape({"[\"[192.0.2.1]\"]\n[\"[IPv6:2001:db8::1]\"]\n"}).problems), IsEmpty());
}

TEST_F(ShapingNames, OneDomainUnderTwoNamesIsAWarning) {
    const auto loaded = shape({"[\"EXAMPLE.com\"]\nconnection_limit = 1\n[\"example.com.\"]\nidle_timeout = \"2s\"\n",
                               "[\"example.com\"]\nidle_timeout = \"3s\"\n"});
    EXPECT_THAT(told(loaded.problems), ElementsAre("a.toml:3:2: warning: [\"example.com.\"]: is the domain of a.toml:1 "
                                                   "[\"EXAMPLE.com\"], so the two are one block"));
    EXPECT_THAT(loaded.rules.domains(), SizeIs(1));
    EXPECT_EQ(loaded.rules.effective("example.com", "s", {}, "").connection_limit.value, 1U);
}

}  // namespace
}  // namespace postrider
