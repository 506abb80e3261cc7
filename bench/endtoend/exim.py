"""Exim as a sender: a daemon that only queues, then queue runners."""

import os

from .peers import Peer, copy_program

RUNNERS = 2
USER = 65531  # nobody has it; libnss-wrapper shows Exim the user it insists on


class Exim(Peer):
    title, package, program = "Exim", "exim", "usr/sbin/exim4"
    counts_switches = False  # it forks for each message

    def start(self, run, folder, to_port, own_port):
        program = copy_program(self.root(), folder / "program")
        spool = folder / "spool"
        spool.mkdir()
        os.chown(spool, USER, USER)
        (folder / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nDebian-exim:x:{USER}:{USER}::/:/bin/false\n")
        (folder / "group").write_text(f"root:x:0:\nDebian-exim:x:{USER}:\n")
        (folder / "exim.conf").write_text(exim_conf(program / self.program, spool, to_port, own_port))
        libraries = program / "usr/lib/x86_64-linux-gnu"
        self.command = [program / self.program, "-C", folder / "exim.conf"]
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"), "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(folder / "group")}
        run.start("exim", [*self.command, "-bdf"], self.environment)

    def release(self, run):
        for number in range(RUNNERS):
            run.start(f"runner-{number}", [*self.command, "-q"], self.environment)


def exim_conf(program, spool, to_port, own_port):
    return f"""
exim_path = {program}
spool_directory = {spool}
log_file_path = {spool}/%slog
pid_file_path = {spool}/exim.pid
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
primary_hostname = sender.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {own_port}
disable_ipv6 = true
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
deliver_drop_privilege = true
queue_only = true
queue_run_max = 200
split_spool_directory = true
message_logs = false
message_size_limit = 0
smtp_accept_max = 0
smtp_accept_max_per_connection = 1000000
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
check_spool_space = 0
check_spool_inodes = 0
acl_smtp_rcpt = accept
acl_smtp_data = accept

begin routers
all:
  driver = manualroute
  transport = remote
  route_list = * 127.0.0.1 byname
  self = send

begin transports
remote:
  driver = smtp
  port = {to_port}
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_dane =
  hosts_try_prdr =
  connection_max_messages = 1000
  multi_domain

begin retry
* * F,1h,10m
"""
