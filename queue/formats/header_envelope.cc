#include "queue/formats/header_envelope.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "engine/core/address.h"
#include "queue/formats/address_list.h"
#include "queue/formats/content_scan.h"

namespace postrider {
namespace {

std::unexpected<Error> refuse(const HeaderField& field, std::string_view what) {
    return std::unexpected(error_at(field.line, field.where.offset, what));
}

}  // namespace

Result<void> read_header_sender(const HeaderReader& header, Envelope& envelope) {
    for (const FieldName name : {FieldName::return_path, FieldName::sender, FieldName::from}) {
        const auto& fields = header.fields();
        const auto field = std::ranges::find(fields, name, &HeaderField::name);
        if (field == fields.end()) continue;
        const std::string_view body = header.body(*field);
        size_t at = 0;
        ListedAddress listed;
        const bool any = next_address(body, at, listed);
        if (any && listed.is_null && name == FieldName::return_path) return {};
        auto plain = any ? plain_addr_spec(listed.raw, envelope.sender)
                         : Result<void>(fail("no address; give one"));
        if (plain) {
            auto mailbox = parse_mailbox(envelope.sender);
            if (mailbox) {
                envelope.smtputf8 |= mailbox->needs_smtputf8;
                return {};
            }
            plain = std::unexpected(std::move(mailbox.error()));
        }
        return refuse(*field, fmt::format("the sender cannot be read from this field: {}",
                                          plain.error().text));
    }
    return fail(
        "line 1, offset 0: no sender; give an x-sender line, or Return-Path, Sender or From");
}

uint64_t read_header_recipients(const HeaderReader& header, SpoolHandler& handler,
                                Envelope& envelope) {
    uint64_t count = 0;
    std::unordered_set<std::string> known;  // one who stands in To and in Cc gets one message
    std::string address, key;
    for (const HeaderField& field : header.fields()) {
        const bool names_recipients = field.name == FieldName::to || field.name == FieldName::cc ||
                                      field.name == FieldName::bcc;
        if (!names_recipients) continue;
        const std::string_view body = header.body(field);
        const uint64_t body_offset = field.where.offset + field.body_at;
        size_t at = 0;
        ListedAddress listed;
        while (next_address(body, at, listed)) {
            const uint64_t offset =
                body_offset + static_cast<uint64_t>(listed.raw.data() - body.data());
            ++count;
            auto plain = plain_addr_spec(listed.raw, address);
            auto mailbox =
                plain ? parse_mailbox(address) : std::unexpected(std::move(plain.error()));
            if (!mailbox) {
                handler.on_refused_recipient(listed.raw,
                                             error_at(field.line, offset, mailbox.error().text));
                continue;
            }
            normalise_domain(mailbox->domain, key);
            key.insert(0, address, 0, mailbox->local.size() + 1);
            if (!known.insert(key).second) continue;
            envelope.smtputf8 |= mailbox->needs_smtputf8;
            handler.on_recipient(
                {address, mailbox->domain, {}, Range{offset, listed.raw.size()}, listed.raw});
        }
    }
    return count;
}

}  // namespace postrider
