#include "queue/journal/journal.h"

#include <fcntl.h>

#include <algorithm>

#include "engine/io/clock.h"
#include "engine/io/crash_points.h"

namespace postrider {

Journal::Journal(int directory, ShardId shard, uint64_t sequence, Options options)
    : directory_(directory),
      shard_(shard),
      options_(std::move(options)),
      next_sequence_(sequence),
      buffer_(kBufferAtFirst) {}

Result<std::unique_ptr<Journal>> Journal::open(int directory, ShardId shard, uint64_t sequence,
                                               Options options) {
    std::unique_ptr<Journal> journal(new Journal(directory, shard, sequence, std::move(options)));
    const SegmentName name{shard, journal->next_sequence_++};
    auto fd = journal->make_segment(name);
    if (!fd) return std::unexpected(fd.error());
    journal->use_segment(name, std::move(*fd));
    return journal;
}

// Blocks for two syncs, once a segment: its name must be durable before anything in it is.
Result<FileDescriptor> Journal::make_segment(const SegmentName& name) {
    const std::string file = segment_file_name(name);
    auto fd = files::open_beneath(directory_, file, O_WRONLY | O_CREAT | O_EXCL | O_APPEND);
    if (!fd) return std::unexpected(fd.error());
    POSTRIDER_CRASH_POINT("journal.segment.created");
    char header[kSegmentHeaderSize];
    encode_header(name, static_cast<uint32_t>(read_wall_clock() / kUsPerSecond), header);
    auto made = files::reserve(fd->get(), 0, options_.segment_bytes);
    POSTRIDER_CRASH_POINT("journal.segment.reserved");
    // A file system that cannot reserve is used without.
    if (made || made.error().code == EOPNOTSUPP) made = files::write_all(fd->get(), header, sizeof header);
    POSTRIDER_CRASH_POINT("journal.segment.header");
    if (made) made = files::sync_all(fd->get());
    POSTRIDER_CRASH_POINT("journal.segment.synced");
    if (made) made = files::sync_all(directory_);
    POSTRIDER_CRASH_POINT("journal.segment.made");
    if (made) return fd;
    if (auto removed = files::remove(directory_, file); !removed) trouble_ = removed.error();
    return fail("journal segment " + file + ": " + made.error().text, made.error().code);
}

void Journal::use_segment(const SegmentName& name, FileDescriptor fd) {
    fd_ = std::move(fd);
    current_ = Segment{};
    current_.name = name;
    seed_ = segment_seed(name);
    written_ = syncing_to_ = synced_ = marked_ = kSegmentHeaderSize;
    last_file_ = 0;
}

void Journal::prepare_next() {
    const SegmentName name{shard_, next_sequence_++};
    auto fd = make_segment(name);
    space_low_ = !fd;
    if (!fd) {
        trouble_ = fd.error();
        return;
    }
    next_.emplace(name, std::move(*fd));
}

void Journal::adopt(OldSegment segment) {
    if (segment.files.empty()) {
        condemn(segment.name);
        return;
    }
    next_sequence_ = std::max(next_sequence_, segment.name.sequence + 1);
    Segment old;
    old.name = segment.name;
    old.size = segment.size;
    old.files = std::move(segment.files);
    old.files_ever = segment.files_ever;
    superseded_ += segment.superseded;
    old_.push_back(std::move(old));
}

// --- Appending

RecordBuffer Journal::room() {
    if (buffer_.size() - gathered_ < kRecordSizeMax) buffer_.resize(2 * buffer_.size());
    return RecordBuffer(buffer_.data() + gathered_, kRecordSizeMax);
}

void Journal::appended(size_t size, FileId file) {
    gathered_ += size;
    ++records_;
    if (file == last_file_) return;
    last_file_ = file;
    if (current_.files.insert(file)) ++current_.files_ever;
}

void Journal::appended_early(const char* record, size_t size, FileId file) {
    early_.append(record, size);
    appended(0, file);
}

void Journal::claim(const ClaimFacts& facts) {
    char record[kRecordSizeMax];
    appended_early(record, encode_claim(seed_, facts, record), facts.file);
}

void Journal::intent(const IntentFacts& facts) {
    char record[kRecordSizeMax];
    const size_t size = encode_intent(seed_, facts, record);
    superseded_ += size;  // by its result
    appended_early(record, size, facts.file);
}

void Journal::result(const ResultFacts& facts) {
    const size_t size = encode_result(seed_, facts, room());
    if (facts.attempt > 1) superseded_ += size;  // as much, of the attempt before
    appended(size, facts.file);
}

void Journal::append_mark(RecordKind kind) {
    gathered_ += encode_mark(seed_, kind, synced_, room());
    marked_ = synced_;
}

// --- Committing

// All of it or nothing: after a full disk what was written of it is cut off again, so that the file ends with a whole record.
Result<void> Journal::write(const char* data, size_t size) {
    if (size == 0) return {};
    POSTRIDER_CRASH_POINT("journal.write.before");
    size_t done = 0;
    auto written = files::write_on(fd_.get(), data, size, done);
    POSTRIDER_CRASH_POINT("journal.write.after");
    if (written) {
        written_ += size;
        return {};
    }
    const std::string where = "journal segment " + segment_file_name(current_.name) + ": ";
    if (is_no_space(written.error().code) && done > 0)
        if (auto cut = files::truncate(fd_.get(), written_); !cut) return fail(where + cut.error().text, EIO);
    return fail(where + written.error().text, written.error().code);
}

Result<void> Journal::write_urgent() {
    if (auto written = write(early_.data(), early_.size()); !written) return written;
    early_.clear();
    return {};
}

void Journal::before_commit() {
    if (dirty() && synced_ > marked_) append_mark(RecordKind::synced);
    committing_ = gathered_;
    compaction_covered_ = compaction_ && compaction_->done();
}

void Journal::folders_to_sync(std::vector<int>& folders) {
    condemned_syncing_ = condemned_.size();
    if (condemned_syncing_ > 0) options_.removed_from(folders);
}

Result<void> Journal::begin_commit(std::vector<int>& to_sync) {
    if (!dirty()) return {};
    if (auto written = write_urgent(); !written) return written;
    if (auto written = write(buffer_.data(), committing_); !written) return written;
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(committing_), buffer_.begin() + static_cast<std::ptrdiff_t>(gathered_),
              buffer_.begin());
    gathered_ -= std::exchange(committing_, 0);
    if (!next_ && !space_low_ && 2 * written_ >= options_.segment_bytes) prepare_next();
    if (next_ && written_ >= rotate_at()) {
        if (auto rotated = rotate(to_sync); !rotated) return rotated;
    } else {
        to_sync.push_back(fd_.get());
    }
    syncing_to_ = written_;
    return {};
}

// What has gathered for the next commit goes to the new segment, by its seed.
void Journal::encode_again(uint32_t seed) {
    const std::string gathered(buffer_.data(), std::exchange(gathered_, 0));
    JournalRecord record;
    for (size_t at = 0, size = 0; at < gathered.size(); at += size) {
        POSTRIDER_CHECK(parse_record(std::span(gathered).subspan(at), seed, record, size) == Parsed::known, "records of our own");
        appended(encode_record(seed_, record, room()), record.file);
        --records_;
    }
}

// The new segment was made durable with its header, so only the old one needs this commit's sync. Its seal says what
// must be whole as of now: a power cut in the middle of this sync is a torn tail, no damage.
Result<void> Journal::rotate(std::vector<int>& to_sync) {
    POSTRIDER_CRASH_POINT("journal.rotate.before");
    char seal[kRecordSizeMax];
    if (auto written = write(seal, encode_mark(seed_, RecordKind::seal, synced_, seal)); !written) return written;
    POSTRIDER_CRASH_POINT("journal.rotate.sealed");
    to_sync.push_back(fd_.get());
    sealed_.push_back(std::move(fd_));
    current_.size = written_;
    old_.push_back(std::move(current_));
    const uint32_t seed = seed_;
    use_segment(next_->first, std::move(next_->second));
    next_.reset();
    encode_again(seed);
    POSTRIDER_CRASH_POINT("journal.rotate.after");
    return {};
}

Result<void> Journal::end_commit() {
    synced_ = std::max(synced_, syncing_to_);
    // Without a change of size: it gives back what was reserved behind the end.
    for (auto& fd : sealed_)
        if (auto size = files::status(fd.get()))
            if (auto cut = files::truncate(fd.get(), static_cast<uint64_t>(size->st_size)); !cut) trouble_ = cut.error();
    sealed_.clear();
    for (size_t i = 0; i < condemned_syncing_; ++i) remove_segment(condemned_[i]);
    condemned_.erase(condemned_.begin(), condemned_.begin() + static_cast<std::ptrdiff_t>(condemned_syncing_));
    condemned_syncing_ = 0;
    if (compaction_ && compaction_covered_) {
        find_old(compaction_->name())->files = FileSet{};
        compaction_.reset();
    }
    compaction_covered_ = false;
    // Besides the one that was compacted: a segment whose files were all gone before it was rotated out.
    std::erase_if(old_, [&](const Segment& segment) {
        if (!segment.files.empty()) return false;
        condemn(segment.name);
        return true;
    });
    if (!compaction_) start_compaction();
    return {};
}

// --- What is no longer needed

void Journal::forget(FileId file) {
    current_.files.erase(file);
    if (last_file_ == file) last_file_ = 0;
    std::erase_if(old_, [&](Segment& segment) {
        if (!segment.files.erase(file) || !segment.files.empty()) return false;
        if (compaction_ && compaction_->name() == segment.name) compaction_.reset();
        condemn(segment.name);
        return true;
    });
}

void Journal::condemn(const SegmentName& name) {
    if (options_.removed_from)
        condemned_.push_back(name);
    else
        remove_segment(name);
}

void Journal::remove_segment(const SegmentName& name) {
    POSTRIDER_CRASH_POINT("journal.remove.before");
    auto removed = files::remove(directory_, segment_file_name(name));
    POSTRIDER_CRASH_POINT("journal.remove.after");
    if (!removed && removed.error().code != ENOENT) trouble_ = removed.error();
}

uint64_t Journal::octets() const {
    uint64_t sum = written_ + gathered_ + early_.size();
    for (const auto& segment : old_) sum += segment.size;
    return sum;
}

uint64_t Journal::live_octets() const {
    const auto live_part = [](const Segment& segment, uint64_t size) {
        if (segment.files_ever == 0) return 0.0;
        return static_cast<double>(size) * static_cast<double>(segment.files.size()) /
               static_cast<double>(segment.files_ever);
    };
    double sum = live_part(current_, written_ + gathered_);
    for (const auto& segment : old_) sum += live_part(segment, segment.size);
    return static_cast<uint64_t>(sum);
}

Journal::Segment* Journal::find_old(const SegmentName& name) {
    const auto found = std::ranges::find(old_, name, &Segment::name);
    return found == old_.end() ? nullptr : &*found;
}

// The oldest that can be compacted; null: none.
Journal::Segment* Journal::choose_segment(bool by_files) {
    for (Segment& segment : old_) {
        if (segment.stuck) continue;
        if (by_files || segment.name.sequence < merge_below_) return &segment;
    }
    return nullptr;
}

// Every other segment but what may not be durable yet: of each shard the newest and the one that may have been made ahead of it.
// A segment is rotated out before the newest is half full, and synced by then.
Result<std::vector<SegmentName>> Journal::durable_segments_but(const SegmentName& name) const {
    auto names = list_segments(directory_);
    if (!names) return names;
    std::vector<SegmentName> durable;
    for (size_t i = 0; i + 2 < names->size(); ++i)
        if ((*names)[i].shard == (*names)[i + 2].shard && (*names)[i] != name) durable.push_back((*names)[i]);
    return durable;
}

void Journal::start_compaction() {
    const uint64_t all = octets();
    if (all <= options_.compact_above_bytes) return;
    if (merge_below_ == 0 && 4 * superseded_ > 3 * all) {
        merge_below_ = current_.name.sequence;
        superseded_ = 0;
    }
    Segment* segment = choose_segment(all > 4 * live_octets());
    if (!segment) {
        merge_below_ = 0;
        return;
    }
    const bool merging = segment->name.sequence < merge_below_;
    auto durable = merging ? durable_segments_but(segment->name) : std::vector<SegmentName>{};
    if (!durable) return give_up(*segment, durable.error());
    auto opened = Compaction::open(directory_, segment->name, merging, std::move(*durable));
    if (!opened) return give_up(*segment, opened.error());
    compaction_ = std::move(*opened);
    POSTRIDER_CRASH_POINT("journal.compact.begin");
}

// What cannot be read whole is not dropped: the segment stays until its files are gone.
void Journal::give_up(Segment& segment, Error why) {
    segment.stuck = true;
    trouble_ = std::move(why);
    compaction_.reset();
}

bool Journal::compact(MonoNs now) {
    // As much as keeps up with the clock, so that long turns do not make it late.
    const auto passed_ms = static_cast<uint64_t>((now - std::exchange(compacted_at_, now)) / kNsPerMs);
    const uint64_t octets = std::clamp(passed_ms * options_.compact_slice_bytes, options_.compact_slice_bytes,
                                       kLongestTurnMs * options_.compact_slice_bytes);
    if (!compaction_ || compaction_->done()) return false;
    if (space_low_ || gathered_ >= kCopiedAt) return false;  // what it copies takes room
    POSTRIDER_CRASH_POINT("journal.compact.slice");
    Segment* from = find_old(compaction_->name());
    POSTRIDER_CHECK(from, "the segment in compaction is one of ours");
    auto more = compaction_->slice(octets, from->files, [this](const JournalRecord& record) {
        appended(encode_record(seed_, record, room()), record.file);
    });
    if (!more) give_up(*from, more.error());
    return more && *more;
}

}  // namespace postrider
