#include "queue/intake.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/core/address.h"
#include "engine/core/check.h"
#include "engine/core/hash.h"
#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr size_t kReadBlock = 256 * 1024;
constexpr size_t kFilesInSlice = 8;
constexpr size_t kPublishedInSlice = 8192;  // messages and recipients
constexpr DurationMs kPauseMs = 1'000;

// When the file was last renamed: into new/, or by its claim.
int64_t changed_ns(const struct stat& st) { return int64_t{st.st_ctim.tv_sec} * 1'000'000'000 + st.st_ctim.tv_nsec; }

// The first octets of a file whose name is lost: a command of batch SMTP, or a header.
bool is_batch_opening(const char* first) {
    for (const char* verb : {"HELO ", "EHLO ", "RSET\n", "RSET\r", "NOOP\n", "NOOP\r", "NOOP ", "MAIL FROM:"})
        if (strncasecmp(first, verb, std::strlen(verb)) == 0) return true;
    return false;
}

}  // namespace

struct Intake::Job {
    enum class Stage : uint8_t { reading, reporting, publishing, refusing } stage = Stage::reading;
    SpoolFile file;
    FileSlot slot = 0;
    FileDescriptor data, index;
    const RecoveredFile* recovered = nullptr;  // null: never seen before
    std::span<const RecoveredRecipient> known;
    uint64_t offset = 0;
    std::unique_ptr<JobHandler> handler;
    std::unique_ptr<BatchParser> batch;
    std::unique_ptr<EmlParser> eml;
    std::unique_ptr<IndexWriter> writer;
    uint64_t refusals = 0;       // of recipients and messages, found by the first reading
    uint64_t reported = 0;       // told by the second so far: after a local fault it begins anew and passes them by
    std::string why;             // refusing
    std::optional<IndexReader> reader;
    std::vector<DomainId> file_domains;
    std::string domain;  // scratch
    // While publishing: the message whose recipients are next.
    uint32_t place = 0;
    uint32_t number = 0;  // of the next recipient in it
    bool refused = false;
    Envelope envelope;
    Content content;
};

// Indexed files: what the parser finds goes into the index in the first reading; the second tells what was refused.
class Intake::JobHandler final : public SpoolHandler {
  public:
    JobHandler(Intake& intake, Job& job) : intake_(intake), job_(job) {}

    // The second reading: the first error to move something to bad/.
    Result<void> reported() const { return reported_; }

    void on_recipient(const RecipientView& recipient) override {
        // Its size has 16 bits in the index; only comments in a header can make it longer.
        if (recipient.where.size > UINT16_MAX)
            return on_refused_recipient(recipient.address,
                                        Error{0, "the address is over 65535 octets with its comments"});
        auto domain = intern(recipient.domain);
        if (!domain) return on_refused_recipient(recipient.address, domain.error());
        if (reporting()) return;
        job_.writer->add_recipient(recipient.where, *domain, recipient.text);
        ++count_;
    }
    void on_refused_recipient(std::string_view text, const Error& why) override {
        if (tell_now()) intake_.owner_.refused_recipient({&job_.file, message_ + 1, std::string(text), why});
    }
    void on_message(uint32_t number, const Envelope& envelope, const Content& content) override {
        message_ = number;
        if (std::exchange(count_, 0) > 0) job_.writer->add_message(envelope, content);
    }
    void on_refused_message(uint32_t number, const Envelope& envelope, const Content& content, Range whole,
                            const Error& why) override {
        message_ = number;
        count_ = 0;
        if (!reporting()) job_.writer->drop_recipients();
        if (tell_now()) set_aside({number, whole, content.stored.size, envelope.sender, why});
    }
    Result<DomainId> intern(std::string_view domain) {
        if (std::ranges::all_of(domain, [](char c) { return static_cast<signed char>(c) >= 0; })) {
            normalise_domain(domain, job_.domain);
        } else {
            auto ascii = domain_to_ascii(domain);
            if (!ascii) return std::unexpected(ascii.error());
            job_.domain = *ascii;
        }
        return intake_.domains_.intern(job_.domain);
    }

  private:
    bool reporting() const { return job_.stage == Job::Stage::reporting; }
    // False: the first reading, which counts, or told before a local fault, or not to be told because of one.
    bool tell_now() {
        if (!reporting()) return ++job_.refusals && false;
        if (!reported_ || told_++ < job_.reported) return false;
        ++job_.reported;
        return true;
    }
    // The rest of its file goes on and the file goes away in the end: the message must be in bad/ before.
    void set_aside(const RefusedMessage& refused) {
        const std::string bad_name = fmt::format("{}.{}.eml", job_.file.name.substr(0, 200), refused.number);
        std::vector<FileDescriptor> written;
        auto kept = intake_.spool_.refuse_message(job_.data.get(), refused.whole.offset, refused.whole.size, bad_name,
                                                  refused.why.text, &written);
        intake_.owner_.set_aside(std::move(written));
        if (!kept) {
            --job_.reported;
            reported_ = fail("bad/" + bad_name + ": " + kept.error().text, kept.error().code);
            return;
        }
        ++intake_.refused_;
        intake_.owner_.refused_message(job_.file, refused, bad_name);
    }

    Intake& intake_;
    Job& job_;
    uint64_t told_ = 0;
    Result<void> reported_;
    uint32_t count_ = 0;
    uint32_t message_ = 0;
};

Intake::Intake(Reactor& reactor, size_t shards, const SpoolDirectory& spool, FileTable& table,
               RecordArena& arena, RecordSupply& supply, NameTable& domains, NameTable& labels,
               const ContentRules& rules, IntakeOwner& owner)
    : reactor_(reactor),
      shards_(shards),
      spool_(spool),
      table_(table),
      arena_(arena),
      supply_(supply),
      domain_table_(domains),
      domains_(domains),
      labels_(labels),
      rules_(rules),
      owner_(owner),
      block_(kReadBlock, 0) {}

Intake::~Intake() {
    if (notify_ >= 0) ::close(notify_);
}

bool Intake::idle_now() const {
    return !job_ || paused_until_ms_ > reactor_.now_ms() || (stopping_ && job_->stage == Job::Stage::publishing);
}

bool Intake::idle() const {
    return !job_ && names_.empty() && scans_.empty() && !listing_ && recovering_.empty();
}

// ---- files

bool Intake::slice() {
    for (size_t i = 0; i < kFilesInSlice; ++i) {
        if (paused_until_ms_ > reactor_.now_ms()) return false;
        if (job_) {
            if (job_->stage == Job::Stage::publishing && (stopping_ || !owner_.has_room())) return false;
            if (work()) return true;  // a block was read or published; the rest in the next turn
            continue;
        }
        if (stopping_ || !owner_.has_room()) return false;
        if (!begin_next()) return false;
    }
    return true;
}

bool Intake::begin_next() {
    if (!recovering_.empty()) return begin_recovered();
    recovered_.reset();
    if (names_.empty() && !read_names() && names_.empty()) return false;
    if (names_.empty()) return true;
    const Name name = std::move(names_.front());
    names_.pop_front();
    begin(name);
    return true;
}

bool Intake::begin_recovered() {
    const FileId id = recovering_.back();
    recovering_.pop_back();
    POSTRIDER_CRASH_POINT("recovery.file.begin");
    const RecoveredFile* known = recovered_ ? recovered_->find(id) : nullptr;
    if (known && known->done) {
        owner_.nothing_left(id);
        return true;
    }
    auto data = spool_.open_active(id, "", O_RDONLY);
    auto st = data ? files::status(data->get()) : Result<struct stat>(std::unexpected(data.error()));
    if (!st && is_local_fault(st.error().code)) {
        recovering_.push_back(id);
        pause(Error{st.error().code, "spool/active/" + file_id_text(id) + ": " + st.error().text});
        return false;
    }
    if (!st) {
        owner_.trouble(Error{st.error().code, "spool/active/" + file_id_text(id) + ": " + st.error().text});
        return true;
    }
    SpoolFile file;
    file.id = id;
    file.size = static_cast<uint64_t>(st->st_size);
    file.mtime_ns = int64_t{st->st_mtim.tv_sec} * 1'000'000'000 + st->st_mtim.tv_nsec;
    file.inode = st->st_ino;
    if (known && known->claimed) {
        file.name = known->name;
        file.form = known->form;
        file.created_s = known->created_s;
        if (known->size != file.size || known->mtime_ns != file.mtime_ns) {
            begin_job(std::move(file), std::move(*data), known);
            refuse_job("the file was changed after it was claimed");
            return true;
        }
    } else {
        // Claimed in the last moment of the engine before this one: its record did not reach the disk.
        char first[16] = {};
        (void)files::read_at(data->get(), first, sizeof first - 1, 0);
        const bool is_batch = is_batch_opening(first);
        file.form = is_batch ? SpoolForm::batch : SpoolForm::eml;
        file.name = file_id_text(id) + (is_batch ? ".bsmtp" : ".eml");
        file.created_s = owner_.claim_time_s(changed_ns(*st));
    }
    begin_job(std::move(file), std::move(*data), known);
    return true;
}

void Intake::begin(const Name& name) {
    auto dir = name.folder.empty() ? Result<FileDescriptor>(FileDescriptor()) : spool_.open_incoming(name.folder);
    if (!dir) return is_local_fault(dir.error().code) ? put_off(name, dir.error()) : void();
    const int at = name.folder.empty() ? spool_.incoming() : dir->get();
    struct stat st;
    std::string why;
    const auto entry = spool_.look(at, name.name, name.folder.empty(), st, why);
    using Entry = SpoolDirectory::Entry;
    if (entry == Entry::gone) return;
    if (entry == Entry::not_now) return put_off(name, Error{0, "new/" + name.name + ": " + why});
    if (entry == Entry::folder) return scan(name.name);
    auto refuse = [&](const std::string& reason) {
        std::vector<FileDescriptor> written;
        auto moved = spool_.refuse_incoming(at, name.name, reason, &written);
        owner_.set_aside(std::move(written));
        if (!moved && is_local_fault(moved.error().code)) return put_off(name, moved.error());
        if (!moved && moved.error().code == ENOENT) return;  // its producer took it away
        if (!moved) return pause(moved.error());
        ++refused_;
        owner_.refused_file(0, name.name, static_cast<uint64_t>(st.st_size), reason);
    };
    if (entry == Entry::refuse) return refuse(why);
    auto claimed = spool_.claim(at, name.name, entry == Entry::batch ? SpoolForm::batch : SpoolForm::eml, st);
    if (!claimed) {
        if (claimed.error().code == ENOENT) return;
        if (is_local_fault(claimed.error().code)) return put_off(name, claimed.error());
        return refuse(claimed.error().text);
    }
    SpoolFile file;
    file.id = claimed->id;
    file.size = claimed->size;
    file.mtime_ns = claimed->mtime_ns;
    file.inode = claimed->inode;
    file.form = claimed->form;
    file.name = claimed->name;
    file.created_s = owner_.claim_time_s(changed_ns(st));
    begin_job(std::move(file), std::move(claimed->fd), nullptr);
}

void Intake::begin_job(SpoolFile file, FileDescriptor data, const RecoveredFile* recovered) {
    job_ = std::make_unique<Job>();
    Job& job = *job_;
    job.file = std::move(file);
    job.data = std::move(data);
    job.recovered = recovered;
    if (recovered) job.known = recovered_->recipients(*recovered);
    job.file.indexed = job.file.form == SpoolForm::batch || job.file.size > kSmallFile;
    // With the claim in the journal every refusal of the first reading is in the log: a whole index is enough.
    if (job.file.indexed && recovered && recovered->claimed && open_index(job, true)) {
        job.stage = Job::Stage::publishing;
        job.slot = table_.add(job.file);
        owner_.claimed(job.slot, job.file);
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
        if (is_local_fault(error.code)) {
            pause(error);  // the same step again
            return true;
        }
        // The index was whole a moment ago: the disk fails. What is published stays; the rest waits for a restart.
        owner_.trouble(error);
        end_job();
        return false;
    }
    const bool reporting = job.stage == Job::Stage::reporting;
    auto read = reporting ? report_block(job) : read_block(job);
    if (read) return job_ != nullptr;  // a small file is done with
    if (!reporting && !is_local_fault(read.error().code)) {
        refuse_job(read.error().text);
        return false;
    }
    pause(read.error());
    job.offset = 0;  // again from its beginning
    job.batch.reset();
    job.eml.reset();
    job.handler.reset();
    job.writer.reset();
    if (!reporting) {
        // What was written of the index is given back: the space may be all there is.
        if (job.index) (void)files::truncate(job.index.get(), 0);
        job.file_domains.clear();
        job.reader.reset();
        job.refusals = 0;
    }
    return true;
}

// A block of the second reading.
Result<void> Intake::report_block(Job& job) {
    if (!owner_.may_set_aside()) return {};  // a commit is on its way
    if (!job.handler) {
        job.handler = std::make_unique<JobHandler>(*this, job);
        if (job.file.form == SpoolForm::batch)
            job.batch = std::make_unique<BatchParser>(*job.handler, rules_);
        else
            job.eml = std::make_unique<EmlParser>(*job.handler, rules_);
    }
    const size_t size = std::min<uint64_t>(kReadBlock, job.file.size - job.offset);
    auto got = files::read_at(job.data.get(), block_.data(), size, job.offset);
    if (!got) return std::unexpected(got.error());
    const std::span<const char> octets(block_.data(), *got);
    auto fed = job.batch ? job.batch->feed(octets) : job.eml->feed(octets);
    job.offset += size;
    if (fed && job.offset == job.file.size) fed = job.batch ? job.batch->finish() : job.eml->finish();
    if (auto reported = job.handler->reported(); !reported) return reported;
    // The first reading found it good. If it is not any more, it was changed, which is found out before anything is sent.
    if (!fed || *got != size || job.offset == job.file.size) begin_publishing(job);
    return {};
}

Result<void> Intake::read_block(Job& job) {
    if (!job.file.indexed) {
        std::string& whole = block_;
        auto got = files::read_at(job.data.get(), whole.data(), job.file.size, 0);
        if (!got) return std::unexpected(got.error());
        if (*got != job.file.size) return fail("the file became shorter while it was read");
        if (auto parsed = small_.parse({whole.data(), *got}, rules_); !parsed) return parsed;
        job.offset = job.file.size;
        return finish_reading(job);
    }
    if (!job.writer) {
        auto index = spool_.open_active(job.file.id, kIndexSuffix, O_RDWR | O_CREAT | O_TRUNC);
        if (!index) return std::unexpected(index.error());
        job.index = std::move(*index);
        POSTRIDER_CRASH_POINT("index.created");
        job.writer = std::make_unique<IndexWriter>(job.index.get(), job.file);
        job.handler = std::make_unique<JobHandler>(*this, job);
        if (job.file.form == SpoolForm::batch)
            job.batch = std::make_unique<BatchParser>(*job.handler, rules_);
        else
            job.eml = std::make_unique<EmlParser>(*job.handler, rules_);
    }
    const size_t size = std::min<uint64_t>(kReadBlock, job.file.size - job.offset);
    auto got = files::read_at(job.data.get(), block_.data(), size, job.offset);
    if (!got) return std::unexpected(got.error());
    if (*got != size) return fail("the file became shorter while it was read");
    const std::span<const char> octets(block_.data(), size);
    if (auto fed = job.batch ? job.batch->feed(octets) : job.eml->feed(octets); !fed) return fed;
    job.offset += size;
    if (job.offset < job.file.size) return {};
    if (auto ended = job.batch ? job.batch->finish() : job.eml->finish(); !ended) return ended;
    return finish_reading(job);
}

Result<void> Intake::finish_reading(Job& job) {
    auto st = files::status(job.data.get());
    if (!st) return std::unexpected(st.error());
    if (static_cast<uint64_t>(st->st_size) != job.file.size)
        return fail("the file was changed while it was read; write it in tmp/ and rename it when it is whole");
    if (!job.file.indexed && small_.recipients.size() > kSmallRecipients) {
        job.file.indexed = true;  // read it again, this time with an index
        job.offset = 0;
        return {};
    }
    if (job.writer) {
        if (auto written = job.writer->finish(domain_table_); !written) return written;
        if (auto opened = open_index(job, false); !opened) return opened;
    }
    ++files_;
    trouble_over();
    job.slot = table_.add(job.file);
    if (job.file.indexed && job.refusals > 0) {
        job.stage = Job::Stage::reporting;
        job.offset = 0;
        job.batch.reset();
        job.eml.reset();
        job.handler.reset();
        job.writer.reset();
        return {};
    }
    if (!job.file.indexed)
        for (auto& refused : small_.refused)
            owner_.refused_recipient({&job.file, 1, std::move(refused.text), std::move(refused.why)});
    begin_publishing(job);
    return {};
}

void Intake::begin_publishing(Job& job) {
    owner_.claimed(job.slot, job.file);
    job.stage = Job::Stage::publishing;
    if (job.file.indexed) return;
    publish_small(job);
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
    JobHandler domains(*this, job);
    RecordChain chain;
    for (size_t i = 0; i < small_.recipients.size(); ++i) {
        auto domain = domains.intern(small_.recipients[i].domain);
        if (!domain) {
            owner_.refused_recipient({&job.file, 1, small_.recipients[i].domain, domain.error()});
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
    RecordChain out;
    while (!job.known.empty() && job.known.front().place < place) job.known = job.known.subspan(1);
    while (!chain.empty()) {
        const RecordId id = arena_.pop(chain);
        Record& record = arena_[id];
        record.place = place;
        record.campaign = campaign;
        record.tenant = tenant;
        record.priority = envelope.priority;
        record.due_s = static_cast<uint32_t>(std::clamp<int64_t>(envelope.not_before_s, 0, UINT32_MAX));
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
            record.possible_duplicate = known.ambiguous();
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
    if (!moved) owner_.trouble(moved.error());
    trouble_over();
    ++refused_;
    owner_.refused_file(job.file.id, job.file.name, job.file.size, why);
    end_job();
}

void Intake::end_job() {
    if (job_->recovered) recovered_->release(job_->recovered->id);
    job_.reset();
}

void Intake::put_off(const Name& name, const Error& error) {
    names_.push_front(name);
    pause(error);
}

void Intake::pause(const Error& error) {
    if (!in_trouble_ || told_code_ != error.code) owner_.trouble(error);
    in_trouble_ = true;
    told_code_ = error.code;
    paused_until_ms_ = reactor_.now_ms() + kPauseMs;
    reactor_.arm(*this, paused_until_ms_);
}

// A file came in, or went aside.
void Intake::trouble_over() {
    if (!std::exchange(in_trouble_, false)) return;
    owner_.trouble(Error{0, "the spool is read again"});
}

}  // namespace postrider
