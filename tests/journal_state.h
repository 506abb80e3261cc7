// What recovery makes of journals that lie without their spool: every file they speak of counts as there.
#pragma once

#include <fcntl.h>

#include "engine/io/files.h"
#include "queue/journal/recovery.h"
#include "queue/journal/segment_reader.h"

namespace postrider::testing {

inline void add_files_of(int journal_dir, const SegmentName& name, RecoveredState& state) {
    const auto fd = files::open_beneath(journal_dir, segment_file_name(name), O_RDONLY);
    if (!fd) return;
    SegmentReader reader(fd->get(), name);
    for (auto item = reader.next(); item && item->what != SegmentReader::What::end; item = reader.next())
        if (item->what == SegmentReader::What::record && item->record.file != 0) state.add(item->record.file);
}

inline Result<RecoveredState> recover_all(int journal_dir, RecoveryReport& report) {
    RecoveredState state;
    if (const auto names = list_segments(journal_dir))
        for (const SegmentName& name : *names) add_files_of(journal_dir, name, state);
    state.listed();
    if (auto read = recover_journals(journal_dir, state, report); !read) return std::unexpected(read.error());
    state.finish();
    return state;
}

}  // namespace postrider::testing
