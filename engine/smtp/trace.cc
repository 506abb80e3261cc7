#include "engine/smtp/trace.h"

#include <algorithm>
#include <utility>

namespace postrider {

std::string_view name_of(TraceKind kind) {
    switch (kind) {
        case TraceKind::sent: return "sent";
        case TraceKind::received: return "received";
        default: return "note";
    }
}

void tell_reply(TraceTap& tap, const ReplyParser& parser) {
    const Reply& reply = parser.reply();
    std::string lines;
    for (std::string_view text = reply.text;;) {
        const size_t end = text.find('\n');
        const bool last = end == std::string_view::npos;
        lines.append(std::to_string(reply.code)).append(last ? " " : "-").append(text.substr(0, end)).append("\n");
        if (last) break;
        text.remove_prefix(end + 1);
    }
    if (reply.code) tap.tell(TraceKind::received, lines);
    if (parser.fault() != ReplyFault::none)
        tap.tell(TraceKind::note, std::string("what came is no reply: ").append(name_of(parser.fault())));
}

void TraceListener::put(const TracePlace& place, TraceKind kind, std::string_view lines, WallUs at_us) {
    std::scoped_lock lock(mutex_);
    while (!lines.empty()) {
        const size_t end = std::min(lines.find('\n'), lines.size());
        std::string_view line = lines.substr(0, end);
        lines.remove_prefix(std::min(end + 1, lines.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) continue;
        if (kept_.lines.size() >= kLinesKept) {
            ++kept_.lost;
            continue;
        }
        TraceLine& told = kept_.lines.emplace_back(TraceLine{at_us, place.session_high, place.session_low, std::string(place.host),
                                                        std::string(place.address), kind, {}});
        append_printable(line, told.text);
    }
    came_.notify_one();
}

TraceListener::Taken TraceListener::take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    came_.wait_for(lock, patience, [&] { return !kept_.lines.empty(); });
    taken_at_ = Clock::now();
    return std::exchange(kept_, {});
}

TraceListener::Clock::time_point TraceListener::taken_at() const {
    std::scoped_lock lock(mutex_);
    return taken_at_;
}

std::shared_ptr<TraceListener> Tracer::listen(std::string site) {
    std::scoped_lock lock(mutex_);
    if (all_.size() >= kListenersMost) return nullptr;
    all_.push_back(std::make_shared<TraceListener>(++last_id_, std::move(site)));
    count_.store(all_.size(), std::memory_order_relaxed);
    version_.fetch_add(1, std::memory_order_relaxed);
    return all_.back();
}

std::shared_ptr<TraceListener> Tracer::find(uint64_t id) const {
    std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(all_, id, &TraceListener::id);
    return found == all_.end() ? nullptr : *found;
}

void Tracer::end(uint64_t id) {
    std::scoped_lock lock(mutex_);
    if (std::erase_if(all_, [&](const auto& each) { return each->id() == id; }) == 0) return;
    count_.store(all_.size(), std::memory_order_relaxed);
    version_.fetch_add(1, std::memory_order_relaxed);
}

void Tracer::sweep() {
    if (count_.load(std::memory_order_relaxed) == 0) return;
    Listeners gone;
    {
        std::scoped_lock lock(mutex_);
        for (const auto& each : all_)
            if (TraceListener::Clock::now() - each->taken_at() > kUnheard) gone.push_back(each);
    }
    for (const auto& each : gone) end(each->id());
}

Tracer::Listeners Tracer::listeners(std::string_view site) const {
    std::scoped_lock lock(mutex_);
    Listeners of_site;
    for (const auto& each : all_)
        if (each->site() == site) of_site.push_back(each);
    return of_site;
}

}  // namespace postrider
