#include "engine/control_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/core/hash.h"
#include "engine/core/limits.h"
#include "engine/egress/shaping_book.h"

namespace postrider {
namespace {

using nlohmann::json;

constexpr size_t kBlock = 4096;
constexpr size_t kMostOctets = 64 << 20;
constexpr int64_t kMostOffsetUs = int64_t{1} << 52;  // 142 years: more than the seconds of a stamp can tell
constexpr std::string_view kMagic = "postrider-control 1 ";

json said_json(const Said& said) { return {{"at", said.at_s}, {"who", said.who}, {"reason", said.reason}}; }

// Members by name, each of the kind that is wanted, or the defaults; `bad` when one is of another.
class Members {
  public:
    explicit Members(const json& object) : object_(object), bad_(!object.is_object()) {}
    std::string text(const char* name, size_t most) {
        const json* member = find(name);
        if (!member) return {};
        const auto* value = member->get_ptr<const std::string*>();
        if (!value || value->size() > most) bad_ = true;
        return value && !bad_ ? *value : std::string();
    }
    int64_t number(const char* name, int64_t least = 0, int64_t most = INT64_MAX) {
        const json* member = find(name);
        if (!member) return 0;
        const bool too_large = member->is_number_unsigned() && member->get<uint64_t>() > INT64_MAX;
        const int64_t value = member->is_number_integer() && !too_large ? member->get<int64_t>() : INT64_MIN;
        if (value < least || value > most) bad_ = true;
        return bad_ ? 0 : value;
    }
    bool flag(const char* name) {
        const json* member = find(name);
        if (member && !member->is_boolean()) bad_ = true;
        return member && !bad_ && member->get<bool>();
    }
    Said said(const char* name) {
        const json* member = find(name);
        if (!member) return {};
        Members inner(*member);
        Said said{inner.number("at"), inner.text("who", 256), inner.text("reason", 1024)};
        bad_ |= inner.bad();
        return said;
    }
    bool bad() const { return bad_; }

  private:
    const json* find(const char* name) const {
        if (bad_) return nullptr;
        const auto found = object_.find(name);
        return found == object_.end() ? nullptr : &*found;
    }
    const json& object_;
    bool bad_;
};

Result<Hold> hold_of(const json& object) {
    Members members(object);
    const auto scope = hold_scope_of(members.text("scope", 16));
    Hold hold;
    hold.name = members.text("name", limits::kSiteName + limits::kDomain);
    hold.suspended = members.flag("suspended");
    hold.until_s = members.number("until");
    hold.suspended_by = members.said("suspended_by");
    hold.cancelled_to_s = members.number("cancelled_to");
    hold.cancelled_at_ns = members.number("cancelled_at_ns");
    hold.cancelled_by = members.said("cancelled_by");
    if (members.bad() || !scope || hold.name.empty()) return fail("an entry of \"holds\" is not one");
    hold.scope = *scope;
    return hold;
}

Result<KeptShape> shape_of(const json& object) {
    Members members(object);
    KeptShape shape{members.text("domain", limits::kSiteName + limits::kDomain), members.text("key", 64),
                    members.text("value", kOverrideValue), members.number("expires"), members.said("said")};
    if (members.bad() || shape.domain.empty() || shape.key.empty()) return fail("an entry of \"shapes\" is not one");
    return shape;
}

// The state in one file: empty when the file is, an error when it is not whole.
struct Slot {
    uint64_t number = 0;
    std::string text;
};

Result<Slot> read_slot(int fd) {
    auto st = files::status(fd);
    if (!st) return std::unexpected(st.error());
    if (st->st_size == 0) return Slot{};
    if (static_cast<size_t>(st->st_size) > kMostOctets) return fail("is larger than such a file can be");
    std::string whole(static_cast<size_t>(st->st_size), '\0');
    auto got = files::read_at(fd, whole.data(), whole.size(), 0);
    if (!got) return std::unexpected(got.error());
    whole.resize(*got);
    const size_t line = whole.find('\n');
    if (!whole.starts_with(kMagic) || line == std::string::npos) return fail("does not begin as such a file does");
    uint64_t fields[3] = {};
    const char* at = whole.data() + kMagic.size();
    const char* const end = whole.data() + line;
    for (size_t i = 0; i < 3; ++i) {
        const auto [next, error] = std::from_chars(at, end, fields[i], i == 2 ? 16 : 10);
        if (error != std::errc() || (i < 2 ? next == end || *next != ' ' : next != end))
            return fail("does not begin as such a file does");
        at = next + 1;
    }
    Slot slot{fields[0], {}};
    if (fields[1] > whole.size() - line - 1) return fail("is cut short");
    slot.text = whole.substr(line + 1, fields[1]);
    if (crc32c(slot.text.data(), slot.text.size()) != fields[2]) return fail("is damaged: its checksum is another");
    return slot;
}

}  // namespace

std::string control_text(const ControlState& state) {
    json holds = json::array(), shapes = json::array();
    for (const Hold& hold : state.holds) {
        json entry = {{"scope", name_of(hold.scope)}, {"name", hold.name}};
        if (hold.suspended)
            entry.update({{"suspended", true}, {"until", hold.until_s}, {"suspended_by", said_json(hold.suspended_by)}});
        if (hold.cancelled_to_s)
            entry.update({{"cancelled_to", hold.cancelled_to_s}, {"cancelled_at_ns", hold.cancelled_at_ns},
                          {"cancelled_by", said_json(hold.cancelled_by)}});
        holds.push_back(std::move(entry));
    }
    for (const KeptShape& shape : state.shapes)
        shapes.push_back({{"domain", shape.domain}, {"key", shape.key}, {"value", shape.value},
                          {"expires", shape.expires_s}, {"said", said_json(shape.said)}});
    // Octets that are no UTF-8 are replaced: labels are the producers' own.
    return json{{"holds", holds}, {"shapes", shapes}, {"clock", state.clock_offset_us}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<ControlState> parse_control_text(std::string_view text) {
    ControlState state;
    if (text.empty()) return state;
    const json whole = json::parse(text, nullptr, false);
    if (!whole.is_object()) return fail("holds no JSON object");
    for (const char* name : {"holds", "shapes"})
        if (!whole.contains(name) || !whole[name].is_array()) return fail(fmt::format("has no list \"{}\"", name));
    for (const json& entry : whole["holds"]) {
        auto hold = hold_of(entry);
        if (!hold) return std::unexpected(hold.error());
        state.holds.push_back(std::move(*hold));
    }
    for (const json& entry : whole["shapes"]) {
        auto shape = shape_of(entry);
        if (!shape) return std::unexpected(shape.error());
        state.shapes.push_back(std::move(*shape));
    }
    Members members(whole);
    state.clock_offset_us = members.number("clock", -kMostOffsetUs, kMostOffsetUs);
    if (members.bad()) return fail("\"clock\" is no number of microseconds");
    return state;
}

Result<ControlFile> ControlFile::open(int spool, ControlState& state) {
    ControlFile file;
    Slot newest;
    Error why;
    size_t whole = 0, written = 0;
    for (size_t i = 0; i < 2; ++i) {
        const std::string name = fmt::format("control.{}", i);
        auto fd = files::open_beneath(spool, name, O_RDWR | O_CREAT);
        if (!fd) return std::unexpected(fd.error());
        auto slot = read_slot(fd->get());
        file.files_[i] = std::move(*fd);
        if (!slot) {
            why = {slot.error().code, fmt::format("{} {}", name, slot.error().text)};
            ++written;
            continue;
        }
        written += slot->number > 0;
        whole += slot->number > 0;
        if (slot->number > newest.number) newest = std::move(*slot);
    }
    // A torn write spoils one file; with a first write torn there was no state before it.
    if (whole == 0 && written > 1) return fail(why.text + "; the other control file is not whole either");
    auto parsed = parse_control_text(newest.text);
    if (!why.text.empty()) file.note_ = why.text + "; it was being written when the engine before this one ended";
    if (whole < 2)
        if (auto synced = files::sync_all(spool); !synced) return std::unexpected(synced.error());
    if (!parsed)
        return fail(fmt::format("control.{} {}; what was cancelled and suspended is not known", newest.number % 2,
                                parsed.error().text));
    state = std::move(*parsed);
    file.number_ = newest.number;
    return file;
}

Result<void> ControlFile::write(const ControlState& state) {
    const std::string text = control_text(state);
    std::string whole = fmt::format("{}{} {} {:08x}\n", kMagic, number_ + 1, text.size(), crc32c(text.data(), text.size()));
    whole += text;
    whole.resize((whole.size() + kBlock - 1) / kBlock * kBlock, ' ');
    if (whole.size() > kMostOctets) return fail("too much is cancelled, suspended and set to be kept");
    const int fd = files_[(number_ + 1) % 2].get();
    if (auto written = files::write_at(fd, whole.data(), whole.size(), 0); !written) return written;
    if (auto synced = files::sync_data(fd); !synced) return synced;
    ++number_;
    return {};
}

}  // namespace postrider
