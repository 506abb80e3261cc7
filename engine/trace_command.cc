// `postrider trace`: the dialogue with a domain's mail servers, as it is said.
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/admin_client.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/units.h"
#include "engine/control.h"

namespace postrider {
namespace {

using nlohmann::json;

int tell_error(const Error& error) {
    std::fprintf(stderr, "postrider trace: %s\n", error.text.c_str());
    return error.code == EINVAL ? kExitUsage : kExitFailure;
}

std::string text_of(const json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// "06:17:29.123 5f3a9c0e mx1.example.org -> MAIL FROM:<news@example.com>"
std::string line_text(const json& line) {
    const std::string kind = text_of(line, "kind"), time = text_of(line, "event_time"), session = text_of(line, "session_id");
    const auto peer = line.find("peer_address");
    const char* arrow = kind == "sent" ? "->" : kind == "received" ? "<-" : "==";
    return fmt::format("{:12} {:8} {} {} {}\n", time.size() > 23 ? time.substr(11, 12) : "", session.empty() ? "-" : session.substr(0, 8),
                       peer != line.end() && peer->is_object() ? text_of(*peer, "name") : "-", arrow, text_of(line, "text"));
}

// A trace that has begun: what the engine said of it, and its end with this object.
class Trace {
  public:
    static Result<Trace> begin(const std::string& admin, const std::string& domain) {
        auto answer = admin_post(admin, "/trace", json{{"domain", domain}}.dump());
        if (!answer) return std::unexpected(answer.error());
        json head = json::parse(*answer, nullptr, false);
        if (!head.is_object() || !head.contains("id") || !head["id"].is_number_unsigned()) return fail(kNoTrace);
        return Trace(admin, std::move(head));
    }
    Trace(Trace&& other) noexcept : admin_(std::move(other.admin_)), head_(std::exchange(other.head_, json())) {}
    ~Trace() {
        if (head_.is_object()) (void)admin_post(admin_, "/trace/end", json{{"id", head_["id"]}}.dump());
    }

    std::string head_text() const {
        std::string hosts;
        for (const auto& host : head_.value("hosts", json::array()))
            if (host.is_string()) hosts.append(hosts.empty() ? "" : ", ").append(host.get<std::string>());
        return fmt::format("tracing {}: hosts {}; site {}\n", text_of(head_, "domain"), hosts, text_of(head_, "site"));
    }
    std::string head_json() const { return head_.dump() + "\n"; }
    // {"lines": [...], "lost": n}; waits about a second for the first.
    Result<json> take() {
        auto answer = admin_get(admin_, fmt::format("/trace?id={}", head_["id"].get<uint64_t>()));
        if (!answer) return std::unexpected(answer.error());
        json taken = json::parse(*answer, nullptr, false);
        if (!taken.is_object() || !taken.contains("lines") || !taken["lines"].is_array()) return fail(kNoTrace);
        return taken;
    }

  private:
    static constexpr const char* kNoTrace = "the answer is no trace; is something else listening there?";
    Trace(std::string admin, json head) : admin_(std::move(admin)), head_(std::move(head)) {}
    std::string admin_;
    json head_;
};

volatile std::sig_atomic_t told_to_end = 0;

// So that the trace is ended in the engine too: it has places for few.
void end_when_told() {
    struct sigaction action {};
    action.sa_handler = [](int) { told_to_end = 1; };
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);  // goes_on() sees it
}

// No signal has come, and the other end of a pipe is open.
bool goes_on() {
    pollfd out{STDOUT_FILENO, 0, 0};
    return std::fflush(stdout) == 0 && !told_to_end && (::poll(&out, 1, 0) <= 0 || !(out.revents & POLLERR));
}

// Prints until `for_s` seconds have passed (0: for ever), a signal says so, nobody reads any more, or the engine ends.
int follow(Trace& trace, int64_t for_s, bool as_json) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(for_s);
    std::fputs((as_json ? trace.head_json() : trace.head_text()).c_str(), stdout);
    while (goes_on() && (for_s == 0 || std::chrono::steady_clock::now() < until)) {
        auto taken = trace.take();
        if (!taken && taken.error().code == ENOTCONN) {
            std::fputs("postrider trace: the engine has ended\n", stderr);
            return 0;
        }
        if (!taken) {
            (void)tell_error(taken.error());
            return kExitFailure;
        }
        for (const json& line : (*taken)["lines"])
            std::fputs((as_json ? line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n" : line_text(line)).c_str(), stdout);
        if (const auto lost = taken->value("lost", uint64_t{0}))
            std::fprintf(stderr, "postrider trace: %s missing here: they came faster than they were read\n",
                         lost == 1 ? "1 line is" : fmt::format("{} lines are", lost).c_str());
    }
    return 0;
}

}  // namespace

int run_trace(int argc, char** argv) {
    CLI::App app("Shows what is said with the mail servers of a domain, as it is said.", "postrider trace");
    app.footer("Examples:\n  postrider trace example.com\n  postrider trace example.com --for 30s --json\n\n"
               "-> is what the engine says, <- what the host says, == what happens. Contents are not shown. What other domains\n"
               "with the same mail servers have to say is among it. Ends with --for, Ctrl-C or the engine.\n\n"
               "Exit codes: 0 the trace has ended, 1 failed, such as no engine that answers, 2 usage or configuration.");
    std::string path, domain, for_text;
    bool as_json = false;
    app.add_option("domain", domain, "Recipient domain")->required()->check(not_empty);
    app.add_option("--for", for_text, "End when this time has passed, such as 30s")->check(not_empty);
    app.add_flag("--json", as_json, "JSON Lines; session_id is that of the delivery log");
    app.add_option("--config", path, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    const auto name = typed_domain(domain);
    if (!name) return tell_error(name.error());
    int64_t for_s = 0;
    if (!for_text.empty()) {
        const auto wait = parse_duration(for_text);
        if (!wait || *wait < kMsPerSecond) return tell_error({EINVAL, "--for: a time of at least a second, such as 30s"});
        for_s = *wait / kMsPerSecond;
    }
    const auto config = load_to_ask(path);
    if (!config) return kExitUsage;
    end_when_told();
    auto trace = Trace::begin(config->server.admin, *name);
    if (!trace) return tell_error(trace.error());
    return follow(*trace, for_s, as_json);
}

}  // namespace postrider
