#!/usr/bin/env python3
"""A receiver made with aiosmtpd: stores each message as <n>.eml beside <n>.json (sender, recipients, options).

`refused*` is 550 5.1.1; `busy<N>*` is 451 4.7.1 to its first N attempts (greylisting); `later*` is always 451;
`full*` makes the dot 552 5.2.2; `closes*` ends the connection instead of answering RCPT with more than 421.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import re
import ssl

from aiosmtpd.smtp import SMTP


class Store:
    """aiosmtpd's handler: its hooks are called for RCPT and for the end of the content."""

    def __init__(self, folder):
        self.folder = folder
        self.stored = 0
        self.attempts = collections.Counter()

    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local.startswith("refused"):
            return "550 5.1.1 no such mailbox here"
        if local.startswith("later"):
            return "451 4.7.1 come back another day"
        if busy := re.match(r"busy(\d+)", local):
            self.attempts[address] += 1
            if self.attempts[address] <= int(busy[1]):
                return "451 4.7.1 greylisted"
        if local.startswith("closes"):
            return "421 4.3.2 closing"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 accepted"

    async def handle_DATA(self, server, session, envelope):
        if any(address.startswith("full") for address in envelope.rcpt_tos):
            return "552 5.2.2 mailbox full"
        self.stored += 1
        path = self.folder / f"{self.stored:08}.eml"
        path.write_bytes(envelope.original_content)
        description = {"sender": envelope.mail_from.removeprefix("<>"), "recipients": envelope.rcpt_tos, "peer": session.peer[0],
                       "mail_options": envelope.mail_options, "tls": session.ssl is not None, "helo": session.host_name}
        # Renamed into place, so that a reader never sees half of it.
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(description))
        temporary.rename(path.with_suffix(".json"))
        return "250 2.0.0 stored"


async def serve(options):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    handler = Store(options.store)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(
        lambda: SMTP(handler, hostname="aiosmtpd.mx.test", tls_context=context, data_size_limit=0, enable_SMTPUTF8=True,
                     loop=loop), address, options.port) for address in options.addresses]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--store", type=pathlib.Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
