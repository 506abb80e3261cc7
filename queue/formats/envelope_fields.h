// The words of an envelope: the `x-...` lines of the block and the parameters of MAIL and RCPT.
// Errors are without a place; the parser that knows the line puts it in front.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/core/result.h"
#include "queue/message.h"

namespace postrider {

enum class BlockName : uint8_t {
    none,
    sender,
    receiver,
    envid,
    job,
    virtual_mta,
    campaign,
    tenant,
    priority,
    pool,
    not_before,
};

// "X-Campaign: spring" is {campaign, "spring"}; any other line is {none, ""}. White space around
// the value is dropped.
struct BlockLine {
    BlockName name = BlockName::none;
    std::string_view value;
    size_t value_at = 0;  // index of `value` in the line
};
BlockLine split_block_line(std::string_view line);

// The lines that may open a DATA of a batch file: ours, not PowerMTA's.
bool may_open_data(BlockName name);

// Takes the single-valued lines into an Envelope; each may come once.
class EnvelopeFields {
  public:
    void reset() { seen_ = 0; }
    bool seen(BlockName name) const { return (seen_ >> static_cast<unsigned>(name) & 1u) != 0; }
    Result<void> take(BlockName name, std::string_view value, Envelope& envelope);

  private:
    uint32_t seen_ = 0;
};

// Parameters behind the path of MAIL: SIZE, BODY, SMTPUTF8, RET, ENVID. Any other is an error.
Result<void> take_mail_parameters(std::string_view parameters, Envelope& envelope);
// Parameters behind the path of RCPT: NOTIFY, ORCPT (RFC 3461 4.1, 4.2). Any other is an error.
Result<void> check_rcpt_parameters(std::string_view parameters);

// Seconds since 1970 as a number, or RFC 3339 ("2026-11-23T18:00:00Z", "...+01:00").
Result<int64_t> parse_not_before(std::string_view value);
// A label (campaign, tenant, pool, job): UTF-8 without controls, 1 to 255 octets.
Result<void> check_label(std::string_view value);
// RFC 3461 4: what xtext cannot hold as it is becomes "+" and two hexadecimal digits.
void append_xtext(std::string_view value, std::string& out);

bool equal_ignoring_case(std::string_view a, std::string_view b);

}  // namespace postrider
