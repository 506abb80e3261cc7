"""Contents that have been damaged by mail software before: each must arrive octet for octet.

`CONTENTS` maps a name to the content as it is spooled; `arrived(content)` is what a receiver must hold, with line ends
as LF. Each begins with a line `X-Begin: <name>`, which no receiver adds or moves: what lies before it is trace.
"""

import base64
import hashlib
import random

BEGIN = b"X-Begin: "


def headers(name, *more, subject="A message"):
    lines = [f"X-Begin: {name}", "From: News <news@sender.test>", "To: reader@example.test", f"Subject: {subject}",
             "Date: Mon, 02 Mar 2026 10:00:00 +0000", f"Message-ID: <{name}@sender.test>", "MIME-Version: 1.0", *more]
    return "\r\n".join(lines).encode() + b"\r\n"


def text(name, body, encoding="8bit"):
    return headers(name, 'Content-Type: text/plain; charset="utf-8"', f"Content-Transfer-Encoding: {encoding}") \
        + b"\r\n" + body


def folded_base64(data):
    encoded = base64.b64encode(data)
    return b"".join(encoded[i:i + 76] + b"\r\n" for i in range(0, len(encoded), 76))


def multipart(name):
    part = b"--=_frontier"
    return headers(name, 'Content-Type: multipart/mixed; boundary="=_frontier"',
                   subject="=?UTF-8?B?R3LDvMOfZQ==?=\r\n =?UTF-8?Q?_folded?=") + b"\r\n" + b"\r\n".join([
        b"This is a multi-part message.", part, b'Content-Type: text/plain; charset="utf-8"',
        b"Content-Transfer-Encoding: quoted-printable", b"", b"Gr=C3=BC=C3=9Fe =3D trailing space=20",
        b"a soft line=", b"break", b"", b".leading dot", part,
        b'Content-Type: application/octet-stream; name="a.bin"', b"Content-Transfer-Encoding: base64", b"",
        folded_base64(random.Random(name).randbytes(5000)) + part + b"--", b"epilogue", b""])


def attachment(name, octets):
    part = b"--=_big"
    return headers(name, 'Content-Type: multipart/mixed; boundary="=_big"') + b"\r\n" + part + \
        b"\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + \
        folded_base64(random.Random(name).randbytes(octets)) + part + b"--\r\n"


def dots_at_every_edge(name):
    """A dot at the start of a line at each offset near the sizes buffers have."""
    generator = random.Random(name)
    lines = []
    for _ in range(6000):
        lines.append(b"." * generator.randrange(0, 4) + b"x" * generator.randrange(0, 60))
    return text(name, b"\r\n".join(lines) + b"\r\n", "7bit")


def all_contents():
    plain = b"line one\r\nline two\r\n"
    made = {
        "multipart": multipart("multipart"),
        "base64": text("base64", folded_base64(bytes(range(256)) * 40), "base64"),
        "quoted-printable": text("quoted-printable", b"=C3=A4 =3D=\r\n=20\r\n=2E\r\n", "quoted-printable"),
        "eight-bit": text("eight-bit", "Grüße, 日本語, \u00ff\r\n".encode() * 20),
        "latin-one": text("latin-one", bytes(range(0xA0, 0x100)) + b"\r\n"),
        "dots": text("dots", b".\r\n..\r\n...\r\n.a\r\n..b\r\n \r\n.\r\n.\r\n", "7bit"),
        "dots-in-lf": text("dots-in-lf", b".\r\n..\r\n.a\r\n.\r\n", "7bit").replace(b"\r\n", b"\n"),
        "dots-at-edges": dots_at_every_edge("dots-at-edges"),
        "last-line-a-dot": text("last-line-a-dot", b"text\r\n.", "7bit"),
        "no-final-newline": text("no-final-newline", b"no line end", "7bit"),
        "lf-only": text("lf-only", plain, "7bit").replace(b"\r\n", b"\n"),
        "mixed-line-ends": text("mixed-line-ends", b"one\ntwo\r\nthree\nfour\r\n", "7bit"),
        "empty-lines-at-end": text("empty-lines-at-end", b"text\r\n\r\n\r\n\r\n", "7bit"),
        "headers-only": headers("headers-only"),
        "longest-line": text("longest-line", b"y" * 998 + b"\r\n." + b"z" * 997 + b"\r\n", "7bit"),
        "looks-like-commands": text("looks-like-commands", b"QUIT\r\nRSET\r\nMAIL FROM:<x@y>\r\nFrom x\r\n", "7bit"),
    }
    return made


CONTENTS = all_contents()


def arrived(content):
    """As a receiver must hold it, with LF line ends: a missing final line end is added, nothing else."""
    lines = content.replace(b"\r\n", b"\n")
    return lines if lines.endswith(b"\n") else lines + b"\n"


def without_trace(stored):
    """What a receiver stored, from our own first line on, with LF line ends."""
    lines = stored.replace(b"\r\n", b"\n")
    begin = lines.find(BEGIN)
    if begin < 0:
        raise ValueError(f"not a message of this test: {stored[:200]!r}")
    return lines[begin:]


def name_of(content):
    return content[len(BEGIN):content.index(b"\n")].strip().decode()


def sha256(content):
    return hashlib.sha256(content).hexdigest()
