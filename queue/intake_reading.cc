// Reading a claimed file: parsed once, its index written beside it, and what was refused told; then intake_publishing.cc.
#include <fcntl.h>
#include <strings.h>

#include <algorithm>
#include <utility>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "engine/io/crash_points.h"
#include "queue/intake_job.h"

namespace postrider {
namespace {

std::string utc(int64_t seconds) { return fmt::format("{:%FT%TZ}", fmt::gmtime(static_cast<std::time_t>(seconds))); }

std::string too_late_text(int64_t not_before_s, int64_t expires_s) {
    return fmt::format("x-not-before {} is not before {}, when the message expires ([retry] max_age after its claim): it "
                       "would never be sent; give an earlier time, hand it in later, or raise max_age",
                       utc(not_before_s), utc(expires_s));
}

}  // namespace

// ---- what the parser finds

void Intake::JobHandler::on_recipient(const RecipientView& recipient) {
    // Its size has 16 bits in the index; only comments in a header can make it longer.
    if (recipient.where.size > UINT16_MAX)
        return on_refused_recipient(recipient.address,
                                    Error{0, "the address is over 65535 octets with its comments"});
    auto domain = intake_.intern_domain(job_, recipient.domain);
    if (!domain) return on_refused_recipient(recipient.address, domain.error());
    ++count_;
    if (!reporting()) job_.writer->add_recipient(recipient.where, *domain, recipient.text);
}

void Intake::JobHandler::on_refused_recipient(std::string_view text, const Error& why) {
    if (!to_tell()) return;
    held_.push_back({std::string(text), why.text});
    if (held_.size() >= kHeld) tell_held(nullptr, {});
}

void Intake::JobHandler::on_message(uint32_t number, const Envelope& envelope, const Content& content) {
    const bool some = std::exchange(count_, 0) > 0;
    if (!reporting()) {
        if (job_.eml) job_.not_before_s = envelope.not_before_s;
        const bool too_late = some && job_.batch && job_.too_late(envelope.not_before_s);
        if (too_late) ++job_.refusals;
        if (some) job_.writer->add_message(envelope, content, too_late);
        message_ = number;
        return;
    }
    const Place at = some ? place_of_next(envelope) : Place{};
    tell_held(&envelope, at.place);
    message_ = number;
    if (!at.too_late || !to_tell()) return;
    const int64_t expires_s = intake_.owner_.expires_s(job_.file.created_s);
    set_aside({number, job_.batch->message(), content.stored.size, envelope.sender,
               Error{0, fmt::format("the message at offset {}: {}", job_.batch->message().offset,
                                    too_late_text(envelope.not_before_s, expires_s))}});
}

void Intake::JobHandler::on_refused_message(uint32_t number, const Envelope& envelope, const Content& content, Range whole,
                                            const Error& why) {
    count_ = 0;
    if (!reporting()) job_.writer->drop_recipients();
    tell_held(&envelope, {});
    message_ = number;
    if (to_tell()) set_aside({number, whole, content.stored.size, envelope.sender, why});
}

// False: the first reading, which counts, or told before a local fault, or not to be told because of one.
bool Intake::JobHandler::to_tell() {
    if (!reporting()) return ++job_.refusals && false;
    return reported_ && told_++ >= job_.reported;
}

void Intake::JobHandler::tell_held(const Envelope* envelope, std::optional<uint32_t> place) {
    if (reported_) {
        for (const Held& held : held_)
            intake_.owner_.refused_recipient({&job_.file, place, message_ + 1, envelope, held.text, held.why});
        job_.reported += held_.size();
    }
    held_.clear();
}

// Of the next message in the index whose content was not refused; the readings pass them in the same order.
Intake::JobHandler::Place Intake::JobHandler::place_of_next(const Envelope& envelope) {
    const Place unknown{{}, job_.too_late(envelope.not_before_s)};
    if (!entries_) {
        auto opened = IndexReader::open(job_.index.get(), job_.file, false);
        if (!opened) return unknown;
        entries_ = std::move(*opened);
    }
    for (;;) {
        auto step = entries_->next();
        if (!step || step->kind == IndexReader::Step::Kind::end) return unknown;
        if (step->kind != IndexReader::Step::Kind::message) continue;
        if (step->message->flags & MessageEntry::kTooLate) return {{}, true};
        if (!(step->message->flags & MessageEntry::kRefused)) return {step->place};
    }
}

// The rest of its file goes on and the file goes away in the end: the message must be in bad/ before.
void Intake::JobHandler::set_aside(const RefusedMessage& refused) {
    const std::string bad_name = fmt::format("{}.{}.eml", job_.file.name.substr(0, 200), refused.number);
    std::vector<FileDescriptor> written;
    auto kept = intake_.spool_.refuse_message(job_.file.id, job_.data.get(), refused.whole, bad_name,
                                              refused.why.text + " (counted in " + job_.file.name + ")", &written);
    intake_.owner_.set_aside(std::move(written));
    if (!kept) {
        reported_ = fail("bad/" + bad_name + ": " + kept.error().text, kept.error().code);
        return;
    }
    ++job_.reported;
    ++intake_.refused_;
    intake_.owner_.refused_message(job_.file, refused, bad_name);
}

// ---- the file, a block at a time

bool opens_envelope(std::string_view octets) {
    constexpr std::string_view kMail = "MAIL FROM:";
    return octets.size() >= kMail.size() && strncasecmp(octets.data(), kMail.data(), kMail.size()) == 0;
}

Result<void> look_for_envelope(int fd, SpoolFile& file) {
    char first[16];
    auto got = files::read_at(fd, first, sizeof first, 0);
    if (!got) return std::unexpected(got.error());
    if (opens_envelope({first, *got})) file.form = SpoolForm::batch;
    return {};
}

void Intake::begin_job(SpoolFile file, FileDescriptor data, const RecoveredFile* recovered) {
    job_ = std::make_unique<Job>();
    Job& job = *job_;
    job.file = std::move(file);
    job.data = std::move(data);
    job.recovered = recovered;
    if (recovered) job.known = recovered_->recipients(*recovered);
    if (!job.known.empty() && job.known.back().place == kWholeFile) {
        job.told = job.known.back().kind == RecordKind::refusals_told;
        job.known = job.known.first(job.known.size() - 1);
    }
    job.file.indexed = job.file.form == SpoolForm::batch || job.file.size > kSmallFile;
    const bool journalled = recovered && recovered->claimed;
    if (!journalled) job.expires_s = owner_.expires_s(job.file.created_s);
    owner_.claimed(job.file, journalled);
    if (job.file.indexed && journalled && open_index(job, true)) {
        job.refusals = job.reader->header().refusals;
        job.slot = table_.add(job.file);
        read_through(job);
    }
}

// One step of the file at hand; true when it used up a slice.
bool Intake::work() {
    Job& job = *job_;
    if (job.stage == Job::Stage::refusing) {
        refuse_job(job.why);
        return false;
    }
    if (job.stage == Job::Stage::publishing) {
        auto published = publish_step(job);
        if (published) return true;
        const Error error{published.error().code, "index of " + job.file.name + ": " + published.error().text};
        if (is_local_fault(error.code) && (error.code != EIO || ++job.tries < kTries)) {
            pause(error);  // the same step again
            return true;
        }
        // The index was whole a moment ago: the disk fails. What is published stays; the rest waits for a restart, which makes
        // the index again.
        owner_.trouble(error);
        end_job();
        return false;
    }
    const bool reporting = job.stage == Job::Stage::reporting;
    auto read = reporting ? report_block(job) : read_block(job);
    if (read) return job_ != nullptr;  // a small file is done with
    const bool for_good = !is_local_fault(read.error().code) || (read.error().code == EIO && ++job.tries >= kTries);
    if (for_good && !reporting) {  // what is refused of a file that is good otherwise must be told and in bad/ first: it waits
        refuse_job(read.error().text);
        return false;
    }
    pause(read.error());
    end_parsing(job);  // again from its beginning
    if (!reporting) {
        // What was written of the index is given back: the space may be all there is.
        if (job.index) (void)files::truncate(job.index.get(), 0);
        job.file_domains.clear();
        job.reader.reset();
        job.refusals = 0;
    }
    return true;
}

void Intake::begin_parsing(Job& job) {
    job.handler = std::make_unique<JobHandler>(*this, job);
    if (job.file.form == SpoolForm::batch)
        job.batch = std::make_unique<BatchParser>(*job.handler, rules_);
    else
        job.eml = std::make_unique<EmlParser>(*job.handler, rules_);
}

void Intake::end_parsing(Job& job) {
    job.offset = 0;
    job.batch.reset();
    job.eml.reset();
    job.handler.reset();
    job.writer.reset();
}

// In block_; shorter than it should be when the file is.
Result<std::span<const char>> Intake::next_block(Job& job) {
    const size_t size = job.next_block();
    auto got = files::read_at(job.data.get(), block_.data(), size, job.offset);
    if (!got) return std::unexpected(got.error());
    return std::span<const char>(block_.data(), *got);
}

Result<void> Intake::parse_block(Job& job, std::span<const char> octets) {
    if (octets.size() < job.next_block())
        return fail("the file became shorter while it was read");
    auto fed = job.batch ? job.batch->feed(octets) : job.eml->feed(octets);
    job.offset += octets.size();
    const bool ends = job.offset == job.file.size || (job.eml && job.eml->refused());  // however much is still to come
    if (!fed || !ends) return fed;
    return job.batch ? job.batch->finish() : job.eml->finish();
}

Result<void> Intake::read_block(Job& job) {
    if (!job.file.indexed) {
        std::string& whole = block_;
        auto got = files::read_at(job.data.get(), whole.data(), job.file.size, 0);
        if (!got) return std::unexpected(got.error());
        if (*got != job.file.size) return fail("the file became shorter while it was read");
        if (opens_envelope({whole.data(), *got})) {
            job.file.form = SpoolForm::batch;
            job.file.indexed = true;
            return {};
        }
        if (auto parsed = small_.parse({whole.data(), *got}, rules_); !parsed) return parsed;
        job.offset = job.file.size;
        return finish_reading(job);
    }
    if (!job.writer) {
        if (job.file.form == SpoolForm::eml)
            if (auto found = look_for_envelope(job.data.get(), job.file); !found) return found;
        auto index = spool_.open_active(job.file.id, kIndexSuffix, O_RDWR | O_CREAT | O_TRUNC);
        if (!index) return std::unexpected(index.error());
        job.index = std::move(*index);
        POSTRIDER_CRASH_POINT("index.created");
        job.writer = std::make_unique<IndexWriter>(job.index.get(), job.file);
        begin_parsing(job);
    }
    auto block = next_block(job);
    if (!block) return std::unexpected(block.error());
    if (auto parsed = parse_block(job, *block); !parsed) return parsed;
    return job.offset < job.file.size ? Result<void>{} : finish_reading(job);
}

Result<void> Intake::finish_reading(Job& job) {
    auto st = files::status(job.data.get());
    if (!st) return std::unexpected(st.error());
    if (static_cast<uint64_t>(st->st_size) != job.file.size)
        return fail("the file was changed while it was read; write it in tmp/ and rename it when it is whole");
    if (job.file.form == SpoolForm::eml) {
        const int64_t not_before_s = job.eml ? job.not_before_s : small_.envelope.not_before_s;
        if (job.too_late(not_before_s)) return fail(too_late_text(not_before_s, job.expires_s));
    }
    if (!job.file.indexed && small_.recipients.size() > kSmallRecipients) {
        job.file.indexed = true;  // read it again, this time with an index
        job.offset = 0;
        return {};
    }
    if (job.writer) {
        if (auto written = job.writer->finish(domain_table_, job.refusals); !written) return written;
        if (auto opened = open_index(job, false); !opened) return opened;
    }
    ++files_;
    trouble_over();
    job.slot = table_.add(job.file);
    end_parsing(job);
    read_through(job);
    return {};
}

// All of it is good but the refusals, which an earlier run may have told.
void Intake::read_through(Job& job) {
    if (job.file.indexed && job.refusals > 0 && !job.told) {
        job.stage = Job::Stage::reporting;
        return;
    }
    if (!job.file.indexed)
        for (auto& refused : small_.refused) refuse_small(job, refused.text, refused.why);
    begin_publishing(job);
}

void Intake::refuse_small(Job& job, const std::string& recipient, const Error& why) {
    ++job.refusals;
    if (!job.told) owner_.refused_recipient({&job.file, 0, 1, &small_.envelope, recipient, why.text});
}

// A block of the second reading.
Result<void> Intake::report_block(Job& job) {
    if (!job.handler) begin_parsing(job);
    auto block = next_block(job);
    if (!block) return std::unexpected(block.error());
    const auto parsed = parse_block(job, *block);
    if (auto reported = job.handler->reported(); !reported) return reported;
    // The first reading found it good. If it is not any more, it was changed, which is found out before anything is sent.
    if (!parsed || job.offset == job.file.size) begin_publishing(job);
    return {};
}

// Stays at it through local faults: while bad/ takes nothing, the file waits in active/.
void Intake::refuse_job(const std::string& why) {
    Job& job = *job_;
    job.index = FileDescriptor();
    (void)spool_.remove_active(job.file.id, kIndexSuffix);
    std::vector<FileDescriptor> written;
    auto moved = spool_.refuse_active(job.file.id, job.file.name, why, &written);
    owner_.set_aside(std::move(written));
    if (!moved && is_local_fault(moved.error().code)) {
        if (job.stage != Job::Stage::refusing) job.why = why;
        job.stage = Job::Stage::refusing;
        return pause(Error{moved.error().code, "bad/" + job.file.name + ": " + moved.error().text});
    }
    if (moved) {
        trouble_over();
        ++refused_;
        owner_.refused_file(job.file.id, job.file.name, job.file.size, why);
    } else {  // it stays where it is, and the journals keep what they know of it: it is met again at the next start
        owner_.trouble(Error{moved.error().code, "bad/" + job.file.name + ": " + moved.error().text});
    }
    end_job();
}

}  // namespace postrider
