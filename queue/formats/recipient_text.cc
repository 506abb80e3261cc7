#include "queue/formats/recipient_text.h"

#include "engine/core/address.h"
#include "queue/formats/address_list.h"
#include "queue/formats/envelope_fields.h"

namespace postrider {
namespace {

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

}  // namespace

Result<void> parse_recipient_text(StoredForm form, std::string_view raw, RecipientText& out) {
    out.dsn.clear();
    Mailbox mailbox;
    if (form == StoredForm::plain) {
        if (auto plain = plain_addr_spec(raw, out.address); !plain) return plain;
        auto parsed = parse_mailbox(out.address);
        if (!parsed) return std::unexpected(std::move(parsed.error()));
        mailbox = *parsed;
    } else {
        auto path = parse_path(raw);
        if (!path) return std::unexpected(std::move(path.error()));
        if (path->address.empty()) return fail("<> is no recipient");
        const std::string_view parameters = raw.substr(path->size);
        if (!parameters.empty() && parameters.front() != ' ') return fail("text behind the path");
        if (auto ok = check_rcpt_parameters(parameters); !ok) return ok;
        out.address.assign(path->address);
        out.dsn.assign(trimmed(parameters));
        mailbox = path->mailbox;
    }
    out.needs_smtputf8 = mailbox.needs_smtputf8;
    out.domain_at = mailbox.local.size() + 1;
    return {};
}

Result<RecipientText> parse_recipient_text(StoredForm form, std::string_view raw) {
    RecipientText out;
    if (auto ok = parse_recipient_text(form, raw, out); !ok)
        return std::unexpected(std::move(ok.error()));
    return out;
}

}  // namespace postrider
