// Errors as values: no exceptions on the I/O path. An Error is for people: what, where, how to mend it.
#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace postrider {

struct Error {
    int code = 0;      // errno value, 0 when the error is not the system's
    std::string text;  // one line, no newline
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(std::string text, int code = 0) {
    return std::unexpected(Error{code, std::move(text)});
}

// "open /x/y: No such file or directory"
inline std::unexpected<Error> fail_errno(std::string what, int code = errno) {
    what += ": ";
    what += std::strerror(code);
    return std::unexpected(Error{code, std::move(what)});
}

// The disk, the inodes or the quota are used up: what could not be written is kept and written when there is space again.
inline bool is_no_space(int code) { return code == ENOSPC || code == EDQUOT; }

// A fault of this machine, not of the file or the peer at hand: it passes, and the same is tried again.
inline bool is_local_fault(int code) {
    return code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOSPC || code == EDQUOT || code == EIO ||
           code == EROFS || code == EAGAIN;
}

}  // namespace postrider
