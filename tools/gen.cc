// One thread, one buffer: the time goes into the file system. The body is made once and copied;
// only header and envelope are made for each message.
#include "tools/gen.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "engine/arguments.h"
#include "engine/config/units.h"
#include "engine/core/address.h"
#include "engine/core/hash.h"
#include "queue/formats/envelope_fields.h"
#include "tools/gen_message.h"
#include "tools/spool_writer.h"

namespace postrider {
namespace {

constexpr int kRuntime = 1, kUsage = 2;
constexpr uint64_t kMessagesMost = 1'000'000'000;
constexpr uint64_t kDomainsMost = 10'000'000, kRecipientsMost = 10'000;

struct GenOptions {
    std::string spool, size = "10KiB", format = "bsmtp", pattern = "d%04d.test",
                       sender = "bounce@sender.test", campaign, skew = "flat";
    std::string providers =
        "gmail.test:34,outlook.test:19,yahoo.test:11,icloud.test:7,gmx.test:4,web-de.test:3,aol."
        "test:2";
    uint64_t messages = 1000, domains = 1000, per_file = 1000, recipients = 1, folders = 0,
             first = 1, seed = 0;
    bool newsletter = false, fsync = false, json = false;
};

int report(int code, std::string_view text) {
    fmt::print(stderr, "postrider gen: {}\n", text);
    return code;
}

std::string date_now() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[64];
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S +0000", &parts);  // RFC 5322 3.3
    return text;
}

class Generator {
  public:
    Generator(const GenOptions& options, DomainChoice choice, size_t size)
        : options_(options), choice_(std::move(choice)), date_(date_now()) {
        const auto now = std::chrono::system_clock::now().time_since_epoch().count();
        run_ = fmt::format(
            "{:012x}",
            mix64(static_cast<uint64_t>(now), static_cast<uint64_t>(getpid())) & 0xFFFFFFFFFFFF);
        // `--size` counts the header; those of other messages differ by a few digits.
        name_recipients(options.first, DomainChoice(choice_).next());
        add_header(options.first);
        const size_t rest = size > text_.size() ? size - text_.size() : 0;
        body_ = options.newsletter ? newsletter_body(rest, "part-" + run_, options.seed + 1)
                                   : plain_body(rest);
    }

    Result<void> run();
    uint64_t files() const { return files_; }
    uint64_t octets() const { return octets_; }

  private:
    Result<void> make_folders();
    Result<void> open_file();
    Result<void> close_file();
    void make_message(uint64_t number);
    void name_recipients(uint64_t number, const std::string& domain);
    void add_envelope();
    void add_header(uint64_t number);

    const GenOptions& options_;
    DomainChoice choice_;
    std::string date_, run_, body_;
    SpoolWriter file_;
    bool open_ = false;
    uint64_t files_ = 0, octets_ = 0;
    std::vector<std::string> recipients_;
    std::string text_;  // of one message, envelope and content
};

Result<void> Generator::make_folders() {
    for (uint64_t i = 0; i < options_.folders; ++i) {
        const std::string path = fmt::format("{}/new/g{:03}", options_.spool, i);
        if (mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return fail_errno("mkdir " + path);
    }
    return {};
}

Result<void> Generator::open_file() {
    open_ = true;
    return file_.create(options_.spool,
                        fmt::format("gen-{}-{:08}.{}", run_, ++files_, options_.format));
}

Result<void> Generator::close_file() {
    open_ = false;
    octets_ += file_.size();
    const std::string folder =
        options_.folders == 0 ? "" : fmt::format("g{:03}", files_ % options_.folders);
    return file_.publish(options_.fsync, folder);
}

void Generator::add_envelope() {
    auto out = std::back_inserter(text_);
    if (options_.format == "bsmtp") {
        fmt::format_to(out, "MAIL FROM:<{}>\r\n", options_.sender);
        for (const std::string& recipient : recipients_)
            fmt::format_to(out, "RCPT TO:<{}>\r\n", recipient);
        text_ += "DATA\r\n";
    } else {
        fmt::format_to(out, "x-sender: {}\r\n", options_.sender.empty() ? "<>" : options_.sender);
        for (const std::string& recipient : recipients_)
            fmt::format_to(out, "x-receiver: {}\r\n", recipient);
    }
    if (!options_.campaign.empty()) fmt::format_to(out, "x-campaign: {}\r\n", options_.campaign);
}

void Generator::add_header(uint64_t number) {
    auto out = std::back_inserter(text_);
    fmt::format_to(out,
                   "Message-ID: <{}.{}@gen.test>\r\nDate: {}\r\nFrom: News <news@sender.test>\r\n",
                   number, run_, date_);
    for (size_t i = 0; i < recipients_.size(); ++i) {
        fmt::format_to(out, "{}Reader <{}>", i == 0 ? "To: " : ",\r\n ", recipients_[i]);
    }
    fmt::format_to(out, "\r\nSubject: What is new, issue {}\r\nX-Seq: {}\r\n", number, number);
    for (const std::string& recipient : recipients_)
        fmt::format_to(out, "X-Canary: {}\r\n", canary(recipient));
    text_ += "MIME-Version: 1.0\r\n";
    if (options_.newsletter) {
        fmt::format_to(out, "Content-Type: multipart/mixed; boundary=\"part-{}\"\r\n\r\n", run_);
    } else {
        text_ += "Content-Type: text/plain; charset=us-ascii\r\n\r\n";
    }
}

void Generator::name_recipients(uint64_t number, const std::string& domain) {
    recipients_.resize(options_.recipients);
    for (uint64_t i = 0; i < options_.recipients; ++i) {
        recipients_[i].clear();
        auto out = std::back_inserter(recipients_[i]);
        if (options_.recipients == 1) {
            fmt::format_to(out, "r{}@{}", number, domain);
        } else {
            fmt::format_to(out, "r{}-{}@{}", number, i + 1, domain);
        }
    }
}

void Generator::make_message(uint64_t number) {
    name_recipients(number, choice_.next());
    text_.clear();
    add_envelope();
    add_header(number);
    text_ += body_;
    if (options_.format == "bsmtp") text_ += ".\r\n";
}

Result<void> Generator::run() {
    if (auto ok = prepare_spool(options_.spool); !ok) return ok;
    if (auto ok = make_folders(); !ok) return ok;
    const uint64_t per_file = options_.format == "eml" ? 1 : options_.per_file;
    for (uint64_t i = 0; i < options_.messages; ++i) {
        if (!open_) {
            if (auto ok = open_file(); !ok) return ok;
        }
        make_message(options_.first + i);
        if (auto ok = file_.write(text_); !ok) return ok;
        if ((i + 1) % per_file != 0) continue;
        if (auto ok = close_file(); !ok) return ok;
    }
    return open_ ? close_file() : Result<void>{};
}

void declare(CLI::App& app, GenOptions& options) {
    app.add_option("--spool", options.spool, "the spool directory")->required();
    app.add_option("--messages", options.messages, "how many")->capture_default_str()->check(CLI::Range(uint64_t{1}, kMessagesMost));
    app.add_option("--size", options.size, "of a message with its header, about")->capture_default_str();
    app.add_option("--format", options.format, "bsmtp or eml")
        ->capture_default_str()
        ->check(CLI::IsMember({"bsmtp", "eml"}));
    app.add_option("--per-file", options.per_file, "messages in a batch file")
        ->capture_default_str()
        ->check(CLI::Range(uint64_t{1}, kMessagesMost));
    app.add_option("--recipients-per-message", options.recipients,
                   "all of them at the message's domain")
        ->capture_default_str()
        ->check(CLI::Range(uint64_t{1}, kRecipientsMost));
    app.add_option("--domains", options.domains, "how many domains there are")
        ->capture_default_str()
        ->check(CLI::Range(uint64_t{1}, kDomainsMost));
    app.add_option("--domain-pattern", options.pattern, "their names, with one %d or such as %04d for the number")->capture_default_str();
    app.add_option("--skew", options.skew,
                   "flat: each domain in turn; realistic: few providers take most")
        ->capture_default_str()
        ->check(CLI::IsMember({"flat", "realistic"}));
    app.add_option("--providers", options.providers,
                   "for realistic: domain:percent,...; the rest is tail")
        ->capture_default_str();
    app.add_option("--sender", options.sender, "envelope sender, <> for none")->capture_default_str();
    app.add_option("--campaign", options.campaign, "x-campaign of each message");
    app.add_option("--first", options.first, "X-Seq of the first message")->capture_default_str();
    app.add_option("--seed", options.seed, "of the choice of domains")->capture_default_str();
    app.add_option("--folders", options.folders, "spread files over N folders below new/")
        ->capture_default_str()
        ->check(CLI::Range(uint64_t{0}, uint64_t{1000}));
    app.add_flag("--newsletter", options.newsletter,
                 "parts: text, HTML, image, as newsletters have them");
    app.add_flag("--fsync", options.fsync, "sync each file and its folder");
    app.add_flag("--json", options.json, "what was written, as JSON");
    app.footer(
        "Example:\n  mkdir /tmp/spool\n"
        "  postrider gen --spool /tmp/spool --messages 100000 --size 10KiB --domains 1000 \\\n"
        "      --skew realistic --newsletter\n"
        "Exit codes: 0 done, 1 failed, 2 usage.");
}

Result<void> check_options(GenOptions& options) {
    if (options.sender == "<>") options.sender.clear();
    if (!options.sender.empty()) {
        if (auto mailbox = parse_mailbox(options.sender); !mailbox) {
            return fail("--sender: " + mailbox.error().text);
        }
    }
    if (options.campaign.empty()) return {};
    if (auto ok = check_label(options.campaign); !ok) return fail("--campaign: " + ok.error().text);
    return {};
}

Result<DomainChoice> choose_domains(const GenOptions& options) {
    auto names = domain_names(options.pattern, options.domains);
    if (!names) return std::unexpected(std::move(names.error()));
    if (options.skew == "flat") return DomainChoice::flat(std::move(*names));
    return DomainChoice::realistic(std::move(*names), options.providers, options.seed);
}

}  // namespace

std::string canary(std::string_view recipient) {
    std::string lower(recipient);
    for (char& c : lower) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    }
    return fmt::format("{:016x}", hash64(lower));
}

int run_gen(int argc, char** argv) {
    GenOptions options;
    CLI::App app("Fills a spool with messages for load tests.", "postrider gen");
    declare(app, options);
    if (const auto code = parse_arguments(app, argc, argv)) return *code;
    if (auto ok = check_options(options); !ok) return report(kUsage, ok.error().text);
    const auto size = parse_size(options.size);
    if (!size) return report(kUsage, "--size: " + size.error().text);
    if (*size > (uint64_t{1} << 30)) return report(kUsage, "--size: at most 1GiB");
    auto choice = choose_domains(options);
    if (!choice) return report(kUsage, choice.error().text);

    const auto begin = std::chrono::steady_clock::now();
    Generator generator(options, std::move(*choice), *size);
    if (auto ok = generator.run(); !ok) return report(kRuntime, ok.error().text);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const double megabytes = static_cast<double>(generator.octets()) / 1e6;
    if (options.json) {
        const nlohmann::json line = {{"messages", options.messages},
                                     {"recipients", options.messages * options.recipients},
                                     {"files", generator.files()},
                                     {"octets", generator.octets()},
                                     {"seconds", seconds}};
        fmt::print("{}\n", line.dump());
    } else {
        fmt::print("{} messages in {} files, {:.1f} MB in {:.2f} s ({:.0f} MB/s)\n",
                   options.messages, generator.files(), megabytes, seconds, megabytes / seconds);
    }
    return 0;
}

}  // namespace postrider
