// What is kept of a content while it passes: its size, the header fields that name a message (Message-ID, X-Seq,
// X-Canary), and on request all octets and their SHA-256. The fields are found as the header passes, one memchr a
// line; the body is only counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace postrider::sink {

class ContentWatch {
  public:
    ContentWatch(bool keep, bool hash);
    ~ContentWatch();
    ContentWatch(const ContentWatch&) = delete;
    ContentWatch& operator=(const ContentWatch&) = delete;

    void reset();
    void feed(std::string_view piece) {
        size_ += piece.size();
        if (in_header_) feed_header(piece);
        if (extra_) feed_extra(piece);
    }
    void finish();  // the hash is complete after it

    uint64_t size() const { return size_; }
    std::string_view message_id() const { return message_id_; }
    std::string_view x_seq() const { return x_seq_; }
    // Of each X-Canary field, the value in hexadecimal; what is no such number counts as 0.
    const std::vector<uint64_t>& canaries() const { return canaries_; }
    std::string_view kept() const { return kept_; }
    std::string_view sha256() const { return hex_; }
    // Bare CR or LF, CR at the end: known with `hash` only (RFC 5321 2.3.8).
    uint64_t bare_line_ends() const { return bare_line_ends_; }

  private:
    struct Hash;
    void feed_header(std::string_view piece);
    void header_line(std::string_view line);
    void feed_extra(std::string_view piece);

    uint64_t size_ = 0;
    bool in_header_ = true;
    bool keep_;
    bool extra_;
    bool after_cr_ = false;
    std::string line_;  // a header line begun in an earlier piece
    std::string message_id_, x_seq_, canary_;
    std::vector<uint64_t> canaries_;
    std::string* folded_ = nullptr;  // field whose value may go on in the next line
    std::string kept_, hex_;
    uint64_t bare_line_ends_ = 0;
    std::unique_ptr<Hash> hash_;
};

}  // namespace postrider::sink
