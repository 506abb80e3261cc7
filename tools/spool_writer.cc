#include "tools/spool_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "engine/io/crash_points.h"

namespace postrider {
namespace {

constexpr size_t kBuffer = 1 << 20;  // octets a write call takes at once

// `where`: the folder it concerns. A permission that is missing has a mend, which docs/spool.md tells at length.
std::unexpected<Error> spool_error(const std::string& spool, const std::string& where, const Error& error) {
    std::string text = where + ": " + error.text;
    if (error.code == EACCES || error.code == EPERM)
        text += fmt::format("; be the engine's user, or let that user give your group the spool: chgrp GROUP {0} {0}/tmp {0}/new && "
                            "chmod g+rx {0} && chmod 3770 {0}/tmp {0}/new (docs/spool.md)",
                            spool);
    return fail(text, error.code);
}

// What a user writes under a strict umask into the spool of another one must still be read by the engine: through the group,
// which the folder hands on.
Result<void> let_engine_read(int folder, int file) {
    auto of_folder = files::status(folder), of_file = files::status(file);
    if (!of_folder || !of_file) return std::unexpected((of_folder ? of_file : of_folder).error());
    if (of_folder->st_uid == of_file->st_uid || of_folder->st_gid != of_file->st_gid || (of_file->st_mode & S_IRGRP)) return {};
    if (fchmod(file, (of_file->st_mode & 07777) | S_IRGRP) != 0) return fail_errno("let the engine read it");
    return {};
}

}  // namespace

Result<void> prepare_spool(const std::string& spool) {
    auto root = files::open_directory(AT_FDCWD, spool, false);
    if (!root && root.error().code == ENOENT)
        return fail("the spool " + spool + " is not there; if the path is right, make it: mkdir -p " + spool, ENOENT);
    if (!root) return spool_error(spool, spool, root.error());
    for (const char* folder : {"tmp", "new"})
        if (auto made = files::make_directory(root->get(), folder, 0777); !made)
            return spool_error(spool, spool, made.error());
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
    if (!tmp) return spool_error(spool, spool, tmp.error());
    tmp_ = std::move(*tmp);
    auto file = files::open_beneath(tmp_.get(), name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (!file) return spool_error(spool, spool + "/tmp", file.error());
    file_ = std::move(*file);
    if (auto readable = let_engine_read(tmp_.get(), file_.get()); !readable)
        return fail(spool + "/tmp/" + name + ": " + readable.error().text, readable.error().code);
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
    if (!target) return spool_error(spool_, spool_, target.error());
    if (auto renamed = files::rename_no_replace(tmp_.get(), name_, target->get(), name_); !renamed)
        return spool_error(spool_, into, renamed.error());
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
