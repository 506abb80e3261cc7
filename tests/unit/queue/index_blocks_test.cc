#include "queue/index_blocks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <string>

#include "engine/io/files.h"
#include "tests/unit/queue/support.h"

namespace postrider {
namespace {

using testing::TempFolder;

class IndexBlocksTest : public ::testing::Test {
  protected:
    IndexBlocksTest() : fd_(open((folder_ / "index").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600)) {
        std::mt19937 random(7);
        octets_.resize(40 * IndexBlocks::kBlock + 100);
        for (char& c : octets_) c = static_cast<char>(random());
        EXPECT_TRUE(files::write_all(fd_.get(), octets_.data(), octets_.size()));
    }
    // What at() tells of the place, checked against the file; its size.
    size_t look(uint64_t offset, FileId file = 1) {
        auto seen = blocks_.at(fd_.get(), file, offset);
        EXPECT_TRUE(seen);
        EXPECT_GE(seen->size(), std::min(IndexBlocks::kEntry, octets_.size() - offset));
        EXPECT_EQ(*seen, std::string_view(octets_).substr(offset, seen->size()));
        return seen->size();
    }
    TempFolder folder_;
    FileDescriptor fd_;
    std::string octets_;
    IndexBlocks blocks_;
};

TEST_F(IndexBlocksTest, EachPlaceIsSeenAsItLies) {
    for (uint64_t offset = 0; offset <= octets_.size(); offset += 84) look(offset);
    look(octets_.size() - 1);
    EXPECT_EQ(look(octets_.size()), 0u);
}

TEST_F(IndexBlocksTest, FilesDoNotMix) {
    std::string other(3 * IndexBlocks::kBlock, 'x');
    const FileDescriptor fd(open((folder_ / "other").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    ASSERT_TRUE(files::write_all(fd.get(), other.data(), other.size()));
    for (uint64_t offset = 0; offset < other.size(); offset += 1000) {
        look(offset);
        auto seen = blocks_.at(fd.get(), 2, offset);
        ASSERT_TRUE(seen);
        EXPECT_EQ(*seen, std::string_view(other).substr(offset, seen->size()));
    }
}

// A block that serves one entry costs more than the entry: after a while entries are read alone, but for the trials.
TEST_F(IndexBlocksTest, ScatteredEntriesAreReadAlone) {
    std::mt19937 random(3);
    size_t alone = 0;
    for (FileId file = 1; file <= 2000; ++file)
        alone += look(random() % (39 * IndexBlocks::kBlock), file) <= IndexBlocks::kEntry;
    EXPECT_GT(alone, 1500u);
    for (int round = 0; round < 200; ++round)  // order comes back: blocks again
        for (uint64_t offset = 0; offset < 4 * IndexBlocks::kBlock; offset += 256) look(offset);
    EXPECT_GT(look(256), IndexBlocks::kEntry);
}

// Sites send from many blocks at once: what was looked at lately is not read again, though others were looked at between.
TEST_F(IndexBlocksTest, ManyBlocksStay) {
    constexpr FileId kFiles = 4;
    constexpr uint64_t kEach = 30;
    const auto look_at_all = [&](auto&& visit) {
        for (FileId file = 1; file <= kFiles; ++file)
            for (uint64_t number = 0; number < kEach; ++number) visit(file, number * IndexBlocks::kBlock);
    };
    look_at_all([&](FileId file, uint64_t offset) { look(offset, file); });
    ASSERT_EQ(ftruncate(fd_.get(), 0), 0);  // what is read from now on is empty
    size_t kept = 0;
    look_at_all([&](FileId file, uint64_t offset) {
        auto seen = blocks_.at(fd_.get(), file, offset);
        ASSERT_TRUE(seen);
        kept += !seen->empty();
    });
    EXPECT_GT(kept, kFiles * kEach * 9 / 10);
}

TEST_F(IndexBlocksTest, AnErrorIsTold) { EXPECT_FALSE(blocks_.at(-1, 1, 0)); }

}  // namespace
}  // namespace postrider
