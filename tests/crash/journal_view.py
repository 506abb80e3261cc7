"""The journals as a stranger reads them, by the words at the top of queue/journal/journal_format.h: which recipients had
an intent and no result when the engine was killed, or the power went. What has a wrong checksum is no record: a kill leaves
half of one, a power cut pages of zeros. Behind it every fourth octet may begin the next."""

import struct

HEADER, MAGIC, VERSION = 32, b"postrjnl", 1
CLAIM, INTENT, SYNCED, SEAL, DEFERRED, IN_DOUBT = 1, 2, 4, 5, 16, 22


def castagnoli(octet):
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


CASTAGNOLI = [castagnoli(octet) for octet in range(256)]


def crc32c(octets, seed):
    crc = seed ^ 0xFFFFFFFF
    for octet in octets:
        crc = CASTAGNOLI[(crc ^ octet) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def mix64(a, b):
    """engine/core/hash.h"""
    product = (a ^ 0x9E3779B97F4A7C15) * (b ^ 0xD1B54A32D192ED03)
    return (product ^ (product >> 64)) & (2**64 - 1)


def segment_seed(name):
    shard, sequence = map(int, name.removesuffix(".log").split("-"))
    mixed = mix64(mix64(VERSION, shard), sequence)
    return (mixed ^ mixed >> 32) & 0xFFFFFFFF


class JournalView:
    def __init__(self, folder):
        self.folder = folder
        self.clear()

    def clear(self):
        self.read_to = {}  # segment: offset
        self.intents, self.results = {}, {}  # (file, place, recipient): highest attempt
        self.final = set()
        self.ever_in_flight = set()

    def read(self):
        """Takes what is new; returns the recipients that are in flight as of now."""
        for path in self.folder.glob("*-*.log"):
            self.read_segment(path)
        flying = {key for key, attempt in self.intents.items()
                  if key not in self.final and attempt > self.results.get(key, 0)}
        self.ever_in_flight |= flying
        return flying

    def read_segment(self, path):
        octets = path.read_bytes()
        if not octets.startswith(MAGIC):  # made just before the kill: no header yet
            return
        if len(octets) >= HEADER and struct.unpack_from("<I", octets, 8)[0] != VERSION:
            raise ValueError(f"{path} is of another format version")
        seed, at = segment_seed(path.name), self.read_to.get(path.name, HEADER)
        while at + 8 <= len(octets):
            size = 4 * octets[at + 4]
            if 8 <= size <= len(octets) - at and \
                    crc32c(octets[at + 4:at + size], seed) == struct.unpack_from("<I", octets, at)[0]:
                self.take(octets[at:at + size])
                at += size
                self.read_to[path.name] = at
            else:
                at += 4

    def take(self, record):
        kind, attempt = struct.unpack_from("<BH", record, 5)
        if kind != INTENT and not DEFERRED <= kind <= IN_DOUBT:
            return
        key = struct.unpack_from("<QII", record, 8)
        if kind == INTENT:
            self.intents[key] = max(attempt, self.intents.get(key, 0))
        elif kind in (DEFERRED, IN_DOUBT):
            self.results[key] = max(attempt, self.results.get(key, 0))
        else:
            self.final.add(key)
