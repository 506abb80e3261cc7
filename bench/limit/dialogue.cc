// What the limit says: each dialogue of limit_sender.cc, reply by reply.
#include <fmt/compile.h>
#include <fmt/format.h>

#include <algorithm>

#include "bench/limit/sender.h"

namespace postrider::limit {

void Sender::make_body() {
    static constexpr char kLetters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t header = 240;  // about what begin_message writes
    const size_t want = settings_.size > header + 2 ? settings_.size - header : 2;
    uint64_t x = 88172645463325252ULL;
    for (size_t column = 0; body_.size() + 2 < want; ++column) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        if (column % 77 == 76)
            body_ += "\r\n";
        else
            body_ += kLetters[x & 63];
    }
    body_ += "\r\n";
}

// Takes the next number and writes its header and envelope.
bool Sender::begin_message(Connection& c) {
    if (!may_begin(c)) return false;
    const uint64_t number = issued_++;
    const uint64_t domain = number % settings_.domains + 1;
    c.slot = (c.slot + 1) % kDepthMost;
    Text& head = c.heads[c.slot];
    Text& envelope = c.envelopes[c.slot];
    char* end = fmt::format_to(
        head.bytes.data(),
        FMT_COMPILE(
            "From: <bulk@sender.test>\r\nTo: <u{}@d{:04}.test>\r\nSubject: message {}\r\n"
            "Message-ID: <{}.bench@sender.test>\r\nDate: Mon, 23 Nov 2026 14:00:00 +0000\r\n"
            "X-Seq: {:016x}\r\n\r\n"),
        number, domain, number, number, number * 0x9E3779B97F4A7C15ULL);
    head.size = static_cast<size_t>(end - head.bytes.data());
    end = envelope.bytes.data();
    // A refused chunk would leave the server inside the transaction before this one: RSET keeps
    // them apart.
    if (settings_.dialogue == Dialogue::bdat && c.in_flight > 0) {
        end = std::copy_n("RSET\r\n", 6, end);
        expect(c, Due::rset);
    }
    end = fmt::format_to(
        end, FMT_COMPILE("MAIL FROM:<bulk@sender.test>\r\nRCPT TO:<u{}@d{:04}.test>\r\n"), number,
        domain);
    if (settings_.dialogue == Dialogue::bdat)
        end = fmt::format_to(end, FMT_COMPILE("BDAT {} LAST\r\n"), head.size + body_.size());
    else
        end = std::copy_n("DATA\r\n", 6, end);
    envelope.size = static_cast<size_t>(end - envelope.bytes.data());
    ++c.sent;
    ++c.in_flight;
    return true;
}

bool Sender::quit(Connection& c) {
    c.quitting = true;
    add(c, "QUIT\r\n");
    expect(c, Due::quit);
    return flush(c);
}

// A transaction from its beginning, when none is open.
bool Sender::start(Connection& c) {
    if (settings_.dialogue == Dialogue::bdat) return fill(c);
    if (!begin_message(c)) return quit(c);
    const std::string_view envelope = c.envelopes[c.slot].view();
    expect(c, Due::mail);
    if (settings_.dialogue == Dialogue::lock) {
        add(c, envelope.substr(0, envelope.find('\n') + 1));
    } else {
        add(c, envelope);
        expect(c, Due::rcpt);
        expect(c, Due::data);
    }
    return flush(c);
}

bool Sender::fill(Connection& c) {
    while (c.in_flight < settings_.depth && c.pending.empty() && (!c.tls || c.tls->out.empty())) {
        if (!begin_message(c)) break;
        add(c, c.envelopes[c.slot].view());
        add(c, c.heads[c.slot].view());
        add(c, body_);
        expect(c, Due::mail);
        expect(c, Due::rcpt);
        expect(c, Due::dot);
        if (!flush(c)) return false;
    }
    return c.in_flight > 0 || c.quitting || quit(c);
}

// Behind the 354: content, dot, and with `next` the envelope that follows.
bool Sender::content(Connection& c) {
    add(c, c.heads[c.slot].view());
    add(c, body_);
    add(c, ".\r\n");
    expect(c, Due::dot);
    c.next_begun = settings_.dialogue == Dialogue::next && begin_message(c);
    if (c.next_begun) {
        add(c, c.envelopes[c.slot].view());
        for (const Due due : {Due::mail, Due::rcpt, Due::data}) expect(c, due);
    }
    return flush(c);
}

bool Sender::on_reply(Connection& c, char kind) {
    if (c.due_head == c.due_tail) return false;  // a reply nobody asked for
    const Due due = c.due[c.due_head++ % kDueRoom];
    if (kind != (due == Due::data ? '3' : '2')) return false;
    const bool lock = settings_.dialogue == Dialogue::lock;
    const std::string_view envelope = c.envelopes[c.slot].view();
    switch (due) {
        case Due::greeting:
            add(c, "EHLO sender.test\r\n");
            expect(c, Due::ehlo);
            return flush(c);
        case Due::ehlo:
            if (tls_ == nullptr || c.tls) return start(c);
            add(c, "STARTTLS\r\n");
            expect(c, Due::starttls);
            return flush(c);
        case Due::starttls:
            c.tls = std::make_unique<TlsClient>(tls_);
            return c.tls->handshake() >= 0 && send_pending(c);
        case Due::mail:
            if (!lock) return true;
            add(c, envelope.substr(envelope.find('\n') + 1,
                                   envelope.size() - envelope.find('\n') - 7));
            expect(c, Due::rcpt);
            return flush(c);
        case Due::rcpt:
            if (!lock) return true;
            add(c, "DATA\r\n");
            expect(c, Due::data);
            return flush(c);
        case Due::data:
            return content(c);
        case Due::dot:
            ++acked_;
            --c.in_flight;
            if (settings_.dialogue == Dialogue::bdat) return fill(c);
            return c.next_begun || start(c);
        case Due::rset:
            return true;
        case Due::quit:
            return false;
    }
    return false;
}

}  // namespace postrider::limit
