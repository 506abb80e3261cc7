#include "engine/net/buffer_pool.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/core/check.h"

namespace postrider {

BufferPool::~BufferPool() {
    POSTRIDER_CHECK(in_use_ == 0, "a pool outlives its buffers");
    for (Free* block : free_) {
        while (block) std::free(std::exchange(block, block->next));
    }
}

char* BufferPool::take(size_t size_class) {
    in_use_ += kSizes[size_class];
    if (size_class < kPooled && free_[size_class]) {
        Free* block = free_[size_class];
        free_[size_class] = block->next;
        kept_ -= kSizes[size_class];
        return reinterpret_cast<char*>(block);
    }
    void* block = std::malloc(kSizes[size_class]);
    POSTRIDER_CHECK(block, "out of memory");
    return static_cast<char*>(block);
}

void BufferPool::give_back(char* block, size_t size_class) {
    in_use_ -= kSizes[size_class];
    if (size_class >= kPooled || kept_ + kSizes[size_class] > kKeptBytes) {
        std::free(block);
        return;
    }
    kept_ += kSizes[size_class];
    free_[size_class] = new (block) Free{free_[size_class]};
}

void Buffer::swap(Buffer& other) {
    std::swap(pool_, other.pool_);
    std::swap(block_, other.block_);
    std::swap(class_, other.class_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
}

void Buffer::append(std::string_view octets) {
    if (octets.empty()) return;
    std::memcpy(reserve(octets.size()).data(), octets.data(), octets.size());
    end_ += octets.size();
}

std::span<char> Buffer::reserve(size_t size) {
    if (capacity() - end_ < size || !block_) grow(size);
    return {block_ + end_, capacity() - end_};
}

// Moves what is left to the front when that frees at least half of the block, else into a larger
// one: an octet is moved a bounded number of times however the buffer is used.
void Buffer::grow(size_t needed) {
    const size_t held = size();
    const bool last_class = class_ + 1 == BufferPool::kSizes.size();
    if (block_ && held + needed <= capacity() && (held <= capacity() / 2 || last_class)) {
        std::memmove(block_, block_ + begin_, held);
    } else {
        size_t size_class = block_ ? class_ + 1 : 0;
        while (size_class < BufferPool::kSizes.size() &&
               BufferPool::kSizes[size_class] < held + needed) {
            ++size_class;
        }
        POSTRIDER_CHECK(size_class < BufferPool::kSizes.size(), "who appends waits for drained()");
        char* block = pool_->take(size_class);
        if (block_) {
            std::memcpy(block, block_ + begin_, held);
            pool_->give_back(block_, class_);
        }
        block_ = block;
        class_ = size_class;
    }
    begin_ = 0;
    end_ = held;
}

void Buffer::commit(size_t size) {
    POSTRIDER_CHECK(size <= capacity() - end_, "not more than was reserved");
    end_ += size;
}

void Buffer::consume(size_t size) {
    POSTRIDER_CHECK(size <= this->size(), "not more than is there");
    begin_ += size;
    if (begin_ == end_) begin_ = end_ = 0;
}

void Buffer::drop_behind(size_t size) {
    POSTRIDER_CHECK(size <= this->size(), "not more than is there");
    end_ = begin_ + size;
}

void Buffer::release() {
    if (block_) pool_->give_back(std::exchange(block_, nullptr), class_);
    class_ = begin_ = end_ = 0;
}

}  // namespace postrider
