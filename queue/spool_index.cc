#include "queue/spool_index.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/core/check.h"
#include "engine/core/hash.h"
#include "engine/io/crash_points.h"
#include "engine/io/files.h"

namespace postrider {
namespace {

constexpr char kMagic[8] = {'P', 'R', 'I', 'D', 'X', 0, 0, 4};
constexpr size_t kBlock = 256 * 1024;
constexpr size_t kRunMost = 4096;  // recipients that a reader hands out at once
constexpr size_t kRecipientText = 1024;  // an address with its DSN parameters; a longer one stays in the file alone

uint32_t header_checksum(const IndexHeader& header) {
    return crc32c(&header, offsetof(IndexHeader, header_checksum));
}

}  // namespace

IndexWriter::IndexWriter(int fd, const SpoolFile& file) : fd_(fd), written_(sizeof(IndexHeader)) {
    std::memcpy(header_.magic, kMagic, sizeof kMagic);
    header_.file_id = file.id;
    header_.file_size = file.size;
    header_.file_mtime_ns = file.mtime_ns;
    buffer_.reserve(kBlock + 4096);
}

void IndexWriter::put(const void* data, size_t size) {
    buffer_.append(static_cast<const char*>(data), size);
    if (buffer_.size() >= kBlock) write_out();
}

void IndexWriter::write_out() {
    POSTRIDER_CRASH_POINT("index.write.before");
    if (state_ && !buffer_.empty()) state_ = files::write_at(fd_, buffer_.data(), buffer_.size(), written_);
    POSTRIDER_CRASH_POINT("index.write.after");
    checksum_ = crc32c(buffer_.data(), buffer_.size(), checksum_);
    written_ += buffer_.size();
    buffer_.clear();
}

void IndexWriter::add_recipient(Range where, DomainId domain, std::string_view text) {
    auto [found, added] = domain_refs_.try_emplace(domain, static_cast<uint32_t>(domains_.size()));
    if (added) domains_.push_back(domain);
    const RecipientEntry entry{RecipientEntry::kTag, found->second, where.offset << 16 | (where.size & 0xffff)};
    put(&entry, sizeof entry);
    if (++recipients_here_ == 1) recipient_.assign(text);
    ++header_.recipients;
}

void IndexWriter::add_message(const Envelope& envelope, const Content& content, bool too_late) {
    MessageEntry entry{};
    entry.tag = MessageEntry::kTag;
    entry.recipients = std::exchange(recipients_here_, 0);
    entry.offset = content.stored.offset;
    entry.size = content.stored.size;
    entry.wire_size = content.wire_size;
    entry.not_before_s = static_cast<uint32_t>(std::clamp<int64_t>(envelope.not_before_s, 0, UINT32_MAX));
    entry.sender = static_cast<uint16_t>(envelope.sender.size());
    entry.envid = static_cast<uint16_t>(envelope.envid.size());
    entry.job = static_cast<uint16_t>(envelope.job.size());
    entry.campaign = static_cast<uint16_t>(envelope.campaign.size());
    entry.tenant = static_cast<uint16_t>(envelope.tenant.size());
    entry.pool = static_cast<uint16_t>(envelope.pool.size());
    entry.removed = static_cast<uint32_t>(content.removed.size());
    entry.form = content.form;
    entry.flags = static_cast<uint8_t>((content.eight_bit ? MessageEntry::kEightBit : 0) |
                                       (content.crlf_only ? MessageEntry::kCrlfOnly : 0) |
                                       (content.dots ? MessageEntry::kDots : 0) |
                                       (envelope.smtputf8 ? MessageEntry::kSmtpUtf8 : 0) |
                                       (too_late ? MessageEntry::kRefused | MessageEntry::kTooLate : 0));
    if (too_late) header_.recipients -= entry.recipients;
    entry.priority = envelope.priority;
    entry.ret = envelope.ret;
    if (entry.recipients == 1 && recipient_.size() <= kRecipientText)
        entry.recipient = static_cast<uint16_t>(recipient_.size());
    put(&entry, sizeof entry);
    const size_t before = buffer_.size();
    for (const auto* text : {&envelope.sender, &envelope.envid, &envelope.job, &envelope.campaign,
                             &envelope.tenant, &envelope.pool})
        buffer_.append(*text);
    buffer_.append(reinterpret_cast<const char*>(content.removed.data()),
                   content.removed.size() * sizeof(Range));
    buffer_.append(recipient_, 0, entry.recipient);
    buffer_.append(entry.text_size() - (buffer_.size() - before), '\0');
    ++header_.messages;
    if (buffer_.size() >= kBlock) write_out();
}

void IndexWriter::drop_recipients() {
    if (recipients_here_ == 0) return;
    MessageEntry entry{};
    entry.tag = MessageEntry::kTag;
    entry.recipients = std::exchange(recipients_here_, 0);
    entry.flags = MessageEntry::kRefused;
    header_.recipients -= entry.recipients;
    put(&entry, sizeof entry);
}

Result<void> IndexWriter::finish(const NameTable& names, uint64_t refusals) {
    header_.refusals = static_cast<uint32_t>(std::min<uint64_t>(refusals, UINT32_MAX));
    header_.domains_offset = written_ + buffer_.size();
    header_.domains = static_cast<uint32_t>(domains_.size());
    for (const DomainId domain : domains_) {
        const std::string_view name = names.name(domain);
        const auto size = static_cast<uint16_t>(name.size());
        buffer_.append(reinterpret_cast<const char*>(&size), sizeof size);
        put(name.data(), name.size());
    }
    write_out();
    header_.body_checksum = checksum_;
    header_.header_checksum = header_checksum(header_);
    POSTRIDER_CRASH_POINT("index.header.before");
    if (state_) state_ = files::write_at(fd_, &header_, sizeof header_, 0);
    POSTRIDER_CRASH_POINT("index.finished");
    return state_;
}

Result<IndexReader> IndexReader::open(int fd, const SpoolFile& file, bool verify) {
    IndexHeader header;
    auto got = files::read_at(fd, &header, sizeof header, 0);
    if (!got) return std::unexpected(got.error());
    if (*got != sizeof header || std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 ||
        header.header_checksum != header_checksum(header) || header.file_id != file.id ||
        header.file_size != file.size || header.file_mtime_ns != file.mtime_ns ||
        header.domains_offset < sizeof header)
        return fail("index is missing, damaged or of another file");
    if (verify) {
        std::string block(kBlock, 0);
        uint32_t checksum = 0;
        uint64_t offset = sizeof header;
        for (;;) {
            auto part = files::read_at(fd, block.data(), block.size(), offset);
            if (!part) return std::unexpected(part.error());
            if (*part == 0) break;
            checksum = crc32c(block.data(), *part, checksum);
            offset += *part;
        }
        if (checksum != header.body_checksum) return fail("index is damaged");
    }
    return IndexReader(fd, header);
}

Result<std::vector<std::string>> IndexReader::domains() const {
    auto st = files::status(fd_);
    if (!st) return std::unexpected(st.error());
    const auto size = static_cast<uint64_t>(st->st_size);
    if (size < header_.domains_offset) return fail("index is cut");
    std::string text(size - header_.domains_offset, 0);
    auto got = files::read_at(fd_, text.data(), text.size(), header_.domains_offset);
    if (!got) return std::unexpected(got.error());
    std::vector<std::string> names;
    names.reserve(header_.domains);
    size_t at = 0;
    for (uint32_t i = 0; i < header_.domains; ++i) {
        uint16_t length;
        if (at + sizeof length > *got) return fail("index is cut");
        std::memcpy(&length, text.data() + at, sizeof length);
        at += sizeof length;
        if (at + length > *got) return fail("index is cut");
        names.emplace_back(text, at, length);
        at += length;
    }
    return names;
}

Result<void> IndexReader::fill(size_t wanted) {
    if (block_.size() - begin_ >= wanted) return {};
    block_.erase(0, begin_);
    begin_ = 0;
    const size_t have = block_.size();
    const uint64_t left = header_.domains_offset - offset_ - have;
    const size_t more = std::min<uint64_t>(left, std::max(kBlock, wanted));
    block_.resize(have + more);
    auto got = files::read_at(fd_, block_.data() + have, more, offset_ + have);
    if (!got || *got != more) block_.resize(have);  // the next call reads it again
    if (!got) return std::unexpected(got.error());
    if (*got != more || block_.size() < wanted) return fail("index is cut");
    return {};
}

Result<void> IndexReader::skip(size_t size) {
    if (size > header_.domains_offset - offset_) return fail("index is cut");
    offset_ += size;
    begin_ += std::min(size, block_.size() - begin_);
    return {};
}

// The entry behind the recipients at hand: in the block, or, for a message of many recipients, further on in the file.
Result<IndexReader::Step> IndexReader::find_message() {
    auto is_recipient = [](const char* at) {
        uint32_t tag;
        std::memcpy(&tag, at, sizeof tag);
        return tag == RecipientEntry::kTag;
    };
    std::string_view part(block_.data() + begin_, (block_.size() - begin_) / kIndexUnit * kIndexUnit);
    uint64_t at = offset_;
    while (true) {
        size_t seen = 0;
        while (seen < part.size() && is_recipient(part.data() + seen)) seen += kIndexUnit;
        at += seen;
        if (seen < part.size()) break;
        const size_t size = std::min<uint64_t>(kBlock, header_.domains_offset - at);
        if (size < kIndexUnit) return fail("index is damaged");
        ahead_.resize(size);
        auto got = files::read_at(fd_, ahead_.data(), size, at);
        if (!got) return std::unexpected(got.error());
        if (*got != size) return fail("index is cut");
        part = std::string_view(ahead_).substr(0, size / kIndexUnit * kIndexUnit);
    }
    const uint64_t left = header_.domains_offset - at;
    auto take = [&](size_t size) -> Result<void> {
        if (size > left) return fail("index is cut");
        message_.resize(size);
        const uint64_t in_block = at - offset_ + begin_;
        if (in_block + size <= block_.size()) {
            std::memcpy(message_.data(), block_.data() + in_block, size);
            return {};
        }
        auto got = files::read_at(fd_, message_.data(), size, at);
        if (!got) return std::unexpected(got.error());
        return *got == size ? Result<void>{} : fail("index is cut");
    };
    if (auto r = take(sizeof(MessageEntry)); !r) return std::unexpected(r.error());
    MessageEntry entry;
    std::memcpy(&entry, message_.data(), sizeof entry);
    if (entry.tag != MessageEntry::kTag || entry.recipients != (at - offset_) / kIndexUnit) return fail("index is damaged");
    if (auto r = take(sizeof entry + entry.text_size()); !r) return std::unexpected(r.error());
    left_ = entry.recipients;
    behind_ = true;
    Step step;
    step.kind = Step::Kind::message;
    step.place = static_cast<uint32_t>(at / kIndexUnit);
    step.message = reinterpret_cast<const MessageEntry*>(message_.data());
    step.text = message_.data() + sizeof entry;
    return step;
}

Result<IndexReader::Step> IndexReader::next() {
    if (left_ == 0) {
        if (std::exchange(behind_, false))
            if (auto r = skip(message_.size()); !r) return std::unexpected(r.error());
        if (offset_ >= header_.domains_offset) return Step{};
        if (auto r = fill(kIndexUnit); !r) return std::unexpected(r.error());
        return find_message();
    }
    if (auto r = fill(kIndexUnit); !r) return std::unexpected(r.error());
    Step step;
    step.kind = Step::Kind::recipients;
    step.entries = reinterpret_cast<const RecipientEntry*>(block_.data() + begin_);
    step.count = std::min({size_t{left_}, (block_.size() - begin_) / kIndexUnit, kRunMost});
    left_ -= static_cast<uint32_t>(step.count);
    if (auto r = skip(step.count * kIndexUnit); !r) return std::unexpected(r.error());
    return step;
}

std::string_view read_entry(const MessageEntry& entry, const char* text, Envelope& envelope, Content& content) {
    auto take = [&text](std::string& target, size_t size) {
        target.assign(text, size);
        text += size;
    };
    take(envelope.sender, entry.sender);
    take(envelope.envid, entry.envid);
    take(envelope.job, entry.job);
    take(envelope.campaign, entry.campaign);
    take(envelope.tenant, entry.tenant);
    take(envelope.pool, entry.pool);
    envelope.priority = entry.priority;
    envelope.not_before_s = entry.not_before_s;
    envelope.smtputf8 = entry.flags & MessageEntry::kSmtpUtf8;
    envelope.ret = entry.ret;
    content.stored = {entry.offset, entry.size};
    content.removed.resize(entry.removed);
    if (entry.removed > 0) std::memcpy(content.removed.data(), text, entry.removed * sizeof(Range));
    content.wire_size = entry.wire_size;
    content.form = entry.form;
    content.eight_bit = entry.flags & MessageEntry::kEightBit;
    content.crlf_only = entry.flags & MessageEntry::kCrlfOnly;
    content.dots = entry.flags & MessageEntry::kDots;
    return {text + entry.removed * sizeof(Range), entry.recipient};
}

}  // namespace postrider
