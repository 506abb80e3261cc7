// A segment in compaction: read again for what is still needed of it, a slice at a time.
//
//   gathering -> listening -> copying -> done        with merging
//   copying -> done                                  without
//
// Gathering notes the recipients that the segment speaks of (latest_results.h), listening reads every other segment whose
// end is durable for their later results, copying hands on what is needed: what tells of a file that is there and, with
// merging, is not superseded. It costs a look at each other segment, so it is worth it only when much is superseded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/files.h"
#include "queue/journal/file_set.h"
#include "queue/journal/latest_results.h"
#include "queue/journal/segment_reader.h"

namespace postrider {

class Compaction {
  public:
    // `directory` outlives it. `durable`: with merging, the segments to listen to; one that is gone by then is passed over.
    static Result<std::unique_ptr<Compaction>> open(int directory, const SegmentName& name, bool merging,
                                                    std::vector<SegmentName> durable);

    // Reads about `octets` more, in the passes that only listen four times as many. `there`: the files that the segment
    // speaks of and that are left. False when it is done. Fails when the segment cannot be read whole.
    Result<bool> slice(uint64_t octets, const FileSet& there, const std::function<void(const JournalRecord&)>& keep);

    const SegmentName& name() const { return name_; }
    bool done() const { return state_ == State::done; }

  private:
    enum class State : uint8_t { gathering, listening, copying, done };

    Compaction(int directory, const SegmentName& name) : directory_(directory), name_(name) {}
    Result<uint64_t> read_own(const FileSet& there, const std::function<void(const JournalRecord&)>& keep);
    uint64_t listen();
    void begin_pass(State state);

    const int directory_;
    const SegmentName name_;
    FileDescriptor fd_;
    std::unique_ptr<SegmentReader> reader_;
    State state_ = State::copying;
    bool merging_ = false;
    LatestResults latest_;
    std::vector<SegmentName> durable_;  // the last one first to be listened to
    FileDescriptor other_fd_;
    std::unique_ptr<SegmentReader> other_;
};

}  // namespace postrider
