#include "engine/log/delivery_log.h"

#include <fcntl.h>

#include <filesystem>

namespace postrider {

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
    return Target{std::move(*fd), regular};
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
    return {};
}

Result<void> DeliveryLog::write_gathered() {
    if (buffer_.empty()) return {};
    if (auto written = files::write_all(target_.fd.get(), buffer_.data(), buffer_.size()); !written)
        return fail("delivery log " + path_ + ": " + written.error().text, written.error().code);
    buffer_.clear();
    unsynced_ = target_.regular;
    return {};
}

Result<void> DeliveryLog::begin_commit(std::vector<int>& to_sync) {
    if (auto written = write_gathered(); !written) return written;
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
