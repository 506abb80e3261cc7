// The operator's hand on a running engine: cancels, suspensions, flushes, shape overrides. Any thread may call; changes are
// made one after the other.
//
// A change is written to disk (control_file.h), then told to every shard, then the call returns: from then on it holds on all
// of them and over a restart. None of it looks at a queued recipient, so the length of the queue does not matter.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/control_file.h"
#include "engine/egress/shaping_book.h"

namespace postrider {

class Engine;
struct SharedState;

struct Selection {
    HoldScope scope = HoldScope::domain;
    std::string name;
};

class Control {
  public:
    // Before the shards start, when the journals are read: reads what is kept and hands it to `shared`; its time-line begins.
    static Result<std::unique_ptr<Control>> open(Engine& engine, SharedState& shared);

    // `for_s`: the suspension ends by itself after so many seconds; 0: when it is resumed.
    Result<void> suspend(const Selection& selection, int64_t for_s, Said said);
    // An error when it was not suspended.
    Result<void> resume(const Selection& selection, Said said);
    // Everything of the selection that was put into the spool before this call began dies; what comes after it returned lives.
    Result<void> cancel(const Selection& selection, Said said);
    // Null: everything.
    Result<void> flush(const Selection* selection, Said said);

    using ShapeSettings = std::vector<std::pair<std::string, std::string>>;  // key and value
    // All of them or none. `for_s`: they end by themselves; 0: when they are unset.
    Result<void> set_shape(const std::string& domain, const ShapeSettings& settings, int64_t for_s, const Said& said);
    // No settings: all of the domain. All of them or none: an error when one was not set.
    Result<void> unset_shape(const std::string& domain, const ShapeSettings& settings, const Said& said);

    // For people: suspensions end by the wall clock.
    std::vector<Hold> holds() const;
    // Sites may have come to providers, or left them: what of their mail waits is judged anew.
    void judge_again();

    // Ends what has run out, and looks whether the machine's clock was set; many times a second.
    void tick();

  private:
    Control(Engine& engine, SharedState& shared, ControlFile file, ControlState state);
    // Writes and tells `state`, which replaces the one there was; under mutex_.
    Result<void> put(ControlState state);
    void tell_shards();
    std::shared_ptr<const HoldTable> table_of(const ControlState& state) const;
    // Writes the overrides, then puts them in force in place of those there were; under mutex_.
    Result<void> put_shapes(std::vector<ShapingOverride> overrides);
    // Drops what has run out; answers the suspensions among it.
    std::vector<Hold> prune(ControlState& state) const;
    int64_t now_s() const;  // of the time-line
    void look_at_the_clock();
    Result<void> keep_offset();
    // True: one of them had a time that has not come.
    static bool cancels_were_before_now(ControlState& state);

    Engine& engine_;
    SharedState& shared_;
    mutable std::mutex mutex_;
    ControlFile file_;
    ControlState state_;
    int64_t next_end_s_ = INT64_MAX;
    MonoNs keep_offset_ns_ = 0;  // when what the clock was set by is to be written; 0: it is
    int64_t next_shapes_s_ = 0;  // when overrides are looked at for their end
};

// A name as the queue knows it: domains as A-labels in lower case, hosts in lower case; labels as they are.
// A domain as the shaping knows it, or default, or provider."name".
Result<std::string> shape_name_of(const ShapingBook& book, std::string_view name);
Result<Selection> selection_of(std::string_view scope, std::string_view name);
// A domain as it was typed at a command; the error says what that is instead.
Result<std::string> typed_domain(const std::string& typed);

}  // namespace postrider
