#include "queue/journal/segment_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/io/files.h"

namespace postrider {

SegmentReader::SegmentReader(int fd, const SegmentName& name)
    : fd_(fd), name_(name), seed_(segment_seed(name)) {}

Result<void> SegmentReader::make_buffer() {
    auto st = files::status(fd_);
    if (!st) return fail("journal segment " + segment_file_name(name_) + ": " + st.error().text, st.error().code);
    // One octet more than the file has: the first read tells that it is all.
    capacity_ = std::clamp<size_t>(static_cast<size_t>(st->st_size) + 1, 2 * kRecordSizeMax, kBufferMost);
    buffer_ = std::make_unique_for_overwrite<char[]>(capacity_);
    return {};
}

Result<void> SegmentReader::fill() {
    if (at_end_ || end_ - begin_ >= kRecordSizeMax) return {};
    if (!buffer_)
        if (auto made = make_buffer(); !made) return made;
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    const size_t wanted = capacity_ - end_;
    auto got = files::read_at(fd_, buffer_.get() + end_, wanted, file_offset_);
    if (!got)
        return fail("journal segment " + segment_file_name(name_) + ": " + got.error().text,
                    got.error().code);
    end_ += *got;
    file_offset_ += *got;
    at_end_ = *got < wanted;
    return {};
}

Result<bool> SegmentReader::header_is_whole() {
    started_ = true;
    if (auto filled = fill(); !filled) return std::unexpected(filled.error());
    switch (check_header(view(), name_)) {
        case HeaderState::newer:
            return fail("journal segment " + segment_file_name(name_) +
                        " is of a newer format version: run the program that wrote it");
        case HeaderState::damaged:
            return false;
        case HeaderState::whole:
            break;
    }
    begin_ += kSegmentHeaderSize;
    return true;
}

// Every fourth octet is tried. An unknown kind is not believed here: its size cannot be checked against anything.
Result<SegmentReader::Item> SegmentReader::skip_bad() {
    Item item{What::bad, position(), 0, {}};
    JournalRecord record;
    while (true) {
        if (auto filled = fill(); !filled) return std::unexpected(filled.error());
        size_t size = 0;
        if (item.size > 0 && parse_record(view(), seed_, record, size) == Parsed::known) return item;
        const size_t step = std::min<size_t>(4, end_ - begin_);
        if (step == 0) return item;
        begin_ += step;
        item.size += step;
    }
}

Result<SegmentReader::Item> SegmentReader::next() {
    if (!started_) {
        auto whole = header_is_whole();
        if (!whole) return std::unexpected(whole.error());
        // An empty file has no header to be damaged: the segment was made and the power went.
        if (!*whole && end_ > begin_) return skip_bad();
    }
    if (auto filled = fill(); !filled) return std::unexpected(filled.error());
    if (begin_ == end_) return Item{What::end, position(), 0, {}};
    Item item;
    item.offset = position();
    size_t size = 0;
    switch (parse_record(view(), seed_, item.record, size)) {
        case Parsed::known:
            item.what = What::record;
            break;
        case Parsed::unknown:
            item.what = What::unknown;
            break;
        case Parsed::incomplete:  // fill() has made a whole one visible if there is one
        case Parsed::bad:
            return skip_bad();
    }
    item.size = size;
    begin_ += size;
    return item;
}

Result<std::vector<SegmentName>> list_segments(int journal_dir) {
    auto listing = files::Listing::open(journal_dir);
    if (!listing) return fail("the journal's directory: " + listing.error().text, listing.error().code);
    std::vector<SegmentName> names;
    for (;;) {
        auto entry = listing->next();
        if (!entry) return fail("the journal's directory: " + entry.error().text, entry.error().code);
        if (!*entry) break;
        SegmentName name;
        if (parse_segment_file_name((*entry)->d_name, name)) names.push_back(name);
    }
    std::ranges::sort(names);
    return names;
}

}  // namespace postrider
