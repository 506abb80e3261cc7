// `postrider top`: what a running engine does, again and again: rates, the busiest sites, the longest queues.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/units.h"

namespace postrider {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kQueuesKept = 1'000;  // of one look, to compare with the next

int tell_error(const Error& error) {
    std::fprintf(stderr, "postrider top: %s\n", error.text.c_str());
    return error.code == EINVAL ? kExitUsage : kExitFailure;
}

// One look at the engine.
struct Look {
    Clock::time_point at;
    json status, queue;
    std::map<std::string, uint64_t> queued;  // by domain and pool

    static Result<Look> take(const std::string& admin) {
        Look look;
        auto status = admin_get(admin, "/status");
        if (!status) return std::unexpected(status.error());
        auto queue = admin_get(admin, fmt::format("/queue?limit={}", kQueuesKept));
        if (!queue) return std::unexpected(queue.error());
        look.at = Clock::now();
        look.status = json::parse(*status, nullptr, false);
        look.queue = json::parse(*queue, nullptr, false);
        if (!look.status.is_object() || !look.queue.is_object() || !look.status.contains("recipients") || !look.queue.contains("domains"))
            return fail("the answer is not an engine's; is something else listening there?");
        for (const auto& line : look.queue["domains"]) look.queued[name_of(line)] = mail_of(line);
        return look;
    }
    uint64_t count(const char* part, const char* what) const { return status.at(part).at(what).get<uint64_t>(); }

    static std::string name_of(const json& line) {
        auto name = line.at("domain").get<std::string>();
        if (line.contains("pool")) name += " from pool " + line["pool"].get<std::string>();
        return name;
    }
    static uint64_t mail_of(const json& line) {
        return line.at("ready").get<uint64_t>() + line.at("deferred").get<uint64_t>() + line.at("suspended").get<uint64_t>();
    }
};

// The growth of a count in so many seconds; "-" while nothing is known of the time before.
std::string rate(uint64_t now, std::optional<uint64_t> before, double seconds) {
    if (!before || seconds <= 0) return "-";
    return fmt::format("{:.0f}/s", (static_cast<double>(now) - static_cast<double>(*before)) / seconds);
}

// At most `rows` lines; the rates are those since `before`.
std::string screen(const Look& now, const Look* before, size_t rows) {
    const double seconds = before ? std::chrono::duration<double>(now.at - before->at).count() : 0;
    const auto counted_with_rate = [&](const char* part, const char* what) {
        const uint64_t count = now.count(part, what);
        return fmt::format("{} ({})", count, rate(count, before ? std::optional(before->count(part, what)) : std::nullopt, seconds));
    };
    std::vector<std::string> lines;
    lines.push_back(fmt::format("postrider, process {}, {}; {}", now.status.at("pid").get<int>(),
                                counted(now.status.at("shards").get<uint64_t>(), "shard"), local_time(std::time(nullptr))));
    lines.push_back(fmt::format("sent {}  deferred {}  bounced {}  expired {}  pending {}, {} of them for a time",
                                counted_with_rate("recipients", "delivered"), counted_with_rate("attempts", "deferred"),
                                counted_with_rate("recipients", "bounced"), counted_with_rate("recipients", "expired"),
                                now.count("recipients", "pending"), now.count("recipients", "waiting")));
    lines.push_back(fmt::format("connections {}  opened {}, {} of them with TLS", now.count("connections", "open"),
                                counted_with_rate("connections", "opened"), now.count("connections", "tls")));
    if (now.status.at("short_of_space").get<bool>()) lines.push_back("NO SPACE for journal or log: nothing new is taken in");
    if (now.count("ledger", "breaches") > 0) lines.push_back("LEDGER BREACH: see the engine's messages");
    const auto& parked = now.status.at("parked");
    for (size_t i = 0; i < parked.size() && i < rows / 6; ++i)
        lines.push_back(fmt::format("parked {}: {}", Look::name_of(parked[i]), parked[i].at("why").get<std::string>()));
    lines.push_back("");
    lines.push_back(fmt::format("{:>12} {:>12}  site", "connections", "opened"));
    for (const auto& site : now.status.at("sites")) {
        if (lines.size() + 3 >= rows / 2) break;
        if (site.at("connections") == 0) break;
        lines.push_back(fmt::format("{:>12} {:>12}  {}", site.at("connections").get<uint64_t>(), site.at("opened").get<uint64_t>(),
                                    site.at("site").get<std::string>()));
    }
    lines.push_back("");
    lines.push_back(fmt::format("{:>12} {:>12} {:>12} {:>10}  domain", "ready", "deferred", "suspended", "growth"));
    for (const auto& line : now.queue.at("domains")) {
        if (lines.size() >= rows) break;
        const auto name = Look::name_of(line);
        std::optional<uint64_t> mail_before;
        if (before)
            if (const auto found = before->queued.find(name); found != before->queued.end()) mail_before = found->second;
        lines.push_back(fmt::format("{:>12} {:>12} {:>12} {:>10}  {}", line.at("ready").get<uint64_t>(),
                                    line.at("deferred").get<uint64_t>(), line.at("suspended").get<uint64_t>(),
                                    rate(Look::mail_of(line), mail_before, seconds), name));
    }
    return fmt::format("{}\n", fmt::join(lines, "\n"));
}

size_t rows_of_terminal() {
    winsize size{};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 10 ? size.ws_row - 1u : 60;
}

}  // namespace

int run_top(int argc, char** argv) {
    CLI::App app("Shows what a running engine does, again and again: rates, the busiest sites, the longest queues.", "postrider top");
    app.footer("Examples:\n  postrider top\n  postrider top --every 10s --count 6 > minute.txt\n\n"
               "Rates and growth are those since the screen before. Ends with --count, Ctrl-C or the engine.\n\n"
               "Exit codes: 0 shown, 1 failed, such as no engine that answers, 2 usage or configuration.");
    std::string path, every_text = "2s";
    uint64_t screens = 0;
    app.add_option("--every", every_text, "The time between two screens, at least 1s")->check(not_empty)->capture_default_str();
    app.add_option("--count", screens, "End after so many screens")->check(CLI::Range(1, 1'000'000'000));
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    const auto every = parse_duration(every_text);
    if (!every || *every < kMsPerSecond) return tell_error({EINVAL, "--every: a time of at least a second, such as 10s"});
    const auto config = load_to_ask(path);
    if (!config) return kExitUsage;
    const bool terminal = isatty(STDOUT_FILENO);
    std::optional<Look> before;
    for (uint64_t shown = 0;;) {
        auto now = Look::take(config->server.admin);
        if (!now && shown > 0 && now.error().code == ENOTCONN) {
            std::fputs("postrider top: the engine has ended\n", stderr);
            return 0;
        }
        if (!now) return tell_error(now.error());
        if (terminal) std::fputs("\033[H\033[J", stdout);  // home, and clear to the end
        std::fputs(screen(*now, before ? &*before : nullptr, rows_of_terminal()).c_str(), stdout);
        if (std::fflush(stdout) != 0 || (screens > 0 && ++shown == screens)) return 0;
        shown = std::max<uint64_t>(shown, 1);
        before = std::move(*now);
        if (!terminal) std::fputs("\n", stdout);
        std::this_thread::sleep_for(std::chrono::milliseconds(*every));
    }
}

}  // namespace postrider
