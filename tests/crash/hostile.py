"""The hostile spool as a table: each case is a name, a thing to put there, and what may become of it (FAULTS 51, 97).

  bad        it lies in bad/ beside one line of reason, and nothing of it was sent
  delivered  it arrived whole, once
  ignored    it lies where it was put
  gone       its producer took it away, and nothing of it was sent

A case that may end in two ways says so: a race has a winner, and both ends are right; half a message never is.
"""

import dataclasses
import hashlib
import os
import socket
import stat
import typing

import harness

LINE = b"a line of the hostile spool, as good as any other\r\n"
BAD, DELIVERED, IGNORED, GONE = "bad", "delivered", "ignored", "gone"


@dataclasses.dataclass
class Case:
    label: str
    name: bytes
    make: typing.Callable  # (case, path): puts the thing at `path`, or drives the race
    ends: tuple
    folder: bytes = b""
    number: int = 0
    hashes: set = dataclasses.field(default_factory=set)  # of the contents that may arrive

    @property
    def inner(self):
        return b"deeper in " + self.name

    @property
    def recipient(self):
        return f"case{self.number}@d{self.number % 20}.test"

    def allow(self, content):
        """What is in the file at one moment is a message by its form: it may arrive, as the producer then had it."""
        self.hashes.add(hashlib.sha256(content).hexdigest())

    def content(self, text="a text", lines=3):
        """A message of this case; its hash is allowed to arrive."""
        made = (f"From: news@sender.test\r\nSubject: {text}\r\nMessage-ID: <{self.number}@sender.test>\r\n\r\n").encode()
        made += LINE * lines
        self.allow(made)
        return harness.eml("news@sender.test", [self.recipient], made)


def write(path, octets, mode=0o644):
    """As producers must: whole when it appears."""
    temporary = aside(path)
    with open(temporary, "wb") as file:
        file.write(octets)
    os.chmod(temporary, mode)
    os.rename(temporary, path)


def aside(path):
    spool = path[:path.index(b"/new/")]
    return spool + b"/tmp/" + hashlib.sha256(path).hexdigest().encode()


def secret_of(path):
    return os.path.dirname(path[:path.index(b"/new/")]) + b"/secret"


# ---- things that are no messages

def link(target):
    return lambda case, path: os.symlink(target(path) if callable(target) else target, path)


def hard_link(case, path):
    os.link(secret_of(path), path)


def two_names(case, path):
    """It has both before either is seen."""
    first, second = aside(path), aside(path + b".second.eml")
    with open(first, "wb") as file:
        file.write(case.content())
    os.chmod(first, 0o644)
    os.link(first, second)
    os.rename(first, path)
    os.rename(second, path + b".second.eml")


def bound_socket(case, path):
    # A socket's address is short: bound aside, then moved.
    with socket.socket(socket.AF_UNIX) as made:
        at = os.path.dirname(secret_of(path)) + b"/s"
        made.bind(at)
    os.rename(at, path)


def device(kind, major, minor):
    return lambda case, path: os.mknod(path, kind | 0o666, os.makedev(major, minor))


def mode(bits):
    return lambda case, path: write(path, case.content(), bits)


def octets(content):
    return lambda case, path: write(path, content)


def good(case, path):
    write(path, case.content())


def sparse(case, path):
    with open(aside(path), "wb") as file:
        file.truncate(1 << 20)
    os.rename(aside(path), path)


def open_folder(path):
    """The engine may be another user."""
    os.mkdir(path)
    os.chmod(path, 0o777)


def empty_folder(case, path):
    open_folder(path)


def folder_with_mail(case, path):
    open_folder(path)
    write(path + b"/inside.eml", case.content())


def deep_folder(case, path):
    """What lies deeper than one level is set aside with its folder, whole."""
    open_folder(aside(path))
    open_folder(aside(path) + b"/" + case.inner)
    write_in(aside(path) + b"/" + case.inner, case.content())
    os.rename(aside(path), path)


def write_in(folder, octets):
    with open(folder + b"/lost.eml", "wb") as file:
        file.write(octets)


ENVELOPE = b"x-sender: news@sender.test\nx-receiver: never@d1.test\n"

THINGS = [
    # label, ending, make, ends
    ("link to a message", b".eml", link(secret_of), (BAD,)),
    ("link to nowhere", b".eml", link(b"/nowhere/at/all"), (BAD,)),
    ("link to a folder", b".eml", link(b"/tmp"), (BAD,)),
    ("link to itself", b".eml", lambda case, path: os.symlink(os.path.basename(path), path), (BAD,)),
    ("link to /etc/passwd", b".eml", link(b"/etc/passwd"), (BAD,)),
    ("link to /dev/zero", b".eml", link(b"/dev/zero"), (BAD,)),
    ("link out by ..", b".eml", link(b"../../secret"), (BAD,)),
    ("magic link", b".eml", link(b"/proc/self/cwd/spool/lock"), (BAD,)),
    ("link as a batch", b".bsmtp", link(secret_of), (BAD,)),
    ("hard link of a stranger", b".eml", hard_link, (BAD,)),
    ("one file, two names", b".eml", two_names, (BAD, DELIVERED)),
    ("FIFO", b".eml", lambda case, path: os.mkfifo(path), (BAD,)),
    ("FIFO as a batch", b".bsmtp", lambda case, path: os.mkfifo(path), (BAD,)),
    ("socket", b".eml", bound_socket, (BAD,)),
    ("unreadable", b".eml", mode(0), (BAD,)),
    ("write only", b".eml", mode(0o222), (BAD,)),
    ("setuid", b".eml", mode(0o4755), (BAD, DELIVERED)),
    ("setgid and sticky", b".eml", mode(0o3777), (BAD, DELIVERED)),
    ("read only", b".eml", mode(0o444), (DELIVERED,)),
    ("empty", b".eml", octets(b""), (BAD,)),
    ("empty batch", b".bsmtp", octets(b""), (BAD,)),
    ("a megabyte of nothing", b".eml", sparse, (BAD,)),
    ("a megabyte of nothing as a batch", b".bsmtp", sparse, (BAD,)),
    ("one line end", b".eml", octets(b"\n"), (BAD,)),
    ("envelope and no message", b".eml", octets(ENVELOPE), (BAD,)),
    ("a line of a megabyte", b".eml", octets(ENVELOPE + b"Subject: x\n\n" + b"y" * (1 << 20) + b"\n"), (BAD,)),
    ("a name of an address of a megabyte", b".eml",
     octets(b"x-sender: news@sender.test\nx-receiver: " + b"y" * (1 << 20) + b"@d1.test\nSubject: x\n\nx\n"), (BAD,)),
    ("an ELF head", b".eml", octets(b"\x7fELF\x02\x01\x01" + bytes(64)), (BAD,)),
    ("a batch that stops", b".bsmtp", octets(b"MAIL FROM:<a@b.test>\nRCPT TO:<never@d1.test>\nDATA\nx\n"), (BAD,)),
]
DEVICES = [
    ("character device", b".eml", device(stat.S_IFCHR, 1, 5), (BAD,)),
    ("block device", b".bsmtp", device(stat.S_IFBLK, 7, 250), (BAD,)),
]
FOLDERS = [
    ("folder called .eml", b".eml", empty_folder, (IGNORED,)),
    ("folder with mail", b"", folder_with_mail, (DELIVERED,)),
    ("folders in a folder", b"", deep_folder, (BAD,)),
]

# ---- names

NAMES = [
    b"new\nline", b"two\n\nlines\n", b"return\r", b"tab\there", b"\x1b[31mred\x1b[0m", b"bell\x07", b"\x01\x02", b"del\x7f",
    b" ", b"  two spaces  ", b"-rf", b"--help", b"$(reboot)", b"`id`", b"a;b&c|d", b"%s%n%p", b"*", b"?[a-z]", b"\\..\\x",
    b"'quote\"", b"<b>", b"\xff\xfe", b"\xc0\xaf..", b"\xed\xa0\x80", "日本語".encode(), "e\u0301".encode(), "é".encode(),
    "\u202egnp".encode(), "\U0001f4e7".encode(), b"x" * 251, b"\xff" * 251, b"reason", b"a.reason", b"NUL", b"0" * 16,
    b"0123456789abcdef", b"{\"json\":1}", b"=cmd", b"~", b"#",
]
WRONG_ENDINGS = [b".txt", b".EML", b".eml.tmp", b".eml~", b".bsmtp.gz", b"", b".em", b".reason", b".eml ", b".eml\n", b".emlx",
                 b".eml.1"]
DOT_NAMES = [b".hidden.eml", b"..two.eml", b"...", b".eml", b".bsmtp", b".\xff.eml", b". .eml"]


def table(root):
    """Every case that needs no timing, as (label, name, make, ends, folder)."""
    for folder in (b"", b"shop"):
        where = "in a folder: " if folder else ""
        for label, ending, make, ends in THINGS + (DEVICES if root else []):
            yield where + label, label.replace("/", "_").encode() + ending, make, ends, folder
        for name in DOT_NAMES:
            yield f"{where}dot name {name!r}", name, good, (IGNORED,), folder
    for label, ending, make, ends in FOLDERS:
        yield label, label.replace(" ", "-").encode() + ending, make, ends, b""
    # One that is made while the engine runs is met at the next listing.
    yield "a folder in a folder", b"inner.eml", empty_folder, (BAD, IGNORED), b"shop"
    for name in NAMES:
        yield f"name {name[:20]!r}", name + b".eml", good, (DELIVERED,), b""
    for ending in WRONG_ENDINGS:
        yield f"ending {ending!r}", b"wrong" + ending, good, (BAD,), b""
    for name in (b"new\nline", b"\xff\xfe", b"y" * 255, b"%s%n"):
        yield f"no ending {name[:20]!r}", name, good, (BAD,), b""


def static_cases(tag, root):
    """`tag` keeps the names of two rounds apart."""
    for label, name, make, ends, folder in table(root):
        if tag and len(name) < 240 and not name.startswith(b"."):
            name = tag + name
        elif tag and name.startswith(b"."):
            name += tag
        yield Case(label, name, make, ends, folder)
