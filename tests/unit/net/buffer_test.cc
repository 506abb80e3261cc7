#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/net/buffer_pool.h"
#include "tests/unit/net/net_fixture.h"

namespace postrider {
namespace {

// Any order of operations leaves what a string would hold.
TEST(Buffer, HoldsWhatAStringHolds) {
    BufferPool pool;
    std::mt19937 random(1);
    {
        Buffer buffer(pool);
        std::string model;
        for (uint32_t i = 0; i < 20'000; ++i) {
            const size_t size = random() % (i % 50 == 0 ? 30'000 : 300);
            switch (random() % 8) {
                case 0:
                case 1: {
                    const std::string text = test::pattern(size, i);
                    buffer.append(text);
                    model += text;
                    break;
                }
                case 2: {
                    const std::string text = test::pattern(size, i);
                    const auto room = buffer.reserve(size);
                    ASSERT_GE(room.size(), size);
                    std::memcpy(room.data(), text.data(), size);
                    buffer.commit(size);
                    model += text;
                    break;
                }
                case 3:
                    model.resize(std::min(model.size(), model.size() / 2 + size));
                    buffer.drop_behind(model.size());
                    break;
                case 4:
                    if (random() % 20 == 0) {
                        buffer.release();
                        model.clear();
                        ASSERT_FALSE(buffer.holds_block());
                    }
                    break;
                default: {
                    const size_t taken = std::min(model.size(), size);
                    buffer.consume(taken);
                    model.erase(0, taken);
                }
            }
            if (model.size() > 200'000) {
                buffer.consume(model.size());
                model.clear();
            }
            ASSERT_EQ(buffer.view(), model);
        }
    }
    EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(BufferPool, ReusesABlockAndForgetsLargeOnes) {
    BufferPool pool;
    Buffer buffer(pool);
    buffer.append("one");
    const char* block = buffer.data();
    EXPECT_EQ(pool.bytes_in_use(), BufferPool::kSizes[0]);
    buffer.release();
    EXPECT_EQ(pool.bytes_kept(), BufferPool::kSizes[0]);
    buffer.append("two");
    EXPECT_EQ(buffer.data(), block);
    EXPECT_EQ(pool.bytes_kept(), 0u);
    buffer.reserve(200'000);
    buffer.release();
    EXPECT_EQ(pool.bytes_kept(), BufferPool::kSizes[0]);
    EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(BufferPool, KeepsABoundedAmount) {
    BufferPool pool;
    std::vector<std::unique_ptr<Buffer>> buffers;
    const size_t count = 2 * BufferPool::kKeptBytes / BufferPool::kSizes[2];
    for (size_t i = 0; i < count; ++i) {
        buffers.push_back(std::make_unique<Buffer>(pool));
        buffers.back()->reserve(BufferPool::kSizes[2]);
    }
    buffers.clear();
    EXPECT_LE(pool.bytes_kept(), BufferPool::kKeptBytes);
    EXPECT_GT(pool.bytes_kept(), BufferPool::kKeptBytes / 2);
}

}  // namespace
}  // namespace postrider
