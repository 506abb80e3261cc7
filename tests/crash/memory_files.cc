#include "tests/crash/memory_files.h"

#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "engine/core/check.h"
#include "engine/io/files.h"

namespace postrider {
namespace {

constexpr int kFolders = 64;
constexpr int kFirst = 1000;  // no number that a real descriptor could be taken for

std::array<MemoryFolder*, kFolders> folders;
std::mutex folders_mutex;  // of the making and ending of folders

// A folder's number is kFirst + place * (kOpen + 1); its open files have the numbers behind it.
MemoryFolder& folder_of(int fd) {
    const int place = (fd - kFirst) / (MemoryFolder::kOpen + 1);
    POSTRIDER_CHECK(fd >= kFirst && place < kFolders && folders[static_cast<size_t>(place)], "a descriptor of ours");
    return *folders[static_cast<size_t>(place)];
}

std::string*& open_file(int fd) {
    MemoryFolder& folder = folder_of(fd);
    std::string*& file = folder.open[static_cast<size_t>(fd - folder.fd() - 1)];
    POSTRIDER_CHECK(file, "an open file");
    return file;
}

}  // namespace

MemoryFolder::MemoryFolder() {
    const std::scoped_lock lock(folders_mutex);
    size_t place = 0;
    while (place < kFolders && folders[place]) ++place;
    POSTRIDER_CHECK(place < kFolders, "a folder for each thread");
    folders[place] = this;
    fd_ = kFirst + static_cast<int>(place) * (kOpen + 1);
}

MemoryFolder::~MemoryFolder() {
    const std::scoped_lock lock(folders_mutex);
    folders[static_cast<size_t>((fd_ - kFirst) / (kOpen + 1))] = nullptr;
}

void FileDescriptor::close() {
    if (fd_ >= 0) open_file(std::exchange(fd_, -1)) = nullptr;
}

namespace files {

Result<FileDescriptor> open_beneath(int dir, const std::string& name, int, mode_t) {
    MemoryFolder& folder = folder_of(dir);
    const auto found = folder.files.find(name);
    if (found == folder.files.end()) return fail("open " + name, ENOENT);
    for (int i = 0; i < MemoryFolder::kOpen; ++i) {
        if (folder.open[static_cast<size_t>(i)]) continue;
        folder.open[static_cast<size_t>(i)] = &found->second;
        return FileDescriptor(dir + 1 + i);
    }
    return fail("open " + name, EMFILE);
}

Result<struct stat> status(int fd) {
    struct stat st {};
    st.st_size = static_cast<off_t>(open_file(fd)->size());
    return st;
}

Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset) {
    const std::string& file = *open_file(fd);
    if (offset >= file.size()) return size_t{0};
    const size_t got = std::min(size, file.size() - offset);
    std::memcpy(data, file.data() + offset, got);
    return got;
}

Result<void> write_all(int fd, const void* data, size_t size) {
    open_file(fd)->append(static_cast<const char*>(data), size);
    return {};
}

Result<void> write_at(int, const void*, size_t, uint64_t) { return fail("there is no scratch file in memory", EBADF); }

Result<void> truncate(int fd, uint64_t size) {
    open_file(fd)->resize(size);
    return {};
}

Result<void> sync_data(int) { return {}; }

struct Listing::Stream {
    std::map<std::string, std::string>::const_iterator at, end;
    dirent entry{};
};

Listing::Listing() = default;
Listing::Listing(Listing&&) noexcept = default;
Listing& Listing::operator=(Listing&&) noexcept = default;
Listing::~Listing() = default;

Result<Listing> Listing::open(int dir, const std::string&) {
    const auto& in = folder_of(dir).files;
    Listing listing;
    listing.stream_.reset(new Stream{in.begin(), in.end(), {}});
    return listing;
}

Result<const dirent*> Listing::next() {
    if (stream_->at == stream_->end) return nullptr;
    const std::string& name = (stream_->at++)->first;
    std::memcpy(stream_->entry.d_name, name.c_str(), name.size() + 1);
    return &stream_->entry;
}

}  // namespace files
}  // namespace postrider
