// Assertions that stay on in production (house habit: a broken invariant must stop the process before it can
// send a wrong message or lose one; the journal makes the stop safe).
#pragma once

#include <cstdio>
#include <cstdlib>

namespace postrider {

[[noreturn]] inline void check_failed(const char* expression, const char* file, int line,
                                      const char* why) {
    std::fprintf(stderr, "postrider: broken invariant: %s at %s:%d: %s\n", expression, file, line,
                 why);
    std::abort();
}

}  // namespace postrider

// CHECK(condition, "why it must hold").
#define POSTRIDER_CHECK(condition, why)                                             \
    do {                                                                            \
        if (!(condition)) [[unlikely]]                                              \
            ::postrider::check_failed(#condition, __FILE__, __LINE__, why);         \
    } while (false)
