#include "engine/progress.h"

#include <unistd.h>

#include <cstdio>

#include <fmt/format.h>

#include "engine/command_line.h"

namespace postrider {
namespace {

constexpr MonoNs kTerminalEveryNs = kNsPerSecond / 4;
constexpr MonoNs kFileEveryNs = 5 * kNsPerSecond;

std::string duration(double seconds) {
    const auto s = static_cast<uint64_t>(seconds + 0.5);
    if (s >= 86'400) return "over a day";
    if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
    if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
    return fmt::format("{}s", s);
}

}  // namespace

Progress::Progress(MonoNs now_ns) : terminal_(isatty(STDERR_FILENO)), started_ns_(now_ns), last_ns_(now_ns) {}

void Progress::show(const Totals& totals, MonoNs now_ns) {
    const MonoNs span_ns = now_ns - last_ns_;
    if (span_ns < (terminal_ ? kTerminalEveryNs : kFileEveryNs)) return;
    const double now_rate = static_cast<double>(totals.delivered - last_delivered_) /
                            (static_cast<double>(span_ns) / static_cast<double>(kNsPerSecond));
    rate_ = shown_ ? (rate_ + now_rate) / 2 : now_rate;
    last_ns_ = now_ns;
    last_delivered_ = totals.delivered;
    shown_ = true;
    const uint64_t to_send = totals.pending() - std::min(totals.pending(), totals.waiting);
    const std::string eta = rate_ > 0 && to_send > 0 ? duration(static_cast<double>(to_send) / rate_) : "-";
    std::fprintf(stderr, "%s%s%s",
                 terminal_ ? "\r\033[K" : "",
                 fmt::format("sent {}  deferred {}  bounced {}  to send {}  {:.0f}/s  connections {}  ETA {}",
                             totals.delivered, totals.waiting, totals.bounced, to_send, rate_, totals.connections, eta)
                     .c_str(),
                 terminal_ ? "" : "\n");
    std::fflush(stderr);
}

void Progress::end(const Totals& totals, MonoNs now_ns) {
    if (shown_ && terminal_) std::fprintf(stderr, "\r\033[K");
    const double seconds = static_cast<double>(now_ns - started_ns_) / static_cast<double>(kNsPerSecond);
    std::string text = fmt::format("sent {}, bounced {}, expired {}, ", totals.delivered, totals.bounced, totals.expired);
    if (totals.cancelled > 0) text += fmt::format("cancelled {}, ", totals.cancelled);
    text += fmt::format("waiting {} in {:.1f} s ({:.0f}/s), {}, {} with TLS", totals.pending(), seconds,
                        seconds > 0 ? static_cast<double>(totals.delivered) / seconds : 0.0,
                        counted(totals.connections_opened, "connection"), totals.connections_tls);
    if (totals.refused_recipients > 0) text += "; " + counted(totals.refused_recipients, "address") + " refused, see the log";
    if (totals.refused > 0)
        text += fmt::format("; {} refused, see bad/ in the spool",
                            totals.refused == 1 ? "1 file or message" : fmt::format("{} files or messages", totals.refused));
    std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace postrider
