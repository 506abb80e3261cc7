#include "engine/config/config.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <set>
#include <span>

#include "engine/config/toml_reader.h"
#include "engine/core/limits.h"
#include "engine/core/socket_address.h"

namespace postrider {
namespace {

constexpr DurationMs kDayMs = 86'400'000;

// The machine's full name as the resolver's files tell it; Debian's own host name has no domain.
std::string machine_fqdn() {
    char name[256] = {};
    if (gethostname(name, sizeof name - 1) != 0) return {};
    if (is_ehlo_name(name)) return name;
    addrinfo hints{};
    hints.ai_flags = AI_CANONNAME;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(name, nullptr, &hints, &found) != 0) return name;
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
    return found->ai_canonname != nullptr ? found->ai_canonname : name;
}

bool is_port(std::string_view text) {
    unsigned port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    return error == std::errc{} && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

// "192.0.2.1:25", "[::1]:25"; without a port only where `port_needed` is false.
bool is_endpoint(std::string_view text, bool port_needed) {
    if (!port_needed && is_ip_address(text)) return true;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        if (close == std::string_view::npos) return false;
        const auto address = text.substr(1, close - 1), rest = text.substr(close + 1);
        if (!is_ip_address(address) || address.find(':') == std::string_view::npos) return false;
        return rest.empty() ? !port_needed : rest.front() == ':' && is_port(rest.substr(1));
    }
    const auto colon = text.find(':');
    return colon != std::string_view::npos && is_ip_address(text.substr(0, colon)) &&
           is_port(text.substr(colon + 1));
}

// Of an endpoint: the rule of the admin server, which has no authentication.
bool is_on_loopback(std::string_view endpoint) {
    return endpoint.starts_with("127.") || endpoint.starts_with("[::1]:");
}

std::vector<AddressBlock> blocks_of(std::initializer_list<const char*> texts) {
    std::vector<AddressBlock> blocks;
    for (const char* text : texts) blocks.push_back(*AddressBlock::parse(text));
    return blocks;
}

// An address that one machine may have: not unspecified, broadcast or multicast.
bool is_unicast(std::string_view text) {
    static const auto kOthers = blocks_of({"0.0.0.0", "255.255.255.255", "224.0.0.0/4", "::", "ff00::/8"});
    const auto address = SocketAddress::parse(text, 0);
    return address && !any_contains(kOthers, address->octets());
}

// Sources and pools are named by x-pool, whose rule this is: check_label of queue/formats/envelope_fields.h.
bool is_label(std::string_view name) {
    return name.size() <= limits::kLabelValue && std::ranges::none_of(name, [](char c) {
               return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
           });
}

class ConfigLoader {
  public:
    ConfigLoader(const std::string& path, const std::optional<std::string>& machine_name,
                 LoadedConfig& out)
        : problems_(path, out.problems),
          machine_name_(machine_name),
          out_(out),
          config_(out.config) {
        config_.file = path;
        std::error_code ignored;  // of absolute(): fails only when the working folder is gone
        folder_ = std::filesystem::absolute(path, ignored).parent_path();
    }

    void load() {
        const auto file = read_toml(problems_);
        if (!file) return;
        TableReader root(*file, "", problems_);
        read_server(root);
        out_.server_is_good = file->contains("server") && !has_errors(out_.problems);
        read_small_tables(root);
        read_smtp(root);
        read_retry(root);
        read_blocks(root, "source", [&](const toml::table& table) { read_source(table); });
        read_blocks(root, "pool", [&](const toml::table& table) { read_pool(table); });
        read_shaping(root);
        root.finish();
    }

  private:
    std::string resolved(const std::string& path) const {
        return (folder_ / path).lexically_normal().string();
    }

    // The table `name`, or an empty one: every default is then filled in by the same way.
    template <class Read>
    void section(TableReader& root, std::string_view name, Read read) {
        static const toml::table kEmpty;
        const toml::table* table = root.table(name);
        TableReader reader(table != nullptr ? *table : kEmpty, std::string(name), problems_);
        read(reader);
        reader.finish();
    }

    // Of a key's value; of an absent key the file as a whole.
    static Place place_of_key(TableReader& reader, std::string_view name) {
        const toml::node* node = reader.find(name);
        return node != nullptr ? place_of(node->source()) : Place{};
    }

    void check_hostname(TableReader& reader, std::string& hostname) {
        const std::string before = hostname;
        reader.string("hostname", hostname);
        if (hostname == before || is_ehlo_name(hostname)) return;
        problems_.error(place_of_key(reader, "hostname"),
                        fmt::format("{}: \"{}\" is no full host name, allowed: a name with a domain, such as "
                                    "\"mail.example.com\", or an address literal such as \"[192.0.2.1]\"",
                                    reader.path_to("hostname"), hostname));
        hostname = before;
    }

    void no_label(TableReader& reader) {
        problems_.error(place_of_key(reader, "name"),
                        fmt::format("{}: has a control character or over {} octets, so no x-pool can name it, allowed: a "
                                    "name such as \"ip-1\"", reader.path_to("name"), limits::kLabelValue));
    }

    void read_server(TableReader& root) {
        section(root, "server", [&](TableReader& reader) {
            ServerConfig& server = config_.server;
            check_hostname(reader, server.hostname);
            if (reader.find("hostname") == nullptr) use_machine_name();
            reader.string("spool", server.spool);
            reader.string("log", server.log);
            server.spool = resolved(server.spool);
            server.log = resolved(server.log);
            check_log(reader);
            reader.integer("shards", server.shards, 0, limits::kShards);
            reader.duration("shutdown_timeout", server.shutdown_timeout_ms, 0, kDayMs);
            read_admin(reader);
        });
    }

    void use_machine_name() {
        const std::string name = machine_name_ ? *machine_name_ : machine_fqdn();
        if (is_ehlo_name(name)) {
            config_.server.hostname = name;
            return;
        }
        problems_.error({}, "server.hostname: is missing and this machine's name \"" + name +
                                "\" has no domain: set it to the full name that receivers find in "
                                "the DNS, such as \"mail.example.com\"");
    }

    // What lies in the spool's own folders would be taken for mail or for a journal.
    void check_log(TableReader& reader) {
        const std::filesystem::path log = config_.server.log;
        const auto inside = log.lexically_relative(config_.server.spool);
        const Place at = place_of_key(reader, "log");
        std::error_code ignored;
        if (!log.has_filename() || inside == "." || std::filesystem::is_directory(log, ignored)) {
            problems_.error(at, "server.log: \"" + log.string() + "\" is a folder, allowed: the path of a file");
            return;
        }
        for (const char* folder : {"new", "active", "bad", "journal"}) {
            if (inside.begin() == inside.end() || *inside.begin() != folder) continue;
            problems_.error(at, fmt::format("server.log: lies in the spool's {}/, allowed: a place outside new, active, "
                                            "bad and journal", folder));
        }
    }

    void read_admin(TableReader& reader) {
        std::string& admin = config_.server.admin;
        reader.string("admin", admin);
        const bool given = !admin.empty();
        if (!given) admin = config_.server.spool + "/admin.sock";
        const Place at = place_of_key(reader, given ? "admin" : "spool");
        if (is_endpoint(admin, true)) {
            if (is_on_loopback(admin)) return;
            problems_.error(at, "server.admin: \"" + admin +
                                    "\" is not on loopback, and there is no authentication, allowed: \"127.0.0.1:8025\", "
                                    "\"[::1]:8025\", or the path of a Unix socket");
            return;
        }
        if (admin.find('/') == std::string::npos) {
            problems_.error(at, "server.admin: \"" + admin +
                                    "\" is neither, allowed: an address with a "
                                    "port, such as \"127.0.0.1:8025\", or the path of a Unix socket");
            return;
        }
        admin = resolved(admin);
        constexpr size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
        if (admin.size() <= kLongest) return;
        problems_.error(at, given ? fmt::format("server.admin: is a path of {} octets, allowed: {} for a Unix socket",
                                                admin.size(), kLongest)
                                  : fmt::format("server.spool: makes the path of the admin socket in it {} octets long, "
                                                "allowed: {}, or a server.admin elsewhere", admin.size(), kLongest));
    }

    void read_small_tables(TableReader& root) {
        section(root, "dns", [&](TableReader& reader) {
            const auto servers = reader.strings("servers");
            for (const auto& [text, at] : servers.value_or(std::vector<TableReader::Item>{})) {
                if (is_endpoint(text, false)) {
                    config_.dns.servers.push_back(text);
                } else {
                    problems_.error(at, "dns.servers: \"" + text +
                                            "\" is no address, allowed: "
                                            "\"192.0.2.1\", \"127.0.0.1:5353\", \"[::1]:53\"");
                }
            }
        });
        section(root, "limits", [&](TableReader& reader) {
            constexpr uint64_t kLeastMemory = 1 << 20;
            reader.size("memory", config_.limits.memory, kLeastMemory);
            reader.integer("connections", config_.limits.connections, 1, 1'000'000);
        });
        section(root, "journal", [&](TableReader& reader) {
            reader.duration("commit", config_.journal.commit_ms, 1, 10'000);
        });
        section(root, "content", [&](TableReader& reader) {
            std::string value = "refuse";
            reader.string("long_lines", value);
            config_.content.long_lines = value == "send" ? LongLines::send : LongLines::refuse;
            if (value != "send" && value != "refuse") {
                problems_.error(
                    place_of(reader.find("long_lines")->source()),
                    "content.long_lines: is \"" + value + "\", allowed: \"refuse\", \"send\"");
            }
        });
    }

    void read_smtp(TableReader& root) {
        section(root, "smtp", [&](TableReader& reader) {
            reader.integer("port", config_.smtp.port, 1, 65535);
            const auto blocks = reader.strings("prohibited_hosts");
            if (!blocks) return;
            config_.smtp.prohibited_hosts.clear();
            for (const auto& [text, at] : *blocks) {
                if (auto block = AddressBlock::parse(text)) {
                    config_.smtp.prohibited_hosts.push_back(*block);
                } else {
                    problems_.error(
                        at, "smtp.prohibited_hosts: \"" + text + "\": " + block.error().text);
                }
            }
        });
    }

    void read_retry(TableReader& root) {
        section(root, "retry", [&](TableReader& reader) {
            constexpr DurationMs kLeast = 1, kLongest = 365 * kDayMs;
            reader.duration("max_age", config_.retry.max_age_ms, kLeast, kLongest);
            const auto steps = reader.strings("retry_after");
            if (steps && steps->empty()) {
                problems_.error(place_of_key(reader, "retry_after"),
                                "retry.retry_after: is empty, allowed: at least one duration");
                return;
            }
            if (steps) config_.retry.retry_after_ms.clear();
            for (const auto& [text, at] : steps.value_or(std::vector<TableReader::Item>{})) {
                if (const auto step = bounded_duration(text, kLeast, kLongest)) {
                    config_.retry.retry_after_ms.push_back(*step);
                } else {
                    problems_.error(at, "retry.retry_after: " + step.error().text);
                }
            }
            check_retry(place_of_key(reader, steps ? "retry_after" : "max_age"));
        });
    }

    void check_retry(Place at) {
        const RetryConfig& retry = config_.retry;
        if (retry.retry_after_ms.empty() || retry.retry_after_ms.front() < retry.max_age_ms) return;
        problems_.warning(at, fmt::format("retry: the first retry_after, {}, is not under max_age, {}, so what fails once "
                                          "expires and is not tried again", format_duration(retry.retry_after_ms.front()),
                                          format_duration(retry.max_age_ms)));
    }

    template <class Read>
    void read_blocks(TableReader& root, std::string_view name, Read read) {
        const toml::node* node = root.find(name);
        if (node == nullptr) return;
        const std::string allowed = fmt::format("blocks named [[{}]]", name);
        const auto* list = node->as_array();
        if (list == nullptr) return root.wrong_kind(*node, name, allowed);
        for (const auto& element : *list) {
            if (const auto* table = element.as_table()) {
                read(*table);
            } else {
                root.wrong_kind(element, name, allowed);
            }
        }
        constexpr size_t kMostBlocks = 30'000;  // a source is a pool too, and a PoolId has 16 bits
        if (list->size() > kMostBlocks)
            problems_.error(place_of(node->source()), fmt::format("{}: more than {} blocks", name, kMostBlocks));
    }

    void read_source(const toml::table& table) {
        const Place at = place_of(table.source());
        TableReader reader(table, "source", problems_);
        SourceConfig source{.name = {}, .address = {}, .hostname = config_.server.hostname};
        reader.string("name", source.name);
        reader.string("address", source.address);
        check_hostname(reader, source.hostname);
        reader.finish();
        if (reader.find("name") == nullptr) {
            problems_.error(at, "source.name: is missing, allowed: a name such as \"ip-1\"");
        } else if (!is_label(source.name)) {
            no_label(reader);
        } else if (source.name == kUnspecifiedSource) {
            problems_.error(place_of_key(reader, "name"),
                            "source.name: \"unspecified\" is the kernel's choice of an address; give the source another");
        } else if (source.name == "default") {
            problems_.error(at, "source.name: \"default\" is the pool of mail that names none; give the source another");
        } else if (!known_sources_.insert(source.name).second) {
            problems_.error(at, "source.name: \"" + source.name +
                                    "\" is used twice, allowed: "
                                    "a name of its own for each source");
        }
        if (reader.find("address") == nullptr) {
            problems_.error(at, "source.address: is missing, allowed: an address of this machine");
        } else if (!source.address.empty() && !is_ip_address(source.address)) {
            problems_.error(place_of(reader.find("address")->source()),
                            "source.address: \"" + source.address +
                                "\" is no address, allowed: an IPv4 or IPv6 address");
        } else if (!source.address.empty() && !is_unicast(source.address)) {
            problems_.error(place_of_key(reader, "address"),
                            "source.address: \"" + source.address +
                                "\" is not one machine's, allowed: an address of this machine");
        }
        config_.sources.push_back(std::move(source));
    }

    void read_pool(const toml::table& table) {
        const Place at = place_of(table.source());
        TableReader reader(table, "pool", problems_);
        PoolConfig pool;
        reader.string("name", pool.name);
        const toml::node* sources = reader.find("sources");
        const toml::array* list = sources ? sources->as_array() : nullptr;
        reader.finish();
        if (reader.find("name") == nullptr) {
            problems_.error(at, "pool.name: is missing, allowed: a name such as \"newsletters\"");
        } else if (!is_label(pool.name)) {
            no_label(reader);
        } else if (known_sources_.contains(pool.name)) {
            problems_.error(at, "pool.name: \"" + pool.name + "\" is the name of a source, which is a pool of itself already; "
                                "give the pool another");
        } else if (!known_pools_.insert(pool.name).second) {
            problems_.error(at, "pool.name: \"" + pool.name + "\" is used twice, allowed: a name of its own for each pool");
        }
        if (list == nullptr || list->empty()) {
            problems_.error(sources ? place_of(sources->source()) : at,
                            "pool.sources: names no source, allowed: a list such as [\"ip-1\", {name = \"ip-2\", weight = 3}]");
        } else {
            for (const auto& element : *list) read_pool_member(element, pool);
        }
        config_.pools.push_back(std::move(pool));
    }

    void read_pool_member(const toml::node& element, PoolConfig& pool) {
        const Place at = place_of(element.source());
        PoolConfig::Member member;
        if (const auto* name = element.as_string()) {
            member.name = name->get();
        } else if (const auto* table = element.as_table()) {
            TableReader reader(*table, "pool.sources", problems_);
            reader.string("name", member.name);
            reader.integer("weight", member.weight, 1, 1'000);
            reader.finish();
        } else {
            problems_.error(at, fmt::format("pool.sources: is {}, allowed: a name, or {{name = \"ip-1\", weight = 3}}", kind_of(element)));
            return;
        }
        if (!known_sources_.contains(member.name)) {
            problems_.error(at, "pool.sources: no [[source]] is named \"" + member.name + "\"");
        } else if (std::ranges::find(pool.sources, member.name, &PoolConfig::Member::name) != pool.sources.end()) {
            problems_.error(at, "pool.sources: \"" + member.name + "\" is in the pool twice; give it a weight instead");
        }
        pool.sources.push_back(std::move(member));
    }

    void read_shaping(TableReader& root) {
        section(root, "shaping", [&](TableReader& reader) {
            const auto files = reader.strings("files");
            for (const auto& [text, at] : files.value_or(std::vector<TableReader::Item>{})) {
                config_.shaping_files.push_back(resolved(text));
                const size_t before = out_.problems.size();
                load_shaping_file(config_.shaping_files.back(), config_.shaping, out_.problems);
                // A file that is not there has no line to point at: this one's names it.
                for (ConfigProblem& problem : std::span(out_.problems).subspan(before))
                    if (problem.line == 0 && problem.severity == Severity::error)
                        problem.text += "; " + problems_.file() + ":" + std::to_string(at.line) + ":" +
                                        std::to_string(at.column) + " names it";
            }
        });
    }

    ProblemList problems_;
    const std::optional<std::string>& machine_name_;
    LoadedConfig& out_;
    Config& config_;
    std::filesystem::path folder_;
    std::set<std::string, std::less<>> known_sources_, known_pools_;
};

}  // namespace

std::vector<AddressBlock> default_prohibited_hosts() {
    return blocks_of({"127.0.0.0/8", "::1/128", "0.0.0.0/8", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "::/128", "ff00::/8"});
}

// RFC 5321 4.1.1.1 wants the client's full name; where it has none, an address literal.
bool is_ehlo_name(std::string_view name) {
    if (name.starts_with('[') && name.ends_with(']')) {
        auto address = name.substr(1, name.size() - 2);
        if (address.starts_with("IPv6:")) {
            address.remove_prefix(5);
            return is_ip_address(address) && address.find(':') != std::string_view::npos;
        }
        return is_ip_address(address) && address.find(':') == std::string_view::npos;
    }
    if (name.size() > limits::kDomain || name.find('.') == std::string_view::npos) return false;
    constexpr size_t kLabel = 63;  // RFC 1035 2.3.4
    size_t start = 0;
    while (true) {
        const size_t dot = std::min(name.find('.', start), name.size());
        const auto label = name.substr(start, dot - start);
        const bool letters = std::ranges::all_of(label, [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                   c == '-';
        });
        if (!letters || label.empty() || label.size() > kLabel || label.front() == '-' ||
            label.back() == '-') {
            return false;
        }
        // The last label is never a number (RFC 1123 2.1): "192.0.2.1" is an address, not a name.
        if (dot == name.size()) return !std::ranges::all_of(label, [](char c) { return c >= '0' && c <= '9'; });
        start = dot + 1;
    }
}

LoadedConfig load_config(const std::string& path, const std::optional<std::string>& machine_name) {
    LoadedConfig out;
    ConfigLoader(path, machine_name, out).load();
    return out;
}

}  // namespace postrider
