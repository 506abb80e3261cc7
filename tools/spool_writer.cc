#include "tools/spool_writer.h"

#include <fcntl.h>

#include <cerrno>

#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr size_t kBuffer = 1 << 20;  // octets a write call takes at once

}  // namespace

Result<void> prepare_spool(const std::string& spool) {
    auto root = files::open_directory(AT_FDCWD, spool, false);
    if (!root && root.error().code == ENOENT)
        return fail("the spool " + spool + " is not there; if the path is right, make it: mkdir -p " + spool, ENOENT);
    if (!root) return std::unexpected(root.error());
    for (const char* folder : {"tmp", "new"})
        if (auto made = files::make_directory(root->get(), folder, 0777); !made)
            return fail(spool + ": " + made.error().text, made.error().code);
    return {};
}

SpoolWriter::~SpoolWriter() { abandon(); }

void SpoolWriter::abandon() {
    if (!file_) return;
    file_.close();
    (void)files::remove(tmp_.get(), name_);
}

Result<void> SpoolWriter::create(const std::string& spool, const std::string& name) {
    abandon();
    spool_ = spool;
    name_ = name;
    size_ = 0;
    buffer_.clear();
    buffer_.reserve(kBuffer);
    auto tmp = files::open_directory(AT_FDCWD, spool + "/tmp", false);
    if (!tmp) return std::unexpected(tmp.error());
    tmp_ = std::move(*tmp);
    auto file = files::open_beneath(tmp_.get(), name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (!file) return fail(spool + "/tmp: " + file.error().text, file.error().code);
    file_ = std::move(*file);
    POSTRIDER_CRASH_POINT("send.created");
    return {};
}

Result<void> SpoolWriter::write(std::string_view octets) {
    size_ += octets.size();
    while (!octets.empty()) {
        const std::string_view piece = octets.substr(0, kBuffer - buffer_.size());
        buffer_.append(piece);
        octets.remove_prefix(piece.size());
        if (buffer_.size() < kBuffer) break;
        if (auto ok = flush(); !ok) return ok;
    }
    return {};
}

Result<void> SpoolWriter::flush() {
    if (auto written = files::write_all(file_.get(), buffer_.data(), buffer_.size()); !written)
        return fail(spool_ + "/tmp/" + name_ + ": " + written.error().text, written.error().code);
    buffer_.clear();
    return {};
}

Result<void> SpoolWriter::publish(bool sync, const std::string& folder) {
    if (auto ok = flush(); !ok) return ok;
    POSTRIDER_CRASH_POINT("send.written");
    if (sync)
        if (auto synced = files::sync_all(file_.get()); !synced)
            return fail(spool_ + "/tmp/" + name_ + ": " + synced.error().text, synced.error().code);
    POSTRIDER_CRASH_POINT("send.synced");
    const std::string into = spool_ + "/new" + (folder.empty() ? "" : "/" + folder);
    auto target = files::open_directory(AT_FDCWD, into, false);
    if (!target) return std::unexpected(target.error());
    if (auto renamed = files::rename_no_replace(tmp_.get(), name_, target->get(), name_); !renamed)
        return fail(into + ": " + renamed.error().text, renamed.error().code);
    POSTRIDER_CRASH_POINT("send.renamed");
    // From here the file is the engine's, whatever fails.
    file_.close();
    if (!sync) return {};
    auto synced = files::sync_all(target->get());
    POSTRIDER_CRASH_POINT("send.done");
    if (!synced) return fail(into + ": " + synced.error().text, synced.error().code);
    return {};
}

}  // namespace postrider
