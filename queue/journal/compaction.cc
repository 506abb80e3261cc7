#include "queue/journal/compaction.h"

#include <fcntl.h>

#include "engine/io/crash_points.h"

namespace postrider {

Result<std::unique_ptr<Compaction>> Compaction::open(int directory, const SegmentName& name, bool merging,
                                                     std::vector<SegmentName> durable) {
    std::unique_ptr<Compaction> compaction(new Compaction(directory, name));
    auto fd = files::open_beneath(directory, segment_file_name(name), O_RDONLY);
    if (!fd) return std::unexpected(fd.error());
    compaction->fd_ = std::move(*fd);
    compaction->merging_ = merging;
    compaction->durable_ = std::move(durable);
    compaction->begin_pass(merging ? State::gathering : State::copying);
    return compaction;
}

void Compaction::begin_pass(State state) {
    state_ = state;
    reader_ = state == State::done ? nullptr : std::make_unique<SegmentReader>(fd_.get(), name_);
}

// One record of the segment itself; returns its octets.
Result<uint64_t> Compaction::read_own(const FileSet& there, const std::function<void(const JournalRecord&)>& keep) {
    auto item = reader_->next();
    if (!item) return std::unexpected(item.error());
    switch (item->what) {
        case SegmentReader::What::record:
            if (item->record.file == 0 || !there.contains(item->record.file)) break;
            if (state_ == State::gathering)
                latest_.add(item->record);
            else if (!merging_ || !latest_.makes_void(item->record))
                keep(item->record);
            break;
        case SegmentReader::What::end:
            begin_pass(state_ == State::gathering ? State::listening : State::done);
            if (state_ == State::done) POSTRIDER_CRASH_POINT("journal.compact.done");
            break;
        case SegmentReader::What::unknown:
        case SegmentReader::What::bad:
            return fail("journal segment " + segment_file_name(name_) + " has no known record at offset " +
                        std::to_string(item->offset));
    }
    return item->size;
}

// One record of another segment; returns its octets. Damage there is passed over: what it would have superseded is kept.
uint64_t Compaction::listen() {
    if (!other_) {
        if (durable_.empty()) {
            POSTRIDER_CRASH_POINT("journal.compact.merged");
            begin_pass(State::copying);
            return 0;
        }
        const SegmentName name = durable_.back();
        durable_.pop_back();
        auto fd = files::open_beneath(directory_, segment_file_name(name), O_RDONLY);
        if (!fd) return 0;
        other_fd_ = std::move(*fd);
        other_ = std::make_unique<SegmentReader>(other_fd_.get(), name);
    }
    auto item = other_->next();
    if (!item || item->what == SegmentReader::What::end) {
        other_.reset();
        return 0;
    }
    if (item->what == SegmentReader::What::record) latest_.hear_of(item->record);
    return item->size;
}

Result<bool> Compaction::slice(uint64_t octets, const FileSet& there,
                               const std::function<void(const JournalRecord&)>& keep) {
    for (uint64_t read = 0; read < octets && state_ != State::done;) {
        const bool copying = state_ == State::copying;
        if (state_ == State::listening) {
            read += listen() / 4;
            continue;
        }
        auto size = read_own(there, keep);
        if (!size) return std::unexpected(size.error());
        read += copying ? *size : *size / 4;
    }
    return state_ != State::done;
}

}  // namespace postrider
