#include "tools/sink/rules.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>
#include <toml++/toml.h>

namespace postrider::sink {

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::optional<Point> point_of(std::string_view name) {
    static constexpr std::string_view kNames[kPoints] = {"connect", "ehlo", "starttls", "mail", "rcpt",
                                                         "data",    "dot",  "rset",     "quit"};
    for (size_t i = 0; i < kPoints; ++i)
        if (kNames[i] == name) return static_cast<Point>(i);
    return std::nullopt;
}

std::optional<Action> action_of(std::string_view name) {
    if (name == "reply") return Action::reply;
    if (name == "close") return Action::close;
    if (name == "reset") return Action::reset;
    if (name == "hang") return Action::hang;
    if (name == "slow") return Action::slow;
    if (name == "reply-split") return Action::reply_split;
    if (name == "close-after-reply") return Action::close_after_reply;
    if (name == "garbage") return Action::garbage;
    return std::nullopt;
}

template <class Number>
bool number(std::string_view text, Number& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

// RFC 5321 4.2: the text may be missing.
bool is_reply_line(std::string_view line) {
    if (line.size() < 3 || line.find_first_of("\r\n") != std::string_view::npos) return false;
    const auto digit = [&](size_t i, char most) { return line[i] >= '0' && line[i] <= most; };
    return line[0] >= '2' && digit(0, '5') && digit(1, '5') && digit(2, '9') && (line.size() == 3 || line[3] == ' ' || line[3] == '-');
}

// "450 a\n450 b" of a rule to the wire's form: all but the last line get a hyphen behind the code.
Result<std::string> reply_lines(std::string_view text) {
    std::string wire;
    while (true) {
        const size_t at = text.find('\n');
        std::string line(text.substr(0, at));
        if (!is_reply_line(line))
            return fail(fmt::format("reply \"{}\" is no reply line: it begins with three digits, 200 to 559, and a blank", line));
        if (at == std::string_view::npos) {
            wire += line;
            return wire;
        }
        if (line.size() == 3) line += ' ';
        line[3] = '-';
        wire += line + "\r\n";
        text.remove_prefix(at + 1);
    }
}

// Collects the keys of one rule; both notations end here.
class RuleBuilder {
  public:
    Result<void> set(std::string_view key, const std::string& value) {
        if (const auto point = point_of(key)) {
            if (point_) return fail("a rule has one point: " + std::string(key) + " is a second");
            point_ = point;
            rule_.pattern = value;
            return {};
        }
        bool good = true;
        if (key == "domain") {
            rule_.domain = value;
        } else if (key == "reply") {
            auto lines = reply_lines(value);
            if (!lines) return std::unexpected(lines.error());
            rule_.reply = std::move(*lines);
        } else if (key == "action") {
            const auto action = action_of(value);
            if (!action)
                return fail(fmt::format("bad value \"{}\" for action, allowed: reply, close, reset, hang, slow, reply-split, "
                                        "close-after-reply, garbage",
                                        value));
            rule_.action = *action;
        } else if (key == "after") {
            good = number(value, rule_.after);
        } else if (key == "times") {
            good = number(value, rule_.times);
        } else if (key == "limit") {
            good = number(value, rule_.limit) && rule_.limit > 0;
        } else if (key == "probability") {
            good = number(value, rule_.probability) && rule_.probability >= 0 && rule_.probability <= 1;
        } else if (key == "per") {
            good = value == "all" || value == "connection" || value == "address";
            rule_.per = value == "connection" ? Per::connection
                        : value == "address"  ? Per::address
                                              : Per::all;
        } else {
            return fail(fmt::format("unknown key \"{}\" in a rule", key));
        }
        if (!good) return fail(fmt::format("bad value \"{}\" for {}", value, key));
        return {};
    }

    Result<Rule> finish() {
        if (!point_ && rule_.domain.empty())
            return fail("a rule needs a point: connect, ehlo, starttls, mail, rcpt, data, dot, rset, quit or domain");
        rule_.point = point_.value_or(Point::rcpt);
        const bool by_recipient = rule_.point == Point::rcpt || rule_.point == Point::data ||
                                  rule_.point == Point::dot;
        if (!rule_.domain.empty() && !by_recipient)
            return fail("domain= goes with rcpt, data or dot");
        if (rule_.limit > 0 && rule_.point != Point::connect) return fail("limit= goes with connect");
        if (rule_.action == Action::none) {
            if (rule_.limit > 0 && rule_.reply.empty()) rule_.reply = "421 4.7.0 Too many connections";
            if (rule_.reply.empty()) return fail("a rule needs reply= or action=");
            rule_.action = Action::reply;
        }
        if (rule_.action == Action::reply && rule_.reply.empty())
            return fail("action=reply needs reply=");
        return std::move(rule_);
    }

  private:
    Rule rule_;
    std::optional<Point> point_;
};

// The value of key=value at `text`: bare up to a blank, or in double quotes where \" \\ \n are escapes.
Result<std::string> take_value(std::string_view& text) {
    std::string value;
    if (text.empty() || text[0] != '"') {
        const size_t end = text.find(' ');
        value = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end);
        return value;
    }
    size_t i = 1;
    for (; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\' && i + 1 < text.size()) {
            ++i;
            value += text[i] == 'n' ? '\n' : text[i];
        } else {
            value += text[i];
        }
    }
    if (i >= text.size()) return fail("a quote in a rule is not closed");
    text.remove_prefix(i + 1);
    return value;
}

// The domain of an address; of another subject nothing.
std::string_view domain_of(std::string_view address) {
    const size_t at = address.rfind('@');
    return at == std::string_view::npos ? std::string_view() : address.substr(at + 1);
}

}  // namespace

Result<Rule> parse_rule(std::string_view text) {
    const auto wrong = [&, whole = text](const Error& error) {
        return fail(fmt::format("rule '{}': {}", whole, error.text));
    };
    RuleBuilder builder;
    while (true) {
        while (!text.empty() && text[0] == ' ') text.remove_prefix(1);
        if (text.empty()) break;
        const size_t equals = text.find('=');
        if (equals == std::string_view::npos)
            return wrong({0, "expected key=value at '" + std::string(text) + "'"});
        const std::string_view key = text.substr(0, equals);
        text.remove_prefix(equals + 1);
        const auto value = take_value(text);
        if (!value) return wrong(value.error());
        if (const auto set = builder.set(key, *value); !set) return wrong(set.error());
    }
    auto rule = builder.finish();
    if (!rule) return wrong(rule.error());
    return rule;
}

Result<std::vector<Rule>> parse_rules_toml(std::string_view text, std::string_view name) {
    toml::table parsed;
    try {
        parsed = toml::parse(text, name);
    } catch (const toml::parse_error& error) {
        return fail(fmt::format("{}:{}: {}", name, error.source().begin.line, error.description()));
    }
    std::vector<Rule> rules;
    for (const auto& [key, node] : parsed) {
        const auto* array = node.as_array();
        if (key.str() != "rule" || array == nullptr)
            return fail(fmt::format("{}:{}: only [[rule]] tables are known here", name,
                                    node.source().begin.line));
        for (const auto& element : *array) {
            const auto* table = element.as_table();
            if (table == nullptr)
                return fail(fmt::format("{}:{}: rule is no table", name, element.source().begin.line));
            RuleBuilder builder;
            for (const auto& [field, value] : *table) {
                std::string as_text;
                if (const auto* s = value.as_string()) as_text = s->get();
                else if (const auto* i = value.as_integer()) as_text = fmt::format("{}", i->get());
                else if (const auto* f = value.as_floating_point()) as_text = fmt::format("{}", f->get());
                if (auto set = builder.set(field.str(), as_text); !set)
                    return fail(fmt::format("{}:{}: {}", name, value.source().begin.line, set.error().text));
            }
            auto rule = builder.finish();
            if (!rule)
                return fail(fmt::format("{}:{}: {}", name, table->source().begin.line, rule.error().text));
            rules.push_back(std::move(*rule));
        }
    }
    return rules;
}

bool glob_match(std::string_view pattern, std::string_view text) {
    // Greedy with one place to come back to: the last star swallows one octet more.
    size_t p = 0, t = 0, star = std::string_view::npos, star_text = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || lower(pattern[p]) == lower(text[t]))) {
            ++p, ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

RuleSet::RuleSet(std::vector<Rule> rules, uint64_t seed) : random_(seed) {
    for (Rule& rule : rules) {
        points_ |= 1u << static_cast<unsigned>(rule.point);
        has_limits_ = has_limits_ || rule.limit > 0;
        rules_.push_back({std::move(rule), {}});
    }
}

bool RuleSet::acts(Counted& counted, std::string_view subject, uint64_t connection) {
    const Rule& rule = counted.rule;
    if (rule.probability < 1.0 &&
        std::uniform_real_distribution<double>(0, 1)(random_) >= rule.probability)
        return false;
    std::string key;
    if (rule.per == Per::connection) key = fmt::format("{}", connection);
    if (rule.per == Per::address)
        for (const char c : subject) key += lower(c);
    const uint64_t seen = counted.seen[key]++;
    return seen >= rule.after && seen - rule.after < rule.times;
}

Verdict RuleSet::match(Point point, const std::vector<std::string_view>& subjects, uint64_t connection,
                       uint32_t open_here) {
    const std::lock_guard lock(mutex_);
    for (Counted& counted : rules_) {
        const Rule& rule = counted.rule;
        if (rule.point != point || (rule.limit > 0 && open_here <= rule.limit)) continue;
        for (const std::string_view subject : subjects) {
            if (!glob_match(rule.pattern, subject)) continue;
            if (!rule.domain.empty() && !glob_match(rule.domain, domain_of(subject))) continue;
            if (acts(counted, subject, connection)) return {rule.action, rule.reply};
            break;
        }
    }
    return {};
}

}  // namespace postrider::sink
