// The numbers by which rooms name things to each other. An id is never a pointer: it can be checked, stored
// and sent to another shard.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace postrider {

using ShardId = uint16_t;
using RecordId = uint32_t;    // a queued recipient in the record arena; 0 is none
using FileSlot = uint32_t;    // an open or claimed spool file in the file table; 0 is none
using FileId = uint64_t;      // name of a claimed file: hash of (inode, name, size, mtime)
using DomainId = uint32_t;    // interned name of a queue: a recipient domain, from one pool (queue_name.h); 0 is none
using SiteId = uint32_t;      // interned site (canonical MX set); 0 is none
using SourceId = uint16_t;    // configured egress source; 0 is the kernel's choice
using PoolId = uint16_t;      // configured pool of sources; 0 is the default
using LabelId = uint32_t;     // interned campaign or tenant; 0 is none

// 128 bits, one per message, stable over restarts: the file's id and the message's place in it.
struct MessageId {
    uint64_t file = 0;
    uint64_t place = 0;
    bool operator==(const MessageId&) const = default;
};

// Of the "id" of a delivery log line: 32 hexadecimal digits.
inline std::optional<MessageId> message_id_of(std::string_view digits) {
    MessageId id;
    if (digits.size() != 32) return std::nullopt;
    const char* half = digits.data() + 16;
    const auto file = std::from_chars(digits.data(), half, id.file, 16);
    const auto place = std::from_chars(half, half + 16, id.place, 16);
    if (file.ptr != half || place.ptr != half + 16) return std::nullopt;
    return id;
}

}  // namespace postrider
