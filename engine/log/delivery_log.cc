#include "engine/log/delivery_log.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>

#include "engine/io/crash_points.h"

namespace postrider {
namespace {

// More than the longest line: octets without a line end for so long are not ours, and are kept as a line.
constexpr uint64_t kTornMost = uint64_t{1} << 18;
constexpr uint64_t kHolesMost = uint64_t{1} << 28;

// A write-back that failed leaves zeros where its pages would be. No sync can have gone well behind them: what lies there, also
// whole lines, has no result in a journal. Answers where the first of them is near the end; `size`: none is.
Result<uint64_t> first_hole(int fd, uint64_t size) {
    std::string block(kTornMost, 0);
    uint64_t hole = size;
    for (uint64_t end = size; end > 0 && size - end < kHolesMost;) {
        const uint64_t from = end - std::min<uint64_t>(end, block.size());
        auto got = files::read_at(fd, block.data(), end - from, from);
        if (!got) return std::unexpected(got.error());
        const size_t zero = std::string_view(block.data(), *got).find('\0');
        if (zero == std::string_view::npos) break;
        hole = from + zero;
        end = from;
    }
    return hole;
}

Result<void> end_with_a_line(int fd, uint64_t size) {
    std::string tail(std::min(size, kTornMost), 0);
    const uint64_t from = size - tail.size();
    auto got = files::read_at(fd, tail.data(), tail.size(), from);
    if (!got) return std::unexpected(got.error());
    const size_t last_end = std::string_view(tail).substr(0, *got).rfind('\n');
    if (last_end != std::string::npos) return files::truncate(fd, from + last_end + 1);
    return from == 0 ? files::truncate(fd, 0) : files::write_at(fd, "\n", 1, size);
}

// One for each file that is open, whichever shard opened it first.
std::shared_ptr<LogEnd> end_of(const struct stat& status) {
    static std::mutex mutex;
    static std::map<std::pair<dev_t, ino_t>, std::weak_ptr<LogEnd>> ends;
    std::scoped_lock lock(mutex);
    std::erase_if(ends, [](const auto& known) { return known.second.expired(); });
    auto& known = ends[{status.st_dev, status.st_ino}];
    auto end = known.lock();
    if (!end) known = end = std::make_shared<LogEnd>();
    return end;
}

}  // namespace

Result<void> DeliveryLog::mend(const std::string& name) {
    const std::filesystem::path path(name);
    auto told = [&](const Error& error) { return fail("delivery log " + name + ": " + error.text, error.code); };
    auto dir = files::open_directory(AT_FDCWD, path.has_parent_path() ? path.parent_path().string() : ".", false);
    if (!dir) return told(dir.error());
    auto fd = files::open_beneath(dir->get(), path.filename().string(), O_RDWR | O_NONBLOCK);
    if (!fd) return fd.error().code == ENOENT ? Result<void>() : told(fd.error());
    auto status = files::status(fd->get());
    if (!status) return told(status.error());
    if (!S_ISREG(status->st_mode) || status->st_size == 0) return {};
    auto hole = first_hole(fd->get(), static_cast<uint64_t>(status->st_size));
    if (!hole) return told(hole.error());
    const uint64_t size = *hole;
    if (size < static_cast<uint64_t>(status->st_size))
        if (auto cut = files::truncate(fd->get(), size); !cut) return told(cut.error());
    if (size == 0) return {};
    char last = 0;
    if (auto got = files::read_at(fd->get(), &last, 1, size - 1); !got) return told(got.error());
    if (last == '\n') return {};
    auto ended = end_with_a_line(fd->get(), size);
    return ended ? ended : told(ended.error());
}

Result<DeliveryLog::Target> DeliveryLog::open_target() const {
    const std::filesystem::path path(path_);
    const std::string directory = path.has_parent_path() ? path.parent_path().string() : ".";
    auto dir = files::open_directory(AT_FDCWD, directory, false);
    if (!dir) return fail("delivery log " + path_ + ": " + dir.error().text, dir.error().code);
    auto fd = files::open_beneath(dir->get(), path.filename().string(),
                                  O_WRONLY | O_APPEND | O_CREAT, 0640);
    if (!fd) return fail("delivery log " + path_ + ": " + fd.error().text, fd.error().code);
    auto status = files::status(fd->get());
    if (!status) return std::unexpected(status.error());
    const bool regular = S_ISREG(status->st_mode);
    // A file that was just made must be found again after a power cut: its directory is synced once, here.
    if (regular)
        if (auto synced = files::sync_all(dir->get()); !synced)
            return fail("delivery log " + path_ + ": " + synced.error().text, synced.error().code);
    return Target{std::move(*fd), regular, end_of(*status)};
}

Result<std::unique_ptr<DeliveryLog>> DeliveryLog::open(std::string path) {
    std::unique_ptr<DeliveryLog> log(new DeliveryLog(std::move(path)));
    auto target = log->open_target();
    if (!target) return std::unexpected(target.error());
    log->target_ = std::move(*target);
    return log;
}

Result<void> DeliveryLog::reopen() {
    auto target = open_target();
    if (!target) return std::unexpected(target.error());
    if (target_.regular) retired_.push_back(std::move(target_.fd));
    target_ = std::move(*target);
    unsynced_ = false;
    reserved_to_ = 0;
    since_look_ = kLookEvery;
    POSTRIDER_CRASH_POINT("log.reopened");
    return {};
}

// Other shards append to the same file: each reserves behind the end that it sees, and what one has used the other sees.
void DeliveryLog::renew_reserve() {
    since_look_ = 0;
    if (!target_.regular || !reserves_) return;
    auto status = files::status(target_.fd.get());
    if (!status) return;
    const auto size = static_cast<uint64_t>(status->st_size);
    reserve_left_ = reserved_to_ > size ? reserved_to_ - size : 0;
    if (!space_low_ && reserve_left_ >= kReserve / 2) return;
    auto reserved = files::reserve(target_.fd.get(), size, kReserve);
    if (reserved) {
        reserved_to_ = size + kReserve;
        reserve_left_ = kReserve;
    } else if (!is_no_space(reserved.error().code)) {
        reserves_ = false;  // a full disk is met by the write then
    }
    space_low_ = reserves_ && !reserved;
}

void DeliveryLog::write_early() {
    if (full_ || failure_) return;
    if (auto written = write_buffer(); !written && !is_no_space(written.error().code)) failure_ = written.error();
}

Result<void> DeliveryLog::write_buffer() {
    if (buffer_.empty()) return {};
    if (since_look_ >= kLookEvery) renew_reserve();
    POSTRIDER_CRASH_POINT("log.write.before");
    size_t done = 0;
    auto written = write_at_end(done);
    POSTRIDER_CRASH_POINT("log.write.after");
    since_look_ += done;
    unsynced_ |= done > 0 && target_.regular;
    full_ = !written && is_no_space(written.error().code);
    if (!written) {
        keep_unwritten(done);
        return fail("delivery log " + path_ + ": " + written.error().text, written.error().code);
    }
    buffer_.clear();
    return {};
}

// Whoever writes next ends a line that a full disk has cut, its own or another shard's.
Result<void> DeliveryLog::write_at_end(size_t& done) {
    std::scoped_lock lock(target_.end->mutex);
    if (target_.end->torn) {
        size_t ended = 0;
        if (auto end = files::write_on(target_.fd.get(), "\n", 1, ended); !end) return end;
    }
    auto written = files::write_on(target_.fd.get(), buffer_.data(), buffer_.size(), done);
    target_.end->torn = done > 0 && buffer_[done - 1] != '\n';
    return written;
}

// A line of which a part was written is written again, whole.
void DeliveryLog::keep_unwritten(size_t written) {
    const size_t last_end = written > 0 ? buffer_.rfind('\n', written - 1) : std::string::npos;
    buffer_.erase(0, last_end == std::string::npos ? 0 : last_end + 1);
}

Result<void> DeliveryLog::begin_commit(std::vector<int>& to_sync) {
    if (auto fine = write_urgent(); !fine) return fine;
    if (auto written = write_buffer(); !written) return written;
    for (const auto& fd : retired_) to_sync.push_back(fd.get());
    retiring_ = retired_.size();
    if (unsynced_) to_sync.push_back(target_.fd.get());
    unsynced_ = false;
    return {};
}

Result<void> DeliveryLog::end_commit() {
    retired_.erase(retired_.begin(), retired_.begin() + static_cast<std::ptrdiff_t>(retiring_));
    retiring_ = 0;
    return {};
}

}  // namespace postrider
