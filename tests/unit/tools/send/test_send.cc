// `postrider send`: what lands in the spool, and what does not. Files are read back by the engine's
// own parser.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/queue/formats/recorder.h"
#include "tests/unit/tools/send/spool_fixture.h"
#include "tools/send.h"

namespace postrider {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kMessage =
    "From: f@a.test\r\nTo: t@b.test\r\nSubject: x\r\n\r\n.\r\nbody\r\n";

class Send : public SpoolFixture {
  protected:
    // Standard input is the message; returns the exit code.
    int send(std::vector<std::string> arguments, std::string_view message = kMessage) {
        return run(run_send, "send", std::move(arguments), message);
    }
    Recorder queued() {
        const auto files = spooled();
        EXPECT_THAT(files, SizeIs(1));
        return files.empty() ? Recorder{} : parse<EmlParser>(files.front().text);
    }
    void expect_refused(int code, int wanted, std::string_view why) {
        EXPECT_EQ(code, wanted) << error_;
        EXPECT_THAT(error_, HasSubstr(why));
        EXPECT_TRUE(error_.starts_with("postrider send: ")) << error_;
        EXPECT_EQ(std::ranges::count(error_, '\n'), 1) << error_;
        EXPECT_THAT(spooled(), IsEmpty());
        EXPECT_THAT(names_in("tmp"), IsEmpty()) << "nothing half-written stays";
    }
};

TEST_F(Send, QueuesForTheRecipientsNamed) {
    ASSERT_EQ(send({"--spool",      spool_,
                    "-i",           "-oi",
                    "-f",           "bounce@a.test",
                    "--campaign",   "spring",
                    "--tenant",     "t",
                    "--priority",   "high",
                    "--pool",       "p",
                    "--job",        "j",
                    "--envid",      "e=1",
                    "--not-before", "1795456800",
                    "r1@b.test",    "R <r2@c.test>, \"q q\"@d.test"}),
              0)
        << error_;
    EXPECT_EQ(output_, spooled().at(0).name + "\n");
    const Recorder r = queued();
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    const Recorded& m = r.messages[0];
    EXPECT_EQ(m.envelope.sender, "bounce@a.test");
    EXPECT_THAT(m.recipients, ElementsAre("r1@b.test", "r2@c.test", "\"q q\"@d.test"));
    EXPECT_EQ(m.envelope.campaign, "spring");
    EXPECT_EQ(m.envelope.tenant, "t");
    EXPECT_EQ(m.envelope.priority, Priority::high);
    EXPECT_EQ(m.envelope.pool, "p");
    EXPECT_EQ(m.envelope.job, "j");
    EXPECT_EQ(m.envelope.envid, "e+3D1");
    EXPECT_EQ(m.envelope.not_before_s, 1'795'456'800);
    EXPECT_EQ(cut_out(spooled()[0].text, m.content.stored), kMessage) << "a dot line ends nothing";
    EXPECT_THAT(names_in("tmp"), IsEmpty());
}

TEST_F(Send, TakesRecipientsFromTheHeaderAndHidesBcc) {
    ASSERT_EQ(send({"-t", "--spool", spool_, "--json", "extra@e.test"},
                   "Return-Path: <bounce@a.test>\nFrom: f@a.test\nTo: A <a@b.test>, b@b.test\nCc: "
                   "c@c.test\n"
                   "Bcc: h1@d.test,\n h2@d.test\nSubject: x\n\nb\n"),
              0)
        << error_;
    const auto line = nlohmann::json::parse(output_);
    EXPECT_EQ(line["file"], spooled().at(0).name);
    EXPECT_EQ(line["recipients"], 6);
    EXPECT_EQ(line["size"], spooled()[0].text.size());
    const Recorder r = queued();
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_EQ(r.messages[0].envelope.sender, "bounce@a.test");
    EXPECT_THAT(r.messages[0].recipients, ElementsAre("extra@e.test", "a@b.test", "b@b.test",
                                                      "c@c.test", "h1@d.test", "h2@d.test"));
    EXPECT_EQ(cut_out(spooled()[0].text, r.messages[0].content.stored),
              "From: f@a.test\nTo: A <a@b.test>, b@b.test\nCc: c@c.test\nSubject: x\n\nb\n");
}

TEST_F(Send, EachRecipientOnce) {
    ASSERT_EQ(send({"-t", "--spool", spool_, "--json", "a@b.test", "A@b.test", "a@B.TEST", "x@y.test, x@Y.test."},
                   "From: f@a.test\nTo: a@b.Test, \"a\"@b.test\nCc: x@y.test\n\nb\n"),
              0)
        << error_;
    EXPECT_THAT(queued().messages.at(0).recipients,
                ElementsAre("a@b.test", "A@b.test", "x@y.test", "\"a\"@b.test"));
    EXPECT_EQ(nlohmann::json::parse(output_)["recipients"], 4);
}

TEST_F(Send, HidesResentBcc) {
    ASSERT_EQ(send({"--spool", spool_, "r@b.test"}, "Resent-Bcc: h@d.test,\n h2@d.test\nFrom: f@a.test\n\nb\n"), 0) << error_;
    EXPECT_EQ(cut_out(spooled()[0].text, queued().messages.at(0).content.stored), "From: f@a.test\n\nb\n");
}

TEST_F(Send, NullSenderAndSenderFromTheHeader) {
    ASSERT_EQ(send({"--spool", spool_, "-f", "<>", "r@b.test"}), 0) << error_;
    EXPECT_EQ(queued().messages.at(0).envelope.sender, "");
    clear();
    ASSERT_EQ(send({"--spool", spool_, "-f", "", "r@b.test"}), 0) << error_;
    EXPECT_EQ(queued().messages.at(0).envelope.sender, "");
    clear();
    ASSERT_EQ(send({"--spool", spool_, "r@b.test"}), 0) << error_;
    EXPECT_EQ(queued().messages.at(0).envelope.sender, "f@a.test");
}

TEST_F(Send, FilesAreQueuedOneEach) {
    write_file("one.eml", kMessage);
    write_file("two.eml", std::string("From: f@a.test\n\n") +
                              std::string(3'000'000, 'x').replace(500, 1, "\n"));
    ASSERT_EQ(send({"--spool", spool_, "r@b.test", "--eml", path("one.eml"), path("one.eml")}), 0)
        << error_;
    EXPECT_THAT(spooled(), SizeIs(2));
    clear();
    expect_refused(send({"--spool", spool_, "r@b.test", "--eml", path("two.eml")}), 1,
                   "a line over 998 octets");
    expect_refused(send({"--spool", spool_, "r@b.test", "--eml", path("none.eml")}), 1,
                   "No such file");
}

TEST_F(Send, EachFileIsTriedAndEachFailureTold) {
    write_file("one.eml", kMessage);
    write_file("bad.eml", "From: f@a.test\n\na\rb\n");
    EXPECT_EQ(send({"--spool", spool_, "r@b.test", "--eml", path("bad.eml"), path("one.eml"), path("none.eml"), "-"}), 1);
    ASSERT_THAT(spooled(), SizeIs(2));
    EXPECT_EQ(output_, spooled()[0].name + "\n" + spooled()[1].name + "\n");
    EXPECT_EQ(std::ranges::count(error_, '\n'), 2) << error_;
    EXPECT_THAT(error_, HasSubstr(path("bad.eml") + ": line 3"));
    EXPECT_THAT(error_, HasSubstr(path("none.eml") + ": No such file"));
    EXPECT_THAT(names_in("tmp"), IsEmpty());
}

TEST_F(Send, ALargeMessageStreams) {
    std::string message = "From: f@a.test\n\n";
    while (message.size() < 30'000'000) message += std::string(75, 'x') + "\n";
    write_file("big.eml", message);
    ASSERT_EQ(send({"--spool", spool_, "r@b.test", "--eml", path("big.eml")}), 0) << error_;
    const Recorder r = queued();
    ASSERT_THAT(r.messages, SizeIs(1)) << r.error;
    EXPECT_EQ(cut_out(spooled()[0].text, r.messages[0].content.stored), message);
}

TEST_F(Send, RefusesInjectionThroughAddressesAndOptions) {
    for (const std::string bad : {"r@b.test\r\nx-receiver: evil@e.test", "r@b.test\n", "\r"}) {
        expect_refused(send({"--spool", spool_, bad}), 2, "CR, LF or NUL");
        expect_refused(send({"--spool", spool_, "-f", bad, "r@b.test"}), 2, "-f: ");
        expect_refused(send({"--spool", spool_, "--campaign", "c" + bad, "r@b.test"}), 2,
                       "--campaign: ");
    }
}

TEST_F(Send, AMessageCannotProlongItsEnvelope) {
    expect_refused(
        send({"--spool", spool_, "r@b.test"}, "x-receiver: evil@e.test\nFrom: f@a.test\n\nb\n"), 1,
        "line 1");
    expect_refused(send({"--spool", spool_, "r@b.test"}, "X-Campaign: c\nFrom: f@a.test\n\nb\n"), 1,
                   "line 1");
    expect_refused(
        send({"--spool", spool_, "r@b.test"}, "From: f@a.test\nX-Receiver: e@e.test\n\nb\n"), 1,
        "x-receiver");
    // What a removed field leaves first must not become part of the block either.
    expect_refused(send({"--spool", spool_, "r@b.test"},
                        "Bcc: h@d.test\nx-receiver: e@e.test\nFrom: f@a.test\n\nb\n"),
                   1, "line 1: \"x-receiver\"");
    expect_refused(
        send({"--spool", spool_, "r@b.test"}, "Bcc: h@d.test\nX-Pool: e\nFrom: f@a.test\n\nb\n"), 1,
        "line 1: \"X-Pool\" as the first line of the header is a line of the envelope");
}

TEST_F(Send, UsageErrorsAreOneLine) {
    expect_refused(send({"--spool", spool_}), 2, "no recipient");
    expect_refused(send({"--spool", spool_, "nobody"}), 2, "nobody");
    expect_refused(send({"--spool", spool_, "r@b.test", "--priority", "urgent"}), 2, "--priority");
    expect_refused(send({"--spool", spool_, "r@b.test", "--not-before", "soon"}), 2,
                   "--not-before");
    expect_refused(send({"--spool", spool_, "--nonsense", "r@b.test"}), 2, "nonsense");
    expect_refused(send({"--config", path("none.toml"), "r@b.test"}), 2, "none.toml");
    expect_refused(send({"-t", "--spool", spool_}, "From: f@a.test\n\nb\n"), 1, "no recipient");
    expect_refused(send({"-t", "--spool", spool_}, "From: f@a.test\nTo: nobody\n\nb\n"), 1,
                   "nobody");
    expect_refused(send({"--spool", spool_, "r@b.test"}, "Subject: x\n\nb\n"), 1, "no sender");
    expect_refused(send({"--spool", spool_, "r@b.test"}, "Subject: x\nFrom: me\n\nb\n"), 1, "line 2: From has no usable address");
    expect_refused(send({"--spool", spool_, "r@b.test"}, "Sender:\nFrom: f@a.test\n\nb\n"), 1, "Sender has no usable address");
    expect_refused(send({"--spool", spool_, "not an address"}), 2, "recipient \"not an address\"");
    expect_refused(send({"--spool", spool_, "-f", "f@a.test", "r@b.test"}, ""), 1, "the message is empty");
    expect_refused(send({"--spool", spool_, "r@b.test"}, ""), 1, "the message is empty");
    expect_refused(send({"-t", "--spool", spool_}, ""), 1, "the message is empty");
    EXPECT_EQ(send({"--spool", path("no/such/folder"), "r@b.test"}), 1);
    EXPECT_THAT(error_, HasSubstr("make it: mkdir -p " + path("no/such/folder")));
}

TEST_F(Send, ContentTheIntakeWouldRefuseIsRefusedHere) {
    const std::string head = "From: f@a.test\n\n";
    expect_refused(send({"--spool", spool_, "r@b.test"}, head + "a\rb\n"), 1, "a CR without LF");
    expect_refused(send({"--spool", spool_, "r@b.test"}, head + std::string("a\0b\n", 4)), 1,
                   "a NUL");
    expect_refused(send({"--spool", spool_, "r@b.test"}, "Bcc: h@d.test\nReturn-Path: <f@a.test>\n"), 1, "empty");
}

TEST_F(Send, ABccOfAnyLengthIsTaken) {
    std::string bcc = "Bcc: a@d.test";
    for (int i = 0; i < 200; ++i) bcc += ", r" + std::to_string(i) + "@d.test";
    ASSERT_EQ(send({"--spool", spool_, "-t"}, bcc + "\nFrom: f@a.test\n\nb\n"), 0) << error_;
    EXPECT_THAT(queued().messages.at(0).recipients, SizeIs(201));
    clear();
    expect_refused(send({"--spool", spool_, "-t"}, bcc + "\nFrom: f@a.test\n\nb\rc\n"), 1, "line 4, ");
}

// The envelope block that send puts in front, and the Bcc that it leaves out, are not the user's lines.
TEST_F(Send, LinesAndOffsetsAreThoseOfTheMessage) {
    const std::string message = "Bcc: h@d.test\nFrom: f@a.test\n\na\nb\rc\n";
    expect_refused(send({"--spool", spool_, "--campaign", "spring", "r@b.test", "s@b.test"}, message), 1,
                   fmt::format("line 5, offset {}: ", message.find('\r')));
}

// Root may write anywhere: it becomes somebody else for the command.
int send_as_another_user(int argc, char** argv) {
    constexpr uid_t kNobody = 65'534;
    const uid_t before = geteuid();
    const mode_t mask = umask(077);
    const bool root = before == 0 && setegid(kNobody) == 0 && seteuid(kNobody) == 0;
    const int code = run_send(argc, argv);
    if (root && (seteuid(before) != 0 || setegid(0) != 0)) std::abort();
    umask(mask);
    return code;
}

TEST_F(Send, AMissingPermissionIsToldWithItsMend) {
    std::filesystem::permissions(folder_, std::filesystem::perms{0755});
    for (const char* folder : {"/tmp", "/new"}) {
        std::filesystem::create_directory(spool_ + folder);
        std::filesystem::permissions(spool_ + folder, std::filesystem::perms{0500});
        EXPECT_EQ(run(send_as_another_user, "send", {"--spool", spool_, "r@b.test"}, kMessage), 1);
        EXPECT_THAT(error_, HasSubstr("Permission denied"));
        EXPECT_THAT(error_, HasSubstr("chmod 3770 " + spool_ + "/tmp " + spool_ + "/new (docs/spool.md)"));
        EXPECT_EQ(std::ranges::count(error_, '\n'), 1) << error_;
        std::filesystem::permissions(spool_ + folder, std::filesystem::perms{0777});
    }
    EXPECT_THAT(names_in("tmp"), IsEmpty());
}

TEST_F(Send, WhatAnotherUserWritesTheGroupMayRead) {
    if (geteuid() != 0) GTEST_SKIP() << "needs two users";
    std::filesystem::permissions(folder_, std::filesystem::perms{0755});
    for (const char* folder : {"/tmp", "/new"}) {
        std::filesystem::create_directory(spool_ + folder);
        std::filesystem::permissions(spool_ + folder, std::filesystem::perms{03777});
    }
    ASSERT_EQ(run(send_as_another_user, "send", {"--spool", spool_, "r@b.test"}, kMessage), 0) << error_;
    struct stat st{};
    ASSERT_EQ(stat((spool_ + "/new/" + spooled().at(0).name).c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0640u);
    EXPECT_EQ(st.st_gid, 0u) << "the folder hands its group on";
}

TEST_F(Send, FindsTheSpoolInTheConfiguration) {
    write_file("p.toml", "[server]\nhostname = \"mail.example.test\"\nspool = \"spool\"\n");
    ASSERT_EQ(send({"--config", path("p.toml"), "r@b.test"}), 0) << error_;
    EXPECT_THAT(spooled(), SizeIs(1));
}

TEST_F(Send, HelpHasAnExample) {
    EXPECT_EQ(send({"--help"}), 0);
    EXPECT_THAT(output_, HasSubstr("Example:"));
}

}  // namespace
}  // namespace postrider
