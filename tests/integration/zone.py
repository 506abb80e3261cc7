"""The zone `test.`: every MX situation of the tests, on the addresses of the receivers.

A domain's name says its situation. `dead*` hosts are loopback addresses on which nobody listens. `small<N>` hosts take
no large message.
"""


def zone(postfix, exim, aiosmtpd, dead, small=()):
    """The zone's text. `dead` is a list of addresses without a listener; ::1 is aiosmtpd's too."""
    lines = [
        "$ORIGIN test.", "$TTL 300",
        "@ SOA ns.test. admin.test. 1 3600 600 86400 300", "@ NS ns.test.", "ns A 127.0.0.1",
        f"postfix.mx A {postfix}", f"exim.mx A {exim}", f"aiosmtpd.mx A {aiosmtpd}", "six.mx AAAA ::1",
        "alias.mx CNAME exim.mx", "text.mx TXT \"no address here\"",
        f"both.mx A {dead[0]}", "both.mx AAAA ::1",
        # One domain for each receiver.
        "postfix MX 10 postfix.mx", "exim MX 10 exim.mx", "aiosmtpd MX 10 aiosmtpd.mx",
        # Preferences (RFC 5321 5.1).
        "preference MX 20 exim.mx", "preference MX 10 postfix.mx", "preference MX 30 aiosmtpd.mx",
        "equal MX 10 exim.mx", "equal MX 10 aiosmtpd.mx",
        "dead-first MX 10 dead0.mx", "dead-first MX 20 exim.mx",
        "all-dead MX 10 dead0.mx", "all-dead MX 20 dead1.mx",
        # No MX at all: the domain's own address (RFC 5321 5.1).
        f"implicit A {exim}", "implicit-six AAAA ::1",
        # Null MX (RFC 7505), alone and, against the rules, with others.
        "null MX 0 .", "null-mixed MX 0 .", "null-mixed MX 10 exim.mx",
        # Aliases.
        "alias CNAME preference", "alias-implicit CNAME implicit", "mx-to-alias MX 10 alias.mx",
        "chain CNAME chain1", "chain1 CNAME chain2", "chain2 CNAME exim", "loop CNAME loop1", "loop1 CNAME loop",
        # MX without an address: never the domain's own address instead.
        "no-address MX 10 text.mx", f"no-address A {exim}", "no-host MX 10 absent.mx", f"no-host A {exim}",
        "literal MX 10 127.0.0.1.", f"literal A {exim}", "mx-servfail MX 10 mx.broken.",
        # Address families.
        "six-only MX 10 six.mx", "both MX 10 both.mx",
        # Hosts with several addresses, one of them alive.
        f"some-alive.mx A {exim}", "some-alive MX 10 some-alive.mx",
        # Hosts that take small messages only, and one that takes all.
        "small-first MX 10 small0.mx", "small-first MX 20 small1.mx", "small-first MX 30 exim.mx",
        "all-small MX 10 small0.mx", "all-small MX 20 small1.mx",
        "small-and-dead MX 10 small0.mx", "small-and-dead MX 20 dead0.mx",
        "small-and-postfix MX 10 small0.mx", "small-and-postfix MX 20 postfix.mx",
        # More than fits in a UDP answer: 12 dead hosts, a live one, 60 more.
        "many MX 50 exim.mx",
    ]
    lines += [f"small{i}.mx A {address}" for i, address in enumerate(small)]
    lines += [f"dead{i}.mx A {address}" for i, address in enumerate(dead)]
    lines += [f"some-alive.mx A {address}" for address in dead[:3]]
    lines += [f"many MX {10 + i} dead{i % len(dead)}-{i}.a-rather-long-name-for-a-host.mx" for i in range(12)]
    lines += [f"many MX {60 + i} dead{i % len(dead)}-{i}.a-rather-long-name-for-a-host.mx" for i in range(12, 72)]
    lines += [f"dead{i % len(dead)}-{i}.a-rather-long-name-for-a-host.mx A {dead[i % len(dead)]}" for i in range(72)]
    return "\n".join(lines) + "\n"
