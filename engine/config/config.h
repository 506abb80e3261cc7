// postrider.toml: one file into one checked struct of plain members. load_config never throws and
// never exits: it answers the configuration and every problem found, and the caller chooses what to
// do.
//
// Relative paths in the file (spool, log, shaping files, a Unix socket) count from the file's own
// folder, and are absolute in the struct.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/config/address_block.h"
#include "engine/config/problem.h"
#include "engine/config/shaping_config.h"
#include "engine/config/units.h"

namespace postrider {

// 127.0.0.0/8, ::1/128, 0.0.0.0/8, 169.254.0.0/16, fe80::/10, 224.0.0.0/4, ::/128, ff00::/8.
std::vector<AddressBlock> default_prohibited_hosts();

struct ServerConfig {
    std::string hostname;  // EHLO name; never empty after a load without errors
    std::string spool = "/var/spool/postrider";
    std::string log = "/var/log/postrider/delivery.jsonl";
    uint32_t shards = 0;  // 0: one per core
    std::string
        admin;  // "127.0.0.1:8025", or the path of a Unix socket; default <spool>/admin.sock
    DurationMs shutdown_timeout_ms = 30'000;

    bool admin_is_tcp() const { return !admin.starts_with('/'); }
};

struct DnsConfig {
    std::vector<std::string>
        servers;  // "127.0.0.1:5353", "[::1]:53", "192.0.2.1"; empty: the system's
};

struct SmtpConfig {
    uint16_t port = 25;
    std::vector<AddressBlock> prohibited_hosts = default_prohibited_hosts();
};

struct LimitsConfig {
    uint64_t memory = 1ULL << 30;  // octets
    uint32_t connections = 20'000;
};

struct JournalConfig {
    DurationMs commit_ms = 10;
};

struct RetryConfig {
    std::vector<DurationMs> retry_after_ms = {600'000,   600'000,   1'800'000,
                                              3'600'000, 7'200'000, 14'400'000};
    DurationMs max_age_ms = 388'800'000;  // 4d12h
};

enum class LongLines : uint8_t { refuse, send };

struct ContentConfig {
    LongLines long_lines = LongLines::refuse;
};

// An egress source; its SourceId is its place in the file, from 1.
struct SourceConfig {
    std::string name;
    std::string address;   // IPv4 or IPv6, as written
    std::string hostname;  // EHLO name; filled from server.hostname when absent
};

// A pool of sources, which messages name by x-pool.
struct PoolConfig {
    struct Member {
        std::string name;     // of a source
        uint32_t weight = 1;  // 1 to 1000
    };
    std::string name;
    std::vector<Member> sources;  // not empty
};

struct Config {
    std::string file;
    ServerConfig server;
    DnsConfig dns;
    SmtpConfig smtp;
    LimitsConfig limits;
    JournalConfig journal;
    RetryConfig retry;
    ContentConfig content;
    std::vector<std::string> shaping_files;  // paths, resolved
    std::vector<SourceConfig> sources;
    std::vector<PoolConfig> pools;
    ShapingRules shaping;
};

struct LoadedConfig {
    Config config;
    std::vector<ConfigProblem> problems;
    bool server_is_good = false;  // [server] is there and without errors, whatever the rest is like
    bool ok() const { return !has_errors(problems); }
};

// `machine_name` replaces the machine's own name where server.hostname is absent.
LoadedConfig load_config(const std::string& path,
                         const std::optional<std::string>& machine_name = std::nullopt);

// A host name an EHLO may carry: letters, digits, hyphens, dots, at least one dot; or an address
// literal
// "[192.0.2.1]" (RFC 5321 4.1.3).
bool is_ehlo_name(std::string_view name);

}  // namespace postrider
