"""A little MSSanté operator for the demonstration: real SMTP submission and IMAP on loopback; refused in ``prod``.

Promises: the gateway meets the same wires as at an operator: STARTTLS before anything, authentication, a size limit, an
unknown address refused at RCPT, IMAP with IDLE; each address has a mailbox, shared by both services; certificates and
the authority that signed them are made for the run and are good for nothing else.

It does not promise an operator's durability or relaying: everything is in memory and no mail leaves the machine.

Run it with ``with MailOperator(directory, passwords) as operator:`` and give the gateway `smtp_url`, `imap_url` and
`authorities`. SMTP is `aiosmtpd`, IMAP is `pymap`; both run in one thread of their own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import ssl
import threading
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from proxyprotocol.reader import ProxyProtocolReader
from pymap.backend.dict import Config, DictBackend, Identity, Login
from pymap.context import subsystem
from pymap.imap import IMAPServer, IMAPService
from pymap.parsing.message import AppendMessage
from pymap.user import UserMetadata
from pysasl.hashing import Cleartext

from gateway.errors import Fault

__all__ = ["MailOperator"]

_HOST: Final = "127.0.0.1"
_NAME: Final = "operateur.demonstration.example"
_MAX_MESSAGE_BYTES: Final = 25_000_000
_START_S: Final = 120.0
_LIFE_DAYS: Final = 30


class MailOperator:
    """The stand-in.

    Parameters
    ----------
    directory
        Where certificates are written.
    passwords
        Address to password: the mailboxes that exist.
    smtp_port, imap_port
        0 lets the system choose.
    """

    def __init__(
        self, directory: Path, passwords: Mapping[str, str], *, smtp_port: int = 0, imap_port: int = 0
    ) -> None:
        self._passwords = {address.lower(): password for address, password in passwords.items()}
        self._messages: dict[str, list[bytes]] = {address: [] for address in self._passwords}
        self._lock = threading.Lock()
        self._wanted_ports = (smtp_port, imap_port)
        self._ports = (0, 0)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._sets: Any = None
        self.authorities, self._certificate, self._key = _certificates(directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The mailboxes that exist."""
        return tuple(self._passwords)

    @property
    def smtp_port(self) -> int:
        """Port of the submission service (STARTTLS)."""
        return self._ports[0]

    @property
    def imap_port(self) -> int:
        """Port of the IMAP service (STARTTLS)."""
        return self._ports[1]

    def smtp_url(self, address: str) -> str:
        """Value of ``RCP_MSSANTE_SMTP_URL`` for one mailbox."""
        return f"smtp+starttls://{self._credentials(address)}@{_HOST}:{self.smtp_port}"

    def imap_url(self, address: str) -> str:
        """Value of ``RCP_MSSANTE_IMAP_URL`` for one mailbox."""
        return f"imap+starttls://{self._credentials(address)}@{_HOST}:{self.imap_port}"

    def messages(self, address: str) -> list[bytes]:
        """Return what one mailbox received, oldest first, as received."""
        with self._lock:
            return list(self._messages.get(address.lower(), ()))

    def start(self) -> None:
        """Open both ports.

        Raises
        ------
        Fault
            ``mail-operator``: a port cannot be had.
        """
        self._thread = threading.Thread(target=self._run, name="mail-operator", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_S) or self._failure is not None:
            raise Fault(
                "mail-operator", "L’opérateur de messagerie de démonstration n’a pas démarré."
            ) from self._failure

    def stop(self) -> None:
        """Close both ports and forget all mail."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_START_S)
            self._thread = None

    def _credentials(self, address: str) -> str:
        return f"{quote(address, safe='')}:{quote(self._passwords[address.lower()], safe='')}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (told to the thread that waits)
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of its own attributes at each login
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        async with AsyncExitStack() as stack:
            smtp = await self._loop.create_server(lambda: self._submission(context), _HOST, self._wanted_ports[0])
            await stack.enter_async_context(smtp)
            imap_port = await self._serve_imap(stack, context)
            self._ports = (smtp.sockets[0].getsockname()[1], imap_port)
            self._ready.set()
            await self._stop.wait()

    def _submission(self, context: ssl.SSLContext) -> SMTP:
        return SMTP(
            _Handler(self),
            data_size_limit=_MAX_MESSAGE_BYTES,
            hostname=_NAME,
            ident="operateur de demonstration",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=self._authenticate,
            loop=self._loop,
        )

    async def _serve_imap(self, stack: AsyncExitStack, context: ssl.SSLContext) -> int:
        # pymap takes its settings from a command line; these are the ones that its dict backend and service read.
        arguments = Namespace(passlib_cfg=None, proxy_protocol=None, inherited_sockets=None)
        config = Config(
            arguments,
            host=_HOST,
            port=self._wanted_ports[1],
            demo_data=False,
            demo_user="",
            demo_password="",  # no such account is created
            ssl_context=context,
            hash_context=Cleartext(),
            reject_dnsbl=False,
        )
        login = Login(config)
        for address, password in self._passwords.items():
            login.users_dict[address] = UserMetadata(config, address, password=password)
            async with Identity(address, login, None, frozenset()).new_session():
                pass  # makes the mailbox, so that mail may come before its owner
        config.apply_context()
        subsystem.set(config.subsystem)
        self._sets = config.set_cache
        service = _BoundService(DictBackend(login, config), config)
        return await service.bind(stack)

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, proof: object
    ) -> AuthResult:
        if isinstance(proof, LoginPassword):
            address = proof.login.decode("utf-8", "replace").lower()
            if self._passwords.get(address) == proof.password.decode("utf-8", "replace"):
                return AuthResult(success=True, auth_data=address)
        return AuthResult(success=False, handled=False)

    def _knows(self, address: str) -> bool:
        return address.lower() in self._passwords

    async def _deliver(self, sender: str, recipient: str, content: bytes) -> None:
        now = dt.datetime.now(dt.UTC)
        trace = f"Return-Path: <{sender}>\r\nReceived: by {_NAME} with ESMTPSA; {format_datetime(now)}\r\n"
        whole = trace.encode("ascii", "replace") + content
        mailboxes, _ = self._sets[recipient.lower()]
        inbox = await mailboxes.get_mailbox("INBOX")
        await inbox.append(AppendMessage(whole, now, frozenset()), recent=True)
        with self._lock:
            self._messages[recipient.lower()].append(whole)


class _BoundService(IMAPService):
    """The IMAP service of pymap, which does not say by itself which port it was given."""

    async def bind(self, stack: AsyncExitStack) -> int:
        server = IMAPServer(self.backend.login, self.config)
        reader = ProxyProtocolReader(self.config.proxy_protocol)
        listening = await asyncio.start_server(reader.get_callback(server), self.config.host, self.config.port)
        await stack.enter_async_context(listening)
        return int(listening.sockets[0].getsockname()[1])


class _Handler:
    """What aiosmtpd asks for at each command."""

    def __init__(self, operator: MailOperator) -> None:
        self._operator = operator

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.lower() != session.auth_data:
            return "553 5.7.1 Sender address rejected: not owned by user"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not self._operator._knows(address):  # noqa: SLF001 (its own handler)
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        for recipient in envelope.rcpt_tos:
            await self._operator._deliver(envelope.mail_from or "", recipient, content)  # noqa: SLF001 (its own handler)
        return "250 2.0.0 OK"


def _certificates(directory: Path) -> tuple[Path, Path, Path]:
    """Make an authority and a server certificate; return the files of the authority, the certificate, the key."""
    directory.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)

    def certificate(
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        signer: ec.EllipticCurvePrivateKey,
        *,
        authority: bool,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=_LIFE_DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        )
        if not authority:
            names = [x509.DNSName(_NAME), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(_HOST))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        return builder.sign(signer, hashes.SHA256())

    root_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = "AC de démonstration, sans valeur"
    pem = serialization.Encoding.PEM
    files = {
        "mail-ca.pem": certificate(root_name, root_key, root_name, root_key, authority=True).public_bytes(pem),
        "mail-server.pem": certificate(_NAME, server_key, root_name, root_key, authority=False).public_bytes(pem),
        "mail-server.key": server_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, content in files.items():
        path = directory / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
    return directory / "mail-ca.pem", directory / "mail-server.pem", directory / "mail-server.key"
