"""Races of the hostile spool: the producer does to a file what it must not, while the engine takes it. One attempt each;
the campaign repeats them. Big files are read in many slices of the turn, so that there is time to interfere."""

import os
import time

from hostile import BAD, DELIVERED, GONE, LINE, Case, aside, secret_of, write

LATER = b"a line that came later\r\n"
BIG = 60_000  # lines: 3 MB, a dozen blocks of the intake


def moments():
    """A short while, other each time it is asked for: from at once to some slices of the intake."""
    for step in range(10_000):
        yield (step * 7 % 10) * 0.0004


pauses = moments()


def pause():
    time.sleep(next(pauses))


def quietly(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass  # the engine was quicker


def held(case, path, text="a text", lines=BIG):
    """Puts a big file there and keeps it open for writing."""
    octets = case.content(text, lines)
    file = open(aside(path), "w+b", buffering=0)
    file.write(octets)
    os.rename(aside(path), path)
    pause()
    return file


def message_in(octets):
    """An .eml file without its envelope block of two lines."""
    return octets.split(b"\r\n", 2)[2]


def truncated(case, path):
    case.allow(message_in(case.content(lines=BIG)[:100_000]) + b"\r\n")  # a missing line end is added
    with held(case, path) as file:
        file.truncate(100_000)


def emptied(case, path):
    with held(case, path) as file:
        file.truncate(0)


def longer(case, path):
    whole = message_in(case.content(lines=BIG))
    for count in range(1, 21):
        case.allow(whole + LATER * count)
    with held(case, path) as file:
        file.seek(0, os.SEEK_END)
        for _ in range(20):
            file.write(LATER)


def overwritten(case, path):
    """Same size, other octets: the message in the file is a whole one at both ends of the write."""
    case.content("b text", BIG)
    with held(case, path) as file:
        octets = case.content("b text", BIG)
        file.seek(0)
        file.write(octets)


def grown_then_cut(case, path):
    case.allow(message_in(case.content(lines=BIG)) + b"x" * 900 + b"\r\n")
    with held(case, path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(0, os.SEEK_END)
        file.write(b"x" * 900)
        file.truncate(size)


def taken_away(case, path):
    write(path, case.content(lines=BIG))
    pause()
    quietly(os.unlink, path)


def taken_back(case, path):
    write(path, case.content(lines=BIG))
    pause()
    quietly(os.rename, path, aside(path) + b".back")


def renamed(case, path):
    write(path, case.content())
    for turn in range(5):
        pause()
        quietly(os.rename, path, path + b".other.eml")
        quietly(os.rename, path + b".other.eml", path)


def replaced(case, path):
    for text in ("a text", "b text", "c text"):
        write(path, case.content(text, 3))
        pause()


def replaced_by_a_link(case, path):
    write(path, case.content())
    pause()
    os.symlink(secret_of(path), aside(path))
    quietly(os.rename, aside(path), path)


def link_then_file(case, path):
    os.symlink(secret_of(path), path)
    pause()
    write(path, case.content())


def fifo_then_file(case, path):
    os.mkfifo(path)
    pause()
    write(path, case.content())


def linked_meanwhile(case, path):
    write(path, case.content())
    pause()
    quietly(os.link, path, aside(path) + b".link")
    pause()
    quietly(os.unlink, aside(path) + b".link")


def touched(case, path):
    write(path, case.content(lines=BIG))
    for _ in range(10):
        pause()
        quietly(os.utime, path)


def in_place(case, path):
    """Written in new/ itself, slowly, and closed at the end."""
    octets = case.content(lines=200)
    with open(path, "wb", buffering=0) as file:
        for at in range(0, len(octets), 1000):
            file.write(octets[at:at + 1000])
            time.sleep(0.0005)


def in_place_twice(case, path):
    """Closed after the half, then opened again: what lies there at the first close is a whole message by its form, so
    that it may be sent as it then was."""
    half = case.content("half", 100)
    rest = LINE * 100
    with open(path, "wb", buffering=0) as file:
        file.write(half)
    pause()
    case.content("half", 200)  # the same head
    try:
        with open(path, "r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            file.write(rest)
    except OSError:
        pass


RACES = [
    (truncated, (BAD, DELIVERED)), (emptied, (BAD, DELIVERED)), (longer, (BAD, DELIVERED)),
    (overwritten, (BAD, DELIVERED)), (grown_then_cut, (BAD, DELIVERED)), (taken_away, (GONE, DELIVERED)),
    (taken_back, (GONE, DELIVERED)), (renamed, (BAD, DELIVERED)), (replaced, (DELIVERED, BAD)),
    (replaced_by_a_link, (BAD, DELIVERED)), (link_then_file, (BAD, DELIVERED)), (fifo_then_file, (BAD, DELIVERED)),
    (linked_meanwhile, (BAD, DELIVERED)), (touched, (BAD, DELIVERED)),
    (in_place, (DELIVERED, BAD)), (in_place_twice, (DELIVERED, BAD)),
]


def race_cases(repeat):
    for turn in range(repeat):
        for make, ends in RACES:
            name = make.__name__.replace("_", " ")
            yield Case(f"race: {name}", f"race {name} {turn}.eml".encode(), make, ends)
