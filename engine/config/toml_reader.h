// Reading TOML with the place of everything at hand. Only the .cc files of this folder include this
// header: it brings the whole of toml++ in.
//
// A file is refused before toml++ sees it when it nests so deeply that taking the parsed tables
// apart would overrun the stack, or when it is absurdly long; everything else is toml++'s own
// judgement.
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/config/problem.h"
#include "engine/config/units.h"

namespace postrider {

struct Place {
    uint32_t line = 0, column = 0;
};

inline Place place_of(const toml::source_region& region) {
    return {static_cast<uint32_t>(region.begin.line), static_cast<uint32_t>(region.begin.column)};
}

// Collects the problems of one file.
class ProblemList {
  public:
    ProblemList(std::string file, std::vector<ConfigProblem>& problems)
        : file_(std::move(file)), problems_(problems) {}

    void error(Place at, const std::string& text) { add(at, text, Severity::error); }
    void warning(Place at, const std::string& text) { add(at, text, Severity::warning); }
    const std::string& file() const { return file_; }

  private:
    void add(Place at, const std::string& text, Severity severity);

    std::string file_;
    std::vector<ConfigProblem>& problems_;
};

// Empty after a problem was reported.
std::optional<toml::table> read_toml(ProblemList& problems);

// `name` as a TOML key: bare where it may be, else quoted.
std::string toml_key(std::string_view name);

// "a string", "an integer", ...
std::string_view kind_of(const toml::node& node);

// "text: did you mean \"connection_limit\"?", or a list of what is allowed.
std::string unknown_key(std::string_view path, std::string_view name,
                        const std::vector<std::string_view>& known);

// Takes a table's keys one by one by name; what is left at the end is unknown.
class TableReader {
  public:
    // `path`: the table's name for messages, "" for the file itself.
    TableReader(const toml::table& table, std::string path, ProblemList& problems)
        : table_(table), path_(std::move(path)), problems_(problems) {}

    const toml::node* find(std::string_view name);
    const toml::table* table(std::string_view name);

    void string(std::string_view name, std::string& out);
    template <class Integer>
    void integer(std::string_view name, Integer& out, int64_t least, int64_t most) {
        if (const auto value = integer_value(name, least, most)) out = static_cast<Integer>(*value);
    }
    void duration(std::string_view name, DurationMs& out, DurationMs least, DurationMs most);
    void size(std::string_view name, uint64_t& out, uint64_t least);

    struct Item {
        std::string text;
        Place at;
    };
    // Every string of a list; nothing when the key is absent or refused.
    std::optional<std::vector<Item>> strings(std::string_view name);

    std::string path_to(std::string_view name) const;
    void wrong_kind(const toml::node& node, std::string_view name, std::string_view allowed);

    // Reports every key that was never asked for.
    void finish();

  private:
    std::optional<int64_t> integer_value(std::string_view name, int64_t least, int64_t most);

    const toml::table& table_;
    std::string path_;
    ProblemList& problems_;
    std::vector<std::string_view> known_;
};

// A duration of a string, with its bounds; an error without the key's name.
Result<DurationMs> bounded_duration(std::string_view text, DurationMs least, DurationMs most);

}  // namespace postrider
