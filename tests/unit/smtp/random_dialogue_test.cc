// Random sessions against an honest host that keeps the truth: who was given a message, and the reply that decided
// each recipient. Replies come late, transactions overlap, the connection breaks anywhere. Whatever happens, no
// delivery is invented, no delivery is forgotten without its flag, and the client stays legal.
#include <deque>
#include <random>

#include "tests/unit/smtp/dialogue.h"

namespace postrider {
namespace {

// One thing on the way to the host: a command line, or a content with its end.
struct Item {
    std::string line;
    bool content = false;
};

class Host {
  public:
    explicit Host(std::mt19937& random, int refusals_percent)
        : random_(random), refusals_percent_(refusals_percent) {}

    // Appends the reply, if this item has one.
    void take(const Item& item, std::deque<std::string>& replies) {
        if (closed_) return;
        if (item.content) return end_of_content(replies);
        const std::string& line = item.line;
        if (line == ".") return end_of_content(replies);
        if (line == "RSET") {
            open_ = false;
            accepted_.clear();
            return answer(replies, "250 2.0.0 reset");
        }
        if (line.starts_with("MAIL")) return mail(replies);
        if (line.starts_with("RCPT")) return rcpt(line.substr(9, line.size() - 10), replies);
        if (line == "DATA") return data(replies);
        ASSERT_TRUE(line.starts_with("BDAT")) << line;
        ASSERT_FALSE(in_data_);
        in_bdat_ = true;  // answered at the end of the chunk
    }

    bool closed() const { return closed_; }

    std::map<std::string, int> delivered;  // messages given to an address
    std::map<std::string, int> decided;    // code of the last reply that decided an address
    std::set<std::string> refused_for_good;
    std::set<int> mail_refusals;  // codes: the host never learns whom a refused MAIL was for

  private:
    bool refuses() { return static_cast<int>(random_() % 100) < refusals_percent_; }

    void answer(std::deque<std::string>& replies, const std::string& reply) {
        replies.push_back(reply + "\r\n");
    }

    // A random refusal; 421 closes.
    std::string refusal() {
        static const char* const kinds[] = {"450 4.2.1 later", "451-4.3.0 not\r\n451 4.3.0 now", "550 5.1.1 no",
                                            "554 5.7.1 policy", "421 4.3.2 bye"};
        const std::string reply = kinds[random_() % (random_() % 4 == 0 ? 5 : 4)];
        closed_ = reply.starts_with("421");
        return reply;
    }

    void decide(const std::string& address, const std::string& reply) {
        decided[address] = std::stoi(reply);
        if (reply.starts_with('5')) refused_for_good.insert(address);
    }

    void mail(std::deque<std::string>& replies) {
        EXPECT_FALSE(open_) << "MAIL inside an open transaction: RSET is missing";
        EXPECT_FALSE(in_data_ || in_bdat_);
        accepted_.clear();
        mail_refusal_.clear();
        if (refuses()) {
            mail_refusal_ = refusal();
            mail_refusals.insert(std::stoi(mail_refusal_));
            return answer(replies, mail_refusal_);
        }
        open_ = true;
        answer(replies, "250 2.1.0 ok");
    }

    void rcpt(const std::string& address, std::deque<std::string>& replies) {
        if (!open_) {
            decide(address, mail_refusal_);
            return answer(replies, "503 5.5.1 MAIL first");
        }
        std::string reply = "250 2.1.5 ok";
        if (refuses()) {
            reply = random_() % 4 == 0 ? "452 4.5.3 too many" : refusal();
            decide(address, reply);
        } else {
            accepted_.push_back(address);
        }
        answer(replies, reply);
    }

    void data(std::deque<std::string>& replies) {
        const bool nobody = accepted_.empty();
        if (nobody && (!open_ || random_() % 2 == 0)) return answer(replies, "503 5.5.1 RCPT first");
        if (!nobody && refuses()) {
            const std::string reply = refusal();
            for (const auto& address : accepted_) decide(address, reply);
            return answer(replies, reply);
        }
        in_data_ = true;
        answer(replies, "354 go");
    }

    void end_of_content(std::deque<std::string>& replies) {
        ASSERT_TRUE(in_data_ || in_bdat_) << "content out of place";
        const bool chunk = in_bdat_;
        in_data_ = in_bdat_ = false;
        if (accepted_.empty()) {
            if (!chunk) open_ = false;
            return answer(replies, "554 5.5.1 no valid recipients");
        }
        const std::string reply = refuses() ? refusal() : "250 2.6.0 taken";
        for (const auto& address : accepted_) {
            decide(address, reply);
            delivered[address] += reply.starts_with("250");
        }
        // RFC 3030 2: after a refused chunk only RSET leaves the transaction.
        open_ = chunk && !reply.starts_with("250");
        accepted_.clear();
        answer(replies, reply);
    }

    std::mt19937& random_;
    int refusals_percent_;
    bool open_ = false;
    bool in_data_ = false;
    bool in_bdat_ = false;
    bool closed_ = false;
    std::string mail_refusal_;
    std::vector<std::string> accepted_;
};

// One session with overlapping transactions, as the connection's coroutine would run it.
class Client {
  public:
    Client(std::mt19937& random, Host& host, Dialogue dialogue, int break_permille)
        : random_(random), host_(host), dialogue_(dialogue), break_permille_(break_permille) {
        capabilities_.pipelining = dialogue != Dialogue::none;
        capabilities_.chunking = dialogue == Dialogue::bdat;
        depth_ = dialogue == Dialogue::bdat ? random() % 4 + 1 : 1;
    }

    void run(size_t messages) {
        for (size_t i = 0; i < messages; ++i) fill(i);
        while (true) {
            if (!ended_ && may_begin()) begin_next();
            if (ended_ || (wire_.empty() && replies_.empty())) break;
            if (static_cast<int>(random_() % 1000) < break_permille_) break;
            const bool host_acts = replies_.empty() || (!wire_.empty() && random_() % 2 == 0);
            if (host_acts && !wire_.empty()) {
                host_.take(wire_.front(), replies_);
                wire_.pop_front();
                if (host_.closed()) wire_.clear();
            } else if (!replies_.empty()) {
                take_reply();
            }
        }
        // What is on the way may still arrive, and be taken, unseen by the client.
        for (size_t n = random_() % (wire_.size() + 1); n > 0; --n) {
            host_.take(wire_.front(), replies_);
            wire_.pop_front();
        }
        for (size_t i = 0; i < begun_; ++i) transactions_[i].on_session_lost(Trouble::lost);
    }

    size_t begun() const { return begun_; }
    const Transaction& transaction(size_t index) const { return transactions_.at(index); }
    bool handed(size_t index) const { return handed_.contains(index); }

  private:
    void fill(size_t index) {
        Transaction& transaction = transactions_[index];
        transaction.reset();
        transaction.set_message("s@sender.test", {});
        for (unsigned n = random_() % 4 + 1; n > 0; --n)
            transaction.add_recipient(1, "r" + std::to_string(index) + "." + std::to_string(n) + "@x.test");
        messages_ = index + 1;
    }

    size_t first_undone() const {
        size_t index = 0;
        while (index < begun_ && transactions_.at(index).done()) ++index;
        return index;
    }

    bool may_begin() const {
        if (begun_ == messages_) return false;
        const size_t flying = begun_ - first_undone();
        return flying < depth_ || (dialogue_ == Dialogue::message && next_wanted_ && flying < 2);
    }

    void begin_next() {
        BeginOptions options;
        options.reused_session = begun_ > 0;
        options.reset_first = dirty_ || (dialogue_ == Dialogue::bdat && first_undone() < begun_);
        dirty_ = next_wanted_ = false;
        const size_t index = begun_++;
        obey(index, transactions_[index].begin(capabilities_, dialogue_, options, out_));
    }

    void take_reply() {
        const size_t index = first_undone();
        ASSERT_LT(index, begun_) << "a reply for nobody";
        const auto step = transactions_[index].on_reply(reply_of(replies_.front()), out_);
        replies_.pop_front();
        obey(index, step);
    }

    void obey(size_t index, Transaction::Step step) {
        flush();
        switch (step) {
            case Transaction::Step::send_content:
                if (static_cast<int>(random_() % 1000) < break_permille_) {
                    ended_ = true;  // broken in the middle of the content
                    return;
                }
                transactions_[index].content_handed_over();
                handed_.insert(index);
                wire_.push_back({"", true});
                next_wanted_ = true;
                break;
            case Transaction::Step::done_reset_first:
                dirty_ = first_undone() == begun_;  // else the next has its RSET already
                if (!dirty_) EXPECT_TRUE(transactions_[first_undone()].begins_with_reset());
                break;
            case Transaction::Step::end_session: ended_ = true; break;
            default: break;
        }
    }

    void flush() {
        size_t end = 0;
        while ((end = out_.find("\r\n")) != std::string::npos) {
            wire_.push_back({out_.substr(0, end), false});
            out_.erase(0, end + 2);
        }
        ASSERT_EQ(out_, "");
    }

    std::mt19937& random_;
    Host& host_;
    Dialogue dialogue_;
    int break_permille_;
    Capabilities capabilities_;
    size_t depth_ = 1;
    std::map<size_t, Transaction> transactions_;
    std::set<size_t> handed_;
    std::deque<Item> wire_;
    std::deque<std::string> replies_;
    std::string out_;
    size_t messages_ = 0;
    size_t begun_ = 0;
    bool dirty_ = false;
    bool next_wanted_ = false;
    bool ended_ = false;
};

void check(const Outcome& outcome, const std::string& address, const Host& host, bool handed) {
    const auto found = host.delivered.find(address);
    const int delivered = found == host.delivered.end() ? 0 : found->second;
    EXPECT_LE(delivered, 1);
    const std::string kind = name_of(outcome.kind) + " " + std::to_string(outcome.code) + " " + outcome.text;
    if (outcome.kind == OutcomeKind::delivered) EXPECT_EQ(delivered, 1) << kind;
    if (delivered == 1) {
        EXPECT_TRUE(outcome.kind == OutcomeKind::delivered || outcome.kind == OutcomeKind::ambiguous) << kind;
    }
    if (outcome.kind == OutcomeKind::ambiguous) EXPECT_TRUE(handed) << kind;
    if (!outcome.local && outcome.phase == Phase::mail) {
        EXPECT_TRUE(host.mail_refusals.contains(outcome.code)) << kind;
        return;
    }
    if (outcome.kind == OutcomeKind::bounced) EXPECT_TRUE(host.refused_for_good.contains(address)) << kind;
    if (!outcome.local && outcome.code != 421 && outcome.kind != OutcomeKind::requeued) {
        ASSERT_TRUE(host.decided.contains(address)) << kind;
        EXPECT_EQ(outcome.code, host.decided.at(address)) << kind;
    }
}

TEST(RandomDialogue, NoDeliveryIsInventedOrForgotten) {
    std::map<std::string, size_t> kinds;
    for (unsigned seed = 0; seed < 40'000 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        std::mt19937 random(seed);
        Host host(random, random() % 3 == 0 ? 30 : 5);
        const auto dialogue = static_cast<Dialogue>(random() % 4);
        Client client(random, host, dialogue, random() % 2 == 0 ? 0 : 20);
        client.run(random() % 6 + 1);
        for (size_t i = 0; i < client.begun(); ++i) {
            const Transaction& transaction = client.transaction(i);
            ASSERT_TRUE(transaction.done());
            for (size_t r = 0; r < transaction.size(); ++r) {
                check(transaction.outcome(r), std::string(transaction.address(r)), host, client.handed(i));
                ++kinds[name_of(transaction.outcome(r).kind)];
            }
        }
    }
    for (const char* kind : {"delivered", "transient", "bounced", "ambiguous", "requeued"})
        EXPECT_GT(kinds[kind], 1'000U) << "the dialogues must reach every fate";
}

// A host that answers anything to anything: every dialogue ends, everyone is settled, and only a 2xx behind the
// whole content delivers.
TEST(RandomDialogue, AnInsaneHostNeverHangsOrDeliversByAccident) {
    const char* const replies[] = {"250 ok\r\n", "354 go\r\n", "220 hi\r\n", "221 bye\r\n", "421 bye\r\n", "450 no\r\n",
                                   "503 no\r\n", "550 no\r\n", "452 many\r\n", "299 x\r\n", "399 x\r\n"};
    size_t delivered = 0;
    for (unsigned seed = 0; seed < 50'000; ++seed) {
        std::mt19937 random(seed);
        Transaction transaction;
        transaction.set_message("s@sender.test", {});
        for (unsigned n = random() % 4 + 1; n > 0; --n)
            transaction.add_recipient(n, "r" + std::to_string(n) + "@x.test");
        Capabilities host;
        host.pipelining = host.chunking = true;
        const BeginOptions options{random() % 2 == 0, random() % 2 == 0};
        std::string out;
        auto step = transaction.begin(host, static_cast<Dialogue>(random() % 4), options, out);
        bool handed = false;
        int last = 0;
        for (int turn = 0; turn < 20 && !transaction.done(); ++turn) {
            if (step == Transaction::Step::send_content && random() % 8 != 0) {
                transaction.content_handed_over();
                handed = true;
            }
            const Reply reply = reply_of(replies[random() % 3 == 0 ? random() % std::size(replies) : random() % 2]);
            last = reply.code;
            step = transaction.on_reply(reply, out);
        }
        ASSERT_TRUE(transaction.done()) << "seed " << seed;
        for (size_t i = 0; i < transaction.size(); ++i) {
            if (transaction.outcome(i).kind != OutcomeKind::delivered) continue;
            ++delivered;
            ASSERT_TRUE(handed && (last == 250 || last == 299)) << "seed " << seed;
        }
    }
    EXPECT_GT(delivered, 100U);
}

}  // namespace
}  // namespace postrider
