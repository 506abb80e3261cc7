#include "engine/config/problem.h"

#include <algorithm>
#include <cctype>

namespace postrider {

std::string ConfigProblem::to_string() const {
    std::string out = file;
    if (line > 0) {
        out += ':' + std::to_string(line) + ':' + std::to_string(column);
    }
    out += ": ";
    if (severity == Severity::warning) out += "warning: ";
    return out + text;
}

bool has_errors(const std::vector<ConfigProblem>& problems) {
    return std::ranges::any_of(
        problems, [](const ConfigProblem& p) { return p.severity == Severity::error; });
}

namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Levenshtein's distance without regard to case, two neighbours swapped one step; a '-' for a '_' costs nothing.
size_t edit_distance(std::string_view a, std::string_view b) {
    const auto same = [](char x, char y) {
        x = lower(x), y = lower(y);
        return x == y || (x == '-' && y == '_') || (x == '_' && y == '-');
    };
    std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        before.swap(above);
        above.swap(row);
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1)});
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) row[j] = std::min(row[j], before[j - 2] + 1);
        }
    }
    return row[b.size()];
}

}  // namespace

std::string_view nearest_name(std::string_view name, const std::vector<std::string_view>& known) {
    constexpr size_t kLongestName = 64;  // no key of ours is near a longer one
    if (name.size() > kLongestName) return {};
    std::string_view best;
    size_t best_distance = SIZE_MAX;
    for (const std::string_view candidate : known) {
        const size_t distance = edit_distance(name, candidate);
        if (distance < best_distance) best = candidate, best_distance = distance;
    }
    return best_distance <= std::max<size_t>(1, best.size() / 3) ? best : std::string_view{};
}

}  // namespace postrider
