// `postrider run`: starts the engine, serves the admin socket, shows progress, obeys signals.
//
// SIGTERM, SIGINT: drain (at most shutdown_timeout), a second one stops at once. SIGHUP: the delivery log is
// opened anew and the configuration read again.
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <fmt/format.h>

#include "engine/admin_handlers.h"
#include "engine/arguments.h"
#include "engine/command_line.h"
#include "engine/commands.h"
#include "engine/config/units.h"
#include "engine/io/crash_points.h"
#include "engine/progress.h"
#include "engine/reload.h"

namespace postrider {
namespace {

constexpr int64_t kLookEveryNs = 20 * kNsPerMs;
constexpr int64_t kLedgerEveryNs = kNsPerSecond;

struct RunOptions {
    std::string config;
    bool until_empty = false;
    int64_t wait_until_s = 0;  // retries due before it are waited for: a time of the spool's line
    bool quiet = false;
};

// True when new/ is empty, nothing is being taken in, and every recipient is final or waits for a time beyond the wish.
bool nothing_to_do(const Totals& totals, const RunOptions& options) {
    if (!totals.intake_idle || totals.pending() != totals.waiting) return false;
    return totals.waiting == 0 || !totals.next_due_s ||
           static_cast<int64_t>(totals.next_due_s) > options.wait_until_s;
}

void explain_recovery(const RecoveryReport& report) {
    for (const auto& bad : report.damaged)
        std::fprintf(stderr, "postrider: journal %s is damaged at offset %llu (%llu octets); what follows was salvaged\n",
                     bad.file.c_str(), static_cast<unsigned long long>(bad.offset),
                     static_cast<unsigned long long>(bad.size));
}

int watch(Engine& engine, const RunOptions& options, const sigset_t& signals) {
    Progress progress(read_mono_clock());
    Totals before{};
    bool empty_before = false;
    int terms = 0;
    bool asked = false;  // by a signal
    MonoNs ledger_due_ns = read_mono_clock() + kLedgerEveryNs;
    const timespec patience{0, kLookEveryNs};
    while (engine.running()) {
        const int signal = sigtimedwait(&signals, nullptr, &patience);
        if (signal == SIGHUP) {
            engine.reopen_log();
            std::fputs(reload(engine).told.c_str(), stderr);
        }
        if (signal == SIGTERM || signal == SIGINT) {
            asked = true;
            if (terms++ == 0)
                engine.stop();
            else
                engine.stop_at_once();
        }
        engine.control().tick();
        engine.shared().tracer.sweep();
        const Totals totals = engine.totals();
        const MonoNs now_ns = read_mono_clock();
        if (!options.quiet) progress.show(totals, now_ns);
        if (now_ns >= ledger_due_ns && !terms) {
            engine.check_ledger();
            // With very many domains the count takes its time: at most a hundredth of it.
            const MonoNs end_ns = read_mono_clock();
            ledger_due_ns = end_ns + std::max(kLedgerEveryNs, 100 * (end_ns - now_ns));
        }
        if (!options.until_empty || terms) continue;
        // Twice in a row, with nothing moved between: the sums are a moment's view of several shards.
        const bool empty = nothing_to_do(totals, options);
        if (empty && empty_before && totals.accepted == before.accepted && totals.finals() == before.finals()) {
            engine.stop();
            ++terms;
        }
        empty_before = empty;
        before = totals;
    }
    const bool clean = engine.join();
    const Totals totals = engine.totals();
    if (!options.quiet) progress.end(totals, read_mono_clock());
    if (!clean)
        std::fprintf(stderr, "postrider: %s; unanswered messages are tried again later\n",
                     terms > 1 ? "stopped at once" : "the shutdown timeout has passed");
    if (engine.shared().unrecorded.load()) {
        std::fprintf(stderr, "postrider: there was no space to record the last results: their recipients are sent to again, "
                     "with possible_duplicate\n");
        return kExitJournal;
    }
    if (engine.recovery().damaged_stretches > 0) return kExitJournal;
    return options.until_empty && !asked && (totals.pending() > 0 || totals.left_behind) ? kExitMailWaits : 0;
}

int exit_code_of(const Error& error) {
    if (error.code == EWOULDBLOCK) return kExitSpoolHeld;
    return error.code == EBADMSG ? kExitJournal : kExitFailure;
}

}  // namespace

int run_engine(int argc, char** argv) {
    CLI::App app("Delivers the mail in the spool until it is told to stop.", "postrider run");
    app.footer("Example:\n  postrider run --config postrider.toml --until-empty\n\n"
               "Exit codes: 0 all final, 1 failure, 2 configuration, 3 spool held by another engine,\n"
               "4 journal damaged or failed, 75 mail waits in the spool.");
    RunOptions options;
    std::string until;
    app.add_option("--config", options.config, "Configuration; default ./postrider.toml, then /etc/postrider/postrider.toml");
    auto* until_empty = app.add_option("--until-empty", until,
                                       "End when nothing is left to send now; with =DURATION wait for retries due within it")
                            ->expected(0, 1);
    app.add_flag("--quiet", options.quiet, "No progress line");
#ifdef POSTRIDER_CRASH_POINTS
    bool list_crash_points = false;
    app.add_flag("--list-crash-points", list_crash_points, "The names for POSTRIDER_CRASH_AT (builds for tests)");
#endif
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
#ifdef POSTRIDER_CRASH_POINTS
    if (list_crash_points) {
        for (const auto name : kCrashPoints) std::printf("%s\n", std::string(name).c_str());
        return 0;
    }
#endif
    options.until_empty = until_empty->count() > 0;
    const MonoNs began_ns = read_mono_clock();
    DurationMs wait_ms = 0;
    if (!until.empty()) {
        auto wait = parse_duration(until);
        if (!wait) {
            std::fprintf(stderr, "postrider run: --until-empty: %s\n", wait.error().text.c_str());
            return kExitUsage;
        }
        wait_ms = *wait;
    }
    auto config = load_or_explain(options.config);
    if (!config) return kExitUsage;

    sigset_t signals;
    sigemptyset(&signals);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    ::signal(SIGPIPE, SIG_IGN);

    const int64_t started_s = read_wall_clock() / kUsPerSecond;
    auto engine = Engine::start(std::move(*config));
    if (!engine) {
        std::fprintf(stderr, "postrider: %s\n", engine.error().text.c_str());
        return exit_code_of(engine.error());
    }
    if (wait_ms > 0) options.wait_until_s = (*engine)->shared().time_line.at_s(began_ns) + wait_ms / kMsPerSecond;
    explain_recovery((*engine)->recovery());
    int code;
    {
        AdminServer admin;
        serve_admin(admin, **engine, started_s);
        if (auto listening = admin.listen((*engine)->config().server.admin); !listening) {
            std::fprintf(stderr, "postrider: %s\n", listening.error().text.c_str());
            return kExitFailure;
        }
        // Before the first progress line; a service's journal shows by it that the start is done.
        std::fprintf(stderr, "postrider: process %d, %s, spool %s; `postrider status` tells what it does\n", getpid(),
                     counted((*engine)->shards(), "shard").c_str(), (*engine)->config().server.spool.c_str());
        code = watch(**engine, options, signals);
    }
    return code;
}

}  // namespace postrider
