"""OpenSMTPD as a sender: paused, filled, resumed.

Its folders and users are compiled in, so it runs in a mount namespace of its own where they exist; nothing of the
machine is touched.
"""

import subprocess

from .peers import Peer, wait_listening
from .processes import Failure

CONNECTIONS = 200
USERS = {"opensmtpd": 65529, "opensmtpq": 65530}


class Opensmtpd(Peer):
    title, package, program = "OpenSMTPD", "opensmtpd", "usr/sbin/smtpd"

    def start(self, run, folder, to_port, own_port):
        root = self.root()
        for name in ("spool", "spool/smtpd", "lib", "lib/opensmtpd", "lib/opensmtpd/empty", "run"):
            (folder / name).mkdir(mode=0o711 if name == "spool/smtpd" else 0o755)
        for table in ("passwd", "group"):
            with open(f"/etc/{table}", encoding="utf-8") as file:
                lines = [line for line in file if line.split(":")[0] not in USERS]
            form = "{0}:x:{1}:{1}::/var/lib/opensmtpd/empty:/bin/false\n" if table == "passwd" else "{0}:x:{1}:\n"
            lines += [form.format(name, number) for name, number in USERS.items()]
            (folder / table).write_text("".join(lines), encoding="utf-8")
        (folder / "smtpd.conf").write_text(smtpd_conf(to_port, own_port))
        (folder / "smtpd.conf").chmod(0o644)
        mounts = "\n".join(f"mount --bind {folder}/{source} {target}" for source, target in (
            ("spool", "/var/spool"), ("lib", "/var/lib"), ("run", "/run"), ("passwd", "/etc/passwd"),
            ("group", "/etc/group")))
        libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": libraries}
        self.control = root / "usr/sbin/smtpctl"
        self.daemon = run.start("smtpd", ["unshare", "--mount", "--propagation", "private", "sh", "-ec",
                                          f"{mounts}\nexec {root}/{self.program} -d -f {folder}/smtpd.conf"],
                                self.environment)
        wait_listening(own_port)
        self.ctl("pause", "mta")

    def ctl(self, *words):
        done = subprocess.run(["nsenter", "-t", str(self.daemon.pid), "--mount", "--setgid",
                               str(USERS["opensmtpq"]), self.control, *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              env=self.environment)
        if done.returncode != 0:
            raise Failure(f"smtpctl {' '.join(words)}: {(done.stdout + done.stderr).strip()}")

    def release(self, run):
        self.ctl("resume", "mta")


def smtpd_conf(to_port, own_port):
    scopes = "\n".join(f"mta limit max-conn-per-{scope} {CONNECTIONS}"
                       for scope in ("host", "route", "relay", "domain", "source", "connector"))
    delays = "\n".join(f"mta limit {delay} 0" for delay in (
        "conn-delay-host", "conn-delay-route", "conn-delay-source", "conn-delay-connector", "conn-delay-relay",
        "conn-delay-domain", "reconn-delay-route", "session-transaction-delay"))
    return f"""
smtp max-message-size 50M
smtp limit max-mails 1000000
scheduler limit max-inflight 100000
scheduler limit max-schedule 1000
{scopes}
{delays}
mta limit task-hiwat 200000
mta limit task-lowat 100000
mta limit task-release 10000
listen on 127.0.0.1 port {own_port} hostname sender.test
action "out" relay host smtp+notls://127.0.0.1:{to_port} helo sender.test
match from any for any action "out"
"""
