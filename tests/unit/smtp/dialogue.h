// Dialogues as readable scripts. A script is lines of:
//
//   host PIPELINING SIZE=1000 ...   what EHLO offers (default: PIPELINING CHUNKING 8BITMIME)
//   message N rcpt...               transaction N to these recipients; an angle-free word `dsn:NOTIFY=...` belongs to the
//                                   recipient before it
//   facts N size=9 8bit utf8 full envid=x
//   sender N path                   (default s@sender.test)
//   begin N none|group|message|bdat [reused] [reset]
//   > COMMAND                       the next line the transactions have written
//   < reply line                    one line from the host; a finished reply goes to the first begun, undone one
//   = step                          what the last call answered
//   handed N                        the last octet of content is handed over
//   lost TROUBLE [detail]           the connection broke: every begun, undone transaction is told
//   awaits PHASE                    the words of the timeout that runs now
//   @ rcpt kind code [enhanced]     the outcome
//
// Every written line must be expected, every transaction done, every outcome of its recipients named.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "engine/smtp/transaction.h"

namespace postrider {

inline std::string name_of(OutcomeKind kind) {
    switch (kind) {
        case OutcomeKind::delivered: return "delivered";
        case OutcomeKind::transient: return "transient";
        case OutcomeKind::bounced: return "bounced";
        case OutcomeKind::ambiguous: return "ambiguous";
        case OutcomeKind::requeued: return "requeued";
    }
    return "?";
}

inline std::string name_of(Transaction::Step step) {
    switch (step) {
        case Transaction::Step::need_reply: return "need_reply";
        case Transaction::Step::send_more: return "send_more";
        case Transaction::Step::send_content: return "send_content";
        case Transaction::Step::send_dot_only: return "send_dot_only";
        case Transaction::Step::done: return "done";
        case Transaction::Step::done_reset_first: return "done_reset_first";
        case Transaction::Step::end_session: return "end_session";
    }
    return "?";
}

inline std::string text_of(const EnhancedCode& code) {
    if (!code.present()) return "";
    return std::to_string(code.class_) + "." + std::to_string(code.subject) + "." +
           std::to_string(code.detail);
}

// The reply made of these lines, which must be one.
inline Reply reply_of(std::string_view octets) {
    ReplyParser parser;
    const auto progress = parser.feed(octets);
    EXPECT_EQ(progress.state, ReplyState::complete) << octets;
    return parser.reply();
}

class Script {
  public:
    explicit Script(const std::string& text) {
        set_host("PIPELINING CHUNKING 8BITMIME");
        std::istringstream lines(text);
        std::string line;
        while (std::getline(lines, line)) {
            const size_t begin = line.find_first_not_of(' ');
            if (begin == std::string::npos) continue;
            SCOPED_TRACE(line);
            play(line.substr(begin));
        }
        finish();
    }

    Transaction& transaction(int number) { return transactions_[number]; }

  private:
    void play(const std::string& line) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb == "host") return set_host(line.substr(4));
        if (verb == ">") return expect_command(line.substr(2));
        if (verb == "<") return reply(line.substr(2));
        if (verb == "=") {
            std::string step;
            words >> step;
            EXPECT_EQ(name_of(step_), step);
            return;
        }
        if (verb == "awaits") {
            Transaction* to = current();
            ASSERT_NE(to, nullptr);
            EXPECT_EQ(postrider::name_of(to->awaits()), line.substr(7));
            return;
        }
        if (verb == "lost") return lost(words);
        if (verb == "@") return outcome(words);
        int number = 0;
        words >> number;
        Transaction& to = transactions_[number];
        if (verb == "message") return message(to, words);
        if (verb == "facts") return facts(to, number, words);
        if (verb == "sender") {
            words >> senders_[number];
            to.set_message(senders_[number], facts_[number]);
            return;
        }
        if (verb == "begin") return begin(to, number, words);
        if (verb == "handed") return to.content_handed_over();
        FAIL() << "no such line in a script: " << line;
    }

    void set_host(const std::string& keywords) {
        std::istringstream words(keywords);
        std::string ehlo = "250-mx.test";
        std::string word;
        while (words >> word) {
            const size_t equals = word.find('=');
            if (equals != std::string::npos) word[equals] = ' ';
            ehlo += "\r\n250-" + word;
        }
        const size_t last = ehlo.rfind("250-");
        ehlo[last + 3] = ' ';
        host_ = parse_capabilities(reply_of(ehlo + "\r\n"));
    }

    void message(Transaction& to, std::istringstream& words) {
        to.reset();
        to.set_message("s@sender.test", {});
        std::string word;
        std::vector<std::pair<std::string, std::string>> recipients;
        while (words >> word) {
            if (word.starts_with("dsn:")) {
                std::string& dsn = recipients.back().second;
                dsn += (dsn.empty() ? "" : " ") + word.substr(4);
            } else {
                recipients.emplace_back(word, "");
            }
        }
        for (const auto& [address, dsn] : recipients) to.add_recipient(7, address, dsn);
    }

    void facts(Transaction& to, int number, std::istringstream& words) {
        MessageFacts facts;
        std::string word;
        while (words >> word) {
            if (word.starts_with("size=")) facts.wire_size = std::stoull(word.substr(5));
            if (word == "8bit") facts.eight_bit = true;
            if (word == "utf8") facts.smtputf8 = true;
            if (word == "full") facts.ret = DsnReturn::full;
            if (word == "headers") facts.ret = DsnReturn::headers;
            if (word.starts_with("envid=")) envids_[number] = word.substr(6);
        }
        facts.envid = envids_[number];
        facts_[number] = facts;
        to.set_message(senders_.contains(number) ? senders_[number] : "s@sender.test", facts);
    }

    void begin(Transaction& to, int number, std::istringstream& words) {
        Dialogue dialogue = Dialogue::none;
        BeginOptions options;
        std::string word;
        while (words >> word) {
            if (word == "group") dialogue = Dialogue::group;
            if (word == "message") dialogue = Dialogue::message;
            if (word == "bdat") dialogue = Dialogue::bdat;
            if (word == "reused") options.reused_session = true;
            if (word == "reset") options.reset_first = true;
        }
        step_ = to.begin(host_, dialogue, options, out_);
        order_.push_back(number);
    }

    Transaction* current() {
        for (const int number : order_)
            if (!transactions_[number].done()) return &transactions_[number];
        return order_.empty() ? nullptr : &transactions_[order_.back()];
    }

    void expect_command(const std::string& command) {
        const size_t end = out_.find("\r\n");
        ASSERT_NE(end, std::string::npos) << "nothing was written";
        EXPECT_EQ(out_.substr(0, end), command);
        out_.erase(0, end + 2);
    }

    void reply(const std::string& line) {
        const auto progress = parser_.feed(line + "\r\n");
        ASSERT_NE(progress.state, ReplyState::bad);
        if (progress.state == ReplyState::partial) return;
        EXPECT_EQ(progress.consumed, line.size() + 2);
        Transaction* to = current();
        ASSERT_NE(to, nullptr);
        step_ = to->on_reply(parser_.reply(), out_);
    }

    void lost(std::istringstream& words) {
        std::string name;
        std::string detail;
        words >> name;
        std::getline(words >> std::ws, detail);
        for (size_t i = 0; i < kTroubleCount; ++i) {
            if (postrider::name_of(static_cast<Trouble>(i)) != name) continue;
            for (const int number : order_)
                transactions_[number].on_session_lost(static_cast<Trouble>(i), detail);
            return;
        }
        FAIL() << "no such trouble: " << name;
    }

    void outcome(std::istringstream& words) {
        std::string address;
        std::string expected;
        words >> address;
        std::getline(words >> std::ws, expected);
        for (auto& [number, transaction] : transactions_) {
            for (size_t i = 0; i < transaction.size(); ++i) {
                if (transaction.address(i) != address) continue;
                ASSERT_TRUE(transaction.done());
                const Outcome& outcome = transaction.outcome(i);
                std::string got = name_of(outcome.kind) + " " + std::to_string(outcome.code);
                if (outcome.enhanced.present()) got += " " + text_of(outcome.enhanced);
                EXPECT_EQ(got, expected);
                EXPECT_EQ(outcome.possible_duplicate, outcome.kind == OutcomeKind::ambiguous);
                EXPECT_EQ(transaction.record(i), 7U);
                named_.insert(address);
                return;
            }
        }
        FAIL() << "no such recipient";
    }

    void finish() {
        EXPECT_EQ(out_, "") << "written and not expected";
        for (auto& [number, transaction] : transactions_) {
            EXPECT_TRUE(transaction.done()) << "transaction " << number;
            EXPECT_EQ(transaction.replies_due(), 0U);
            for (size_t i = 0; i < transaction.size(); ++i)
                EXPECT_TRUE(named_.contains(std::string(transaction.address(i))))
                    << "no outcome named for " << transaction.address(i);
        }
    }

    Capabilities host_;
    std::map<int, Transaction> transactions_;
    std::map<int, std::string> senders_;
    std::map<int, std::string> envids_;
    std::map<int, MessageFacts> facts_;
    std::vector<int> order_;
    std::set<std::string> named_;
    ReplyParser parser_;
    std::string out_;
    Transaction::Step step_ = Transaction::Step::need_reply;
};

}  // namespace postrider
