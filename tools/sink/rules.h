// Misbehaviour by rule: where (a point of the dialogue and a pattern), what (an action), how often.
//
//   rcpt=*@busy.test reply="451 4.7.1 greylisted" times=1 per=address
//   dot=*@lost.test action=close
//   connect=127.0.1.3 limit=10 reply="421 4.7.0 too many connections"
//   domain=slow.test action=slow
//
// Points: connect (pattern over the local address, the MX), ehlo (name), starttls (local address), mail
// (reverse-path), rcpt (forward-path), data and dot (any accepted recipient; `dot` is also BDAT LAST), rset and
// quit (helo name). `domain=` alone acts at RCPT; beside data or dot it is a second condition, on the domain of a
// recipient. Patterns know `*` and `?` and ignore case.
// Actions: reply (default when `reply=` is given), close (FIN, unanswered), reset (RST), hang (reads, answers no
// more), slow (1 octet a second from here), reply-split (1 octet per send), close-after-reply, garbage (a line that
// is no reply goes before it). `reply=` changes the words of all but close, reset and hang; "\n" in it begins a
// further line of a multi-line reply.
// How often: after=N skips the first N matches, times=N acts at most N times, per=all|connection|address counts
// them together or apart, probability=p acts by chance from the seed. The first rule that acts wins.
//
// Rules are shared by the workers and guarded by one mutex; a point without rules costs one bit test.
#pragma once

#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/core/result.h"

namespace postrider::sink {

enum class Point : uint8_t { connect, ehlo, starttls, mail, rcpt, data, dot, rset, quit };
inline constexpr size_t kPoints = 9;

enum class Action : uint8_t {
    none, reply, close, reset, hang, slow, reply_split, close_after_reply, garbage
};

enum class Per : uint8_t { all, connection, address };

struct Rule {
    Point point = Point::rcpt;
    std::string pattern = "*";
    std::string domain;          // second condition, empty: none
    Action action = Action::none;
    std::string reply;           // without final CRLF, lines joined by "\r\n"; empty: the usual reply
    uint64_t after = 0;
    uint64_t times = UINT64_MAX;
    Per per = Per::all;
    double probability = 1.0;
    uint32_t limit = 0;          // connect only: acts when more connections than this are open there
};

// One line of the command line's form.
Result<Rule> parse_rule(std::string_view text);
// [[rule]] tables of a TOML text with the same keys.
Result<std::vector<Rule>> parse_rules_toml(std::string_view text, std::string_view name);

bool glob_match(std::string_view pattern, std::string_view text);

// What to do at a point; `reply` is empty for the usual reply.
struct Verdict {
    Action action = Action::none;
    std::string reply;
};

class RuleSet {
  public:
    RuleSet(std::vector<Rule> rules, uint64_t seed);

    bool has(Point point) const { return (points_ >> static_cast<unsigned>(point)) & 1; }
    bool has_limits() const { return has_limits_; }

    // `subjects` are what the pattern is tried on (any may match); `open_here` counts the connections open on
    // the local address, this one included.
    Verdict match(Point point, const std::vector<std::string_view>& subjects, uint64_t connection,
                  uint32_t open_here = 0);

  private:
    struct Counted {
        Rule rule;
        std::unordered_map<std::string, uint64_t> seen;
    };
    bool acts(Counted& counted, std::string_view subject, uint64_t connection);

    std::mutex mutex_;
    std::vector<Counted> rules_;
    std::mt19937_64 random_;
    uint32_t points_ = 0;
    bool has_limits_ = false;
};

}  // namespace postrider::sink
