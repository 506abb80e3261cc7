// What the journal's tests share: a folder on a real disk, a reactor, segments made by hand, and the state that a list of
// records must lead to, computed in the most obvious way.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/io/reactor.h"
#include "queue/journal/recovery.h"
#include "tests/journal_state.h"

namespace postrider::testing {

class TempDir {
  public:
    TempDir() : TempDir(std::filesystem::temp_directory_path()) {}
    explicit TempDir(const std::filesystem::path& parent) {
        std::string pattern = (parent / "journal-XXXXXX").string();
        path_ = mkdtemp(pattern.data());
        fd_ = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    ~TempDir() {
        close(fd_);
        std::filesystem::remove_all(path_);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    int fd() const { return fd_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    size_t files() const {
        size_t count = 0;
        for (const auto& entry : std::filesystem::directory_iterator(path_)) count += entry.exists();
        return count;
    }

  private:
    std::string path_;
    int fd_;
};

// For tests of many thousand small files, where the disk adds nothing but time.
inline std::filesystem::path quick_parent() {
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
}

class ShardLoop {
  public:
    ShardLoop() : exchange_(1) {
        Ring::Options options;
        options.entries = 64;
        options.receive_buffers = 8;
        auto made = Reactor::make(0, exchange_, options);
        EXPECT_TRUE(made) << made.error().text;
        reactor_ = std::move(*made);
    }
    Reactor& operator*() { return *reactor_; }
    Reactor* operator->() { return reactor_.get(); }
    void turn(DurationMs wait_ms) { reactor_->turn(reactor_->now_ns() + wait_ms * kNsPerMs); }
    template <class Done>
    bool run_until(Done done, DurationMs limit_ms = 5000) {
        const int64_t until_ms = reactor_->now_ms() + limit_ms;
        while (!done()) {
            if (reactor_->now_ms() > until_ms) return false;
            turn(5);
        }
        return true;
    }

  private:
    MailExchange exchange_;
    std::unique_ptr<Reactor> reactor_;
};

inline JournalRecord claim_record(FileId file, uint32_t created_s, std::string_view name) {
    JournalRecord record;
    record.kind = RecordKind::claim;
    record.form = SpoolForm::batch;
    record.file = file;
    record.size = 1000 + file;
    record.mtime_ns = static_cast<int64_t>(file * 1'000'003);
    record.time_s = created_s;
    record.name = name;
    return record;
}

inline JournalRecord fact(RecordKind kind, FileId file, uint32_t place = 0, uint32_t recipient = 0,
                          uint16_t attempt = 0, uint32_t time_s = 0, uint32_t due_s = 0) {
    JournalRecord record;
    record.kind = kind;
    record.file = file;
    record.place = place;
    record.recipient = recipient;
    record.attempt = attempt;
    record.time_s = time_s;
    record.due_s = due_s;
    return record;
}

inline JournalRecord mark(RecordKind kind, uint64_t offset) {
    JournalRecord record;
    record.kind = kind;
    record.offset = offset;
    return record;
}

// A segment's octets; `ends` gets the offset behind each record.
inline std::string segment_octets(const SegmentName& name, const std::vector<JournalRecord>& records,
                                  std::vector<size_t>* ends = nullptr) {
    char header[kSegmentHeaderSize];
    encode_header(name, 1'700'000'000, header);
    std::string octets(header, sizeof header);
    for (const auto& record : records) {
        char out[kRecordSizeMax];
        octets.append(out, encode_record(segment_seed(name), record, out));
        if (ends) ends->push_back(octets.size());
    }
    return octets;
}

inline void write_file(const std::string& path, const std::string& octets) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << octets;
}

inline std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// The state of one recipient, by the rules in words.
struct Fate {
    bool final = false;
    RecordKind kind{};
    uint32_t attempt = 0, intent = 0, time_s = 0, due_s = 0;
    bool operator==(const Fate&) const = default;
};

struct FileFate {
    uint32_t created_s = 0;
    std::string name;
    std::map<std::pair<uint32_t, uint32_t>, Fate> recipients;
    bool operator==(const FileFate&) const = default;
};

using Model = std::map<FileId, FileFate>;

inline void apply(Model& model, const JournalRecord& r) {
    if (r.kind == RecordKind::synced || r.kind == RecordKind::seal) return;
    FileFate& file = model[r.file];
    if (r.kind == RecordKind::claim) {
        file.created_s = r.time_s;
        file.name = r.name;
    } else {
        Fate& fate = file.recipients[{r.place, r.recipient}];
        if (r.kind == RecordKind::intent) {
            fate.intent = std::max<uint32_t>(fate.intent, r.attempt);
            return;
        }
        const Fate told{is_final(r.kind), r.kind, r.attempt, fate.intent, r.time_s, r.due_s};
        const auto rank = [](const Fate& f) {
            return std::tuple(f.final, f.attempt, f.kind, f.time_s, f.due_s);
        };
        if (rank(told) > rank(fate)) fate = told;
    }
}

inline Model model_of(const std::vector<JournalRecord>& records) {
    Model model;
    for (const auto& record : records) apply(model, record);
    return model;
}

inline Model model_of(const RecoveredState& state) {
    Model model;
    state.for_each([&](const RecoveredFile& file) {
        if (!file.claimed && state.recipients(file).empty()) return;  // no journal speaks of it
        FileFate& fate = model[file.id];
        fate.created_s = file.created_s;
        fate.name = state.name(file);
        std::pair<uint32_t, uint32_t> last{0, 0};
        bool first = true;
        for (const auto& r : state.recipients(file)) {
            const std::pair<uint32_t, uint32_t> at{r.place, r.recipient};
            EXPECT_TRUE(first || last < at) << "ascending, each once";
            first = false;
            last = at;
            fate.recipients[at] = {r.final(), r.kind, r.result_attempt, r.intent_attempt, r.time_s,
                                   r.due_s};
        }
    });
    return model;
}

// The state that these records lead to.
inline RecoveredState state_of(const std::vector<JournalRecord>& records) {
    RecoveredState state;
    for (const auto& record : records) state.add(record.file);
    state.listed();
    for (const auto& record : records) state.merge(record);
    state.finish();
    return state;
}

inline RecoveredState recover(const TempDir& dir, RecoveryReport& report) {
    auto state = recover_all(dir.fd(), report);
    EXPECT_TRUE(state) << state.error().text;
    return state ? std::move(*state) : RecoveredState{};
}

// Recipients of which something is known.
inline size_t known_of(const RecoveredState& state, FileId file) { return state.recipients(*state.find(file)).size(); }

}  // namespace postrider::testing
