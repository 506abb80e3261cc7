#include "tools/sink/content_watch.h"

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include <charconv>
#include <cstring>

namespace postrider::sink {

namespace {

constexpr size_t kFieldKept = 512;  // octets of a field's value that name a message
constexpr size_t kCanariesKept = 1'000'000;

uint64_t canary_value(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return text.size() == 16 && error == std::errc() && end == text.data() + 16 ? value : 0;
}

// The value behind "name:", blanks around it removed; false when the line is another field.
bool field_value(std::string_view line, std::string_view name, std::string& value) {
    if (line.size() <= name.size() || line[name.size()] != ':') return false;
    for (size_t i = 0; i < name.size(); ++i)
        if ((line[i] | 0x20) != name[i] && line[i] != name[i]) return false;
    line.remove_prefix(name.size() + 1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
    value.assign(line.substr(0, kFieldKept));
    return true;
}

}  // namespace

struct ContentWatch::Hash {
    wc_Sha256 state;
};

ContentWatch::ContentWatch(bool keep, bool hash) : keep_(keep), extra_(keep || hash) {
    if (hash) hash_ = std::make_unique<Hash>();
    reset();
}

ContentWatch::~ContentWatch() {
    if (hash_) wc_Sha256Free(&hash_->state);
}

void ContentWatch::reset() {
    size_ = 0;
    in_header_ = true;
    after_cr_ = false;
    line_.clear();
    message_id_.clear();
    x_seq_.clear();
    canaries_.clear();
    folded_ = nullptr;
    kept_.clear();
    hex_.clear();
    bare_line_ends_ = 0;
    if (hash_) wc_InitSha256(&hash_->state);
}

void ContentWatch::feed_header(std::string_view piece) {
    while (in_header_ && !piece.empty()) {
        const auto* lf = static_cast<const char*>(std::memchr(piece.data(), '\n', piece.size()));
        if (lf == nullptr) {
            if (line_.size() < 2 * kFieldKept) line_.append(piece.substr(0, 2 * kFieldKept));
            return;
        }
        const size_t size = static_cast<size_t>(lf - piece.data());
        std::string_view line = piece.substr(0, size);
        piece.remove_prefix(size + 1);
        if (!line_.empty()) {
            if (line_.size() < 2 * kFieldKept) line_.append(line.substr(0, 2 * kFieldKept));
            line = line_;
        }
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        header_line(line);
        line_.clear();
    }
}

void ContentWatch::header_line(std::string_view line) {
    if (line.empty()) {
        in_header_ = false;
        return;
    }
    if (line[0] == ' ' || line[0] == '\t') {
        // A long Message-ID is often folded behind its name (RFC 5322 2.2.3).
        if (folded_ != nullptr && folded_->empty()) {
            while (!line.empty() && (line[0] == ' ' || line[0] == '\t')) line.remove_prefix(1);
            folded_->assign(line.substr(0, kFieldKept));
        }
        return;
    }
    folded_ = nullptr;
    if ((line[0] | 0x20) == 'm') {
        if (field_value(line, "message-id", message_id_)) folded_ = &message_id_;
    } else if ((line[0] | 0x20) == 'x') {
        if (field_value(line, "x-seq", x_seq_)) folded_ = &x_seq_;
        else if (canaries_.size() < kCanariesKept && field_value(line, "x-canary", canary_))
            canaries_.push_back(canary_value(canary_));
    }
}

void ContentWatch::feed_extra(std::string_view piece) {
    if (keep_) kept_.append(piece);
    if (!hash_) return;
    wc_Sha256Update(&hash_->state, reinterpret_cast<const byte*>(piece.data()),
                    static_cast<word32>(piece.size()));
    for (const char c : piece) {
        bare_line_ends_ += (c == '\n') != after_cr_;
        after_cr_ = c == '\r';
    }
}

void ContentWatch::finish() {
    if (!hash_) return;
    bare_line_ends_ += after_cr_;
    byte digest[WC_SHA256_DIGEST_SIZE];
    wc_Sha256Final(&hash_->state, digest);
    static constexpr char kHex[] = "0123456789abcdef";
    for (const byte b : digest) {
        hex_ += kHex[b >> 4];
        hex_ += kHex[b & 15];
    }
}

}  // namespace postrider::sink
