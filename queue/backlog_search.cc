// What of one message waits in a backlog, and how much of a campaign is deferred: for `postrider why`, a slice at a time. No
// index leads there, because nothing else asks for one: every record is looked at, the deferred ones first.
#include "queue/backlog.h"
#include "queue/message_reader.h"

namespace postrider {
namespace {

constexpr size_t kLookedAt = 16'384;          // records in one slice, about
constexpr size_t kLookedAtOfAChain = 65'536;  // what lies deeper is not looked at, and the search says so

}  // namespace

void Backlog::look_through(Search& search, const RecordChain& chain, Resting how, const Visit& visit) {
    size_t left = kLookedAtOfAChain;
    for (RecordId id = chain.head; id && left > 0; id = arena_[id].link, --left) {
        const Record& record = arena_[id];
        ++search.looked_at;
        if (files_[record.file].id == search.message.file && message_id(search.message.file, record.place) == search.message)
            visit(record, how);
    }
    search.partly |= chain.count > kLookedAtOfAChain;
}

bool Backlog::count_deferred(DeferredCount& count) const {
    size_t looked_at = 0;
    auto bucket = buckets_.lower_bound(count.due_cursor_s);
    for (; bucket != buckets_.end() && looked_at < kLookedAt; ++bucket) {
        const RecordChain& chain = bucket->second;
        size_t left = kLookedAtOfAChain;
        for (RecordId id = chain.head; id && left > 0; id = arena_[id].link, --left, ++looked_at) {
            const Record& record = arena_[id];
            if (Flow{record.campaign, record.tenant}.among(count.of)) ++count.counted[record.domain];
        }
        count.partly |= chain.count > kLookedAtOfAChain;
    }
    if (bucket == buckets_.end()) return false;
    count.due_cursor_s = bucket->first;
    return true;
}

bool Backlog::search(Search& search, const Visit& visit) {
    const uint64_t until = search.looked_at + kLookedAt;
    auto bucket = buckets_.lower_bound(search.due_cursor_s);
    for (; bucket != buckets_.end() && search.looked_at < until; ++bucket)
        look_through(search, bucket->second, Resting::deferred, visit);
    search.due_cursor_s = bucket == buckets_.end() ? INT64_MAX : bucket->first;
    auto held = held_.lower_bound(search.held_cursor);
    for (; search.due_cursor_s == INT64_MAX && held != held_.end() && search.looked_at < until; ++held) {
        look_through(search, held->second, Resting::suspended, visit);
        search.held_cursor = held->first;
        search.held_cursor.flow.tenant += 1;  // past it
    }
    if (search.due_cursor_s != INT64_MAX || (held != held_.end() && search.looked_at >= until)) return true;
    for (; search.cursor < domains_.bucket_count() && search.looked_at < until; ++search.cursor, ++search.looked_at)
        for (auto entry = domains_.begin(search.cursor); entry != domains_.end(search.cursor); ++entry)
            for (const auto& klass : entry->second->classes)
                for (const auto& [flow, chain] : klass.flows)
                    look_through(search, chain, entry->second->parked_until_s ? Resting::parked : Resting::ready, visit);
    return search.cursor < domains_.bucket_count();
}

}  // namespace postrider
