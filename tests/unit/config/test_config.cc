#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/config_files.h"

namespace postrider {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using ConfigTest = ConfigFiles;

TEST_F(ConfigTest, EmptyFileIsTheDefaults) {
    const auto loaded = load("");
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    const Config& config = loaded.config;
    EXPECT_EQ(config.server.hostname, "host.example.com");
    EXPECT_EQ(config.server.spool, "/var/spool/postrider");
    EXPECT_EQ(config.server.log, "/var/log/postrider/delivery.jsonl");
    EXPECT_EQ(config.server.admin, "/var/spool/postrider/admin.sock");
    EXPECT_FALSE(config.server.admin_is_tcp());
    EXPECT_EQ(config.server.shards, 0U);
    EXPECT_EQ(config.server.shutdown_timeout_ms, 30'000);
    EXPECT_THAT(config.dns.servers, IsEmpty());
    EXPECT_EQ(config.smtp.port, 25);
    EXPECT_EQ(config.smtp.prohibited_hosts, default_prohibited_hosts());
    EXPECT_EQ(config.limits.memory, 1ULL << 30);
    EXPECT_EQ(config.limits.connections, 20'000U);
    EXPECT_EQ(config.journal.commit_ms, 10);
    EXPECT_THAT(config.retry.retry_after_ms,
                ElementsAre(600'000, 600'000, 1'800'000, 3'600'000, 7'200'000, 14'400'000));
    EXPECT_EQ(config.retry.max_age_ms, 388'800'000);
    EXPECT_EQ(config.content.long_lines, LongLines::refuse);
    EXPECT_THAT(config.sources, IsEmpty());
}

TEST_F(ConfigTest, EveryKey) {
    write("one.toml", "[\"default\"]\nconnection_limit = 5\n");
    write("two.toml", "[\"default\"]\nconnection_limit = 6\n");
    const auto loaded = load(R"(
[server]
hostname = "mail.example.com"
spool = "spool"
log = "/tmp/x/../delivery.jsonl"
shards = 3
admin = "127.0.0.1:8025"
shutdown_timeout = "5s"
[dns]
servers = ["127.0.0.1:5353", "192.0.2.53", "[::1]:53", "::1"]
[smtp]
port = 2525
prohibited_hosts = []
[limits]
memory = 268435456
connections = 50
[journal]
commit = "25ms"
[retry]
retry_after = ["1s", "2m"]
max_age = "90 minutes"
[content]
long_lines = "send"
[shaping]
files = ["one.toml", "two.toml"]
[[source]]
name = "ip-1"
address = "192.0.2.10"
hostname = "m1.example.com"
[[source]]
name = "ip-2"
address = "2001:db8::2"
[[pool]]
name = "news"
sources = ["ip-1", {name = "ip-2", weight = 3}]
)");
    EXPECT_THAT(told(loaded.problems), IsEmpty());
    const Config& config = loaded.config;
    EXPECT_EQ(config.server.hostname, "mail.example.com");
    EXPECT_EQ(config.server.spool, (folder_ / "spool").string());
    EXPECT_EQ(config.server.log, "/tmp/delivery.jsonl");
    EXPECT_EQ(config.server.shards, 3U);
    EXPECT_EQ(config.server.admin, "127.0.0.1:8025");
    EXPECT_TRUE(config.server.admin_is_tcp());
    EXPECT_EQ(config.server.shutdown_timeout_ms, 5'000);
    EXPECT_THAT(config.dns.servers, ElementsAre("127.0.0.1:5353", "192.0.2.53", "[::1]:53", "::1"));
    EXPECT_EQ(config.smtp.port, 2525);
    EXPECT_THAT(config.smtp.prohibited_hosts, IsEmpty());
    EXPECT_EQ(config.limits.memory, 256ULL << 20);
    EXPECT_EQ(config.limits.connections, 50U);
    EXPECT_EQ(config.journal.commit_ms, 25);
    EXPECT_THAT(config.retry.retry_after_ms, ElementsAre(1'000, 120'000));
    EXPECT_EQ(config.retry.max_age_ms, 5'400'000);
    EXPECT_EQ(config.content.long_lines, LongLines::send);
    EXPECT_THAT(config.shaping_files,
                ElementsAre((folder_ / "one.toml").string(), (folder_ / "two.toml").string()));
    EXPECT_EQ(config.shaping.effective("a.example", "mx", {}, "").connection_limit.value, 6U);
    ASSERT_EQ(config.sources.size(), 2U);
    EXPECT_EQ(config.sources[0].hostname, "m1.example.com");
    EXPECT_EQ(config.sources[1].name, "ip-2");
    EXPECT_EQ(config.sources[1].address, "2001:db8::2");
    EXPECT_EQ(config.sources[1].hostname, "mail.example.com");
    ASSERT_EQ(config.pools.size(), 1U);
    EXPECT_EQ(config.pools[0].name, "news");
    ASSERT_EQ(config.pools[0].sources.size(), 2U);
    EXPECT_EQ(config.pools[0].sources[0].name, "ip-1");
    EXPECT_EQ(config.pools[0].sources[0].weight, 1U);
    EXPECT_EQ(config.pools[0].sources[1].name, "ip-2");
    EXPECT_EQ(config.pools[0].sources[1].weight, 3U);
}

TEST_F(ConfigTest, AdminSocketLiesInTheSpoolOrWhereItIsPut) {
    EXPECT_EQ(load("[server]\nspool = \"/s\"").config.server.admin, "/s/admin.sock");
    EXPECT_EQ(load("[server]\nadmin = \"./run/a.sock\"").config.server.admin,
              (folder_ / "run/a.sock").string());
}

struct Refusal {
    std::string_view text, told;
};

class ConfigRefusal : public ConfigFiles, public ::testing::WithParamInterface<Refusal> {};

TEST_P(ConfigRefusal, IsTold) {
    const auto loaded = load(GetParam().text);
    EXPECT_FALSE(loaded.ok());
    EXPECT_THAT(told(loaded.problems), ElementsAre(std::string(GetParam().told)));
}

INSTANTIATE_TEST_SUITE_P(
    EveryError, ConfigRefusal,
    ::testing::Values(
        Refusal{"[server]\nhostnme = \"a.b\"",
                "postrider.toml:2:1: server.hostnme: unknown key, did you mean \"hostname\"?"},
        Refusal{"[smpt]\n", "postrider.toml:1:2: smpt: unknown key, did you mean \"smtp\"?"},
        Refusal{"[sever]\n", "postrider.toml:1:2: sever: unknown key, did you mean \"server\"?"},
        Refusal{"[content]\nzzz = 1",
                "postrider.toml:2:1: content.zzz: unknown key, allowed: long_lines"},
        Refusal{"server = 3",
                "postrider.toml:1:10: server: is an integer, allowed: a table, such as [server]"},
        Refusal{
            "[server]\nhostname = \"localhost\"",
            "postrider.toml:2:12: server.hostname: \"localhost\" is no full host name, allowed: "
            "a name with a domain, such as \"mail.example.com\", or an address literal such as \"[192.0.2.1]\""},
        Refusal{"[server]\nhostname = 5",
                "postrider.toml:2:12: server.hostname: is an integer, allowed: a string"},
        Refusal{"[server]\nspool = \"\"",
                "postrider.toml:2:9: server.spool: is empty or holds a NUL, allowed: a text"},
        Refusal{"[server]\nshards = 257",
                "postrider.toml:2:10: server.shards: is 257, allowed: an integer from 0 to 256"},
        Refusal{
            "[server]\nshards = \"4\"",
            "postrider.toml:2:10: server.shards: is a string, allowed: an integer from 0 to 256"},
        Refusal{
            "[server]\nadmin = \"localhost:80\"",
            "postrider.toml:2:9: server.admin: \"localhost:80\" is neither, allowed: an address "
            "with a port, such as \"127.0.0.1:8025\", or the path of a Unix socket"},
        Refusal{
            "[server]\nshutdown_timeout = 30",
            "postrider.toml:2:20: server.shutdown_timeout: is an integer, allowed: a duration in "
            "quotes, such as \"10s\", \"4d12h\""},
        Refusal{"[server]\nshutdown_timeout = \"2d\"",
                "postrider.toml:2:20: server.shutdown_timeout: is 2d, allowed: 0s to 1d"},
        Refusal{"[dns]\nservers = [\"127.0.0.1\", \"ns.example.com\"]",
                "postrider.toml:2:25: dns.servers: \"ns.example.com\" is no address, allowed: "
                "\"192.0.2.1\", \"127.0.0.1:5353\", \"[::1]:53\""},
        Refusal{"[dns]\nservers = [\"127.0.0.1:0\"]",
                "postrider.toml:2:12: dns.servers: \"127.0.0.1:0\" is no address, allowed: "
                "\"192.0.2.1\", \"127.0.0.1:5353\", \"[::1]:53\""},
        Refusal{
            "[dns]\nservers = \"127.0.0.1\"",
            "postrider.toml:2:11: dns.servers: is a string, allowed: a list of strings, such as "
            "[\"...\"]"},
        Refusal{"[dns]\nservers = [1]",
                "postrider.toml:2:12: dns.servers: is an integer, allowed: strings in the list"},
        Refusal{"[smtp]\nport = 0",
                "postrider.toml:2:8: smtp.port: is 0, allowed: an integer from 1 to 65535"},
        Refusal{
            "[smtp]\nport = 25.0",
            "postrider.toml:2:8: smtp.port: is a number with a point, allowed: an integer from 1 "
            "to 65535"},
        Refusal{
            "[smtp]\nprohibited_hosts = [\"10/8\"]",
            "postrider.toml:2:21: smtp.prohibited_hosts: \"10/8\": not an address block, allowed: "
            "an address or a block such as \"127.0.0.0/8\", \"fe80::/10\""},
        Refusal{
            "[limits]\nmemory = \"1K\"",
            "postrider.toml:2:10: limits.memory: not a size: \"1K\", allowed: octets, or a number "
            "and a unit (KiB, MiB, GiB, TiB, KB, MB, GB, TB), such as \"1GiB\""},
        Refusal{"[limits]\nmemory = true",
                "postrider.toml:2:10: limits.memory: is true or false, allowed: a size, such as "
                "\"1GiB\" or octets"},
        Refusal{"[limits]\nmemory = 5",
                "postrider.toml:2:10: limits.memory: is 5, allowed: at least 1048576 octets"},
        Refusal{
            "[limits]\nconnections = 0",
            "postrider.toml:2:15: limits.connections: is 0, allowed: an integer from 1 to 1000000"},
        Refusal{"[journal]\ncommit = \"11s\"",
                "postrider.toml:2:10: journal.commit: is 11s, allowed: 1ms to 10s"},
        Refusal{"[retry]\nretry_after = []",
                "postrider.toml:2:15: retry.retry_after: is empty, allowed: at least one duration"},
        Refusal{"[retry]\nretry_after = [\"0s\"]",
                "postrider.toml:2:16: retry.retry_after: is 0s, allowed: 1ms to 365d"},
        Refusal{"[retry]\nmax_age = \"366d\"",
                "postrider.toml:2:11: retry.max_age: is 366d, allowed: 1ms to 365d"},
        Refusal{
            "[content]\nlong_lines = \"fold\"",
            "postrider.toml:2:14: content.long_lines: is \"fold\", allowed: \"refuse\", \"send\""},
        Refusal{"[source]\nname = \"a\"",
                "postrider.toml:1:1: source: is a table, allowed: blocks named [[source]]"},
        Refusal{"[[source]]\nname = \"default\"\naddress = \"192.0.2.1\"",
                "postrider.toml:1:1: source.name: \"default\" is the pool of mail that names none; give the source another"},
        Refusal{"[[source]]\nname = \"q\"\naddress = \"192.0.2.1\"\n[[pool]]\nsources = [\"q\"]",
                "postrider.toml:4:1: pool.name: is missing, allowed: a name such as \"newsletters\""},
        Refusal{"[[pool]]\nname = \"p\"",
                "postrider.toml:1:1: pool.sources: names no source, allowed: a list such as [\"ip-1\", {name = \"ip-2\", weight = 3}]"},
        Refusal{"[[pool]]\nname = \"p\"\nsources = []",
                "postrider.toml:3:11: pool.sources: names no source, allowed: a list such as [\"ip-1\", {name = \"ip-2\", weight = 3}]"},
        Refusal{"[[pool]]\nname = \"p\"\nsources = [\"q\"]",
                "postrider.toml:3:12: pool.sources: no [[source]] is named \"q\""},
        Refusal{"[[pool]]\nname = \"p\"\nsources = [1]",
                "postrider.toml:3:12: pool.sources: is an integer, allowed: a name, or {name = \"ip-1\", weight = 3}"},
        Refusal{"[[source]]\nname = \"q\"\naddress = \"192.0.2.1\"\n[[pool]]\nname = \"p\"\nsources = [{name = \"q\", weight = 0}]",
                "postrider.toml:6:34: pool.sources.weight: is 0, allowed: an integer from 1 to 1000"},
        Refusal{"[[source]]\nname = \"p\"\naddress = \"192.0.2.1\"\n[[pool]]\nname = \"p\"\nsources = [\"p\"]",
                "postrider.toml:4:1: pool.name: \"p\" is the name of a source, which is a pool of itself already; give the pool another"},
        Refusal{"[[source]]\nname = \"p\"\naddress = \"192.0.2.1\"\n[[pool]]\nname = \"q\"\nsources = [\"p\", \"p\"]",
                "postrider.toml:6:17: pool.sources: \"p\" is in the pool twice; give it a weight instead"},
        Refusal{"[[source]]\nname = \"p\"\naddress = \"192.0.2.1\"\n[[pool]]\nname = \"q\"\nsources = [\"p\"]\n[[pool]]\nname = \"q\"\nsources = [\"p\"]",
                "postrider.toml:7:1: pool.name: \"q\" is used twice, allowed: a name of its own for each pool"},
        Refusal{"source = [1]",
                "postrider.toml:1:11: source: is an integer, allowed: blocks named [[source]]"},
        Refusal{"[[source]]\naddress = \"192.0.2.1\"",
                "postrider.toml:1:1: source.name: is missing, allowed: a name such as \"ip-1\""},
        Refusal{
            "[[source]]\nname = \"a\"",
            "postrider.toml:1:1: source.address: is missing, allowed: an address of this machine"},
        Refusal{"[[source]]\nname = \"a\"\naddress = \"host\"",
                "postrider.toml:3:11: source.address: \"host\" is no address, allowed: an IPv4 or "
                "IPv6 address"},
        Refusal{
            "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\nhostname = \"-x.example\"",
            "postrider.toml:4:12: source.hostname: \"-x.example\" is no full host name, allowed: "
            "a name with a domain, such as \"mail.example.com\", or an address literal such as \"[192.0.2.1]\""},
        Refusal{
            "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[source]]\nname = \"a\"\n"
            "address = \"192.0.2.2\"",
            "postrider.toml:4:1: source.name: \"a\" is used twice, allowed: a name of its own for "
            "each source"},
        Refusal{"[server]\nadmin = \"0.0.0.0:8025\"",
                "postrider.toml:2:9: server.admin: \"0.0.0.0:8025\" is not on loopback, and there is no authentication, "
                "allowed: \"127.0.0.1:8025\", \"[::1]:8025\", or the path of a Unix socket"},
        Refusal{"[server]\nadmin = \"[2001:db8::1]:8025\"",
                "postrider.toml:2:9: server.admin: \"[2001:db8::1]:8025\" is not on loopback, and there is no "
                "authentication, allowed: \"127.0.0.1:8025\", \"[::1]:8025\", or the path of a Unix socket"},
        Refusal{"[server]\nhostname = \"192.0.2.1\"",
                "postrider.toml:2:12: server.hostname: \"192.0.2.1\" is no full host name, allowed: a name with a domain, "
                "such as \"mail.example.com\", or an address literal such as \"[192.0.2.1]\""},
        Refusal{"[server]\nspool = \"/s\"\nlog = \"/s/x/../new/log\"",
                "postrider.toml:3:7: server.log: lies in the spool's new/, allowed: a place outside new, active, bad and "
                "journal"},
        Refusal{"[server]\nspool = \"/s/\"\nlog = \"/s/journal\"",
                "postrider.toml:3:7: server.log: lies in the spool's journal/, allowed: a place outside new, active, bad and "
                "journal"},
        Refusal{"[server]\nspool = \"/s\"\nlog = \"/s\"",
                "postrider.toml:3:7: server.log: \"/s\" is a folder, allowed: the path of a file"},
        Refusal{"[server]\nlog = \"/tmp\"",
                "postrider.toml:2:7: server.log: \"/tmp\" is a folder, allowed: the path of a file"},
        Refusal{"[server]\nlog = \"/absent/\"",
                "postrider.toml:2:7: server.log: \"/absent/\" is a folder, allowed: the path of a file"},
        Refusal{"[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\nhostname = \"192.0.2.1\"",
                "postrider.toml:4:12: source.hostname: \"192.0.2.1\" is no full host name, allowed: a name with a domain, "
                "such as \"mail.example.com\", or an address literal such as \"[192.0.2.1]\""},
        Refusal{"[[source]]\nname = \"unspecified\"\naddress = \"192.0.2.1\"",
                "postrider.toml:2:8: source.name: \"unspecified\" is the kernel's choice of an address; give the source "
                "another"},
        Refusal{"[[source]]\nname = \"a\\tb\"\naddress = \"192.0.2.1\"",
                "postrider.toml:2:8: source.name: has a control character or over 255 octets, so no x-pool can name it, "
                "allowed: a name such as \"ip-1\""},
        Refusal{"[[source]]\nname = \"q\"\naddress = \"192.0.2.1\"\n[[pool]]\nname = \"a\\u007f\"\n"
                "sources = [\"q\"]",
                "postrider.toml:5:8: pool.name: has a control character or over 255 octets, so no x-pool can name it, "
                "allowed: a name such as \"ip-1\""},
        Refusal{"[shaping]\nfiles = [\"absent.toml\"]",
                "absent.toml: cannot open it: No such file or directory; postrider.toml:2:10 names it"}));

TEST_F(ConfigTest, ASourceIsAnAddressOfOneMachine) {
    for (const std::string address : {"0.0.0.0", "::", "::ffff:0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"}) {
        EXPECT_THAT(told(load("[[source]]\nname = \"a\"\naddress = \"" + address + "\"").problems),
                    ElementsAre("postrider.toml:3:11: source.address: \"" + address +
                                "\" is not one machine's, allowed: an address of this machine"));
    }
}

TEST_F(ConfigTest, TheAdminSocketFitsIntoItsAddress) {
    const auto with = [&](const std::string& key, size_t octets) {
        const std::string path = "/" + std::string(octets - 1, 'a');
        return told(load("[server]\n" + key + " = \"" + path + "\"").problems);
    };
    EXPECT_THAT(with("admin", 107), IsEmpty());
    EXPECT_THAT(with("admin", 108), ElementsAre("postrider.toml:2:9: server.admin: is a path of 108 octets, allowed: 107 for "
                                                "a Unix socket"));
    const size_t name = std::string_view("/admin.sock").size();
    EXPECT_THAT(with("spool", 107 - name), IsEmpty());
    EXPECT_THAT(with("spool", 108 - name),
                ElementsAre("postrider.toml:2:9: server.spool: makes the path of the admin socket in it 108 octets long, "
                            "allowed: 107, or a server.admin elsewhere"));
}

TEST_F(ConfigTest, ARetryThatIsNeverMadeIsAWarning) {
    const auto loaded = load("[retry]\nmax_age = \"10m\"\nretry_after = [\"10m\", \"1m\"]\n");
    EXPECT_TRUE(loaded.ok());
    EXPECT_THAT(told(loaded.problems),
                ElementsAre("postrider.toml:3:15: warning: retry: the first retry_after, 10m, is not under max_age, 10m, so "
                            "what fails once expires and is not tried again"));
    EXPECT_THAT(told(load("[retry]\nmax_age = \"5m\"\n").problems),
                ElementsAre("postrider.toml:2:11: warning: retry: the first retry_after, 10m, is not under max_age, 5m, so "
                            "what fails once expires and is not tried again"));
    EXPECT_THAT(told(load("[retry]\nmax_age = \"11m\"\n").problems), IsEmpty());
}

TEST_F(ConfigTest, AllProblemsAreToldAtOnce) {
    const auto loaded = load("[smtp]\nport = 0\nprt = 1\n[limits]\nconnections = -1\n");
    EXPECT_THAT(
        told(loaded.problems),
        ElementsAre("postrider.toml:5:15: limits.connections: is -1, allowed: an integer from "
                    "1 to 1000000",
                    "postrider.toml:2:8: smtp.port: is 0, allowed: an integer from 1 to 65535",
                    "postrider.toml:3:1: smtp.prt: unknown key, did you mean \"port\"?"));
}

TEST_F(ConfigTest, HostnameIsAskedForWhereTheMachineHasNoDomain) {
    const auto loaded = load_config(write("postrider.toml", ""), "box");
    EXPECT_THAT(told(loaded.problems),
                ElementsAre("postrider.toml: server.hostname: is missing and this machine's name "
                            "\"box\" has no domain: set it to the full name that receivers find in "
                            "the DNS, such as \"mail.example.com\""));
    EXPECT_TRUE(
        load_config(write("postrider.toml", "[server]\nhostname = \"[192.0.2.1]\""), "box").ok());
}

TEST_F(ConfigTest, TheMachinesOwnNameIsUsedOrAskedFor) {
    const auto loaded = load_config(write("postrider.toml", ""));
    EXPECT_EQ(loaded.ok(), is_ehlo_name(loaded.config.server.hostname));
}

TEST_F(ConfigTest, AFileThatCannotBeRead) {
    EXPECT_THAT(told(load_config((folder_ / "none.toml").string()).problems),
                ElementsAre("none.toml: cannot open it: No such file or directory"));
    EXPECT_THAT(told(load_config(folder_.string() + "/.").problems),
                ElementsAre(".: cannot read it: Is a directory"));
}

TEST_F(ConfigTest, BadTomlIsToldWithItsPlace) {
    const auto loaded = load("[server]\nhostname = \"a\nb\"\n");
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_EQ(loaded.problems[0].line, 2U);
    EXPECT_THAT(loaded.problems[0].text, HasSubstr("not TOML: "));
    EXPECT_FALSE(load("[smtp]\nport = 1\nport = 2\n").ok());
}

TEST(EhloName, FullNamesAndLiterals) {
    for (const char* good : {"mail.example.com", "a.b", "xn--bcher-kva.example", "1.example",
                             "[192.0.2.1]", "[IPv6:2001:db8::1]"}) {
        EXPECT_TRUE(is_ehlo_name(good)) << good;
    }
    const std::string long_label = std::string(64, 'a') + ".example";
    std::string long_name;
    while (long_name.size() < 256) long_name += "abcdefg.";
    for (const std::string& bad :
         {std::string("mail"), std::string(""), std::string("."), std::string("a..b"),
          std::string("a.b."), std::string("-a.b"), std::string("a-.b"), std::string("a b.c"),
          std::string("a.b\r\nX"), std::string("[a.b]"), std::string("[2001:db8::1]"),
          std::string("[IPv6:192.0.2.1]"), std::string("192.0.2.1"), std::string("mail.1"),
          std::string("b\xc3\xbc.example"), long_label,
          long_name + "com"}) {
        EXPECT_FALSE(is_ehlo_name(bad)) << bad;
    }
}

}  // namespace
}  // namespace postrider
