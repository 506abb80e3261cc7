#include "engine/config/toml_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace postrider {
namespace {

constexpr size_t kFileOctets = 64ULL << 20;
constexpr size_t kNesting = 32;       // lists and inline tables within each other
constexpr size_t kDotsPerLine = 16;   // parts of a dotted key
constexpr size_t kProblemText = 600;  // octets

Result<std::string> read_whole(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno("cannot open it");
    std::string text;
    Result<std::string> answer;
    while (true) {
        constexpr size_t kStep = 1 << 16;
        const size_t had = text.size();
        text.resize(had + kStep);
        const ssize_t got = read(fd, text.data() + had, kStep);
        if (got < 0 && errno != EINTR) answer = fail_errno("cannot read it");
        text.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
        if (text.size() > kFileOctets) answer = fail("is longer than 64 MiB");
        if (!answer || got == 0) break;
    }
    close(fd);
    if (answer) answer = std::move(text);
    return answer;
}

// Walks the text as TOML's lexer would, strings and comments skipped, and counts nesting. It needs
// to be right only up to the first syntax error, where toml++ stops.
class NestingGuard {
  public:
    explicit NestingGuard(std::string_view text) : text_(text) {}

    std::optional<Place> too_deep() {
        while (at_ < text_.size()) {
            switch (text_[at_]) {
                case '#':
                    skip_comment();
                    continue;
                case '"':
                case '\'':
                    skip_string(text_[at_]);
                    continue;
                case '[':
                case '{':
                    ++depth_;
                    break;
                case ']':
                case '}':
                    depth_ -= depth_ > 0 ? 1 : 0;
                    break;
                case '.':
                    ++dots_;
                    break;
                default:
                    break;
            }
            if (depth_ > kNesting || dots_ > kDotsPerLine) {
                return Place{line_, static_cast<uint32_t>(at_ - line_start_ + 1)};
            }
            step();
        }
        return std::nullopt;
    }

  private:
    void step() {
        if (text_[at_] == '\n') {
            ++line_;
            line_start_ = at_ + 1;
            dots_ = 0;
        }
        ++at_;
    }

    void skip_comment() {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    }

    bool three(char quote) const {
        return at_ + 2 < text_.size() && text_[at_] == quote && text_[at_ + 1] == quote &&
               text_[at_ + 2] == quote;
    }

    void skip_string(char quote) {
        const bool escapes = quote == '"';
        if (three(quote)) {
            at_ += 3;
            while (at_ < text_.size() && !three(quote)) {
                if (escapes && text_[at_] == '\\') step();
                if (at_ < text_.size()) step();
            }
            // Up to two quotes may stand before the closing three.
            for (int i = 0; i < 5 && at_ < text_.size() && text_[at_] == quote; ++i) ++at_;
            return;
        }
        ++at_;
        while (at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n') {
            at_ += escapes && text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] != '\n'
                       ? 2
                       : 1;
        }
        if (at_ < text_.size() && text_[at_] == quote) ++at_;
    }

    std::string_view text_;
    size_t at_ = 0, line_start_ = 0, depth_ = 0, dots_ = 0;
    uint32_t line_ = 1;
};

}  // namespace

void ProblemList::add(Place at, const std::string& text, Severity severity) {
    std::string line;
    for (const char c : std::string_view(text).substr(0, kProblemText)) {
        const auto octet = static_cast<unsigned char>(c);
        if (octet < 0x20 || octet == 0x7f) {
            line += fmt::format("\\x{:02x}", octet);
        } else {
            line += c;
        }
    }
    if (text.size() > kProblemText) line += "...";
    problems_.push_back({file_, at.line, at.column, std::move(line), severity});
}

std::optional<toml::table> read_toml(ProblemList& problems) {
    const auto text = read_whole(problems.file());
    if (!text) {
        problems.error({}, text.error().text);
        return std::nullopt;
    }
    if (const auto at = NestingGuard(*text).too_deep()) {
        problems.error(*at, fmt::format("nested too deeply, allowed: {} lists or inline tables "
                                        "within each other and {} dots outside strings in a line",
                                        kNesting, kDotsPerLine));
        return std::nullopt;
    }
    try {  // toml++ as Debian builds it reports by exception
        return toml::parse(std::string_view(*text), std::string_view(problems.file()));
    } catch (const toml::parse_error& e) {
        problems.error(place_of(e.source()), "not TOML: " + std::string(e.description()));
        return std::nullopt;
    }
}

std::string toml_key(std::string_view name) {
    const bool bare = !name.empty() && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
    return bare ? std::string(name) : '"' + std::string(name) + '"';
}

std::string_view kind_of(const toml::node& node) {
    switch (node.type()) {
        case toml::node_type::table:
            return "a table";
        case toml::node_type::array:
            return "a list";
        case toml::node_type::string:
            return "a string";
        case toml::node_type::integer:
            return "an integer";
        case toml::node_type::floating_point:
            return "a number with a point";
        case toml::node_type::boolean:
            return "true or false";
        default:
            return "a date or time";
    }
}

std::string unknown_key(std::string_view path, std::string_view name,
                        const std::vector<std::string_view>& known) {
    std::string out = fmt::format("{}: unknown key", path);
    if (const auto nearest = nearest_name(name, known); !nearest.empty()) {
        return out + fmt::format(", did you mean \"{}\"?", nearest);
    }
    if (known.size() > 12) return out + ", see docs/configuration.md for the keys";
    return out + fmt::format(", allowed: {}", fmt::join(known, ", "));
}

std::string TableReader::path_to(std::string_view name) const {
    return path_.empty() ? toml_key(name) : path_ + '.' + toml_key(name);
}

void TableReader::wrong_kind(const toml::node& node, std::string_view name,
                             std::string_view allowed) {
    problems_.error(place_of(node.source()),
                    fmt::format("{}: is {}, allowed: {}", path_to(name), kind_of(node), allowed));
}

const toml::node* TableReader::find(std::string_view name) {
    if (std::ranges::find(known_, name) == known_.end()) known_.push_back(name);
    return table_.get(name);
}

const toml::table* TableReader::table(std::string_view name) {
    const toml::node* node = find(name);
    if (node == nullptr) return nullptr;
    if (const auto* table = node->as_table()) return table;
    wrong_kind(*node, name, "a table, such as [" + path_to(name) + "]");
    return nullptr;
}

void TableReader::string(std::string_view name, std::string& out) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto* value = node->as_string();
    if (value == nullptr) return wrong_kind(*node, name, "a string");
    if (value->get().empty() || value->get().find('\0') != std::string::npos) {
        problems_.error(place_of(node->source()),
                        path_to(name) + ": is empty or holds a NUL, allowed: a text");
        return;
    }
    out = value->get();
}

std::optional<int64_t> TableReader::integer_value(std::string_view name, int64_t least,
                                                  int64_t most) {
    const toml::node* node = find(name);
    if (node == nullptr) return std::nullopt;
    const auto allowed = fmt::format("an integer from {} to {}", least, most);
    const auto* value = node->as_integer();
    if (value == nullptr) {
        wrong_kind(*node, name, allowed);
        return std::nullopt;
    }
    if (value->get() < least || value->get() > most) {
        problems_.error(
            place_of(node->source()),
            fmt::format("{}: is {}, allowed: {}", path_to(name), value->get(), allowed));
        return std::nullopt;
    }
    return value->get();
}

Result<DurationMs> bounded_duration(std::string_view text, DurationMs least, DurationMs most) {
    auto duration = parse_duration(text);
    if (duration && (*duration < least || *duration > most)) {
        return fail(fmt::format("is {}, allowed: {} to {}", format_duration(*duration),
                                format_duration(least), format_duration(most)));
    }
    return duration;
}

void TableReader::duration(std::string_view name, DurationMs& out, DurationMs least,
                           DurationMs most) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto* text = node->as_string();
    if (text == nullptr) {
        return wrong_kind(*node, name, "a duration in quotes, such as \"10s\", \"4d12h\"");
    }
    if (const auto duration = bounded_duration(text->get(), least, most)) {
        out = *duration;
    } else {
        problems_.error(place_of(node->source()), path_to(name) + ": " + duration.error().text);
    }
}

void TableReader::size(std::string_view name, uint64_t& out, uint64_t least) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    Result<uint64_t> size = fail("");
    if (const auto* text = node->as_string()) {
        size = parse_size(text->get());
    } else if (const auto* integer = node->as_integer(); integer && integer->get() >= 0) {
        size = static_cast<uint64_t>(integer->get());
    } else {
        return wrong_kind(*node, name, "a size, such as \"1GiB\" or octets");
    }
    if (size && *size < least) {
        size = fail(fmt::format("is {}, allowed: at least {} octets", *size, least));
    }
    if (size) {
        out = *size;
    } else {
        problems_.error(place_of(node->source()), path_to(name) + ": " + size.error().text);
    }
}

std::optional<std::vector<TableReader::Item>> TableReader::strings(std::string_view name) {
    const toml::node* node = find(name);
    if (node == nullptr) return std::nullopt;
    const auto* list = node->as_array();
    if (list == nullptr) {
        wrong_kind(*node, name, "a list of strings, such as [\"...\"]");
        return std::nullopt;
    }
    std::vector<Item> items;
    for (const auto& element : *list) {
        const auto* text = element.as_string();
        if (text == nullptr) {
            wrong_kind(element, name, "strings in the list");
            return std::nullopt;
        }
        items.push_back({text->get(), place_of(element.source())});
    }
    return items;
}

void TableReader::finish() {
    for (auto&& [key, node] : table_) {
        if (std::ranges::find(known_, key.str()) != known_.end()) continue;
        problems_.error(place_of(key.source()), unknown_key(path_to(key.str()), key.str(), known_));
    }
}

}  // namespace postrider
