// A limit on everything, in one place, with the relations between them checked (TigerBeetle's constants.zig).
// What an operator may change is in engine/config; these are the engine's own bounds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postrider::limits {

// Addresses, RFC 5321 4.5.3.1.
inline constexpr size_t kLocalPart = 64;
inline constexpr size_t kDomain = 255;
inline constexpr size_t kPath = 256;            // "<" local "@" domain ">"
inline constexpr size_t kLine = 998;            // content line without CRLF, RFC 5322 2.1.1
inline constexpr size_t kLabelValue = 255;      // x-campaign and the like

// Replies (FAULTS 19).
inline constexpr size_t kReplyLine = 4096;      // a longer line is cut, the rest skipped
inline constexpr size_t kReplyKept = 8192;      // text of a multi-line reply that is kept
inline constexpr size_t kReplyTotal = 1 << 20;  // octets of one reply before the session ends
inline constexpr size_t kReplyLogged = 1024;    // octets of a reply in the log

// Spool.
inline constexpr size_t kEnvelopeLine = 2048;   // one line of an envelope block or SMTP command
inline constexpr size_t kHeaderForAddresses = 1 << 20;  // header read for To, Cc, Bcc
inline constexpr size_t kRecipientsPerMessage = 10'000'000;
inline constexpr size_t kFileName = 255;

// DNS.
inline constexpr size_t kMxPerDomain = 32;      // more are ignored, lowest preference first
inline constexpr size_t kAddressesPerHost = 16;
inline constexpr size_t kAddressesPerSite = 32; // tried in one pass
inline constexpr size_t kCnameChain = 8;
inline constexpr uint32_t kTtlMinS = 30;
inline constexpr uint32_t kTtlMaxS = 86'400;
inline constexpr size_t kSiteName = 200;

// Shards.
inline constexpr size_t kShards = 256;
inline constexpr size_t kMailboxSlots = 4096;   // per pair of shards

static_assert(kPath >= kLocalPart && kDomain < 256);
static_assert(kReplyLogged <= kReplyKept && kReplyKept <= kReplyTotal);
static_assert(kTtlMinS < kTtlMaxS);

}  // namespace postrider::limits
