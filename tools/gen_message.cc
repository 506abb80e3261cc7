#include "tools/gen_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/core/address.h"

namespace postrider {
namespace {

Result<void> check_domain(std::string_view domain) {
    auto mailbox = parse_mailbox(fmt::format("a@{}", domain));
    if (!mailbox) return fail(fmt::format("\"{}\" is no domain", domain));
    return {};
}

void append_base64_lines(std::string& out, size_t size, uint64_t seed) {
    static constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::mt19937_64 random(seed);
    const size_t until = out.size() + size;
    while (out.size() + 78 <= until) {
        for (int i = 0; i < 76; ++i) out += kAlphabet[random() & 63];
        out += "\r\n";
    }
    out += "iVBORw0KGgo=\r\n";
}

void append_text_part(std::string& out, size_t size) {
    const size_t until = out.size() + size;
    out += "Dear reader,\r\n\r\n";
    for (int article = 1; out.size() < until; ++article) {
        out += fmt::format(
            "{}. What is new this week\r\n"
            "\r\n"
            "The caf=C3=A9 on the corner has reopened, and with it the reading =\r\n"
            "room: 10=E2=82=AC a month, coffee included. We asked those who came what =\r\n"
            "they think of it=2E Most would come again; one misses the old chairs=2E\r\n"
            "\r\n"
            "Read on: https://news.example.test/issue/{}?utm_source=3Dnewsletter\r\n"
            "\r\n",
            article, article);
    }
}

void append_html_part(std::string& out, size_t size) {
    const size_t until = out.size() + size;
    out +=
        "<!DOCTYPE html><html><head><meta charset=3D\"utf-8\"><style>td{font:16px =\r\n"
        "Georgia,serif;color:#222}</style></head><body bgcolor=3D\"#f4f4f4\"><table =\r\n"
        "width=3D\"600\" align=3D\"center\" cellpadding=3D\"0\">\r\n";
    for (int article = 1; out.size() < until; ++article) {
        out += fmt::format(
            "<tr><td style=3D\"padding:24px\"><h2>{}. What is new this week</h2>\r\n"
            "<p>The caf=C3=A9 on the corner has reopened, and with it the reading =\r\n"
            "room: <b>10=E2=82=AC</b> a month, coffee included.</p><p><a =\r\n"
            "href=3D\"https://news.example.test/issue/{}?utm_source=3Dnewsletter\">=\r\n"
            "Read on</a></p></td></tr>\r\n",
            article, article);
    }
    out += "</table></body></html>\r\n";
}

}  // namespace

Result<std::vector<std::string>> domain_names(std::string_view pattern, uint64_t count) {
    const size_t percent = pattern.find('%');
    const size_t d = percent == std::string_view::npos ? percent : pattern.find('d', percent);
    std::string_view width;
    if (d != std::string_view::npos) width = pattern.substr(percent + 1, d - percent - 1);
    size_t digits = 0;
    const auto [end, code] = std::from_chars(width.data(), width.data() + width.size(), digits);
    const bool number =
        width.empty() || (code == std::errc{} && end == width.data() + width.size());
    if (d == std::string_view::npos || !number || digits > 20 ||
        pattern.find('%', d) != std::string_view::npos) {
        return fail(fmt::format("--domain-pattern \"{}\": give one %d, like d%04d.test", pattern));
    }
    std::vector<std::string> names;
    names.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
        names.push_back(fmt::format("{}{:0{}}{}", pattern.substr(0, percent), i, digits,
                                    pattern.substr(d + 1)));
    }
    if (auto ok = check_domain(names.back()); !ok) return std::unexpected(std::move(ok.error()));
    return names;
}

DomainChoice DomainChoice::flat(std::vector<std::string> domains) {
    DomainChoice choice;
    choice.domains_ = std::move(domains);
    return choice;
}

Result<DomainChoice> DomainChoice::realistic(std::vector<std::string> domains,
                                             std::string_view providers, uint64_t seed) {
    DomainChoice choice = flat(std::move(domains));
    choice.random_.seed(seed);
    double until = 0;
    while (!providers.empty()) {
        const std::string_view word = providers.substr(0, providers.find(','));
        providers.remove_prefix(std::min(word.size() + 1, providers.size()));
        const size_t colon = word.rfind(':');
        double percent = 0;
        bool number = colon != std::string_view::npos;
        if (number) {
            const auto [end, code] =
                std::from_chars(word.data() + colon + 1, word.data() + word.size(), percent);
            number = code == std::errc{} && end == word.data() + word.size() && percent > 0;
        }
        if (!number)
            return fail(fmt::format("--providers: \"{}\" is not like gmail.test:34", word));
        if (auto ok = check_domain(word.substr(0, colon)); !ok)
            return std::unexpected(std::move(ok.error()));
        until += percent / 100;
        choice.providers_.push_back({std::string(word.substr(0, colon)), until});
    }
    if (until > 1.0001) return fail("--providers: the shares are over 100 percent together");
    return choice;
}

const std::string& DomainChoice::next() {
    if (providers_.empty()) return domains_[turn_++ % domains_.size()];
    const auto unit = [&] { return static_cast<double>(random_() >> 11) * 0x1.0p-53; };
    const double share = unit();
    for (const Provider& provider : providers_) {
        if (share < provider.until) return provider.domain;
    }
    // The cube makes the first tenth of the tail take about half of it.
    const double place = std::pow(unit(), 3.0) * static_cast<double>(domains_.size());
    return domains_[std::min(static_cast<size_t>(place), domains_.size() - 1)];
}

std::string plain_body(size_t size) {
    std::string body;
    for (int line = 1; body.size() + 78 <= size; ++line) {
        body += fmt::format(
            "{:06} The quick brown fox jumps over the lazy dog and comes back by nightfa\r\n",
            line);
    }
    if (body.size() + 2 < size) {
        body.append(size - body.size() - 2, 'x');
        body += "\r\n";
    }
    if (body.empty()) body = "x\r\n";
    return body;
}

std::string newsletter_body(size_t size, std::string_view boundary, uint64_t seed) {
    std::string body = fmt::format(
        "This is a message in parts.\r\n\r\n--{0}\r\n"
        "Content-Type: multipart/alternative; boundary=\"alt-{0}\"\r\n\r\n--alt-{0}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
        "quoted-printable\r\n\r\n",
        boundary);
    append_text_part(body, size / 5);
    body += fmt::format(
        "\r\n--alt-{}\r\n"
        "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
        "quoted-printable\r\n\r\n",
        boundary);
    append_html_part(body, size / 2);
    body += fmt::format(
        "\r\n--alt-{0}--\r\n\r\n--{0}\r\nContent-Type: image/png; name=\"header.png\"\r\n"
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: inline; "
        "filename=\"header.png\"\r\n\r\n",
        boundary);
    const std::string close = fmt::format("\r\n--{}--\r\n", boundary);
    const size_t used = body.size() + close.size();
    append_base64_lines(body, size > used ? size - used : 0, seed);
    return body + close;
}

}  // namespace postrider
