#include "engine/control.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/command_line.h"
#include "engine/core/address.h"
#include "engine/engine.h"
#include "queue/formats/envelope_fields.h"

namespace postrider {
namespace {

constexpr size_t kMostHolds = 10'000;
// A cancel is forgotten when nothing that it concerns can be left: what was in the queue has expired by then, and what may
// have lain unclaimed in new/ has had as long again.
constexpr int64_t kCancelKeptLeastS = 30 * 86'400;

int64_t wall_s() { return read_wall_clock() / kUsPerSecond; }

// The clock with which the file system stamps a rename.
int64_t file_clock_ns() {
    timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Hold& hold_of(ControlState& state, const Selection& selection) {
    const auto found = std::ranges::find_if(state.holds, [&](const Hold& hold) {
        return hold.scope == selection.scope && hold.name == selection.name;
    });
    if (found != state.holds.end()) return *found;
    state.holds.push_back({.scope = selection.scope, .name = selection.name});
    return state.holds.back();
}

void tell_line(const std::string& line) { std::fprintf(stderr, "postrider: %s\n", line.c_str()); }

// An order as it is told. `until_s`: when it ends by itself; 0: it does not.
void tell_order(std::string_view order, const Said& said, int64_t until_s) {
    tell_line(fmt::format("{}: {}{}{}{}", said.who, order, until_s ? " until " + local_time(until_s) : "",
                          said.reason.empty() ? "" : ": ", said.reason));
}

void tell(std::string_view what, const Selection* selection, const Said& said, int64_t until_s = 0) {
    const std::string of = selection ? fmt::format("{} {}", name_of(selection->scope), selection->name) : "everything";
    tell_order(fmt::format("queue {} {}", what, of), said, until_s);
}

void tell_ended(std::span<const Hold> holds) {
    for (const Hold& hold : holds)
        tell_line(fmt::format("queue suspend {} {} by {} has ended, its time has passed", name_of(hold.scope), hold.name,
                              hold.suspended_by.who));
}

void tell_ended(std::span<const ShapingOverride> overrides) {
    for (const auto& each : overrides)
        tell_line(fmt::format("shape set {} {}={} by {} has ended, its time has passed", each.domain, each.key, each.value,
                              each.who));
}

}  // namespace

Result<Selection> selection_of(std::string_view scope, std::string_view name) {
    const auto known = hold_scope_of(scope);
    if (!known)
        return fail(fmt::format("\"{}\" is no selection, allowed: domain, site, provider, campaign, tenant", scope));
    Selection selection{*known, std::string(name)};
    if (name.empty()) return fail(fmt::format("--{}: is empty", scope));
    switch (*known) {
        case HoldScope::domain: {
            const std::string address = "x@" + std::string(name);
            if (!parse_mailbox(address)) return fail(fmt::format("--domain: \"{}\" is no domain name", name));
            auto ascii = domain_to_ascii(name);
            if (!ascii) return fail(fmt::format("--domain {}: {}", name, ascii.error().text));
            selection.name = std::move(*ascii);
            break;
        }
        case HoldScope::site:
            if (name.size() > limits::kSiteName + limits::kDomain) return fail("--site: is too long for a site's name");
            if (std::ranges::any_of(name, [](char c) { return c <= ' ' || c > '~'; }))
                return fail("--site: has octets that no site's name has; the delivery log tells it");
            std::ranges::transform(selection.name, selection.name.begin(), [](char c) {
                return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
            });
            break;
        default:
            if (auto good = check_label(name); !good)
                return fail(fmt::format("--{}: {}", scope, good.error().text));
    }
    return selection;
}

Result<std::string> typed_domain(const std::string& typed) {
    if (const size_t at = typed.rfind('@'); at != std::string::npos)
        return fail(fmt::format("\"{}\" is an address; give its domain, {}", typed, typed.substr(at + 1)), EINVAL);
    auto selection = selection_of("domain", typed);
    if (!selection) return fail(fmt::format("\"{}\" is no domain name", typed), EINVAL);
    return selection->name;
}

Result<std::string> shape_name_of(const ShapingBook& book, std::string_view name) {
    constexpr std::string_view kProvider = "provider.";
    // The shell takes the quotes of provider."google" away.
    if (name.starts_with(kProvider) && book.knows_provider(name.substr(kProvider.size())))
        return fmt::format("provider.\"{}\"", name.substr(kProvider.size()));
    if (name == "default" || (name.starts_with("provider.\"") && name.ends_with('"'))) {
        if (auto good = check_label(name); !good) return std::unexpected(good.error());
        return std::string(name);
    }
    auto selection = selection_of("domain", name);
    if (!selection) return fail(selection.error().text.substr(std::string_view("--").size()));
    return selection->name;
}

namespace {

// Of what was kept, what still holds; the rest is told.
std::vector<ShapingOverride> that_hold(const ShapingBook& book, const std::vector<KeptShape>& shapes) {
    std::vector<ShapingOverride> overrides;
    for (const KeptShape& shape : shapes) {
        if (shape.expires_s && shape.expires_s <= wall_s()) continue;
        ShapingOverride set{shape.domain,   shape.key,         shape.value,    shape.expires_s,
                            shape.said.who, shape.said.reason, shape.said.at_s};
        if (auto good = book.check(set); good)
            overrides.push_back(std::move(set));
        else
            std::fprintf(stderr, "postrider: what was set for %s does not hold any more: %s\n", shape.domain.c_str(),
                         good.error().text.c_str());
    }
    return overrides;
}

}  // namespace

Control::Control(Engine& engine, SharedState& shared, ControlFile file, ControlState state)
    : engine_(engine), shared_(shared), file_(std::move(file)), state_(std::move(state)) {}

Result<std::unique_ptr<Control>> Control::open(Engine& engine, SharedState& shared) {
    ControlState state;
    auto file = ControlFile::open(shared.spool->root(), state);
    if (!file) return fail(shared.spool->path() + "/" + file.error().text, file.error().code);
    if (!file->note().empty())
        std::fprintf(stderr, "postrider: %s/%s\n", shared.spool->path().c_str(), file->note().c_str());
    std::unique_ptr<Control> control(new Control(engine, shared, std::move(*file), std::move(state)));
    int64_t newest_s = shared.recovered->newest_s();
    for (const Hold& hold : control->state_.holds) newest_s = std::max(newest_s, hold.cancelled_to_s);
    shared.time_line.begin(read_wall_clock(), read_mono_clock(), control->state_.clock_offset_us, newest_s);
    // Of a clock that was set back while no engine ran. Written, or what comes before the next start would count as cancelled.
    if (cancels_were_before_now(control->state_))
        if (auto written = control->file_.write(control->state_); !written)
            return fail(shared.spool->path() + "/" + written.error().text, written.error().code);
    tell_ended(control->prune(control->state_));
    shared.shaping.replace_overrides(that_hold(shared.shaping, control->state_.shapes));
    shared.shaping.await_sites();
    shared.holds = control->table_of(control->state_);
    if (shared.holds) control->next_end_s_ = shared.holds->next_end_s();
    return control;
}

std::shared_ptr<const HoldTable> Control::table_of(const ControlState& state) const {
    if (state.holds.empty()) return nullptr;
    return std::make_shared<HoldTable>(state.holds, shared_.domains, shared_.labels);
}

int64_t Control::now_s() const { return shared_.time_line.at_s(read_mono_clock()); }

std::vector<Hold> Control::prune(ControlState& state) const {
    std::vector<Hold> ended;
    const int64_t now_s = this->now_s();
    const int64_t kept_s = std::max(kCancelKeptLeastS, 2 * shared_.config.retry.max_age_ms / kMsPerSecond);
    for (Hold& hold : state.holds) {
        if (hold.suspended && hold.until_s && hold.until_s <= now_s) {
            ended.push_back(hold);
            hold.suspended = false;
        }
        if (hold.cancelled_to_s && hold.cancelled_to_s + kept_s < now_s) hold.cancelled_to_s = 0;
    }
    std::erase_if(state.holds, [](const Hold& hold) { return !hold.suspended && !hold.cancelled_to_s; });
    return ended;
}

Result<void> Control::put(ControlState state) {
    const auto ended = prune(state);
    if (state.holds.size() > kMostHolds)
        return fail(fmt::format("{} selections are cancelled or suspended already; resume some", kMostHolds));
    if (auto written = file_.write(state); !written)
        return fail("nothing was changed: " + written.error().text, written.error().code);
    state_ = std::move(state);
    tell_shards();
    tell_ended(ended);
    return {};
}

void Control::tell_shards() {
    const auto table = table_of(state_);
    next_end_s_ = table ? table->next_end_s() : INT64_MAX;
    engine_.on_each_shard([&](Shard& shard) { shard.set_holds(table); });
}

void Control::judge_again() {
    std::scoped_lock lock(mutex_);
    tell_shards();
}

Result<void> Control::suspend(const Selection& selection, int64_t for_s, Said said) {
    std::scoped_lock lock(mutex_);
    ControlState state = state_;
    Hold& hold = hold_of(state, selection);
    hold.suspended = true;
    const int64_t until_s = for_s ? now_s() + for_s : 0;
    hold.until_s = until_s;
    hold.suspended_by = said;
    if (auto done = put(std::move(state)); !done) return done;
    tell("suspend", &selection, said, until_s ? shared_.time_line.wall_s(until_s) : 0);
    return {};
}

Result<void> Control::resume(const Selection& selection, Said said) {
    std::scoped_lock lock(mutex_);
    ControlState state = state_;
    Hold& hold = hold_of(state, selection);
    if (!hold.suspended)
        return fail(fmt::format("{} {} is not suspended; `postrider queue list` shows what is", name_of(selection.scope),
                                selection.name));
    hold.suspended = false;
    if (auto done = put(std::move(state)); !done) return done;
    tell("resume", &selection, said);
    return {};
}

Result<void> Control::cancel(const Selection& selection, Said said) {
    std::scoped_lock lock(mutex_);
    const int64_t at_ns = file_clock_ns();
    int64_t to_s;
    do {
        ControlState state = state_;
        // Later than any claim, also one that a shard makes with the old table before it hears of this; later than any
        // cancel, so that what is claimed between the two is told from what comes after both.
        to_s = std::max(now_s() + 1, shared_.latest_claim_s.load());
        for (const Hold& other : state.holds) to_s = std::max(to_s, other.cancelled_to_s + 1);
        Hold& hold = hold_of(state, selection);
        hold.cancelled_to_s = to_s;
        hold.cancelled_at_ns = at_ns;
        hold.cancelled_by = said;
        if (auto done = put(std::move(state)); !done) return done;
    } while (now_s() > to_s);  // the disk took so long that a claim may have been stamped later meanwhile
    // What is renamed into new/ after this call is told from what was there before by the file system's clock: let it tick.
    while (file_clock_ns() <= at_ns) {
        const timespec pause{0, 200'000};
        nanosleep(&pause, nullptr);
    }
    tell("cancel", &selection, said);
    return {};
}

Result<void> Control::flush(const Selection* selection, Said said) {
    std::shared_ptr<const HoldTable> table;
    if (selection) {
        Hold chosen{.scope = selection->scope, .name = selection->name, .suspended = true};
        table = std::make_shared<HoldTable>(std::vector{chosen}, shared_.domains, shared_.labels);
    }
    engine_.on_each_shard([&](Shard& shard) { shard.backlog().flush(table); });
    tell("flush", selection, said);
    return {};
}

std::vector<Hold> Control::holds() const {
    std::scoped_lock lock(mutex_);
    std::vector<Hold> holds = state_.holds;
    for (Hold& hold : holds)
        if (hold.until_s) hold.until_s = shared_.time_line.wall_s(hold.until_s);
    return holds;
}

// ---- shape

namespace {

std::vector<KeptShape> kept(const std::vector<ShapingOverride>& overrides) {
    std::vector<KeptShape> shapes;
    for (const auto& each : overrides)
        shapes.push_back({each.domain, each.key, each.value, each.expires_s, {each.set_s, each.who, each.why}});
    return shapes;
}

}  // namespace

Result<void> Control::put_shapes(std::vector<ShapingOverride> overrides) {
    ControlState state = state_;
    state.shapes = kept(overrides);
    if (auto written = file_.write(state); !written)
        return fail("nothing was changed: " + written.error().text, written.error().code);
    state_ = std::move(state);
    shared_.shaping.replace_overrides(std::move(overrides));
    return {};
}

Result<void> Control::set_shape(const std::string& domain, const ShapeSettings& settings, int64_t for_s,
                                const Said& said) {
    if (settings.empty()) return fail("say what to set, as key=value");
    std::scoped_lock lock(mutex_);
    const int64_t until_s = for_s ? said.at_s + for_s : 0;
    auto wanted = shared_.shaping.overrides();
    if (wanted.size() + settings.size() > kMostHolds) return fail("too much is set already; unset some");
    for (const auto& [key, value] : settings) {
        ShapingOverride set{domain, key, value, until_s, said.who, said.reason, said.at_s};
        if (auto good = shared_.shaping.check(set); !good) return good;
        std::erase_if(wanted, [&](const ShapingOverride& each) { return each.same_place(set); });
        wanted.push_back(std::move(set));
    }
    if (auto done = put_shapes(std::move(wanted)); !done) return done;
    for (const auto& [key, value] : settings)
        tell_order(fmt::format("shape set {} {}={}", domain, key, value), said, until_s);
    return {};
}

Result<void> Control::unset_shape(const std::string& domain, const ShapeSettings& settings, const Said& said) {
    std::scoped_lock lock(mutex_);
    auto wanted = shared_.shaping.overrides();
    std::set<std::string> there, keys;
    for (const auto& each : wanted)
        if (each.domain == domain) there.insert(each.key);
    for (const auto& [key, value] : settings) {
        if (!there.contains(key))
            return fail(fmt::format("{}: {} is not set, so nothing was changed; `postrider shape show` tells what is", domain,
                                    key));
        keys.insert(key);
    }
    if (settings.empty()) keys = std::move(there);
    if (keys.empty()) return fail(domain + ": nothing is set for it; `postrider shape show` tells what is");
    std::erase_if(wanted, [&](const ShapingOverride& each) { return each.domain == domain && keys.contains(each.key); });
    if (auto done = put_shapes(std::move(wanted)); !done) return done;
    tell_order(fmt::format("shape unset {} {}", domain, fmt::join(keys, " ")), said, 0);
    return {};
}

// Queued mail goes by the time-line, which goes on; what the next start needs to find it again is written.
void Control::look_at_the_clock() {
    const WallUs wall_us = read_wall_clock();
    const MonoNs now_ns = read_mono_clock();
    if (const int64_t set_by_s = shared_.time_line.look(wall_us, now_ns)) {
        std::fprintf(stderr, "postrider: the machine's clock was set by %+lld s: ages and retries of queued mail go on as if it "
                     "had not been\n", static_cast<long long>(set_by_s));
        keep_offset_ns_ = now_ns;
    }
    if (keep_offset_ns_ == 0 || now_ns < keep_offset_ns_) return;
    auto kept = keep_offset();
    keep_offset_ns_ = kept ? 0 : now_ns + kNsPerSecond;
    if (!kept)
        std::fprintf(stderr, "postrider: that the machine's clock was set could not be written, which is tried again every second: "
                     "%s\n", kept.error().text.c_str());
}

// After a step back what comes into new/ from now on must not look as if it had been there before a cancel.
bool Control::cancels_were_before_now(ControlState& state) {
    const int64_t now_ns = file_clock_ns();
    bool changed = false;
    for (Hold& hold : state.holds) {
        if (!hold.cancelled_to_s || hold.cancelled_at_ns <= now_ns) continue;
        hold.cancelled_at_ns = now_ns;
        changed = true;
    }
    return changed;
}

Result<void> Control::keep_offset() {
    ControlState state = state_;
    state.clock_offset_us = shared_.time_line.offset_us();
    cancels_were_before_now(state);
    return put(std::move(state));
}

void Control::tick() {
    std::scoped_lock lock(mutex_);
    look_at_the_clock();
    if (wall_s() >= next_shapes_s_) {
        tell_ended(shared_.shaping.expire(wall_s()));
        next_shapes_s_ = wall_s() + 1;
    }
    if (now_s() < next_end_s_) return;
    if (auto done = put(state_); !done) {
        std::fprintf(stderr, "postrider: a suspension has run out: %s\n", done.error().text.c_str());
        next_end_s_ = now_s() + 1;
    }
}

}  // namespace postrider
