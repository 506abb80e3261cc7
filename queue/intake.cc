#include "queue/intake_job.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "engine/io/clock.h"
#include "engine/io/crash_points.h"

namespace postrider {
namespace {

// A slice ends with the first of both: small files are many to a turn, however much else the shard has to do in it.
constexpr size_t kStepsInSlice = 128;
constexpr MonoNs kSliceNs = 1'000'000;
constexpr DurationMs kPauseMs = 1'000;

// When the file was last renamed: into new/, or by its claim.
int64_t changed_ns(const struct stat& st) { return int64_t{st.st_ctim.tv_sec} * 1'000'000'000 + st.st_ctim.tv_nsec; }

// The first octets of a file whose name is lost: a command of batch SMTP, or a header.
bool is_batch_opening(const char* first) {
    if (opens_envelope(first)) return true;
    for (const char* verb : {"HELO", "EHLO", "RSET", "NOOP", "QUIT"})
        if (strncasecmp(first, verb, 4) == 0) return first[4] == ' ' || first[4] == '\r' || first[4] == '\n';
    return false;
}

}  // namespace

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
    using Stage = Job::Stage;
    return !job_ || paused_until_ms_ > reactor_.now_ms() ||
           (stopping_ && (job_->stage == Stage::publishing || (job_->stage == Stage::reporting && !owner_.has_room())));
}

bool Intake::idle() const {
    return !job_ && names_.empty() && scans_.empty() && !listing_ && !recovered_ && !left_for_now_;
}

bool Intake::slice() {
    const MonoNs begun = read_mono_clock();
    for (size_t i = 0; i < kStepsInSlice && read_mono_clock() - begun < kSliceNs; ++i) {
        if (paused_until_ms_ > reactor_.now_ms()) return false;
        if (job_) {
            if (job_->stage == Job::Stage::publishing && (stopping_ || !owner_.has_room())) return false;
            if (job_->stage == Job::Stage::reporting && !(owner_.may_set_aside() && owner_.has_room())) return false;
            if (work()) return true;  // a block was read or published; the rest in the next turn
            continue;
        }
        if (stopping_ || !owner_.has_room()) return false;
        if (!begin_next()) return false;
    }
    return true;
}

bool Intake::begin_next() {
    if (!owner_.may_set_aside()) return false;  // the next may have to be refused; a commit is on its way
    if (left_to_recover()) return begin_recovered();
    recovered_.reset();
    if (names_.empty() && !read_names() && names_.empty()) return false;
    if (names_.empty()) return true;
    const Name name = std::move(names_.front());
    names_.pop_front();
    begin(name);
    return true;
}

bool Intake::left_to_recover() {
    while (recovered_ && recovering_.empty() && next_folder_ < RecoveredState::kFolders)
        recovering_ = recovered_->take(next_folder_++, reactor_.shard(), shards_);
    if (recovering_.empty()) recovering_ = std::exchange(recovering_last_, {});
    return !recovering_.empty();
}

bool Intake::begin_recovered() {
    const FileId id = recovering_.back();
    recovering_.pop_back();
    POSTRIDER_CRASH_POINT("recovery.file.begin");
    const RecoveredFile& known = *recovered_->find(id);
    SpoolFile file;
    file.id = id;
    file.name = recovered_->name(known);
    if (file.name.empty()) file.name = file_id_text(id) + (known.claimed ? known.batch ? ".bsmtp" : ".eml" : "");
    file.form = known.form();
    file.created_s = known.created_s;
    auto data = look_at_recovered(file, known);
    if (data) {
        begin_job(std::move(file), std::move(*data), &known);
        return true;
    }
    const Error& why = data.error();
    if (is_local_fault(why.code) && (why.code != EIO || ++recovery_tries_[id] < kTries)) {
        const bool its_own = why.code == EIO || why.code == EAGAIN;  // then the others first
        (its_own ? recovering_last_ : recovering_).push_back(id);
        pause(Error{why.code, "spool/active/" + file_id_text(id) + ": " + why.text});
        return false;
    }
    if (why.code == ENOENT) {
        owner_.trouble(Error{why.code, "spool/active/" + file_id_text(id) + ": " + why.text});
        recovered_->release(id);
        return true;
    }
    // Its mail cannot be sent, and must not lie in active/ uncounted.
    refuse_claimed(std::move(file), &known, why.code ? "the file cannot be read any more: " + why.text : why.text);
    return true;
}

void Intake::refuse_claimed(SpoolFile file, const RecoveredFile* recovered, const std::string& why) {
    job_ = std::make_unique<Job>();
    job_->file = std::move(file);
    job_->recovered = recovered;
    refuse_job(why);
}

// Opens a file of active/ and completes what the journal knows of it, or else guesses.
Result<FileDescriptor> Intake::look_at_recovered(SpoolFile& file, const RecoveredFile& known) {
    auto data = spool_.open_active(file.id, "", O_RDONLY);
    if (!data) return data;
    const auto st = files::status(data->get());
    if (!st) return std::unexpected(st.error());
    file.size = static_cast<uint64_t>(st->st_size);
    file.mtime_ns = int64_t{st->st_mtim.tv_sec} * 1'000'000'000 + st->st_mtim.tv_nsec;
    file.inode = st->st_ino;
    if (known.claimed) {
        if (!known.is(file.size, file.mtime_ns)) return fail("the file was changed after it was claimed");
        if (file.form == SpoolForm::eml)
            if (auto found = look_for_envelope(data->get(), file); !found) return std::unexpected(found.error());
        return data;
    }
    // Claimed in the last moment of the engine before this one: its record did not reach the disk.
    char first[16] = {};
    if (auto got = files::read_at(data->get(), first, sizeof first - 1, 0); !got) return std::unexpected(got.error());
    const bool is_batch = is_batch_opening(first);
    file.form = is_batch ? SpoolForm::batch : SpoolForm::eml;
    file.name += is_batch ? ".bsmtp" : ".eml";
    file.created_s = owner_.claim_time_s(changed_ns(*st));
    return data;
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
    if (entry == Entry::not_now) return leave_behind(name, Error{EIO, why});
    if (entry == Entry::folder) return scan(name.name);
    auto refuse = [&](const std::string& reason) {
        std::vector<FileDescriptor> written;
        auto moved = spool_.refuse_incoming(at, name.name, reason, &written);
        owner_.set_aside(std::move(written));
        if (!moved && is_local_fault(moved.error().code)) return put_off(name, moved.error());
        if (!moved && moved.error().code == ENOENT) return;  // its producer took it away
        if (!moved) return leave_behind(name, moved.error());  // no permission, as a rule
        ++refused_;
        owner_.refused_file(0, name.name, static_cast<uint64_t>(st.st_size), reason);
    };
    if (entry == Entry::refuse) return refuse(why);
    auto claimed = spool_.claim(at, name.name, entry == Entry::batch ? SpoolForm::batch : SpoolForm::eml, st);
    if (!claimed) {
        if (claimed.error().code == ENOENT) return;
        if (is_local_fault(claimed.error().code)) return put_off(name, claimed.error());
        if (claimed.error().code == EPERM) return leave_behind(name, claimed.error());
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
    if (claimed->changed)
        return refuse_claimed(std::move(file), nullptr,
                              "the file changed while it was claimed; write it in tmp/ and rename it when it is whole");
    begin_job(std::move(file), std::move(claimed->fd), nullptr);
}

void Intake::end_job() {
    if (job_->recovered) recovered_->release(job_->recovered->id);
    job_.reset();
}

void Intake::put_off(const Name& name, const Error& error) {
    if (error.code == EIO || error.code == EAGAIN) return leave_behind(name, error);
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
