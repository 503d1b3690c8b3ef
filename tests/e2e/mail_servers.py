"""Real mail servers for the tests: Debian's postfix and dovecot in a temporary directory, on free ports.

Started once a session, stopped by the process id that was started; users, certificates and spool are made for the run.
postfix delivers into maildirs that dovecot serves by IMAP; dovecot checks the SMTP passwords too. A test that needs
them imports the fixture: ``from tests.e2e.mail_servers import mail_servers``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import grp
import imaplib
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.loopback import PATIENCE_S, free_port, raw_mails

__all__ = ["Authority", "MailServers", "authority", "mail_servers"]

# Ends the servers when the tests end, however they end.
_LEASH = ["/usr/bin/setpriv", "--pdeathsig", "TERM"]

PASSWORD = "mot-de-passe-fictif"
GATEWAY = "rcp-onco@ch-exemple.mssante.example"
PHYSICIAN = "paul.durant@medecin.mssante.example"
REQUESTER = "anne.demandeur@medecin.mssante.example"
GONE = "partie@medecin.mssante.example"  # accepted at first, then bounced
CLOSED = "fermee@medecin.mssante.example"
# Inside MSSanté by their domain: only such addresses are answered.
TREATING = "paul.durant@cabinet.mssante.fr"
STRANGER = "luc.autre@cabinet.mssante.fr"
# Mon espace santé of the test patient; a second one has no account there.
PATIENTS = "patient.mssante.fr"
PATIENT = f"279035121518989@{PATIENTS}"
NO_ACCOUNT = f"255069912345685@{PATIENTS}"
USERS = (GATEWAY, PHYSICIAN, REQUESTER, TREATING, STRANGER, PATIENT)


class Authority:
    """A certificate authority of one run."""

    def __init__(self, directory: Path, name: str = "AC fictive") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / "ca.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def revoke(
        self, *certificates: Path, began_days_ago: float = 1, days: float = 2, der: bool = False, extension=None
    ) -> bytes:
        """Return a revocation list."""
        now = dt.datetime.now(dt.UTC)
        began = now - dt.timedelta(days=began_days_ago)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(began)
            .next_update(began + dt.timedelta(days=days))
        )
        for file in certificates:
            serial = x509.load_pem_x509_certificate(file.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(began).build()
            builder = builder.add_revoked_certificate(revoked)
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
        return builder.sign(self._key, hashes.SHA256()).public_bytes(encoding)

    def _builder(self, subject, public_key, days: int = 2):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=5))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def issue(self, name: str, *, client: bool = False, days: int = 2) -> tuple[Path, Path]:
        """Return certificate and key files for `name` (also valid for 127.0.0.1)."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(), days)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                    if name != "autre.example"
                    else [x509.DNSName(name)]
                ),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = f"{name}-{'client' if client else 'server'}-{days}"
        certificate_file, key_file = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_file.chmod(0o600)
        return certificate_file, key_file


@dataclass
class MailServers:
    """Where the servers answer, and how to look behind them."""

    directory: Path
    authority: Authority
    submission_port: int
    submissions_port: int
    imap_port: int
    imaps_port: int
    master_pid: int = 0
    password: str = PASSWORD

    def smtp_url(self, user: str = GATEWAY, password: str = PASSWORD) -> str:
        return f"smtp+starttls://{user.replace('@', '%40')}:{password}@127.0.0.1:{self.submission_port}"

    def imap_url(self, user: str = GATEWAY, password: str = PASSWORD) -> str:
        return f"imaps://{user.replace('@', '%40')}:{password}@127.0.0.1:{self.imaps_port}"

    def inbox(self, user: str) -> list[bytes]:
        """Return the raw messages of a mailbox, read by the standard library's own IMAP client."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        with imaplib.IMAP4_SSL("127.0.0.1", self.imaps_port, ssl_context=context) as imap:
            return raw_mails(imap, user, PASSWORD)

    def wait_inbox(self, user: str, match, *, count: int = 1, timeout_s: float = PATIENCE_S) -> list[bytes]:
        """Return the messages of a mailbox that `match` accepts, once there are `count` of them."""
        until = time.monotonic() + timeout_s
        while True:
            messages = [message for message in self.inbox(user) if match(message)]
            if len(messages) >= count or time.monotonic() > until:
                return messages
            time.sleep(0.1)


def _missing() -> str | None:
    for command in ("/usr/sbin/postfix", "/usr/sbin/dovecot"):
        if not Path(command).exists():
            return f"{command} is not installed"
    if os.geteuid() != 0:
        return "postfix starts its services only as root"
    return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")


def _configure_dovecot(servers: MailServers, certificate: Path, key: Path) -> Path:
    base = servers.directory / "dovecot"
    for name in ("run", "state", "mail"):
        (base / name).mkdir(parents=True)
    owner = pwd.getpwnam("nobody")
    os.chown(base / "mail", owner.pw_uid, owner.pw_gid)
    users = "".join(f"{address}:{{PLAIN}}{PASSWORD}::::::\n" for address in USERS)
    _write(base / "users", users)
    _write(
        base / "dovecot.conf",
        f"""
        base_dir = {base}/run
        state_dir = {base}/state
        log_path = {base}/log
        protocols = imap
        listen = 127.0.0.1
        default_internal_user = nobody
        default_internal_group = nogroup
        default_login_user = nobody
        first_valid_uid = 1
        mail_uid = {owner.pw_uid}
        mail_gid = {owner.pw_gid}
        mail_location = maildir:{base}/mail/%u
        mail_home = {base}/mail/%u
        ssl = required
        ssl_cert = <{certificate}
        ssl_key = <{key}
        ssl_min_protocol = TLSv1.2
        auth_mechanisms = plain login
        passdb {{
          driver = passwd-file
          args = scheme=PLAIN username_format=%u {base}/users
        }}
        userdb {{
          driver = passwd-file
          args = username_format=%u {base}/users
          default_fields = uid={owner.pw_uid} gid={owner.pw_gid}
        }}
        service anvil {{
          chroot =
        }}
        service imap-login {{
          chroot =
          inet_listener imap {{
            port = {servers.imap_port}
          }}
          inet_listener imaps {{
            port = {servers.imaps_port}
          }}
        }}
        service auth {{
          unix_listener auth-smtp {{
            mode = 0666
          }}
        }}
        """,
    )
    return base / "dovecot.conf"


def _configure_postfix(servers: MailServers, certificate: Path, key: Path) -> Path:
    base, dovecot = servers.directory / "postfix", servers.directory / "dovecot"
    for name in ("etc", "queue", "data"):
        (base / name).mkdir(parents=True)
    postfix_user = pwd.getpwnam("postfix")
    os.chown(base / "data", postfix_user.pw_uid, grp.getgrnam("postfix").gr_gid)
    owner = pwd.getpwnam("nobody")
    _write(base / "etc" / "mailboxes", "".join(f"{a} {a}/\n" for a in USERS))
    _write(base / "etc" / "recipients", f"/^{CLOSED}$/ 550 5.2.1 mailbox closed\n/^lente@/ 451 4.7.1 come back later\n")
    _write(
        base / "etc" / "main.cf",
        f"""
        compatibility_level = 3.6
        queue_directory = {base}/queue
        data_directory = {base}/data
        myhostname = mx.operateur.example
        mydestination =
        mynetworks =
        inet_interfaces = 127.0.0.1
        inet_protocols = ipv4
        virtual_mailbox_domains = ch-exemple.mssante.example, medecin.mssante.example, cabinet.mssante.fr, {PATIENTS}
        virtual_mailbox_base = {dovecot}/mail
        virtual_mailbox_maps = texthash:{base}/etc/mailboxes
        virtual_uid_maps = static:{owner.pw_uid}
        virtual_gid_maps = static:{owner.pw_gid}
        virtual_minimum_uid = 1
        smtpd_reject_unlisted_recipient = no
        alias_maps =
        alias_database =
        local_recipient_maps =
        maillog_file = {base}/log
        maillog_file_prefixes = {base}
        smtputf8_enable = no
        message_size_limit = 3000000
        smtpd_tls_cert_file = {certificate}
        smtpd_tls_key_file = {key}
        smtpd_tls_CAfile = {servers.authority.file}
        smtpd_tls_security_level = encrypt
        smtpd_tls_auth_only = yes
        smtpd_tls_ask_ccert = yes
        smtpd_sasl_auth_enable = yes
        smtpd_sasl_type = dovecot
        smtpd_sasl_path = {dovecot}/run/auth-smtp
        smtpd_relay_restrictions = permit_sasl_authenticated, permit_tls_all_clientcerts, reject
        smtpd_recipient_restrictions = check_recipient_access regexp:{base}/etc/recipients, permit
        smtpd_peername_lookup = no
        smtp_dns_support_level = disabled
        disable_dns_lookups = yes
        """,
    )
    daemon = "unix - - n - 0"
    _write(
        base / "etc" / "master.cf",
        f"""
        postlog unix-dgram n - n - 1 postlogd
        127.0.0.1:{servers.submission_port} inet n - n - - smtpd
        127.0.0.1:{servers.submissions_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
        pickup unix n - n 60 1 pickup
        cleanup unix n - n - 0 cleanup
        qmgr unix n - n 300 1 qmgr
        rewrite unix - - n - - trivial-rewrite
        bounce {daemon} bounce
        defer {daemon} bounce
        trace {daemon} bounce
        verify unix - - n - 1 verify
        proxymap unix - - n - - proxymap
        tlsmgr unix - - n 1000? 1 tlsmgr
        error unix - - n - - error
        retry unix - - n - - error
        discard unix - - n - - discard
        virtual unix - n n - - virtual
        anvil unix - - n - 1 anvil
        """,
    )
    return base / "etc"


def _wait_port(port: int, log: Path, timeout_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
                raise RuntimeError(f"port {port} does not answer: {tail}") from None
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def running(directory: Path) -> Iterator[MailServers]:
    """Run both servers in `directory` until the block ends."""
    authority = Authority(directory / "ca")
    certificate, key = authority.issue("mx.operateur.example")
    servers = MailServers(directory, authority, *(free_port() for _ in range(4)))
    dovecot_conf = _configure_dovecot(servers, certificate, key)
    postfix_etc = _configure_postfix(servers, certificate, key)
    dovecot = subprocess.Popen([*_LEASH, "/usr/sbin/dovecot", "-F", "-c", str(dovecot_conf)])
    postfix = None
    try:
        _wait_port(servers.imaps_port, directory / "dovecot" / "log")
        checked = subprocess.run(
            ["/usr/sbin/postfix", "-c", str(postfix_etc), "check"], capture_output=True, text=True, check=False
        )
        if checked.returncode:
            raise RuntimeError(checked.stderr)
        environment = os.environ | {"MAIL_CONFIG": str(postfix_etc)}
        postfix = subprocess.Popen(
            [*_LEASH, "/usr/lib/postfix/sbin/master", "-d", "-c", str(postfix_etc)],
            env=environment,
            start_new_session=True,
        )
        servers.master_pid = postfix.pid
        _wait_port(servers.submission_port, directory / "postfix" / "log")
        yield servers
    finally:
        for process in (postfix, dovecot):
            if process is not None:
                process.send_signal(signal.SIGTERM)
        for process in (postfix, dovecot):
            if process is not None:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(60)


@pytest.fixture(scope="session")
def mail_servers() -> Iterator[MailServers]:
    """postfix and dovecot, once a session (once a worker under xdist)."""
    if reason := _missing():
        pytest.skip(reason)
    # Unix socket names are short, and the services run as other users: a directory of our own under /tmp.
    directory = Path(tempfile.mkdtemp(prefix="rcp-mail-"))
    directory.chmod(0o755)
    try:
        with running(directory) as servers:
            yield servers
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def authority(mail_servers: MailServers) -> Authority:
    return mail_servers.authority
