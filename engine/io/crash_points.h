// Faults on demand, for tests/crash: a build option (-Dcrash_points=true) compiles them in, every other build has none of it.
//
// Crash points: POSTRIDER_CRASH_POINT("journal.write.before") is a named place beside a write, sync, rename or unlink. A name
// that is not in kCrashPoints does not compile. POSTRIDER_CRASH_AT=name:n kills the process (SIGKILL) at the n-th hit.
//
// File faults: every file operation of the engine passes file_fault(). The first is number 1; they are counted over all
// threads. POSTRIDER_FAIL_IO=n:EIO makes the n-th fail, n-m:ENOSPC all from n to m, n-:ENOSPC all from n; n:short cuts a read
// or write in half, n:ENOSPC:short cuts it and fails the next, as a full disk does. POSTRIDER_COUNT_IO=1 prints the number of
// operations to stderr at exit, POSTRIDER_COUNT_IO=2 each of them with its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace postrider {

inline constexpr std::string_view kCrashPoints[] = {
    // The claim of a spool file and its index.
    "claim.before",             // looked at, not yet renamed
    "claim.renamed",            // in active/, no record of it
    "claim.journalled",         // its claim is gathered for the journal
    "index.created",            // empty
    "index.write.before",       // a block of it
    "index.write.after",
    "index.header.before",      // everything but the header is there
    "index.finished",
    "publish.before",           // the first record is about to be handed out
    "publish.message",          // one message's records are
    "publish.done",
    // bad/: what is refused.
    "bad.reason.before",
    "bad.reason.created",       // empty
    "bad.reason.written",
    "bad.reason.named",
    "bad.moved",                // the file lies beside its reason
    "bad.message.created",      // the copy of one message of a batch, empty
    "bad.message.copied",
    // Journal.
    "journal.segment.created",  // empty
    "journal.segment.reserved",
    "journal.segment.header",   // written, not synced
    "journal.segment.synced",   // its directory is not
    "journal.segment.made",
    "journal.write.before",
    "journal.write.after",
    "journal.rotate.before",    // the full segment is not sealed
    "journal.rotate.sealed",
    "journal.rotate.after",
    "journal.remove.before",
    "journal.remove.after",
    "journal.compact.begin",
    "journal.compact.slice",
    "journal.compact.merged",   // the later results are known; nothing is copied yet
    "journal.compact.done",     // copied; the old segment is still there
    // Delivery log.
    "log.write.before",
    "log.write.after",
    "log.reopened",
    // Commit.
    "commit.begin",
    "commit.sync.before",       // a sync is about to be submitted
    "commit.sync.after",        // it has ended well
    "commit.durable",           // all have; nothing is released yet
    "commit.released",
    // Results and the end of a file.
    "intent.gathered",
    "result.logged",            // the line is gathered, the result is not
    "result.gathered",
    "remove.index.before",
    "remove.file.before",
    "remove.file.after",
    // Recovery.
    "recovery.segment.read",
    "recovery.seal.before",
    "recovery.seal.cut",        // the torn tail is cut
    "recovery.seal.written",
    "recovery.seal.after",
    "recovery.merged",
    "recovery.file.begin",      // a file of an earlier run is about to be published again
    // The producer's side: `postrider send`.
    "send.created",
    "send.written",
    "send.synced",
    "send.renamed",
    "send.done",
};

#ifdef POSTRIDER_CRASH_POINTS

// The place of `name` in kCrashPoints; a name that is not there is no constant expression.
consteval size_t crash_point_number(std::string_view name) {
    for (size_t i = 0; i < sizeof kCrashPoints / sizeof kCrashPoints[0]; ++i)
        if (kCrashPoints[i] == name) return i;
    throw "no such crash point";
}

void reach_crash_point(size_t number);
#define POSTRIDER_CRASH_POINT(name) ::postrider::reach_crash_point(::postrider::crash_point_number(name))

// What is to become of the operation at hand. `code`: an errno, 0: go on. `size` of a read or write may be cut.
struct FileFault {
    int code = 0;
    size_t size = 0;
};
FileFault file_fault(const char* operation, size_t size = 0);

#else

#define POSTRIDER_CRASH_POINT(name) static_cast<void>(0)

#endif

}  // namespace postrider
