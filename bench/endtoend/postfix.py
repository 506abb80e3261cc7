"""Postfix as a sender: its queue manager is left out while the queue is filled, so that mail waits in `incoming`."""

import os
import pwd
import signal

from .peers import Peer

FOLDERS = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace", "maildrop",
           "pid", "private", "public")
CLIENTS = 20  # smtp processes; without its connection cache, which costs it twice as much here as connecting anew


class Postfix(Peer):
    title, package, program = "Postfix", "postfix", "usr/lib/postfix/sbin/master"

    def start(self, run, folder, to_port, own_port):
        root = self.root()
        owner = pwd.getpwnam("daemon").pw_uid  # every Debian has it; Postfix wants one that owns nothing but its queue
        queue, data = folder / "queue", folder / "data"
        queue.mkdir()
        data.mkdir(mode=0o700)
        os.chown(data, owner, -1)
        for name in FOLDERS:
            (queue / name).mkdir(mode=0o700)
            if name != "pid":
                os.chown(queue / name, owner, -1)
        for name in ("dynamicmaps.cf", "postfix-files"):
            (folder / name).write_text("")
        (folder / "main.cf").write_text(main_cf(root, folder, to_port))
        self.master_cf = folder / "master.cf"
        self.own_port = own_port
        self.master_cf.write_text(master_cf(own_port, deliver=False))
        self.master = run.start("postfix", [root / self.program, "-d", "-c", folder], {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": str(folder),
            "LD_LIBRARY_PATH": f"{root}/usr/lib/postfix:{root}/usr/lib/x86_64-linux-gnu"})

    def release(self, run):
        self.master_cf.write_text(master_cf(self.own_port, deliver=True))
        self.master.send_signal(signal.SIGHUP)


def main_cf(root, folder, to_port):
    library = root / "usr/lib/postfix"
    return f"""
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {library}/sbin
command_directory = {root}/usr/sbin
shlib_directory = {library}
meta_directory = {folder}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
mail_owner = daemon
setgid_group = mail
default_privs = nobody
myhostname = sender.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
message_size_limit = 0
relayhost = [127.0.0.1]:{to_port}
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
initial_destination_concurrency = {CLIENTS}
default_destination_concurrency_limit = {CLIENTS}
smtp_connection_cache_on_demand = no
minimal_backoff_time = 1000s
queue_run_delay = 1000s
max_use = 1000000
"""


def master_cf(own_port, deliver):
    return f"""
127.0.0.1:{own_port} inet n - n - 40 smtpd
cleanup unix n - n - 0 cleanup
{"" if deliver else "#"}qmgr unix n - n 1000 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - {CLIENTS} smtp
relay unix - - n - {CLIENTS} smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
