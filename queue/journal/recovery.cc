#include "queue/journal/recovery.h"

#include <fcntl.h>

#include <algorithm>
#include <memory>

#include "engine/io/files.h"
#include "engine/io/crash_points.h"
#include "queue/journal/segment_reader.h"

namespace postrider {
namespace {

// What one segment told about itself.
struct SegmentView {
    SegmentName name;
    uint64_t size = 0;          // of the file
    uint64_t records_end = 0;   // behind the last whole record
    uint64_t intact_until = 0;  // the highest offset that was durable by its own word
    bool has_records = false;   // other than marks
    uint64_t record_octets = 0;  // of those
    FileId last_file = 0;        // the last of them that is there
    bool has_mark = false;      // a commit ended while it was written
    bool sealed = false;
    std::vector<BadStretch> bad;
    uint64_t bad_count = 0;
};

void note(std::vector<BadStretch>& list, uint64_t& count, BadStretch stretch) {
    ++count;
    if (list.size() < RecoveryReport::kStretchesKept) list.push_back(std::move(stretch));
}

Error in_segment(const SegmentName& name, const Error& error) {
    return {error.code, "journal segment " + segment_file_name(name) + ": " + error.text};
}

void take_record(const SegmentReader::Item& item, SegmentView& view, OldSegment& old,
                 RecoveredState& state) {
    const JournalRecord& record = item.record;
    view.records_end = item.offset + item.size;
    if (record.kind == RecordKind::synced || record.kind == RecordKind::seal) {
        view.has_mark = true;
        view.intact_until = std::max(view.intact_until, record.offset);
        view.sealed |= record.kind == RecordKind::seal;
        return;
    }
    view.has_records = true;
    view.record_octets += item.size;
    if (!state.merge(record)) return;
    old.live_octets += item.size;
    if (record.file == view.last_file) return;  // a batch's records come in runs
    view.last_file = record.file;
    old.files.insert(record.file);
}

Result<SegmentView> read_segment(int dir, const SegmentName& name, RecoveredState& state,
                                 RecoveryReport& report) {
    auto fd = files::open_beneath(dir, segment_file_name(name), O_RDONLY);
    if (!fd) return std::unexpected(fd.error());
    SegmentView view;
    view.name = name;
    OldSegment old;
    old.name = name;
    SegmentReader reader(fd->get(), name);
    while (true) {
        auto item = reader.next();
        if (!item) return std::unexpected(item.error());
        switch (item->what) {
            case SegmentReader::What::record:
                ++report.records;
                take_record(*item, view, old, state);
                break;
            case SegmentReader::What::unknown:
                ++report.unknown_records;
                view.has_records = true;
                view.records_end = item->offset + item->size;
                break;
            case SegmentReader::What::bad:
                note(view.bad, view.bad_count, {segment_file_name(name), item->offset, item->size});
                break;
            case SegmentReader::What::end:
                // Compaction takes what it was told of for durable; an engine that was killed had perhaps not synced it yet.
                if (auto synced = files::sync_data(fd->get()); !synced) return std::unexpected(in_segment(name, synced.error()));
                view.size = old.size = item->offset;
                // The segment's live part is known here by octets, later by files.
                if (old.live_octets > 0)
                    old.files_ever = std::max<size_t>(old.files.size(), old.files.size() * view.record_octets / old.live_octets);
                // The header is synced before the first record is written.
                if (view.size > kSegmentHeaderSize)
                    view.intact_until = std::max<uint64_t>(view.intact_until, kSegmentHeaderSize);
                ++report.segments;
                report.octets += view.size;
                state.add_segment(std::move(old));
                POSTRIDER_CRASH_POINT("recovery.segment.read");
                return view;
        }
    }
}

// Nothing is written behind a tail that may be torn: it is cut behind the last record, and the seal keeps the offset
// up to which damage is damage, so that the next recovery judges as this one.
Result<void> seal(int dir, const SegmentView& view) {
    auto fd = files::open_beneath(dir, segment_file_name(view.name), O_WRONLY | O_APPEND);
    if (!fd) return std::unexpected(fd.error());
    char end[kSegmentHeaderSize + kRecordSizeMax];
    size_t size = 0;
    if (view.records_end == 0) {  // no record, perhaps not even its header
        encode_header(view.name, 0, std::span<char, kSegmentHeaderSize>(end, kSegmentHeaderSize));
        size = kSegmentHeaderSize;
    }
    size += encode_mark(segment_seed(view.name), RecordKind::seal, view.intact_until,
                        RecordBuffer(end + size, kRecordSizeMax));
    POSTRIDER_CRASH_POINT("recovery.seal.before");
    // Also where nothing is cut: it gives the blocks back that were reserved behind the end.
    Result<void> done = files::truncate(fd->get(), view.records_end);
    POSTRIDER_CRASH_POINT("recovery.seal.cut");
    if (done) done = files::write_all(fd->get(), end, size);
    POSTRIDER_CRASH_POINT("recovery.seal.written");
    if (done) done = files::sync_data(fd->get());
    POSTRIDER_CRASH_POINT("recovery.seal.after");
    if (!done) return std::unexpected(in_segment(view.name, done.error()));
    return {};
}

void judge_stretches(const SegmentView& view, bool seal_is_missing, RecoveryReport& report) {
    for (const auto& stretch : view.bad) {
        // In a sealed segment a stretch that reaches behind its last record has overwritten nothing it vouches for,
        // but its end was cut when it was sealed: what is there now came later.
        const bool damage = stretch.offset < view.intact_until || seal_is_missing ||
                            (view.sealed && stretch.offset >= view.records_end);
        if (damage)
            note(report.damaged, report.damaged_stretches, stretch);
        else
            note(report.torn, report.torn_stretches, stretch);
    }
    report.damaged_stretches += view.bad_count - view.bad.size();
    if (seal_is_missing && view.bad.empty())
        note(report.damaged, report.damaged_stretches,
             {segment_file_name(view.name), view.records_end, 0});
}

// A later segment of the shard with a mark proves that the commit which sealed this one had ended.
Result<void> judge_shard(int dir, std::span<const SegmentView> shard, RecoveryReport& report) {
    bool later_mark = false;
    std::vector<bool> missing(shard.size());
    for (size_t i = shard.size(); i-- > 0;) {
        missing[i] = !shard[i].sealed && later_mark;
        later_mark |= shard[i].has_mark;
    }
    for (size_t i = 0; i < shard.size(); ++i) {
        judge_stretches(shard[i], missing[i], report);
        if (shard[i].sealed || missing[i]) continue;
        if (auto sealed = seal(dir, shard[i]); !sealed) return sealed;
    }
    return {};
}

}  // namespace

Result<void> recover_journals(int journal_dir, RecoveredState& state, RecoveryReport& report) {
    auto names = list_segments(journal_dir);
    if (!names) return std::unexpected(names.error());
    std::vector<SegmentView> views;
    for (const SegmentName& name : *names) {
        auto view = read_segment(journal_dir, name, state, report);
        if (!view) return std::unexpected(view.error());
        views.push_back(std::move(*view));
    }
    for (size_t first = 0; first < views.size();) {
        size_t last = first;
        while (last < views.size() && views[last].name.shard == views[first].name.shard) ++last;
        auto judged = judge_shard(journal_dir, std::span(views).subspan(first, last - first), report);
        if (!judged) return std::unexpected(judged.error());
        first = last;
    }
    return {};
}

}  // namespace postrider
