// The octets of a connection rest in blocks of a few sizes, kept by one pool a shard: a connection
// takes a block when it has something to hold and gives it back when it has not, so that an idle
// one holds none and the steady state allocates nothing. Single-threaded, as everything of a shard.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace postrider {

class BufferPool {
  public:
    // A flight of commands; a small message; what a connection may have unsent at once (64 KiB and
    // a little); room for one that forgot to wait. Larger is a broken caller.
    static constexpr std::array<size_t, 5> kSizes = {4 << 10, 16 << 10, 68 << 10, 256 << 10,
                                                     2 << 20};
    static constexpr size_t kPooled = 3;            // larger blocks go back to the system at once
    static constexpr size_t kKeptBytes = 16 << 20;  // free blocks kept, by a shard
    static constexpr size_t kLargest = kSizes.back();

    BufferPool() = default;
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();

    size_t bytes_in_use() const { return in_use_; }
    size_t bytes_kept() const { return kept_; }

  private:
    friend class Buffer;
    struct Free {
        Free* next;
    };
    char* take(size_t size_class);
    void give_back(char* block, size_t size_class);

    std::array<Free*, kPooled> free_{};
    size_t in_use_ = 0;
    size_t kept_ = 0;
};

// Octets in order: appended behind, consumed in front. Grows into the next block size; holds no
// block when it was released or never used. Pointers into it are good until the next append or
// reserve.
class Buffer {
  public:
    explicit Buffer(BufferPool& pool) : pool_(&pool) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }
    void swap(Buffer& other);

    bool empty() const { return begin_ == end_; }
    size_t size() const { return end_ - begin_; }
    const char* data() const { return block_ + begin_; }
    std::string_view view() const { return {block_ + begin_, size()}; }
    bool holds_block() const { return block_ != nullptr; }

    void append(std::string_view octets);
    // Room for at least `size` octets behind the last; commit() says how many were written.
    std::span<char> reserve(size_t size);
    void commit(size_t size);
    void consume(size_t size);
    void drop_behind(size_t size);  // keeps the first `size` octets
    void release();                 // forgets everything, gives the block back

  private:
    size_t capacity() const { return block_ ? BufferPool::kSizes[class_] : 0; }
    void grow(size_t needed);

    BufferPool* pool_;
    char* block_ = nullptr;
    size_t class_ = 0;
    size_t begin_ = 0;
    size_t end_ = 0;
};

}  // namespace postrider
