// The manual and the engine say the same: its examples load, and it has a line for every key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "engine/config/shaping_keys.h"
#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string page(const std::string& name) {
    std::ifstream in(std::string(POSTRIDER_SOURCE_ROOT) + '/' + name);
    std::ostringstream text;
    text << in.rdbuf();
    return std::move(text).str();
}

// The TOML example whose first line is "# title".
std::string example(const std::string& text, const std::string& title) {
    const std::string opening = "```toml\n# " + title + "\n";
    const auto begin = text.find(opening);
    if (begin == std::string::npos) return "no example";
    const auto end = text.find("\n```", begin + opening.size());
    return text.substr(begin + opening.size(), end - begin - opening.size()) + '\n';
}

using DocsTest = ConfigFiles;

TEST_F(DocsTest, TheExampleOfTheConfigurationIsTheDefaults) {
    const auto text = example(page("docs/configuration.md"), "postrider.toml");
    const auto documented = load(text);
    EXPECT_THAT(told(documented.problems), IsEmpty());
    const auto built_in = load("");
    const Config &a = documented.config, &b = built_in.config;
    EXPECT_EQ(a.server.spool, b.server.spool);
    EXPECT_EQ(a.server.log, b.server.log);
    EXPECT_EQ(a.server.shards, b.server.shards);
    EXPECT_EQ(a.server.admin, b.server.admin);
    EXPECT_EQ(a.server.shutdown_timeout_ms, b.server.shutdown_timeout_ms);
    EXPECT_EQ(a.smtp.port, b.smtp.port);
    EXPECT_EQ(a.smtp.prohibited_hosts, b.smtp.prohibited_hosts);
    EXPECT_EQ(a.limits.memory, b.limits.memory);
    EXPECT_EQ(a.limits.connections, b.limits.connections);
    EXPECT_EQ(a.journal.commit_ms, b.journal.commit_ms);
    EXPECT_EQ(a.retry.retry_after_ms, b.retry.retry_after_ms);
    EXPECT_EQ(a.retry.max_age_ms, b.retry.max_age_ms);
    EXPECT_EQ(a.content.long_lines, b.content.long_lines);
}

TEST_F(DocsTest, TheShapingExampleLoads) {
    EXPECT_THAT(told(shape({example(page("docs/configuration.md"), "shaping.toml")}).problems),
                IsEmpty());
}

TEST_F(DocsTest, TheInstalledShapingFileLoadsWithoutAWarning) {
    const auto loaded = shape({page("docs/examples/shaping.toml")});
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    const std::vector<std::string> hosts = {"mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"};
    EXPECT_EQ(loaded.rules.effective("yahoo.com", "", hosts, "").max_deliveries_per_connection.value, 20u);
}

TEST_F(DocsTest, TheConfigurationOfTheReadmeLoads) {
    write("shaping.toml", "");
    EXPECT_THAT(told(load(example(page("README.md"), "postrider.toml")).problems), IsEmpty());
}

TEST_F(DocsTest, EveryShapingKeyHasALineWithItsDefault) {
    const auto text = page("docs/configuration.md");
    for (const ShapingKey& key : shaping_keys()) {
        if (key.kind == KeyKind::opaque) continue;
        EXPECT_THAT(text, HasSubstr("\n| `" + std::string(key.name) + "` |"));
    }
    for (const auto& line : ShapingRules().effective("d", "s", {}, "").describe()) {
        const auto at = text.find("\n| `" + line.key + "` |");
        ASSERT_NE(at, std::string::npos) << line.key;
        const auto row = text.substr(at, text.find('\n', at + 1) - at);
        EXPECT_THAT(row, HasSubstr(line.value == "no limit" ? "| none |" : line.value)) << line.key;
    }
}

}  // namespace
}  // namespace postrider
