// Publishing a file that was read: its recipients as records, a block of the index at a time, less those that an earlier
// run has settled.
#include <fcntl.h>

#include <algorithm>

#include "engine/core/address.h"
#include "engine/io/crash_points.h"
#include "queue/intake_job.h"
#include "queue/queue_name.h"

namespace postrider {
namespace {

constexpr size_t kPublishedInSlice = 8192;  // messages and recipients

}  // namespace

// Of a name as it was written.
Result<DomainId> Intake::intern_domain(Job& job, std::string_view domain) {
    if (std::ranges::all_of(domain, [](char c) { return static_cast<signed char>(c) >= 0; })) {
        normalise_domain(domain, job.domain);
    } else {
        auto ascii = domain_to_ascii(domain);
        if (!ascii) return std::unexpected(ascii.error());
        job.domain = *ascii;
    }
    return domains_.intern(job.domain);
}

void Intake::begin_publishing(Job& job) {
    job.stage = Job::Stage::publishing;
    if (!job.file.indexed) publish_small(job);
    if (job.refusals > 0 && !job.told) owner_.refusals_told(job.file.id);
    if (job.file.indexed) return;
    owner_.publishing_done(job.slot);
    end_job();
}

Result<void> Intake::open_index(Job& job, bool verify) {
    if (!job.index) {
        auto index = spool_.open_active(job.file.id, kIndexSuffix, O_RDONLY);
        if (!index) return std::unexpected(index.error());
        job.index = std::move(*index);
    }
    auto reader = IndexReader::open(job.index.get(), job.file, verify);
    if (!reader) {
        job.index = FileDescriptor();
        return std::unexpected(reader.error());
    }
    auto names = reader->domains();
    if (!names) return std::unexpected(names.error());
    for (const auto& name : *names) job.file_domains.push_back(domains_.intern(name));
    job.reader = std::move(*reader);
    return {};
}

// Publishes about a block of the index.
Result<void> Intake::publish_step(Job& job) {
    for (size_t work = 0; work < kPublishedInSlice;) {
        auto step = job.reader->next();
        if (!step) return std::unexpected(step.error());
        using Kind = IndexReader::Step::Kind;
        if (step->kind == Kind::end) {
            owner_.publishing_done(job.slot);
            end_job();
            return {};
        }
        if (step->kind == Kind::message) {
            read_entry(*step->message, step->text, job.envelope, job.content);
            job.place = step->place;
            job.number = 0;
            job.refused = step->message->flags & MessageEntry::kRefused;
            if (!job.refused) ++messages_;
            ++work;
            continue;
        }
        work += step->count;
        if (job.refused) continue;
        RecordChain chain;
        for (size_t k = 0; k < step->count; ++k) {
            const uint32_t domain = step->entries[k].domain;
            if (domain >= job.file_domains.size()) return fail("index is damaged");
            const RecordId id = supply_.take();
            Record& record = arena_[id];
            record.file = job.slot;
            record.recipient = job.number++;
            record.domain = job.file_domains[domain];
            arena_.append(chain, id);
        }
        publish_recipients(job, chain, job.place, job.envelope);
    }
    return {};
}

void Intake::publish_small(Job& job) {
    RecordChain chain;
    for (size_t i = 0; i < small_.recipients.size(); ++i) {
        auto domain = intern_domain(job, small_.recipients[i].domain);
        if (!domain) {
            refuse_small(job, small_.recipients[i].domain, domain.error());
            continue;
        }
        const RecordId id = supply_.take();
        Record& record = arena_[id];
        record.file = job.slot;
        record.recipient = static_cast<uint32_t>(i);
        record.domain = *domain;
        arena_.append(chain, id);
    }
    ++messages_;
    publish_recipients(job, chain, 0, small_.envelope);
}

// Completes the records of recipients of one message and hands them out, less those that are settled already.
void Intake::publish_recipients(Job& job, RecordChain chain, uint32_t place, const Envelope& envelope) {
    const LabelId campaign = labels_.intern(envelope.campaign);
    const LabelId tenant = labels_.intern(envelope.tenant);
    // By the clock on the wall, which may have been set since the process began.
    const int64_t set_by_s = (reactor_.wall_us() - reactor_.steady_us()) / kUsPerSecond;
    const auto not_before_s = static_cast<uint32_t>(
        envelope.not_before_s > 0 ? std::clamp<int64_t>(envelope.not_before_s - set_by_s, 0, UINT32_MAX) : 0);
    const bool pooled = !is_default_pool(envelope.pool);
    RecordChain out;
    while (!job.known.empty() && job.known.front().place < place) job.known = job.known.subspan(1);
    while (!chain.empty()) {
        const RecordId id = arena_.pop(chain);
        Record& record = arena_[id];
        record.place = place;
        record.campaign = campaign;
        record.tenant = tenant;
        if (pooled) {
            job.domain = domains_.name(record.domain);
            append_pool(job.domain, envelope.pool);
            record.domain = domains_.intern(job.domain);
        }
        record.priority = envelope.priority;
        record.due_s = not_before_s;
        while (!job.known.empty() && job.known.front().place == place &&
               job.known.front().recipient < record.recipient)
            job.known = job.known.subspan(1);
        if (!job.known.empty() && job.known.front().place == place &&
            job.known.front().recipient == record.recipient) {
            const RecoveredRecipient& known = job.known.front();
            if (known.final()) {
                supply_.give(id);
                continue;
            }
            record.attempts = known.attempts();
            record.possible_duplicate = known.in_doubt();
            record.due_s = known.ambiguous() ? 0 : std::max(record.due_s, known.due_s);
        }
        arena_.append(out, id);
    }
    if (out.empty()) return;
    POSTRIDER_CRASH_POINT("publish.before");
    recipients_ += out.count;
    table_[job.slot].pending.fetch_add(out.count, std::memory_order_relaxed);
    owner_.publish(out);
    POSTRIDER_CRASH_POINT("publish.message");
}

}  // namespace postrider
