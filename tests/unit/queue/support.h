// What the tests of the queue share: a spool in a folder of its own, a shard's reactor, files as
// producers write them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "engine/io/reactor.h"
#include "queue/file_table.h"
#include "queue/spool_directory.h"

namespace postrider::testing {

// In memory where there is such a place: these tests make many small files and ask nothing of the
// disk.
inline std::filesystem::path temp_parent() {
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
}

class TempFolder {
  public:
    TempFolder() {
        std::string pattern = (temp_parent() / "postrider-queue-XXXXXX").string();
        path_ = mkdtemp(pattern.data());
    }
    ~TempFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

inline void write_file(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    ASSERT_TRUE(out.flush().good()) << path;
}

inline std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline size_t count_files(const std::string& folder) {
    size_t count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
        count += entry.is_regular_file();
    return count;
}

// A spool and its engine's side of it. Producers write to tmp/ and rename.
class TempSpool {
  public:
    TempSpool() { reopen(); }
    void reopen() {
        spool_.reset();
        auto opened = SpoolDirectory::open(folder_ / "spool");
        if (!opened) {
            ADD_FAILURE() << opened.error().text;
            std::abort();
        }
        spool_ = std::move(*opened);
    }
    SpoolDirectory& operator*() { return *spool_; }
    SpoolDirectory* operator->() { return spool_.get(); }
    std::string operator/(const std::string& name) const { return folder_ / ("spool/" + name); }
    void drop(const std::string& name, const std::string& text) {
        const std::string from = *this / fmt::format("tmp/{}", ++written_);
        write_file(from, text);
        ASSERT_EQ(rename(from.c_str(), (*this / ("new/" + name)).c_str()), 0)
            << name << ": " << strerror(errno);
    }
    std::string active(FileId id, const std::string& suffix = "") const {
        const std::string name = file_id_text(id);
        return *this / ("active/" + name.substr(0, 2) + "/" + name + suffix);
    }

  private:
    TempFolder folder_;
    std::unique_ptr<SpoolDirectory> spool_;
    uint64_t written_ = 0;
};

class ShardLoop {
  public:
    explicit ShardLoop(MailExchange* exchange = nullptr, ShardId shard = 0)
        : own_(1), reactor_(make(shard, exchange ? *exchange : own_)) {}
    Reactor& operator*() { return *reactor_; }
    Reactor* operator->() { return reactor_.get(); }
    // Turns until `done` holds; false after the deadline.
    bool run_until(const std::function<bool()>& done, DurationMs limit_ms = 20'000) {
        const MonoNs end_ns = read_mono_clock() + limit_ms * kNsPerMs;
        while (!done()) {
            if (read_mono_clock() > end_ns) return false;
            reactor_->turn(read_mono_clock() + 10 * kNsPerMs);
        }
        return true;
    }

  private:
    static std::unique_ptr<Reactor> make(ShardId shard, MailExchange& exchange) {
        auto made = Reactor::make(shard, exchange,
                                  {.entries = 64, .receive_buffers = 8, .receive_buffer_size = 64});
        if (!made) {
            ADD_FAILURE() << made.error().text;
            std::abort();
        }
        return std::move(*made);
    }
    MailExchange own_;
    std::unique_ptr<Reactor> reactor_;
};

}  // namespace postrider::testing
