#include "tools/sink/tally.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <iterator>

#include <fmt/format.h>

#include "engine/core/address.h"
#include "engine/core/check.h"
#include "engine/core/hash.h"

namespace postrider::sink {

namespace {

constexpr size_t kLogBuffer = 1 << 18;
constexpr uint64_t kSecondSeed = 0x6a09e667f3bcc908ULL;

int64_t clock_us(clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * int64_t{1'000'000} + t.tv_nsec / 1000;
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
}

// UTF-8 as it came; in a text that is none, octets above 127 as if they were Latin-1: a line is always JSON.
void append_json(std::string& out, std::string_view text) {
    const bool utf8 = is_utf8(text);
    out += '"';
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (u < 32 || u == 127 || (u > 127 && !utf8)) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", u);
        } else {
            out += c;
        }
    }
    out += '"';
}

// A message to many carries one field for each of them, the sender's splits a part of them: any may match.
bool has_canary(std::span<const uint64_t> canaries, uint64_t address) {
    return std::find(canaries.begin(), canaries.end(), address) != canaries.end();
}

}  // namespace

int64_t mono_us() { return clock_us(CLOCK_MONOTONIC); }

SeenTable::SeenTable(uint64_t entries) {
    // A quarter stays free so that probing stays short.
    const uint64_t slots = std::bit_ceil(std::max<uint64_t>(entries + entries / 3, 1024));
    void* memory = mmap(nullptr, slots * sizeof(Slot), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    POSTRIDER_CHECK(memory != MAP_FAILED, "the table of deliveries needs address space");
    // Fingerprints fall anywhere: with small pages nearly every new delivery would be a page fault.
    madvise(memory, slots * sizeof(Slot), MADV_HUGEPAGE);
    slots_ = static_cast<Slot*>(memory);
    mask_ = slots - 1;
}

SeenTable::~SeenTable() { munmap(slots_, (mask_ + 1) * sizeof(Slot)); }

SeenTable::Answer SeenTable::insert(uint64_t high, uint64_t low) {
    high |= 1;  // 0 is a free slot, and a slot whose low word is not written yet
    low |= 1;
    for (uint64_t probe = 0; probe < 256; ++probe) {
        Slot& slot = slots_[((high >> 1) + probe) & mask_];
        uint64_t found = slot.high.load(std::memory_order_relaxed);
        if (found == 0) {
            if (slot.high.compare_exchange_strong(found, high, std::memory_order_relaxed)) {
                slot.low.store(low, std::memory_order_release);
                return Answer::fresh;
            }
        }
        if (found != high) continue;
        uint64_t other;
        while ((other = slot.low.load(std::memory_order_acquire)) == 0) {
        }
        if (other == low) return Answer::seen;
    }
    return Answer::full;
}

Result<std::unique_ptr<Ledger>> Ledger::open(const SinkOptions& options, unsigned workers) {
    std::unique_ptr<Ledger> ledger(new Ledger);
    ledger->workers_ = workers;
    ledger->expect_ = options.expect;
    ledger->mapped_ = (4 + workers * kCounterWords) * 8;
    int flags = MAP_SHARED | MAP_ANONYMOUS, fd = -1;
    if (!options.counters_file.empty()) {
        fd = ::open(options.counters_file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(ledger->mapped_)) != 0) {
            const int code = errno;
            if (fd >= 0) ::close(fd);
            return fail_errno("counters file " + options.counters_file, code);
        }
        flags = MAP_SHARED;
    }
    void* memory = mmap(nullptr, ledger->mapped_, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0) ::close(fd);
    if (memory == MAP_FAILED) return fail_errno("map the counters");
    ledger->words_ = static_cast<std::atomic<uint64_t>*>(memory);
    std::memcpy(memory, "PRSINK1", 8);
    ledger->words_[1] = workers;
    ledger->words_[2] = kCounterWords;
    ledger->seen_ = std::make_unique<SeenTable>(std::max(options.remember, 2 * options.expect));
    if (!options.log.empty()) {
        ledger->log_fd_ = ::open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (ledger->log_fd_ < 0) return fail_errno("open " + options.log);
    }
    if (!options.store.empty()) {
        if (mkdir(options.store.c_str(), 0755) != 0 && errno != EEXIST)
            return fail_errno("create " + options.store);
        ledger->store_fd_ = ::open(options.store.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC);
        if (ledger->store_fd_ < 0) return fail_errno("open " + options.store);
    }
    return ledger;
}

Ledger::~Ledger() {
    if (words_ != nullptr) munmap(static_cast<void*>(words_), mapped_);
    if (log_fd_ >= 0) ::close(log_fd_);
    if (store_fd_ >= 0) ::close(store_fd_);
}

SinkCounters Ledger::sum() const {
    SinkCounters c;
    uint64_t* const fields[] = {&c.connections, &c.open, &c.peak_open, &c.messages, &c.recipients,
                                &c.distinct, &c.duplicates, &c.untracked, &c.canary_mismatches,
                                &c.refused_recipients, &c.refused_messages, &c.aborted, &c.bytes,
                                &c.tls_connections, &c.resumed_sessions, &c.tls_messages,
                                &c.tls_failures, &c.limited_connections, &c.rules_applied,
                                &c.violations, &c.dns_queries, &c.log_failures};
    static_assert(std::size(fields) == static_cast<size_t>(Counter::count));
    for (unsigned worker = 0; worker < workers_; ++worker)
        for (size_t i = 0; i < std::size(fields); ++i)
            *fields[i] += words_[4 + worker * kCounterWords + i].load(std::memory_order_relaxed);
    return c;
}

void Ledger::connection_opened() {
    const uint64_t open = ++open_;
    auto& shown = words(0)[static_cast<size_t>(Counter::open)];
    auto& peak = words(0)[static_cast<size_t>(Counter::peak_open)];
    shown.fetch_add(1, std::memory_order_relaxed);
    uint64_t before = peak.load(std::memory_order_relaxed);
    while (before < open && !peak.compare_exchange_weak(before, open, std::memory_order_relaxed)) {
    }
}

void Ledger::connection_closed() {
    --open_;
    words(0)[static_cast<size_t>(Counter::open)].fetch_sub(1, std::memory_order_relaxed);
}

void Ledger::delivered_distinct() {
    if (expect_ == 0 || ++distinct_ != expect_) return;
    const std::lock_guard lock(mutex_);
    reached_.notify_all();
}

bool Ledger::wait_expected(int64_t timeout_ms) {
    std::unique_lock lock(mutex_);
    return reached_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                             [this] { return expect_ > 0 && distinct_ >= expect_; });
}

Tally::Tally(const SinkOptions& options, Ledger& ledger, unsigned worker)
    : options_(options), ledger_(ledger), words_(ledger.words(worker)), worker_(worker) {}

Tally::~Tally() { flush_log(); }

void Tally::add(Counter counter, uint64_t amount) {
    // One writer a word: a load and a store suffice, and readers see whole values.
    auto& word = words_[static_cast<size_t>(counter)];
    word.store(word.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

void Tally::on_transaction(const SinkTransaction& transaction) {
    if (transaction.accepted) {
        add(Counter::messages, 1);
        add(Counter::bytes, transaction.size);
        if (!transaction.tls.empty()) add(Counter::tls_messages, 1);
        count_deliveries(transaction);
    } else {
        add(transaction.verdict == "aborted" ? Counter::aborted : Counter::refused_messages, 1);
    }
    if (transaction.refused_recipients > 0)
        add(Counter::refused_recipients, transaction.refused_recipients);
    std::string file;
    if (ledger_.store_fd() >= 0 && transaction.accepted) file = store(transaction);
    if (ledger_.log_fd() >= 0) log_transaction(transaction, file);
    if (options_.observer) options_.observer(transaction);
}

void Tally::count_deliveries(const SinkTransaction& transaction) {
    add(Counter::recipients, transaction.recipients.size());
    const std::string_view name =
        !transaction.x_seq.empty() ? transaction.x_seq : transaction.message_id;
    const uint64_t message = hash64(name);
    for (const std::string_view recipient : transaction.recipients) {
        lowered_.assign(recipient);
        for (char& c : lowered_)
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
        const uint64_t address = hash64(lowered_);
        if (options_.check_canary && !has_canary(transaction.canaries, address))
            add(Counter::canary_mismatches, 1);
        auto answer = SeenTable::Answer::full;
        if (!name.empty())
            answer = ledger_.seen().insert(mix64(message, address),
                                           hash64(lowered_, hash64(name, kSecondSeed)));
        if (answer == SeenTable::Answer::seen) {
            add(Counter::duplicates, 1);
            continue;
        }
        if (answer == SeenTable::Answer::full) add(Counter::untracked, 1);
        add(Counter::distinct, 1);
        ledger_.delivered_distinct();
    }
}

std::string Tally::store(const SinkTransaction& transaction) {
    const std::string name =
        fmt::format("{:06}-{}-{:06}.eml", transaction.connection, worker_, ++stored_);
    const int fd = openat(ledger_.store_fd(), name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const bool written = fd >= 0 && write_all(fd, transaction.content);
    if (fd >= 0) ::close(fd);
    if (!written) add(Counter::log_failures, 1);
    return name;
}

void Tally::log_begin(std::string_view event, uint64_t connection, int64_t at_us) {
    fmt::format_to(std::back_inserter(log_),
                   R"({{"event":"{}","mono_us":{},"wall_us":{},"connection":{})", event, at_us,
                   clock_us(CLOCK_REALTIME), connection);
}

void Tally::log_field(std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(log_), ",\"{}\":", name);
    append_json(log_, value);
}

void Tally::log_transaction(const SinkTransaction& t, std::string_view file) {
    log_begin("transaction", t.connection, t.end_us);
    fmt::format_to(std::back_inserter(log_), R"(,"mail_us":{},"size":{},"bdat":{},"accepted":{})",
                   t.mail_us, t.size, t.bdat, t.accepted);
    log_field("peer", t.peer);
    log_field("local", t.local);
    log_field("helo", t.helo);
    log_field("tls", t.tls);
    log_field("sender", t.sender);
    log_field("parameters", t.mail_parameters);
    log_ += ",\"recipients\":[";
    for (size_t i = 0; i < t.recipients.size(); ++i) {
        if (i > 0) log_ += ',';
        append_json(log_, t.recipients[i]);
    }
    fmt::format_to(std::back_inserter(log_), "],\"refused_recipients\":{}", t.refused_recipients);
    if (!t.sha256.empty()) log_field("sha256", t.sha256);
    log_field("message_id", t.message_id);
    log_field("x_seq", t.x_seq);
    if (!file.empty()) log_field("file", file);
    log_field("verdict", t.verdict);
    log_ += "}\n";
    if (log_.size() >= kLogBuffer) flush_log();
}

void Tally::connection_event(std::string_view event, const SmtpMachine& machine, std::string_view why) {
    if (ledger_.log_fd() < 0) return;
    log_begin(event, machine.connection(), mono_us());
    log_field("peer", machine.peer());
    log_field("local", machine.local());
    if (!why.empty()) log_field("why", why);
    log_ += "}\n";
}

void Tally::flush_log() {
    if (log_.empty()) return;
    // Whole lines in one append: the workers' lines do not mix.
    if (!write_all(ledger_.log_fd(), log_)) add(Counter::log_failures, 1);
    log_.clear();
}

}  // namespace postrider::sink
