#include "queue/message_reader.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "engine/core/check.h"
#include "engine/core/hash.h"
#include "queue/formats/eml_parser.h"
#include "queue/spool_index.h"

namespace postrider {
namespace {

class SmallHandler final : public SpoolHandler {
  public:
    explicit SmallHandler(SmallMessage& message) : message_(message) {}
    void on_recipient(const RecipientView& recipient) override {
        message_.recipients.push_back({recipient.where, std::string(recipient.domain)});
    }
    void on_refused_recipient(std::string_view text, const Error& why) override {
        message_.refused.push_back({std::string(text), why});
    }
    void on_message(uint32_t, const Envelope& envelope, const Content& content) override {
        message_.envelope = envelope;
        message_.content = content;
    }
    void on_refused_message(uint32_t, const Envelope&, const Content&, Range, const Error&) override {
        POSTRIDER_CHECK(false, "an .eml is refused as a file");
    }

  private:
    SmallMessage& message_;
};

bool same_file(const SpoolFile& file, const struct stat& st) {
    return static_cast<uint64_t>(st.st_size) == file.size && st.st_ino == file.inode &&
           int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec == file.mtime_ns;
}

Result<void> parse_recipient(StoredForm form, std::string_view text, RecipientText& out) {
    if (auto parsed = parse_recipient_text(form, text, out); !parsed)
        return fail("recipient: " + parsed.error().text, ESTALE);
    return {};
}

}  // namespace

MessageId message_id(FileId file, uint32_t place) {
    return {file, mix64(file, place)};
}

Result<void> SmallMessage::parse(std::span<const char> file, const ContentRules& rules) {
    recipients.clear();
    refused.clear();
    SmallHandler handler(*this);
    EmlParser parser(handler, rules);
    if (auto fed = parser.feed(file); !fed) return fed;
    return parser.finish();
}

Result<OpenFile*> MessageReader::open(FileSlot slot) {
    auto found = open_.find(slot);
    // The slot may have passed to another file since: its id tells.
    if (found != open_.end() && found->second->file.id != table_[slot].id) {
        forget(slot);
        found = open_.end();
    }
    if (found != open_.end()) {
        ages_.splice(ages_.begin(), ages_, found->second->age);
        return found->second.get();
    }
    while (open_.size() >= kOpenFiles) {
        auto oldest = std::find_if(ages_.rbegin(), ages_.rend(),
                                   [&](FileSlot old) { return open_.at(old)->users == 0; });
        if (oldest == ages_.rend()) break;  // all in use: as many as there are messages in flight
        open_.erase(*oldest);
        ages_.erase(std::next(oldest).base());
    }
    const FileEntry& entry = table_[slot];
    auto opened = std::make_unique<OpenFile>();
    SpoolFile& file = opened->file;
    file.id = entry.id;
    file.created_s = entry.created_s;
    file.form = entry.batch ? SpoolForm::batch : SpoolForm::eml;
    file.indexed = entry.indexed;
    file.name = table_.name(slot);
    auto data = spool_.open_active(file.id, "", O_RDONLY);
    if (!data) return std::unexpected(data.error());
    auto st = files::status(data->get());
    if (!st) return std::unexpected(st.error());
    file.size = static_cast<uint64_t>(st->st_size);
    file.mtime_ns = int64_t{st->st_mtim.tv_sec} * 1'000'000'000 + st->st_mtim.tv_nsec;
    file.inode = st->st_ino;
    if (file.stamp() != entry.stamp) return fail("spool file " + file.name + " was changed after it was claimed", ESTALE);
    opened->data = std::move(*data);
    if (file.indexed) {
        auto index = spool_.open_active(file.id, kIndexSuffix, O_RDONLY);
        if (!index) return std::unexpected(index.error());
        opened->index = std::move(*index);
    }
    ages_.push_front(slot);
    opened->age = ages_.begin();
    return open_.emplace(slot, std::move(opened)).first->second.get();
}

Result<void> MessageReader::load(const Record& record, LoadedMessage& message) {
    message.open = nullptr;
    auto opened = open(record.file);
    if (!opened) return std::unexpected(opened.error());
    message.open = *opened;
    message.only_recipient.clear();
    message.whole.clear();
    message.place = record.place;
    message.id = message_id(message.file().id, record.place);
    auto loaded = message.file().indexed ? load_indexed(record, message) : load_small(message);
    if (!loaded) {
        message.open = nullptr;
        return loaded;
    }
    ++message.open->users;
    return {};
}

void MessageReader::unload(LoadedMessage& message) {
    if (message.open) --message.open->users;
    message.open = nullptr;
}

// The entry, its texts, and in front of it the last of its recipients: the only one of most messages.
Result<void> MessageReader::load_indexed(const Record& record, LoadedMessage& message) {
    if (record.place <= sizeof(IndexHeader) / kIndexUnit) return fail("index is damaged", ESTALE);
    const int index = message.open->index.get();
    const uint64_t offset = (uint64_t{record.place} - 1) * kIndexUnit;
    auto octets = blocks_.at(index, message.open->file.id, offset);
    if (!octets) return std::unexpected(octets.error());
    constexpr size_t kAt = sizeof(RecipientEntry);
    MessageEntry entry;
    if (octets->size() < kAt + sizeof entry) return fail("index is cut", ESTALE);
    std::memcpy(&message.last_entry, octets->data(), kAt);
    std::memcpy(&entry, octets->data() + kAt, sizeof entry);
    if (entry.tag != MessageEntry::kTag) return fail("index is damaged", ESTALE);
    const size_t whole = kAt + sizeof entry + entry.text_size();
    if (whole > octets->size()) {
        block_.resize(whole);
        auto got = files::read_at(index, block_.data(), whole, offset);
        if (!got) return std::unexpected(got.error());
        if (*got != whole) return fail("index is cut", ESTALE);
        octets = std::string_view(block_);
    }
    message.only_recipient =
        read_entry(entry, octets->data() + kAt + sizeof entry, message.envelope, message.content);
    message.recipients = entry.recipients;
    return {};
}

Result<void> MessageReader::load_small(LoadedMessage& message) {
    const SpoolFile& file = message.file();
    block_.resize(file.size);
    auto got = files::read_at(message.open->data.get(), block_.data(), block_.size(), 0);
    if (!got) return std::unexpected(got.error());
    if (*got != file.size) return fail("spool file " + file.name + " is shorter than when it was claimed", ESTALE);
    if (auto parsed = small_.parse(block_, rules_); !parsed)
        return fail("spool file " + file.name + ": " + parsed.error().text, ESTALE);
    message.envelope = small_.envelope;
    message.content = small_.content;
    message.recipients = static_cast<uint32_t>(small_.recipients.size());
    message.small_recipients.clear();
    for (const auto& recipient : small_.recipients) message.small_recipients.push_back(recipient.where);
    const std::string_view octets(block_);
    if (small_.recipients.size() == 1) {
        const Range where = small_.recipients.front().where;
        message.only_recipient = octets.substr(where.offset, where.size);
    }
    if (octets.size() <= kKeptWhole) message.whole = octets;
    return {};
}

Result<void> MessageReader::recipient(LoadedMessage& message, uint32_t number, RecipientText& out) {
    if (number >= message.recipients) return fail("no such recipient in its message", ESTALE);
    if (!message.only_recipient.empty()) return parse_recipient(message.content.form, message.only_recipient, out);
    Range where;
    if (message.open->index) {
        RecipientEntry entry = message.last_entry;
        const uint64_t unit = uint64_t{message.place} - message.recipients + number;
        if (number + 1 < message.recipients) {
            auto got = files::read_at(message.open->index.get(), &entry, sizeof entry, unit * kIndexUnit);
            if (!got) return std::unexpected(got.error());
            if (*got != sizeof entry) return fail("index is cut", ESTALE);
        }
        if (entry.tag != RecipientEntry::kTag) return fail("index is damaged", ESTALE);
        where = entry.range();
    } else {
        where = message.small_recipients[number];
    }
    message.text.resize(where.size);
    if (auto read_back = read(message, where.offset, message.text); !read_back) return read_back;
    return parse_recipient(message.content.form, message.text, out);
}

Result<void> MessageReader::read(const LoadedMessage& message, uint64_t offset, std::span<char> into) {
    if (offset + into.size() <= message.whole.size()) {
        std::memcpy(into.data(), message.whole.data() + offset, into.size());
        return {};
    }
    auto got = files::read_at(message.open->data.get(), into.data(), into.size(), offset);
    if (!got) return std::unexpected(got.error());
    if (*got != into.size())
        return fail("spool file " + message.file().name + " is shorter than when it was claimed", ESTALE);
    return {};
}

bool MessageReader::unchanged(const LoadedMessage& message) const {
    auto st = files::status(message.open->data.get());
    return st && same_file(message.file(), *st);
}

void MessageReader::forget(FileSlot slot) {
    auto found = open_.find(slot);
    if (found == open_.end()) return;
    POSTRIDER_CHECK(found->second->users == 0, "a file with a loaded message is not settled");
    ages_.erase(found->second->age);
    open_.erase(found);
}

void MessageReader::forget_removed(FileSlot slot, FileId id) {
    auto found = open_.find(slot);
    if (found != open_.end() && found->second->file.id == id && found->second->users == 0) forget(slot);
}

}  // namespace postrider
