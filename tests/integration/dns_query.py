"""Just enough of a DNS client (RFC 1035) to see that the server under the tests answers what the zone says."""

import random
import socket
import struct

TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "MX": 15, "AAAA": 28}


def ask(address, port, name, kind, timeout_s=2.0):
    """(rcode, number of answers, truncated) by UDP, or None without an answer in time."""
    number = random.randrange(65536)
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + question + b"\0" + struct.pack("!2H", TYPES[kind], 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.connect((address, port))
        try:
            client.send(query)
            reply = client.recv(65535)
        except OSError:
            return None
    answered, flags, _, answers, _, _ = struct.unpack("!6H", reply[:12])
    return (flags & 15, answers, bool(flags & 0x0200)) if answered == number else None
