// A record with every field, and the line it becomes.
#pragma once

#include <string>

#include "engine/log/delivery_log.h"

namespace postrider::test {

inline std::string format(const LogRecord& record) {
    LogFormatter formatter;
    std::string line;
    formatter.append(record, line);
    return line;
}

inline LogRecord full_record() {
    LogRecord r;
    r.type = LogType::transient_failure;
    r.possible_duplicate = true;
    r.num_attempts = 3;
    r.id = {0x0123456789abcdef, 42};
    r.sender = "news@sender.example";
    r.recipient = "user@gmail.com";
    r.queue = "spring:acme@gmail.com";
    r.site = "alt1.gmail-smtp-in.l.google.com,gmail-smtp-in.l.google.com";
    r.size = 10240;
    r.response = {451, 4, 7, 28, "try \"later\"\r\nplease", "."};
    r.peer_name = "gmail-smtp-in.l.google.com";
    r.peer_address = "142.251.2.27";
    r.event_us = 1'678'069'691'000'042;
    r.created_s = 1'678'069'600;
    r.bounce_classification = "RateLimited";
    r.egress_pool = "pool0";
    r.egress_source = "ip-1";
    r.source_address = "[2001:db8::1]:40312";
    r.delivery_protocol = "ESMTP";
    r.tls_cipher = "TLS_AES_128_GCM_SHA256";
    r.tls_protocol_version = "TLSv1.3";
    r.session_high = 0x9bcd689e23d941b7;
    r.session_low = 0xa01563a1382f8b57;
    r.campaign = "spring";
    r.tenant = "acme";
    r.job = "j-1";
    r.envid = "QQ314159";
    r.file = "batch-1.bsmtp";
    return r;
}

}  // namespace postrider::test
