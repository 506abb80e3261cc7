// Input that nobody means well with: it must end in problems or in a configuration, in bounded time
// and stack.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::HasSubstr;

using HostileTest = ConfigFiles;

std::string repeated(std::string_view text, size_t times) {
    std::string out;
    out.reserve(text.size() * times);
    for (size_t i = 0; i < times; ++i) out += text;
    return out;
}

TEST_F(HostileTest, TenMegabytesOfDomainBlocks) {
    std::string text;
    int domains = 0;
    while (text.size() < 10'000'000) {
        text += "[\"d" + std::to_string(domains++) + ".example\"]\nconnection_limit = 7\n";
    }
    const auto loaded = shape({text});
    EXPECT_FALSE(has_errors(loaded.problems));
    EXPECT_EQ(loaded.rules.domains().size(), static_cast<size_t>(domains));
    EXPECT_EQ(loaded.rules.effective("d77.example", "s", {}, "").connection_limit.value, 7U);
}

TEST_F(HostileTest, TenMegabytesInOneString) {
    const auto loaded = load("[server]\nhostname = \"" + std::string(10'000'000, 'a') + "\"\n");
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_LT(loaded.problems[0].to_string().size(), 1000U);
}

TEST_F(HostileTest, ALongUnknownKey) {
    const auto loaded = load(std::string(1'000'000, 'k') + " = 1\n");
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_LT(loaded.problems[0].to_string().size(), 1000U);
}

TEST_F(HostileTest, TooLongAFile) {
    const auto loaded = load(std::string((64ULL << 20) + 1, '#'));
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_EQ(loaded.problems[0].text, "is longer than 64 MiB");
}

TEST_F(HostileTest, DeepNestingIsRefusedBeforeItIsBuilt) {
    const std::string dots = repeated("a.", 1'000'000) + "a";
    for (const std::string& text :
         {"[" + dots + "]\n", dots + " = 1\n", "x = " + repeated("[", 5'000'000),
          "x = " + repeated("{a=", 2'000'000), "x = [\n" + repeated("[\n", 2'000'000),
          "x = {" + dots + " = 1}\n", "s = \"\"\"\"\"\"\n[" + dots + "]\n",
          "s = '''a'''''\n[" + dots + "]\n", "s = \"\\\"\"\n[" + dots + "]\n",
          "s = '\\'\n[" + dots + "]\n", "# '''\n[" + dots + "]\n",
          "s = \"\"\"\\\"\"\"\"\n[" + dots + "]\n", "s = \"\"\"\n\n\"\"\"\n[" + dots + "]\n"}) {
        const auto loaded = load(text);
        ASSERT_EQ(loaded.problems.size(), 1U) << text.substr(0, 40);
        EXPECT_THAT(loaded.problems[0].text, HasSubstr("nested too deeply"));
        EXPECT_GT(loaded.problems[0].line, 0U);
    }
}

TEST_F(HostileTest, TheDeepestThatIsAllowedIsTakenApartSafely) {
    const std::string key = repeated("a.", 16) + "a";
    const auto loaded = load("[" + key + "]\n" + key + " = " + repeated("[\n{" + key + "=", 15) +
                             "1" + repeated("}\n]", 15) + "\n");
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_THAT(loaded.problems[0].text, HasSubstr("a: unknown key"));
}

TEST_F(HostileTest, DotsInStringsAndCommentsAreNoNesting) {
    const std::string dots(1000, '.');
    EXPECT_TRUE(load("# " + dots + "\n[server]\nadmin = \"/a\"\nspool = \"/" + dots + "\"  # " + dots +
                     "\nlog = '''/log" + dots + "'''\n")
                    .ok());
}

TEST_F(HostileTest, NulAndOtherControls) {
    using namespace std::string_view_literals;
    for (const auto text : {"\0"sv, "a\0b = 1"sv, "[server]\nspool = \"/a\0b\""sv,
                            "[server]\nspool = \"/a\\u0000b\""sv, "[server]\nspool = '\x1b[2J'"sv,
                            "\xff\xfe[\0s"sv, "[\"a\\nb\"]\n"sv, "\"\\u0000\" = 1"sv}) {
        const auto loaded = load(text);
        EXPECT_FALSE(loaded.ok());
        for (const auto& problem : loaded.problems) {
            for (const char c : problem.text) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
        }
    }
}

// A valid pair of files with octets changed, cut and doubled: the loaders answer, whatever it is.
TEST_F(HostileTest, MutatedFiles) {
    constexpr std::string_view kSeed = R"(
[server]
hostname = "mail.example.com"
shards = 3
[retry]
retry_after = ["1s", "2m"]
["default"]
connection_limit = 10
max_message_rate = "1,000/hr,max_burst=3"
[["default".automation]]
regex = ['''a''', "b"]
action = [{SetConfig={name="max_message_rate", value="1/minute"}}]
duration = "90m"
[provider."p"]
match = [{MXSuffix=".p.example"}]
["a.example".sources."ip-1"]
connection_limit = 2
)";
    std::mt19937_64 random(11);
    int with_problems = 0;
    for (int i = 0; i < 4000; ++i) {
        std::string text(kSeed);
        for (auto n = 1 + random() % 6; n > 0; --n) {
            const size_t at = random() % text.size();
            switch (random() % 3) {
                case 0:
                    text[at] = static_cast<char>(random());
                    break;
                case 1:
                    text.erase(at, random() % 8);
                    break;
                default:
                    text.insert(at, text.substr(random() % text.size(), random() % 12));
                    break;
            }
            if (text.empty()) text = "=";
        }
        with_problems += load(text).problems.empty() ? 0 : 1;
        const auto shaped = shape({text});
        const std::vector<std::string> hosts = {"mx.p.example"};
        EXPECT_FALSE(shaped.rules.effective("a.example", "s", hosts, "ip-1").describe().empty());
    }
    EXPECT_GT(with_problems, 3000);
}

}  // namespace
}  // namespace postrider
