// Address lists of header fields (RFC 5322 3.4, 4.4): groups, comments, quoted strings, folds,
// routes. What a display name says is not looked at, so encoded words (RFC 2047) pass unread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "engine/core/result.h"

namespace postrider {

// One element of a list that ought to be an address.
struct ListedAddress {
    std::string_view raw;  // the addr-spec as it lies, or the whole element when there is none
    bool is_null = false;  // "<>"
};

// Walks `list` from `at`; false when there is no further element. Empty elements and group names
// are passed.
bool next_address(std::string_view list, size_t& at, ListedAddress& out);

// An addr-spec without comments, folds and the white space that may stand around "." and "@"
// (RFC 5322 4.4 obs-local-part). Any other white space is an error: joining words would name
// someone else.
Result<void> plain_addr_spec(std::string_view raw, std::string& out);

}  // namespace postrider
