// What is written is parsed by the engine's own parser on its way to the disk: a message that the
// intake would refuse is refused here, while somebody reads the error.
#include "tools/send.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "engine/arguments.h"
#include "engine/config/config.h"
#include "engine/core/address.h"
#include "engine/core/limits.h"
#include "queue/formats/address_list.h"
#include "queue/formats/eml_parser.h"
#include "queue/formats/envelope_fields.h"
#include "queue/formats/header_envelope.h"
#include "tools/spool_writer.h"

namespace postrider {
namespace {

constexpr int kRuntime = 1, kUsage = 2;

struct SendOptions {
    std::vector<std::string> recipients, files, sendmail_options;
    std::string sender, spool, config;
    // Lines of the envelope block that come from options of the same name.
    std::array<std::pair<const char*, std::string>, 7> fields = {{{"x-envid", {}},
                                                                  {"x-job", {}},
                                                                  {"x-campaign", {}},
                                                                  {"x-tenant", {}},
                                                                  {"x-priority", {}},
                                                                  {"x-pool", {}},
                                                                  {"x-not-before", {}}}};
    ContentRules rules;  // the engine's, where its configuration is found
    bool sender_given = false, from_header = false, ignore_dots = false, json = false;
};

int report(int code, std::string_view text) {
    fmt::print(stderr, "postrider send: {}\n", text);
    return code;
}

bool has_line_octets(std::string_view text) {
    return text.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos;
}

// FAULTS 49: a line end in an address would be a line of the envelope.
Result<void> check_recipients(SendOptions& options) {
    std::vector<std::string> plain;
    for (const std::string& argument : options.recipients) {
        if (has_line_octets(argument)) return fail("a recipient with CR, LF or NUL");
        size_t at = 0;
        ListedAddress listed;
        bool any = false;
        while (next_address(argument, at, listed)) {
            std::string address;
            if (auto ok = plain_addr_spec(listed.raw, address); !ok)
                return fail(fmt::format("recipient \"{}\": {}", argument, ok.error().text));
            auto mailbox = parse_mailbox(address);
            if (!mailbox) return std::unexpected(std::move(mailbox.error()));
            plain.push_back(std::move(address));
            any = true;
        }
        if (!any) return fail(fmt::format("\"{}\" is no recipient", argument));
    }
    options.recipients = std::move(plain);
    return {};
}

Result<void> check_options(SendOptions& options) {
    if (options.recipients.empty() && !options.from_header) {
        return fail("no recipient; name one, or give -t to take them from To, Cc and Bcc");
    }
    if (auto ok = check_recipients(options); !ok) return ok;
    if (options.sender == "<>") options.sender.clear();
    if (options.sender.starts_with('<') && options.sender.ends_with('>')) {
        options.sender = options.sender.substr(1, options.sender.size() - 2);
    }
    if (!options.sender.empty()) {
        if (auto mailbox = parse_mailbox(options.sender); !mailbox)
            return fail("-f: " + mailbox.error().text);
    }
    EnvelopeFields fields;
    Envelope envelope;
    for (const auto& [name, value] : options.fields) {
        if (value.empty()) continue;
        const std::string line = fmt::format("{}: {}", name, value);
        if (has_line_octets(value)) return fail(fmt::format("--{}: CR, LF or NUL", name + 2));
        const BlockLine split = split_block_line(line);
        if (auto ok = fields.take(split.name, split.value, envelope); !ok) {
            return fail(fmt::format("--{}: {}", name + 2, ok.error().text));
        }
    }
    return {};
}

Result<void> find_spool(SendOptions& options) {
    std::string file = options.config;
    if (file.empty() && options.spool.empty()) {
        for (const char* path : {"./postrider.toml", "/etc/postrider/postrider.toml"}) {
            if (!file.empty() || access(path, F_OK) != 0) continue;
            file = path;
        }
    }
    if (file.empty()) return options.spool.empty() ? fail("no spool: give --spool DIR or --config FILE") : Result<void>();
    LoadedConfig loaded = load_config(file);
    for (const ConfigProblem& problem : loaded.problems) {
        if (problem.severity == Severity::error) return fail(problem.to_string());
    }
    if (options.spool.empty()) options.spool = loaded.config.server.spool;
    options.rules.long_lines_send = loaded.config.content.long_lines == LongLines::send;
    return {};
}

// Each recipient once, as it was written first. Domains are compared without case, local parts octet by octet (RFC 5321
// 2.4).
void drop_repeated(std::vector<std::string>& recipients) {
    std::unordered_set<std::string> known;
    std::string key;
    std::erase_if(recipients, [&](const std::string& address) {
        const auto mailbox = parse_mailbox(address);
        if (!mailbox) return false;
        normalise_domain(mailbox->domain, key);
        key.insert(0, address, 0, mailbox->local.size() + 1);
        return !known.insert(key).second;
    });
}

// Recipients of a header, for -t.
class HeaderRecipients : public SpoolHandler {
  public:
    explicit HeaderRecipients(std::vector<std::string>& into) : into_(into) {}
    void on_recipient(const RecipientView& recipient) override {
        into_.emplace_back(recipient.address);
    }
    void on_refused_recipient(std::string_view, const Error& why) override {
        if (refused.empty()) refused = why.text;
    }
    void on_message(uint32_t, const Envelope&, const Content&) override {}
    void on_refused_message(uint32_t, const Envelope&, const Content&, Range,
                            const Error&) override {}

    std::string refused;  // why the first one was

  private:
    std::vector<std::string>& into_;
};

// The intake's view of the message, behind the block that is put in front: its errors are what counts. The message is seen
// as it was given, with Bcc, so that lines and offsets are its own.
class Rehearsal : public SpoolHandler {
  public:
    void on_recipient(const RecipientView&) override { ++recipients; }
    void on_refused_recipient(std::string_view, const Error& why) override { refused = why.text; }
    void on_message(uint32_t, const Envelope&, const Content&) override {}
    void on_refused_message(uint32_t, const Envelope&, const Content&, Range,
                            const Error&) override {}

    uint64_t recipients = 0;
    std::string refused;
};

// One message on its way from a descriptor into the spool.
class Sending {
  public:
    Sending(const SendOptions& options, int from)
        : options_(options), from_(from), parser_(rehearsal_, options.rules) {}

    Result<void> run(const std::string& name);
    uint64_t recipients() const { return rehearsal_.recipients; }
    uint64_t size() const { return file_.size(); }

  private:
    Result<size_t> read_some();
    Result<void> read_header();
    Result<void> header_sender(Envelope& envelope);
    Result<void> write_block();
    Result<void> write_header();
    void drop_removed_fields();

    const SendOptions& options_;
    int from_;
    Rehearsal rehearsal_;
    EmlParser parser_;
    HeaderReader header_;
    SpoolWriter file_;
    std::string head_;        // the header as it was given (what is not sent in short lines), and what was read behind it
    std::string kept_;        // the same as it is sent
    size_t header_size_ = 0;  // as it was read
    uint64_t stored_ = 0;     // octets of the message in the file
    std::vector<char> block_ = std::vector<char>(256 * 1024);
};

Result<size_t> Sending::read_some() {
    while (true) {
        const ssize_t got = read(from_, block_.data(), block_.size());
        if (got >= 0) return static_cast<size_t>(got);
        if (errno != EINTR) return fail_errno("read the message");
    }
}

Result<void> Sending::read_header() {
    header_.begin(0, 1, true);
    while (!header_.ended()) {
        auto got = read_some();
        if (!got) return std::unexpected(std::move(got.error()));
        if (*got == 0) break;
        header_size_ += header_.feed(block_.data(), *got);
        head_.append(block_.data(), *got);
        if (header_size_ > limits::kHeaderForAddresses) {
            return fail(fmt::format("the header is over {} octets; is it a message?",
                                    limits::kHeaderForAddresses));
        }
    }
    header_.finish();
    if (head_.empty()) return fail("the message is empty");
    drop_removed_fields();
    // Right behind our block such a line would be taken for a part of it.
    const std::string_view first = std::string_view(kept_).substr(0, kept_.find('\n'));
    if (split_block_line(first).name != BlockName::none) {
        return fail(fmt::format("line 1: \"{}\" as the first line of the header is a line of the envelope, so it would not be sent; "
                                "put another line in front of it, such as From, or use the option of send instead",
                                first.substr(0, first.find(':'))));
    }
    return {};
}

// A list of addresses may be written in one line of any length, and is not sent.
std::string with_short_lines(std::string_view field) {
    constexpr size_t kShort = 900;
    std::string text;
    while (!field.empty()) {
        const size_t end = std::min(field.find('\n'), field.size() - 1) + 1;
        const std::string_view line = field.substr(0, end);
        text += line.substr(0, kShort);
        if (line.size() > kShort) text += line.ends_with("\r\n") ? "\r\n" : "\n";
        field.remove_prefix(end);
    }
    return text;
}

// Bcc, Resent-Bcc and Return-Path stay behind, as when the engine reads an envelope from a header (RFC
// 5321 7.2).
void Sending::drop_removed_fields() {
    kept_ = head_;
    const auto& fields = header_.fields();
    for (auto field = fields.rbegin(); field != fields.rend(); ++field) {
        if (!is_removed_field(field->name)) continue;
        const auto [offset, size] = field->where;
        kept_.erase(offset, size);
        head_.replace(offset, size, with_short_lines(head_.substr(offset, size)));
    }
}

Result<void> Sending::header_sender(Envelope& envelope) {
    if (read_header_sender(header_, envelope)) return {};
    constexpr std::pair<FieldName, const char*> kInTurn[] = {{FieldName::return_path, "Return-Path"},
                                                             {FieldName::sender, "Sender"},
                                                             {FieldName::from, "From"}};
    for (const auto& [name, word] : kInTurn) {
        const auto field = std::ranges::find(header_.fields(), name, &HeaderField::name);
        if (field == header_.fields().end()) continue;
        return fail(fmt::format("line {}: {} has no usable address; mend it, or give a sender with -f", field->line, word));
    }
    return fail("no sender: the header has no Return-Path, Sender or From; give one with -f");
}

Result<void> Sending::write_block() {
    Envelope envelope;
    envelope.sender = options_.sender;
    if (!options_.sender_given) {
        if (auto sender = header_sender(envelope); !sender) return sender;
    }
    std::vector<std::string> recipients = options_.recipients;
    if (options_.from_header) {
        HeaderRecipients found(recipients);
        read_header_recipients(header_, found, envelope);
        if (!found.refused.empty()) return fail(found.refused);
        if (recipients.empty()) return fail("no recipient in To, Cc or Bcc; name one");
    }
    drop_repeated(recipients);
    std::string block =
        fmt::format("x-sender: {}\r\n", envelope.sender.empty() ? "<>" : envelope.sender);
    for (const auto& [name, value] : options_.fields) {
        if (!value.empty()) block += fmt::format("{}: {}\r\n", name, value);
    }
    for (const std::string& recipient : recipients)
        block += fmt::format("x-receiver: {}\r\n", recipient);
    parser_.reset(-block.size(), 1 - std::ranges::count(block, '\n'));  // the message's first line is line 1
    if (auto ok = parser_.feed(block); !ok) return ok;
    return file_.write(block);
}

Result<void> Sending::write_header() {
    if (auto ok = parser_.feed(head_); !ok) return ok;
    stored_ += kept_.size();
    return file_.write(kept_);
}

Result<void> Sending::run(const std::string& name) {
    if (auto ok = read_header(); !ok) return ok;
    if (auto ok = file_.create(options_.spool, name); !ok) return ok;
    if (auto ok = write_block(); !ok) return ok;
    if (auto ok = write_header(); !ok) return ok;
    while (true) {
        auto got = read_some();
        if (!got) return std::unexpected(std::move(got.error()));
        if (*got == 0) break;
        const std::string_view octets(block_.data(), *got);
        if (auto ok = parser_.feed(octets); !ok) return ok;
        if (auto ok = file_.write(octets); !ok) return ok;
        stored_ += *got;
    }
    if (auto ok = parser_.finish(); !ok) return ok;
    if (!rehearsal_.refused.empty()) return fail(rehearsal_.refused);
    if (stored_ == 0) return fail("the message is empty; give it more than Bcc and Return-Path");
    return file_.publish(true);
}

std::string file_name(size_t number) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return fmt::format("{}.{}.{}.eml",
                       std::chrono::duration_cast<std::chrono::nanoseconds>(now).count(), getpid(),
                       number);
}

int send_one(const SendOptions& options, const std::string& path, size_t number) {
    const bool standard_input = path == "-";
    const int fd = standard_input ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return report(kRuntime, fail_errno("open " + path).error().text);
    const std::string name = file_name(number);
    Sending sending(options, fd);
    const auto ok = sending.run(name);
    if (!standard_input) close(fd);
    if (!ok)
        return report(kRuntime, standard_input ? ok.error().text : path + ": " + ok.error().text);
    if (options.json) {
        const nlohmann::json line = {
            {"file", name}, {"recipients", sending.recipients()}, {"size", sending.size()}};
        fmt::print("{}\n", line.dump());
    } else {
        fmt::print("{}\n", name);
    }
    return 0;
}

void declare(CLI::App& app, SendOptions& options) {
    app.add_option("recipients", options.recipients, "addresses the message goes to");
    app.add_flag("-t", options.from_header, "recipients from To, Cc and Bcc, besides those named");
    app.add_option("-f,--sender", options.sender,
                   "envelope sender, <> for none; default: from the header");
    app.add_flag("-i", options.ignore_dots, "a line with a dot alone ends nothing: always so");
    app.add_option("-o", options.sendmail_options, "sendmail's -oi: accepted, always so")
        ->check(CLI::IsMember({"i"}))
        ->allow_extra_args(false);
    for (auto& [name, value] : options.fields) {
        app.add_option(std::string("--") + (name + 2), value,
                       std::string("the envelope's ") + name);
    }
    app.add_option("--eml", options.files,
                   "message files, named last, - for standard input; default: -");
    app.add_option("--spool", options.spool, "the spool directory");
    app.add_option("--config", options.config, "configuration that names the spool");
    app.add_flag("--json", options.json, "one JSON object a message instead of its file name");
    app.footer(
        "Example:\n  postrider send --spool /var/spool/postrider -f news@example.com \\\n"
        "      --campaign spring anna@example.net < message.eml\n"
        "Each file is tried: what is queued is named on standard output, what is not is told on standard error.\n"
        "Exit codes: 0 all queued, 1 one or more not, 2 usage.");
}

}  // namespace

int run_send(int argc, char** argv) {
    SendOptions options;
    CLI::App app("Puts messages into the spool, safely; prints the names of their files.",
                 "postrider send");
    declare(app, options);
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    options.sender_given = app.count("-f") > 0;
    if (auto ok = check_options(options); !ok) return report(kUsage, ok.error().text);
    if (auto ok = find_spool(options); !ok) return report(kUsage, ok.error().text);
    if (auto ok = prepare_spool(options.spool); !ok) return report(kRuntime, ok.error().text);
    if (options.files.empty()) options.files = {"-"};
    // One bad file does not keep the others back, nor the caller in doubt about them.
    int code = 0;
    for (size_t i = 0; i < options.files.size(); ++i) code = std::max(code, send_one(options, options.files[i], i + 1));
    return code;
}

}  // namespace postrider
