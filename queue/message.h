// Envelope and message as the spool formats deliver them and the SMTP room sends them: plain structs, no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/ids.h"
#include "engine/core/result.h"

namespace postrider {

enum class Priority : uint8_t { normal, high };

// DSN parameters of MAIL (RFC 3461 4.3). `none`: not given.
enum class DsnReturn : uint8_t { none, full, headers };

// What one message's recipients share.
struct Envelope {
    std::string sender;  // reverse-path without angle brackets; empty for <>
    std::string envid;   // xtext as given (RFC 3461 4.4), or x-envid
    std::string job, campaign, tenant, pool;  // pool: x-pool, x-virtual-mta
    Priority priority = Priority::normal;
    int64_t not_before_s = 0;  // seconds since 1970; 0: at once
    bool smtputf8 = false;     // given, or needed by an address (RFC 6531)
    DsnReturn ret = DsnReturn::none;
};

struct Range {
    uint64_t offset = 0;
    uint64_t size = 0;
    bool operator==(const Range&) const = default;
};

// How the content lies in its file.
enum class StoredForm : uint8_t {
    plain,         // .eml: lines as they are
    stuffed_crlf,  // .bsmtp with CRLF framing: dots stuffed after each CRLF
    stuffed_lf,    // .bsmtp with LF framing: dots stuffed after each LF
};

// Where the content lies and what is known of it after the intake's one pass.
struct Content {
    Range stored;                // without the batch's terminating dot line
    std::vector<Range> removed;  // header fields not sent (Bcc, Return-Path), ascending, inside `stored`
    uint64_t wire_size = 0;      // octets with CRLF line ends, without stuffing: MAIL SIZE= (RFC 1870 5)
    StoredForm form = StoredForm::plain;
    bool eight_bit = false;      // some octet above 127: needs 8BITMIME (RFC 6152 3)
    bool crlf_only = false;      // every line ends in CRLF, the last one too, and `removed` is empty
    bool dots = false;           // some line of the unstuffed content begins with a dot

    // May be copied to the wire after DATA as it lies.
    bool clean_for_data() const {
        return crlf_only && (form == StoredForm::stuffed_crlf || !dots);
    }
    // May be copied to the wire after BDAT as it lies.
    bool clean_for_bdat() const { return crlf_only && !dots; }
};

// One forward-path as a format hands it over; the views are valid during the call only.
struct RecipientView {
    std::string_view address;  // local@domain as written, without angle brackets
    std::string_view domain;   // part of `address` as written
    std::string_view dsn;      // "NOTIFY=... ORCPT=..." as given, checked; empty when none
    Range where;               // of `address` in the file; for .bsmtp of the RCPT argument ("<a@b> NOTIFY=...")
    std::string_view text;     // the octets there
};

// What a parser finds, in file order: recipients of a message, then the message.
class SpoolHandler {
  public:
    virtual ~SpoolHandler() = default;
    virtual void on_recipient(const RecipientView& recipient) = 0;
    // A bad address refuses its recipient only: logged as Bounce 5.1.3.
    virtual void on_refused_recipient(std::string_view text, const Error& why) = 0;
    // `number` counts the file's messages from 1; refused ones count too.
    virtual void on_message(uint32_t number, const Envelope& envelope, const Content& content) = 0;
    // Content refused: the message is set aside alone. `whole` covers its envelope and content, framing included.
    virtual void on_refused_message(uint32_t number, const Envelope& envelope, const Content& content,
                                    Range whole, const Error& why) = 0;
};

}  // namespace postrider
