#include "dns/dns_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/core/limits.h"
#include "message_builder.h"

namespace postrider {
namespace {

using namespace dns_test;
using Kind = DnsAnswer::Kind;
using testing::ElementsAre;
using testing::HasSubstr;
constexpr auto kMx = RecordType::mx;

TEST(DnsMessage, ReadsMxWithTheSmallestTtlAndInLowerCase) {
    const auto answer =
        parse_answer(MessageBuilder("example.test", kMx)
                         .answer("example.test", kMx, 600, mx_data(20, "MX2.Example.Test"))
                         .answer("EXAMPLE.test", kMx, 300, mx_data(10, "mx1.example.test")),
                     "example.test", kMx);
    EXPECT_EQ(answer.kind, Kind::records);
    EXPECT_EQ(answer.ttl_s, 300u);
    EXPECT_THAT(answer.mx,
                ElementsAre(MxHost{20, "mx2.example.test"}, MxHost{10, "mx1.example.test"}));
}

TEST(DnsMessage, ReadsCompressedNames) {
    Octets data = {0, 10, 3, 'm', 'x', '1', 0xC0, 12};  // mx1 + the question's name
    const auto answer =
        parse_answer(MessageBuilder("example.test", kMx).answer(Octets{0xC0, 12}, kMx, 60, data),
                     "example.test", kMx);
    EXPECT_THAT(answer.mx, ElementsAre(MxHost{10, "mx1.example.test"}));
}

TEST(DnsMessage, FollowsAliasesWithTheirTtls) {
    const auto answer =
        parse_answer(MessageBuilder("a.test", kMx)
                         .answer("b.test", RecordType::cname, 45, wire_name("c.test"))
                         .answer("a.test", RecordType::cname, 700, wire_name("b.test"))
                         .answer("other.test", kMx, 31, mx_data(1, "not-mine.test"))
                         .answer("c.test", kMx, 900, mx_data(5, "mx.test")),
                     "a.test", kMx);
    EXPECT_EQ(answer.kind, Kind::records);
    EXPECT_EQ(answer.ttl_s, 45u);
    EXPECT_EQ(answer.aliases, 2u);
    EXPECT_EQ(answer.name, "c.test");
    EXPECT_THAT(answer.mx, ElementsAre(MxHost{5, "mx.test"}));
}

TEST(DnsMessage, AliasThatLeadsOutIsToBeAskedAgain) {
    const auto answer = parse_answer(
        MessageBuilder("a.test", kMx).answer("a.test", RecordType::cname, 70, wire_name("b.other")),
        "a.test", kMx);
    EXPECT_EQ(answer.kind, Kind::alias);
    EXPECT_EQ(answer.name, "b.other");
}

TEST(DnsMessage, AliasLoopIsAFailure) {
    const auto answer =
        parse_answer(MessageBuilder("a.test", kMx)
                         .answer("a.test", RecordType::cname, 70, wire_name("b.test"))
                         .answer("b.test", RecordType::cname, 70, wire_name("a.test")),
                     "a.test", kMx);
    EXPECT_EQ(answer.kind, Kind::failure);
    EXPECT_THAT(answer.why, HasSubstr("aliases"));
}

TEST(DnsMessage, AliasChainOfTheLimitPassesAndOneMoreDoesNot) {
    for (size_t links : {limits::kCnameChain, limits::kCnameChain + 1}) {
        MessageBuilder message("n0.test", kMx);
        for (size_t i = 0; i < links; ++i)
            message.answer("n" + std::to_string(i) + ".test", RecordType::cname, 60,
                           wire_name("n" + std::to_string(i + 1) + ".test"));
        message.answer("n" + std::to_string(links) + ".test", kMx, 60, mx_data(1, "mx.test"));
        EXPECT_EQ(parse_answer(message, "n0.test", kMx).kind,
                  links == limits::kCnameChain ? Kind::records : Kind::failure);
    }
}

TEST(DnsMessage, NegativeTtlIsTheLesserOfSoaTtlAndMinimum) {
    const auto with_soa = [](uint16_t flags, uint32_t ttl_s, uint32_t minimum_s) {
        return parse_answer(MessageBuilder("a.test", kMx, flags)
                                .authority("test", RecordType::soa, ttl_s, soa_data(minimum_s)),
                            "a.test", kMx);
    };
    EXPECT_EQ(with_soa(kAnswerFlags, 900, 600).kind, Kind::no_data);
    EXPECT_EQ(with_soa(kAnswerFlags, 900, 600).ttl_s, 600u);
    EXPECT_EQ(with_soa(kAnswerFlags | 3, 120, 600).kind, Kind::no_such_name);
    EXPECT_EQ(with_soa(kAnswerFlags | 3, 120, 600).ttl_s, 120u);
    EXPECT_EQ(with_soa(kAnswerFlags | 3, 120, 0x80000000).ttl_s, limits::kTtlMinS);
    EXPECT_EQ(parse_answer(MessageBuilder("a.test", kMx), "a.test", kMx).ttl_s, limits::kTtlMinS);
}

TEST(DnsMessage, ReferralIsNotTakenForNoData) {
    const auto referral = [](uint16_t flags) {
        return parse_answer(MessageBuilder("a.test", kMx, flags)
                                .authority("test", RecordType::ns, 60, wire_name("ns.test")),
                            "a.test", kMx);
    };
    EXPECT_EQ(referral(0x8000).kind, Kind::failure);
    EXPECT_EQ(referral(kAuthoritativeFlags).kind, Kind::no_data);
    EXPECT_EQ(referral(kAnswerFlags).kind, Kind::no_data);
}

TEST(DnsMessage, TtlsAreClamped) {
    for (const auto& [ttl_s, expected_s] : {std::pair{0u, limits::kTtlMinS},
                                            {1u, limits::kTtlMinS},
                                            {0x7FFFFFFFu, limits::kTtlMaxS},
                                            {0x80000000u, limits::kTtlMinS},
                                            {0xFFFFFFFFu, limits::kTtlMinS}}) {
        EXPECT_EQ(
            parse_answer(
                MessageBuilder("a.test", kMx).answer("a.test", kMx, ttl_s, mx_data(1, "m.test")),
                "a.test", kMx)
                .ttl_s,
            expected_s)
            << ttl_s;
    }
}

TEST(DnsMessage, ReadsAddressesOfTheAskedFamilyOnly) {
    MessageBuilder message("h.test", RecordType::a);
    message.answer("h.test", RecordType::a, 60, {192, 0, 2, 1});
    message.answer("h.test", RecordType::aaaa, 60, Octets(16, 1));
    for (uint8_t i = 0; i < 100; ++i) message.answer("h.test", RecordType::a, 60, {10, 0, 0, i});
    const auto answer = parse_answer(message, "h.test", RecordType::a);
    ASSERT_EQ(answer.addresses.size(), limits::kAddressesPerHost);
    EXPECT_EQ(answer.addresses[0].address_text(), "192.0.2.1");
}

TEST(DnsMessage, ErrorCodesHaveTheirNames) {
    for (const auto& [code, name] :
         {std::pair{1, "FORMERR"}, {2, "SERVFAIL"}, {4, "NOTIMP"}, {5, "REFUSED"}}) {
        const auto answer =
            parse_answer(MessageBuilder("a.test", kMx, static_cast<uint16_t>(kAnswerFlags | code)),
                         "a.test", kMx);
        EXPECT_EQ(answer.kind, Kind::failure);
        EXPECT_EQ(answer.why, name);
    }
}

TEST(DnsMessage, AnswerToAnotherQuestionIsRefused) {
    const auto message =
        MessageBuilder("evil.test", kMx).answer("evil.test", kMx, 60, mx_data(1, "m.test"));
    EXPECT_EQ(parse_answer(message, "a.test", kMx).kind, Kind::failure);
    EXPECT_EQ(parse_answer(message, "evil.test", RecordType::a).kind, Kind::failure);
    EXPECT_EQ(parse_answer(message, "evil.test", kMx).kind, Kind::records);
}

TEST(DnsMessage, QueriesAndTruncatedAnswersAreRefused) {
    for (const uint16_t flags :
         std::initializer_list<uint16_t>{0x0180, 0x8980, 0x8380})  // no QR; opcode STATUS; TC
        EXPECT_EQ(parse_answer(MessageBuilder("a.test", kMx, flags)
                                   .answer("a.test", kMx, 60, mx_data(1, "m.test")),
                               "a.test", kMx)
                      .kind,
                  Kind::failure);
}

TEST(DnsMessage, EveryTruncationIsAFailure) {
    const Octets whole = MessageBuilder("a.test", kMx)
                             .answer("a.test", RecordType::cname, 60, wire_name("b.test"))
                             .answer("b.test", kMx, 60, mx_data(1, "m.test"))
                             .authority("test", RecordType::soa, 60, soa_data(60));
    EXPECT_EQ(parse_answer(whole, "a.test", kMx).kind, Kind::records);
    for (size_t size = 0; size < whole.size(); ++size)
        EXPECT_EQ(parse_answer(std::span(whole).first(size), "a.test", kMx).kind, Kind::failure)
            << size;
}

TEST(DnsMessage, CompressionLoopsAndForwardPointersAreFailures) {
    MessageBuilder base("a.test", kMx);
    const auto self = static_cast<uint8_t>(base.size());
    for (const Octets& owner : {Octets{0xC0, self}, Octets{1, 'x', 0xC0, self},
                                Octets{0xC0, static_cast<uint8_t>(self + 4)}, Octets{0xFF, 0xFF},
                                Octets{0x80, 1, 0}, Octets{0x40, 1, 0}}) {
        MessageBuilder message("a.test", kMx);
        message.answer(owner, kMx, 60, mx_data(1, "m.test"));
        EXPECT_EQ(parse_answer(message, "a.test", kMx).kind, Kind::failure);
    }
}

TEST(DnsMessage, NamesOver255OctetsAreFailures) {
    std::string name;
    for (int i = 0; i < 127; ++i) name += "a.";  // 254 octets in wire form with the root's: 255
    name.pop_back();
    EXPECT_EQ(
        parse_answer(MessageBuilder("a.test", kMx).answer("a.test", kMx, 60, mx_data(1, name)),
                     "a.test", kMx)
            .kind,
        Kind::records);
    EXPECT_EQ(parse_answer(
                  MessageBuilder("a.test", kMx).answer("a.test", kMx, 60, mx_data(1, "b." + name)),
                  "a.test", kMx)
                  .kind,
              Kind::failure);
}

TEST(DnsMessage, RecordDataOfTheWrongSizeIsAFailure) {
    Octets longer = mx_data(1, "m.test");
    longer.push_back(0);
    for (const Octets& data : {Octets{}, Octets{0}, Octets{0, 1}, longer})
        EXPECT_EQ(parse_answer(MessageBuilder("a.test", kMx).answer("a.test", kMx, 60, data),
                               "a.test", kMx)
                      .kind,
                  Kind::failure);
    EXPECT_EQ(
        parse_answer(
            MessageBuilder("a.test", RecordType::a).answer("a.test", RecordType::a, 60, {1, 2, 3}),
            "a.test", RecordType::a)
            .kind,
        Kind::failure);
}

TEST(DnsMessage, OddOctetsOfNamesAreEscaped) {
    const Octets data = {0, 1, 5, 'a', '.', 0, '\n', ',', 4, 't', 'e', 's', 't', 0};
    const auto answer =
        parse_answer(MessageBuilder("a.test", kMx).answer("a.test", kMx, 60, data), "a.test", kMx);
    EXPECT_THAT(answer.mx, ElementsAre(MxHost{1, "a\\046\\000\\010,.test"}));
}

}  // namespace
}  // namespace postrider
