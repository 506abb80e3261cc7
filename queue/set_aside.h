// What was written into bad/ and is not durable yet: copies of refused messages, and reasons. They are synced with the next
// commit, and with the folder, so that a batch file does not go before the messages that were taken out of it are safe.
// One per shard.
#pragma once

#include <vector>

#include "engine/io/files.h"
#include "queue/journal/group_commit.h"

namespace postrider {

class SetAside final : public CommitParticipant {
  public:
    static constexpr size_t kMany = 64;  // then whoever sets aside waits for a commit: each is an open file

    explicit SetAside(int bad_folder) : bad_folder_(bad_folder) {}

    void add(std::vector<FileDescriptor> written) {
        for (auto& file : written) waiting_.push_back(std::move(file));
    }
    bool many() const { return waiting_.size() + syncing_.size() >= kMany; }

    bool dirty() const override { return !waiting_.empty() || !syncing_.empty(); }
    Result<void> begin_commit(std::vector<int>& to_sync) override {
        for (auto& file : waiting_) syncing_.push_back(std::move(file));  // behind those of a commit that was held
        waiting_.clear();
        for (const auto& file : syncing_) to_sync.push_back(file.get());
        if (!syncing_.empty()) to_sync.push_back(bad_folder_);
        return {};
    }
    bool syncs_names() const override { return true; }
    Result<void> end_commit() override {
        syncing_.clear();
        return {};
    }

  private:
    const int bad_folder_;
    std::vector<FileDescriptor> waiting_, syncing_;
};

}  // namespace postrider
