// The scanner against a plain oracle, octet by octet, over texts made to meet the kernel's edges.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "queue/formats/content_kernel.h"
#include "queue/formats/content_scan.h"
#include "queue/formats/envelope_fields.h"

namespace postrider {
namespace {

struct Facts {
    bool sound = true, ended = false, broken = false, eight_bit = false, dots = false,
         crlf_only = true;
    uint64_t wire_size = 0, stored = 0, taken = 0;
    bool operator==(const Facts&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Facts& f) {
    return out << "sound " << f.sound << " ended " << f.ended << " broken " << f.broken << " 8bit "
               << f.eight_bit << " dots " << f.dots << " crlf " << f.crlf_only << " wire "
               << f.wire_size << " stored " << f.stored << " taken " << f.taken;
}

// Line by line at LF, as DESIGN 3.1 words it.
Facts oracle(const std::string& text, StoredForm form) {
    Facts f;
    bool frame_line = true;
    size_t at = 0;
    while (at < text.size()) {
        const size_t lf = text.find('\n', at);
        const bool ended = lf != std::string::npos;
        std::string line = text.substr(at, ended ? lf - at : std::string::npos);
        const bool crlf = ended && line.ends_with('\r');
        if (crlf) line.pop_back();
        const bool framed = frame_line && form != StoredForm::plain;
        const size_t next = ended ? lf + 1 : text.size();
        if (framed && line == "." && ended) {
            f.taken = next;
            f.stored = at;
            f.ended = crlf == (form == StoredForm::stuffed_crlf);
            f.broken = !f.ended;
            return f;
        }
        if (framed && line.starts_with('.')) {
            f.dots = true;
            line.erase(0, 1);
        }
        for (const char c : line) {
            if (c == '\r' || c == '\0') f.sound = false;
            if (static_cast<signed char>(c) < 0) f.eight_bit = true;
        }
        if (line.starts_with('.')) f.dots = true;
        if (line.size() > 998) f.sound = false;
        f.wire_size += line.size() + 2;
        f.crlf_only &= crlf;
        frame_line = ended && (crlf || form != StoredForm::stuffed_crlf);
        at = next;
    }
    f.taken = f.stored = text.size();
    if (text.empty()) f.sound = false;
    return f;
}

Facts scanned(const std::string& text, StoredForm form, const std::vector<size_t>& cuts) {
    ContentScan scan;
    constexpr uint64_t kOffset = 1'000'003;
    scan.begin(form, {}, kOffset, 1);
    Facts f;
    size_t at = 0;
    for (size_t k = 0; k <= cuts.size() && !scan.ended() && !scan.frame_broken(); ++k) {
        const size_t end = k < cuts.size() ? cuts[k] : text.size();
        const std::vector<char> piece(text.begin() + static_cast<ptrdiff_t>(at),
                                      text.begin() + static_cast<ptrdiff_t>(end));
        const size_t taken = scan.feed(piece.data(), piece.size());
        f.taken += taken;
        EXPECT_EQ(scan.offset(), kOffset + f.taken);
        at = end;
    }
    f.ended = scan.ended();
    f.broken = scan.frame_broken();
    const std::string seen = text.substr(0, f.taken);
    EXPECT_EQ(scan.line(),
              1u + static_cast<uint64_t>(std::ranges::count(seen, '\n')) - (f.broken ? 1 : 0));
    Content content;
    f.sound = scan.finish(content).has_value();
    f.eight_bit = content.eight_bit;
    f.dots = content.dots;
    f.crlf_only = content.crlf_only;
    f.wire_size = content.wire_size;
    f.stored = content.stored.size;
    return f;
}

std::string random_text(std::mt19937_64& random) {
    std::string text;
    const size_t pieces = random() % 40;
    // One kind of line end prevails, so that the kernels get their runs.
    const std::string end = random() % 2 == 0 ? "\r\n" : "\n";
    for (size_t i = 0; i < pieces; ++i) {
        switch (random() % 24) {
            case 0:
                text += "\n";
                break;
            case 1:
                text += "\r\n";
                break;
            case 2:
                text += ".";
                break;
            case 3:
                text += random() % 8 == 0 ? "\r" : "";
                break;
            case 4:
                text += random() % 8 == 0 ? std::string(1, '\0') : "";
                break;
            case 5:
                text += random() % 4 == 0 ? "\xe9" : "";
                break;
            case 6:
                text += end + "." + std::string(random() % 2, '.') + end;
                break;
            case 7:
                text += std::string(990 + random() % 12, 'w');
                break;
            case 8:
                text += std::string(random() % 1000, 'v') + end;
                break;
            default:
                for (size_t k = random() % 12; k > 0; --k)
                    text += std::string(random() % 90, 'x') + end;
        }
    }
    return text;
}

TEST(ContentScan, AgreesWithThePlainOracleHoweverCut) {
    std::mt19937_64 random(20'260'101);
    for (int round = 0; round < 20'000; ++round) {
        const std::string text = random_text(random);
        for (const StoredForm form :
             {StoredForm::plain, StoredForm::stuffed_crlf, StoredForm::stuffed_lf}) {
            std::vector<size_t> cuts;
            if (round % 3 != 0) {
                size_t at = 0;
                const unsigned reach = 1u << (1 + random() % 10);
                while ((at += 1 + random() % reach) < text.size()) cuts.push_back(at);
            }
            const Facts want = oracle(text, form), got = scanned(text, form, cuts);
            if (want.ended || form == StoredForm::plain) {
                ASSERT_EQ(got, (want.stored == 0 ? [&] { Facts w = want; w.sound = false; return w; }() : want))
                    << "round " << round << " form " << static_cast<int>(form) << "\n" << testing::PrintToString(text);
            } else {
                // Without its dot line the file is refused: what matters is that none was seen.
                ASSERT_EQ(got.ended, want.ended);
                ASSERT_EQ(got.broken, want.broken) << testing::PrintToString(text);
                ASSERT_EQ(got.taken, want.taken);
            }
        }
    }
}

TEST(ContentScan, LineLengthIsExactAtEveryPhaseOfTheKernel) {
    for (const std::string end : {"\r\n", "\n"}) {
        for (size_t before = 0; before < 300; ++before) {
            for (const size_t length : {997u, 998u, 999u}) {
                const std::string text = std::string(before, 'a') + end + std::string(length, 'b') +
                                         end + std::string(400, 'c') + end;
                ASSERT_EQ(scanned(text, StoredForm::plain, {}).sound, length <= 998)
                    << before << " " << length;
            }
        }
    }
}

TEST(ContentScan, FindsEveryForbiddenOctetAtEveryPhase) {
    std::string clean;
    while (clean.size() < 1500)
        clean += "sixty-odd octets of ordinary text, as a newsletter has it, then a\r\n";
    for (size_t at = 0; at < clean.size(); ++at) {
        if (clean[at] == '\r' || clean[at] == '\n' || (at > 0 && clean[at - 1] == '\r')) continue;
        for (const char c : {'\r', '\0', '\n', '\xff'}) {
            std::string text = clean;
            text[at] = c;
            const Facts f = scanned(text, StoredForm::plain, {});
            ASSERT_EQ(f, oracle(text, StoredForm::plain)) << at;
            ASSERT_EQ(f.sound, c == '\n' || c == '\xff');
        }
    }
}

TEST(ContentKernel, BothKindsAgree) {
    if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "no AVX2 here: only the other kind runs";
    std::mt19937_64 random(7);
    uint64_t clean = 0;
    for (int round = 0; round < 20'000; ++round) {
        const std::string text = "\n" + random_text(random);
        const size_t run = random() % 6;
        for (const auto kind : {&ContentKernels::crlf, &ContentKernels::lf}) {
            const CleanRun wide =
                (kAvx2ContentKernels.*kind)(text.data() + 1, text.size() - 1, run);
            const CleanRun narrow =
                (kSseContentKernels.*kind)(text.data() + 1, text.size() - 1, run);
            ASSERT_EQ(wide.size, narrow.size) << testing::PrintToString(text);
            ASSERT_EQ(wide.lines, narrow.lines);
            ASSERT_EQ(wide.eight_bit, narrow.eight_bit);
            clean += wide.size;
        }
    }
    EXPECT_GT(clean, 1'000'000u) << "the texts must give the kernels something to run over";
}

TEST(ContentScan, TimesAreReadAsSecondsOrRfc3339) {
    EXPECT_EQ(parse_not_before("0").value(), 0);
    EXPECT_EQ(parse_not_before("1795456800").value(), 1'795'456'800);
    EXPECT_EQ(parse_not_before("2026-11-23T19:00:00+01:00").value(), 1'795'456'800);
    EXPECT_EQ(parse_not_before("2026-11-23t12:30:00.25-05:30").value(), 1'795'456'800);
    for (const auto* bad : {"", "-1", "12x", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
                            "2026-11-23", "2026-11-23T18:00:00", "2026-11-23T24:00:00Z",
                            "2026-11-23T18:00:00Zx", "99999999999999999999", "253402300800"}) {
        EXPECT_FALSE(parse_not_before(bad)) << bad;
    }
}

}  // namespace
}  // namespace postrider
