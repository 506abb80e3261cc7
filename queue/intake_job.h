// The file that an intake has at hand, from its claim to its last record: its state, and what its parser hands over.
// intake_reading.cc and intake_publishing.cc work on it; intake.cc begins and ends it.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "queue/intake.h"

namespace postrider {

// Of a file that ends in .eml: a refused message of a batch, bad/NAME.N.eml, is batch SMTP, and comes back mended. No header
// begins so.
bool opens_envelope(std::string_view octets);
Result<void> look_for_envelope(int fd, SpoolFile& file);

struct Intake::Job {
    enum class Stage : uint8_t { reading, reporting, publishing, refusing } stage = Stage::reading;
    SpoolFile file;
    FileSlot slot = 0;
    FileDescriptor data, index;
    const RecoveredFile* recovered = nullptr;  // null: never seen before
    std::span<const RecoveredRecipient> known;
    uint64_t offset = 0;
    std::unique_ptr<JobHandler> handler;
    std::unique_ptr<BatchParser> batch;
    std::unique_ptr<EmlParser> eml;
    std::unique_ptr<IndexWriter> writer;
    // Octets of it that are read next.
    size_t next_block() const {
        return std::min<uint64_t>(stage == Stage::reporting ? kReportedBlock : kReadBlock, file.size - offset);
    }
    unsigned tries = 0;          // at what cannot be read
    uint64_t refusals = 0;       // of recipients and messages, found by the first reading
    bool told = false;           // by an earlier run, and the log has them
    uint64_t reported = 0;       // told by the second so far: after a local fault it begins anew and passes them by
    std::string why;             // refusing
    // When its mail expires, by the wall clock: what may not be sent before is refused. Zero, never, for what an engine has
    // claimed, for good, before this one: it is accepted, or was told of.
    int64_t expires_s = 0;
    int64_t not_before_s = 0;  // of an .eml
    bool too_late(int64_t not_before) const { return expires_s > 0 && not_before >= expires_s; }
    std::optional<IndexReader> reader;
    std::vector<DomainId> file_domains;
    std::string domain;  // scratch
    // While publishing: the message whose recipients are next.
    uint32_t place = 0;
    uint32_t number = 0;  // of the next recipient in it
    bool refused = false;
    Envelope envelope;
    Content content;
};

// Indexed files: what the parser finds goes into the index in the first reading; the second tells what was refused.
class Intake::JobHandler final : public SpoolHandler {
  public:
    JobHandler(Intake& intake, Job& job) : intake_(intake), job_(job) {}

    // The second reading: the first error to move something to bad/.
    Result<void> reported() const { return reported_; }

    void on_recipient(const RecipientView& recipient) override;
    void on_refused_recipient(std::string_view text, const Error& why) override;
    void on_message(uint32_t number, const Envelope& envelope, const Content& content) override;
    void on_refused_message(uint32_t number, const Envelope& envelope, const Content& content, Range whole,
                            const Error& why) override;

  private:
    bool reporting() const { return job_.stage == Job::Stage::reporting; }
    bool to_tell();
    void tell_held(const Envelope* envelope, std::optional<uint32_t> place);
    struct Place {
        std::optional<uint32_t> place;
        bool too_late = false;
    };
    Place place_of_next(const Envelope& envelope);
    void set_aside(const RefusedMessage& refused);

    static constexpr size_t kHeld = 256;
    struct Held {
        std::string text, why;
    };

    Intake& intake_;
    Job& job_;
    uint64_t told_ = 0;
    std::vector<Held> held_;               // refused recipients of the message at hand, until its envelope is known
    std::optional<IndexReader> entries_;   // of the messages that the second reading passes
    Result<void> reported_;
    uint32_t count_ = 0;
    uint32_t message_ = 0;
};

}  // namespace postrider
