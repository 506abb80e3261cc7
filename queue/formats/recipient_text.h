// A queued recipient keeps no address text: it is read again from RecipientView::where when its
// turn comes.
#pragma once

#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "queue/message.h"

namespace postrider {

struct RecipientText {
    std::string address;  // local@domain without angle brackets
    std::string dsn;      // "NOTIFY=... ORCPT=..."; empty when none
    bool needs_smtputf8 = false;

    std::string_view domain() const { return std::string_view(address).substr(domain_at); }
    size_t domain_at = 0;
};

// `raw` holds the octets of `where`: for .eml an addr-spec as it lies (comments and folds may stand
// in it), for .bsmtp the argument of RCPT. An error means that the file is not what the intake
// read.
Result<void> parse_recipient_text(StoredForm form, std::string_view raw, RecipientText& out);
Result<RecipientText> parse_recipient_text(StoredForm form, std::string_view raw);

}  // namespace postrider
