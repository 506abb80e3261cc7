"""Real receivers: Postfix, Exim, aiosmtpd, and `postrider sink`. Each listens on one address of the case's network.

All take STARTTLS, 8BITMIME and messages of any size, keep what they accept, and treat some local parts alike:
`refused*` is 550 5.1.1 at RCPT. `messages()` gives what was kept, as a list of (recipients, stored content).
Postfix and Exim are those of Debian, unpacked by tools/setup; they run from the case's folder and need root only where
they themselves insist on it (Postfix).
"""

import json
import os
import pathlib
import pwd
import re
import shutil

import harness


class Receiver:
    """What the receivers have in common; `address` is where the zone must point."""

    def __init__(self, case, number):
        self.case = case
        self.address = case.network.address(number)
        self.port = case.network.port
        self.folder = case.folder / type(self).__name__.lower()
        self.folder.mkdir(mode=0o755)
        self.maildir = self.folder / "mail"
        self.certificate, self.key = harness.certificate(case.folder)

    def messages(self):
        """One message may have several recipients, or be stored once for each: both count as they lie."""
        found = []
        for path in sorted(self.maildir.rglob("new/*")):
            stored = path.read_bytes()
            header = re.sub(rb"\n[ \t]+", b" ", stored.split(b"\n\n", 1)[0])
            named = [line.split(b":", 1)[1].decode() for line in header.split(b"\n")
                     if line.lower().startswith(self.recipient_header)]
            found.append(([r.strip() for line in named for r in line.split(",")], stored))
        return found

    @staticmethod
    def keeps(content):
        """What lies in the store, trace aside, when `content` (with LF line ends) has arrived unharmed."""
        return content


class Postfix(Receiver):
    """smtpd, cleanup, qmgr and virtual: stores one file per recipient in a maildir."""

    recipient_header = b"x-original-to:"
    queue_folders = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace",
                     "maildrop", "pid", "private", "public")

    def __init__(self, case, number):
        if os.getuid() != 0:
            case.skipTest("Postfix's master insists on root")
        super().__init__(case, number)
        self.program = harness.RECEIVERS / "postfix"
        self.maildir.mkdir(mode=0o777)
        # Users every Debian has; Postfix wants one that owns nothing but its queue.
        owner = pwd.getpwnam("daemon").pw_uid
        queue = self.folder / "queue"
        queue.mkdir()
        for name in self.queue_folders:
            (queue / name).mkdir(mode=0o700)
            if name != "pid":
                os.chown(queue / name, owner, -1)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, owner, -1)
        os.chown(self.maildir, 65534, 65534)
        (self.folder / "main.cf").write_text(self.main_cf(queue, data))
        (self.folder / "master.cf").write_text(self.master_cf())
        libraries = f"{self.program}/usr/lib/postfix:{self.program}/usr/lib/x86_64-linux-gnu"
        self.process = case.start("postfix", [self.program / "usr/lib/postfix/sbin/master", "-d", "-c", self.folder], {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": str(self.folder), "LD_LIBRARY_PATH": libraries})
        case.network.wait_listening(self.address, self.process)

    def main_cf(self, queue, data):
        library = self.program / "usr/lib/postfix"
        return f"""
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
daemon_directory = {library}/sbin
command_directory = {self.program}/usr/sbin
shlib_directory = {library}
meta_directory = {self.folder}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C
mail_owner = daemon
setgid_group = mail
default_privs = nobody
myhostname = postfix.mx.test
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = all
alias_maps =
alias_database =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {self.maildir}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_mailbox_limit = 0
message_size_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:{self.folder}/access, permit
smtpd_peername_lookup = no
smtpd_tls_security_level = may
smtpd_tls_cert_file = {self.certificate}
smtpd_tls_key_file = {self.key}
smtpd_tls_session_cache_database =
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtputf8_enable = yes
maillog_file = {self.folder}/postfix.log
maillog_file_prefixes = {self.folder}
"""

    def master_cf(self):
        (self.folder / "access").write_text("/^refused/ 550 5.1.1 no such mailbox here\n")
        for name in ("dynamicmaps.cf", "postfix-files"):
            (self.folder / name).write_text("")
        return f"""
{self.address}:{self.port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Exim(Receiver):
    """One daemon that delivers with appendfile, all recipients of a message to one maildir file."""

    recipient_header = b"envelope-to:"

    @staticmethod
    def keeps(content):
        # It keeps header and body apart and writes the empty line between them in any case.
        return content if b"\n\n" in content else content + b"\n"

    def __init__(self, case, number):
        super().__init__(case, number)
        # A copy: Exim executes itself anew under its own user, who may not see the checkout.
        program = self.folder / "program"
        shutil.copytree(harness.RECEIVERS / "exim", program, symlinks=True)
        user = 65531 if os.getuid() == 0 else os.getuid()
        group = 65531 if os.getuid() == 0 else os.getgid()
        spool = self.folder / "spool"
        for folder in (spool, self.maildir):
            folder.mkdir()
            os.chown(folder, user, group)
        (self.folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nDebian-exim:x:{user}:{group}::/:/bin/false\n")
        (self.folder / "group").write_text(f"root:x:0:\nDebian-exim:x:{group}:\n")
        config = self.folder / "exim.conf"
        config.write_text(self.exim_conf(program / "usr/sbin/exim4", spool))
        libraries = program / "usr/lib/x86_64-linux-gnu"
        self.process = case.start("exim", [program / "usr/sbin/exim4", "-C", config, "-bdf"], {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"), "NSS_WRAPPER_PASSWD": str(self.folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(self.folder / "group")})
        case.network.wait_listening(self.address, self.process)

    def exim_conf(self, program, spool):
        return f"""
exim_path = {program}
spool_directory = {spool}
log_file_path = {spool}/%s.log
pid_file_path = {spool}/exim.pid
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
primary_hostname = exim.mx.test
local_interfaces = {self.address}
daemon_smtp_ports = {self.port}
tls_advertise_hosts = *
tls_certificate = {self.certificate}
tls_privatekey = {self.key}
pipelining_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
deliver_drop_privilege = true
message_size_limit = 0
host_lookup =
rfc1413_hosts =
smtp_accept_max = 0
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
check_spool_space = 0
check_spool_inodes = 0
allow_utf8_domains = true
acl_smtp_rcpt = rcpt
acl_smtp_data = accept

begin acl
rcpt:
  deny local_parts = ^refused
       message = 5.1.1 no such mailbox here
  accept

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {self.maildir}
  maildir_format
  batch_max = 1000
  envelope_to_add
  create_directory

begin retry
* * F,1h,10m
"""


class Aiosmtpd(Receiver):
    """A third implementation, in Python; also greylists `busy<N>*`: 451 to the first N attempts of an address."""

    def __init__(self, case, number, *more_addresses):
        super().__init__(case, number)
        script = pathlib.Path(__file__).with_name("aiosmtpd_receiver.py")
        self.maildir.mkdir()
        self.process = case.start("aiosmtpd", [
            "/usr/bin/python3", script, "--port", self.port, "--certificate", self.certificate, "--key", self.key,
            "--store", self.maildir, self.address, *more_addresses])
        for address in (self.address, *more_addresses):
            case.network.wait_listening(address, self.process)

    def messages(self):
        found = []
        for path in sorted(self.maildir.glob("*.json")):
            envelope = json.loads(path.read_text())
            found.append((envelope["recipients"], path.with_suffix(".eml").read_bytes()))
        return found

    def envelopes(self):
        return [json.loads(path.read_text()) for path in sorted(self.maildir.glob("*.json"))]


class Sink:
    """`postrider sink`, on an address of the case's network, with a catch-all DNS of its own on a free port."""

    def __init__(self, case, number, *options, store=True, name="sink"):
        self.address, self.port = case.network.address(number), case.network.port
        self.folder = case.folder / name
        self.folder.mkdir(mode=0o755)
        self.log_file = self.folder / "log.jsonl"
        self.maildir = self.folder / "mail"
        ready = self.folder / "ready.json"
        dns_map = self.folder / "dns.map"
        dns_map.write_text(f"*.test A {self.address}\n")
        arguments = [harness.PROGRAM, "sink", "--listen", f"{self.address}:{case.network.port}", "--ready-file", ready,
                     "--dns", "127.0.0.1:0", "--dns-map", dns_map, "--log", self.log_file,
                     *(["--store", self.maildir] if store else []), *options]
        self.process = case.start(name, arguments)
        case.eventually(lambda: ready.exists() or not self.process.alive(), "the sink is ready", 20)
        if not self.process.alive():
            case.fail(f"the sink ended: {self.process.text()}")
        self.dns_port = int(json.loads(ready.read_text())["dns"].rsplit(":", 1)[1])

    def messages(self):
        return [([], path.read_bytes()) for path in sorted(self.maildir.iterdir())] if self.maildir.exists() else []

    def events(self):
        """What the sink's log says so far."""
        with open(self.log_file, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.endswith("\n")]

    def transactions(self):
        """The accepted transactions of the sink's log, in the order they ended."""
        return [e for e in self.events() if e["event"] == "transaction" and e["accepted"]]

    def accepted(self):
        """Every recipient of every accepted transaction, repeated ones repeatedly."""
        return [r for t in self.transactions() for r in t["recipients"]]


class Knot:
    """A real authoritative DNS server for `test.` and below; queries go to `address`:`port`."""

    def __init__(self, case, zone, number=53):
        self.address = case.network.address(number)
        self.port = case.network.port
        self.folder = case.folder / "knot"
        self.folder.mkdir()
        (self.folder / "test.zone").write_text(zone)
        (self.folder / "knot.conf").write_text(f"""
server:
    rundir: "{self.folder}"
    listen: {self.address}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: "{self.folder}"
zone:
  - domain: test.
    file: "{self.folder}/test.zone"
  - domain: broken.
    file: "{self.folder}/absent.zone"
""")
        program = harness.RECEIVERS / "knot"
        self.process = case.start("knot", [program / "usr/sbin/knotd", "-c", self.folder / "knot.conf"], {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": f"{program}/usr/lib/x86_64-linux-gnu"})
        case.eventually(lambda: not self.process.alive() or self.answers(), "Knot answers", 20)
        if not self.process.alive():
            case.fail(f"Knot ended: {self.process.text()}")

    def answers(self):
        import dns_query
        return dns_query.ask(self.address, self.port, "test", "SOA", timeout_s=0.2) is not None
