// The files a segment speaks of: an open-addressing set of file ids, 11 to 22 octets an id. File id 0 is none.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/core/hash.h"
#include "engine/core/ids.h"

namespace postrider {

class FileSet {
  public:
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    // False: it was there.
    bool insert(FileId file) {
        if (4 * (size_ + 1) > 3 * slots_.size()) grow();
        size_t at = find_slot(file);
        if (slots_[at] == file) return false;
        slots_[at] = file;
        ++size_;
        return true;
    }

    bool contains(FileId file) const { return size_ > 0 && slots_[find_slot(file)] == file; }

    // False: it was not there.
    bool erase(FileId file) {
        if (size_ == 0) return false;
        size_t hole = find_slot(file);
        if (slots_[hole] != file) return false;
        // Backward shift (Knuth 6.4, algorithm R): no tombstones, a set that empties stays quick.
        const size_t mask = slots_.size() - 1;
        for (size_t at = (hole + 1) & mask; slots_[at] != 0; at = (at + 1) & mask) {
            const size_t home = home_of(slots_[at]);
            if (((at - home) & mask) >= ((at - hole) & mask)) {
                slots_[hole] = slots_[at];
                hole = at;
            }
        }
        slots_[hole] = 0;
        --size_;
        return true;
    }

    template <class F>
    void for_each(F&& visit) const {
        for (const FileId file : slots_)
            if (file != 0) visit(file);
    }

  private:
    size_t home_of(FileId file) const { return mix64(file, 1) & (slots_.size() - 1); }
    size_t find_slot(FileId file) const {
        size_t at = home_of(file);
        while (slots_[at] != 0 && slots_[at] != file) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    void grow() {
        std::vector<FileId> old(slots_.empty() ? 16 : 2 * slots_.size());
        old.swap(slots_);
        for (const FileId file : old)
            if (file != 0) slots_[find_slot(file)] = file;
    }

    std::vector<FileId> slots_;
    size_t size_ = 0;
};

}  // namespace postrider
