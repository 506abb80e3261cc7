// The shaping in force: overrides over the blocks of the files, what a reload keeps, and what a version tells.
#include "engine/egress/shaping_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace postrider {
namespace {

using ::testing::HasSubstr;

class ShapingBookTest : public ::testing::Test {
  protected:
    ShapingRules rules(const std::string& text) {
        const auto path = std::filesystem::temp_directory_path() / ("shaping-book-" + std::to_string(getpid()) + ".toml");
        std::ofstream(path) << text;
        ShapingRules rules;
        std::vector<ConfigProblem> problems;
        load_shaping_file(path, rules, problems);
        std::filesystem::remove(path);
        for (const auto& problem : problems) EXPECT_EQ(problem.severity, Severity::warning) << problem.to_string();
        return rules;
    }
    static EffectiveShaping at(const ShapingBook& book, std::string_view domain, std::string_view site = "mx.a.example",
                               std::string_view source = "") {
        const std::vector<std::string> hosts = {std::string(site)};
        return book.effective(domain, site, hosts, source);
    }
    static ShapingOverride to(std::string domain, std::string key, std::string value, int64_t expires_s = 0) {
        return {.domain = std::move(domain), .key = std::move(key), .value = std::move(value), .expires_s = expires_s,
                .who = "alice", .why = "too many 421", .set_s = 1'700'000'000};
    }
};

TEST_F(ShapingBookTest, AnOverrideWinsOverEveryBlockAndSaysWhoseItIs) {
    ShapingBook book(rules("[\"default\"]\nconnection_limit = 3\n"
                           "[\"a.example\"]\nconnection_limit = 5\n"
                           "[\"a.example\".sources.\"ip-1\"]\nconnection_limit = 7\n"));
    EXPECT_EQ(at(book, "a.example", "mx.a.example", "ip-1").connection_limit.value, 7u);
    ASSERT_TRUE(book.set(to("a.example", "connection_limit", "2", 1'700'000'060)));
    const auto now = at(book, "a.example", "mx.a.example", "ip-1").connection_limit;
    EXPECT_EQ(now.value, 2u);
    EXPECT_EQ(now.from.to_string(), "shape set a.example connection_limit=2 by alice at 2023-11-14T22:13:20Z"
                                    " until 2023-11-14T22:14:20Z (too many 421)");
    EXPECT_EQ(at(book, "b.example", "mx.b.example").connection_limit.value, 3u);
    book.replace_overrides({});
    EXPECT_EQ(at(book, "a.example").connection_limit.value, 5u);
}

TEST_F(ShapingBookTest, AnOverrideSpeaksForTheDomainsWithTheSameMailServers) {
    ShapingBook book(rules("[\"own.example\"]\nmx_rollup = false\nconnection_limit = 9\n"));
    ASSERT_TRUE(book.set(to("a.example", "connection_limit", "2")));
    ASSERT_TRUE(book.set(to("own.example", "connection_limit", "1")));
    EXPECT_EQ(at(book, "b.example").connection_limit.value, 32u) << "nobody knows yet where a.example is";
    (void)book.set_site("a.example", "mx.a.example");
    (void)book.set_site("own.example", "mx.a.example");
    EXPECT_EQ(at(book, "b.example").connection_limit.value, 2u);
    EXPECT_EQ(at(book, "own.example", "own.example/mx.a.example").connection_limit.value, 1u);
}

TEST_F(ShapingBookTest, OverridesOfDefaultAndOfProvidersStandInTheirBlocks) {
    ShapingBook book(rules("[\"default\"]\nconnection_limit = 3\n"
                           "[\"a.example\"]\nconnection_limit = 5\n"
                           "[provider.\"p\"]\nmatch = [{MXSuffix = \".a.example\"}]\nidle_timeout = \"7s\"\n"
                           "[provider.\"p\".sources.\"ip-1\"]\nidle_timeout = \"8s\"\n"));
    ASSERT_TRUE(book.set(to("default", "connection_limit", "4")));
    ASSERT_TRUE(book.set(to("provider.\"p\"", "idle_timeout", "9s")));
    EXPECT_EQ(at(book, "b.example", "mx.b.example").connection_limit.value, 4u);
    EXPECT_EQ(at(book, "a.example").connection_limit.value, 5u);
    EXPECT_EQ(at(book, "a.example", "mx.a.example", "ip-1").idle_timeout.value, 9'000);
    EXPECT_FALSE(book.set(to("provider.\"q\"", "idle_timeout", "9s")));
}

TEST_F(ShapingBookTest, WhatCannotHoldIsRefused) {
    ShapingBook book(rules(""));
    EXPECT_THAT(book.set(to("a.example", "conection_limit", "2")).error().text, HasSubstr("no such key"));
    EXPECT_THAT(book.set(to("a.example", "connection_limit", "0")).error().text, HasSubstr("connection_limit"));
    EXPECT_THAT(book.set(to("a.example", "use_lmtp", "true")).error().text, HasSubstr("not enforced"));
    const std::string padded(kOverrideValue - 3, '0');
    EXPECT_TRUE(book.check(to("a.example", "max_message_rate", padded + "5/s")));
    EXPECT_THAT(book.check(to("a.example", "max_message_rate", padded + "05/s")).error().text, HasSubstr("longer than 256"))
        << "it would be kept in a file that cannot be read";
    EXPECT_THAT(book.set(to("provider.gogle", "provider_connection_limit", "2")).error().text,
                HasSubstr("provider.gogle is none that the shaping files name"));
    EXPECT_TRUE(book.overrides().empty());
}

TEST_F(ShapingBookTest, AProviderThatHasLeftTheFilesIsKnownWhileSomethingIsSetForIt) {
    ShapingBook book(rules("[provider.\"p\"]\nmatch = [{MXSuffix = \".a.example\"}]\n"));
    ASSERT_TRUE(book.set(to("provider.\"p\"", "connection_limit", "2")));
    book.replace_rules(rules(""));
    EXPECT_FALSE(book.names_provider("p"));
    EXPECT_TRUE(book.knows_provider("p"));
    book.replace_overrides({});
    EXPECT_FALSE(book.knows_provider("p"));
}

TEST_F(ShapingBookTest, EveryChangeIsAVersionAndAReloadKeepsOverridesAndSites) {
    ShapingBook book(rules("[\"a.example\"]\nconnection_limit = 5\n"));
    uint64_t last = book.version();
    const auto moved = [&] { return book.version() != std::exchange(last, book.version()); };
    EXPECT_EQ(book.set_site("a.example", "mx.a.example"), std::nullopt);
    EXPECT_TRUE(moved());
    EXPECT_EQ(book.set_site("a.example", "mx.a.example"), std::nullopt);
    EXPECT_FALSE(moved());
    ASSERT_TRUE(book.set(to("a.example", "idle_timeout", "3s", 2'000)));
    EXPECT_TRUE(moved());
    const uint64_t bound = book.binding_version();
    book.replace_rules(rules("[\"a.example\"]\nconnection_limit = 6\n"));
    EXPECT_TRUE(moved());
    EXPECT_NE(book.binding_version(), bound);
    EXPECT_EQ(at(book, "b.example").connection_limit.value, 6u);
    EXPECT_EQ(at(book, "b.example").idle_timeout.value, 3'000);
    EXPECT_TRUE(book.expire(1'999).empty());
    EXPECT_FALSE(moved());
    const auto ended = book.expire(2'000);
    ASSERT_EQ(ended.size(), 1u);
    EXPECT_EQ(ended.front().key, "idle_timeout");
    EXPECT_TRUE(moved());
    EXPECT_EQ(at(book, "b.example").idle_timeout.value, 30'000);
}

// Each change in between would be in force for a moment, and each counts through all blocks.
TEST_F(ShapingBookTest, ManyOverridesAreReplacedInOneChange) {
    ShapingBook book(rules(""));
    ASSERT_TRUE(book.set(to("a.example", "connection_limit", "2")));
    ASSERT_TRUE(book.set(to("a.example", "idle_timeout", "3s")));
    auto wanted = book.overrides();
    wanted[0].value = "4";
    wanted.push_back(to("b.example", "connection_limit", "5"));
    const uint64_t before = book.version();
    book.replace_overrides(wanted);
    EXPECT_EQ(book.version(), before + 1);
    EXPECT_EQ(book.overrides(), wanted);
    EXPECT_EQ(at(book, "a.example").connection_limit.value, 4u);
    EXPECT_EQ(at(book, "a.example").idle_timeout.value, 3'000);
}

// After a restart the site of an override's domain must be known before mail of its neighbours is bound.
TEST_F(ShapingBookTest, OverridesAtTheStartAreWaitedForAsBlocksAre) {
    ShapingBook book(rules(""));
    EXPECT_TRUE(book.sites_known());
    book.replace_overrides({to("default", "connection_limit", "4"), to("a.example", "connection_limit", "2"),
                            to("a.example", "idle_timeout", "2s")});
    book.await_sites();
    EXPECT_FALSE(book.sites_known());
    EXPECT_THAT(book.domains_without_site(), ::testing::ElementsAre("a.example"));
    (void)book.set_site("a.example", "mx.a.example");
    EXPECT_THAT(book.domains_without_site(), ::testing::IsEmpty());
    book.await_sites();
    EXPECT_TRUE(book.sites_known());
}

TEST_F(ShapingBookTest, TwoBlocksOnOneSiteMergeInFileOrderWithAWarning) {
    ShapingBook book(rules("[\"a.example\"]\nconnection_limit = 5\nidle_timeout = \"1s\"\n"
                           "[\"b.example\"]\nconnection_limit = 6\n"));
    (void)book.set_site("b.example", "mx.a.example");
    const auto warning = book.set_site("a.example", "mx.a.example");
    ASSERT_TRUE(warning);
    EXPECT_THAT(warning->to_string(), HasSubstr("same mail servers"));
    const auto shaping = at(book, "c.example");
    EXPECT_EQ(shaping.connection_limit.value, 6u);
    EXPECT_EQ(shaping.idle_timeout.value, 1'000);
}

}  // namespace
}  // namespace postrider
