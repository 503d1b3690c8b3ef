"""How a wire of ours is listened to and spoken: an address, and TLS.

Promises: ``[::]`` listens on both families; TLS 1.2 or later with forward secrecy; certificates that their authority
took back are refused in the handshake where lists are given, and nobody is let in by lists of yesterday. Opens a socket
only when asked to listen. Knows no variable and no wire: `gateway.settings` says which files and addresses.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from gateway.errors import Fault

__all__ = ["TLS_CIPHERS", "Address", "Tls"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a wire listens; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def listening(self, *, backlog: int, shared: bool = False) -> socket.socket:
        """Bind and listen: ``[::]`` takes callers of both families, and shows those of IPv4 as ``::ffff:10.0.0.7``.

        Parameters
        ----------
        shared
            Whether other processes listen here as well.

        Raises
        ------
        OSError
            The address is taken, or not this machine's.
        """
        six = ":" in self.host
        return socket.create_server(
            (self.host, self.port),
            family=socket.AF_INET6 if six else socket.AF_INET,
            backlog=backlog,
            reuse_port=shared,
            dualstack_ipv6=six and socket.has_dualstack_ipv6(),
        )


#: Suites of TLS 1.2 with forward secrecy and authenticated encryption `[BCP 195]`; those of TLS 1.3 all have both.
TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True)
class Tls:
    """Certificate, key and trusted authorities of one wire, and their revocation lists; all `None` means plain.

    Mail looks at its lists by itself (`gateway.mssante.revocation`): one that expired serves there until another comes.
    """

    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)
    authorities: Path | None = None
    revoked: Path | None = None

    @property
    def enabled(self) -> bool:
        """Whether a certificate is configured."""
        return self.certificate is not None

    def serving(self) -> ssl.SSLContext | None:
        """Return how a port of ours speaks, `None` for plain.

        TLS 1.2 or later with forward secrecy `[BCP 195]`, also of what was said before: no session ticket, whose one
        key would live as long as the process; a client certificate is required once authorities are configured, and
        refused in the handshake when their list names it, or when there is no list of today (`minding`).

        Raises
        ------
        Fault
            ``tls-fichiers``: the files are no certificate, key, authorities or lists, or do not belong together.
        """
        if self.certificate is None:
            return None
        try:
            return self.minding(self._port)
        except OSError as error:
            text = (
                "Le certificat, sa clé, les autorités ou leurs listes (RCP_…_TLS_…) ne sont pas utilisables ensemble."
            )
            raise Fault("tls-fichiers", text) from error

    def _port(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS_CIPHERS)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        assert self.certificate is not None  # noqa: S101 - asked by `serving`
        context.load_cert_chain(self.certificate, self.key)
        if self.authorities is not None:
            context.load_verify_locations(self.authorities)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def minding(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Give what is made, which looks the other side's certificate up in the revocation lists where there are some.

        It is made again when their file changes: lists last for days, a port for months. A file that cannot be used
        changes nothing but the log; lists that expired let nobody in.

        Raises
        ------
        OSError
            Of the files, `ssl.SSLError` among them.
        """
        return make() if self.revoked is None else _Minding(self._state, lambda: self._with_lists(make()))

    def _with_lists(self, context: ssl.SSLContext) -> ssl.SSLContext:
        assert self.revoked is not None  # noqa: S101 - asked by `minding`
        believed = context.cert_store_stats()["x509"]
        context.load_verify_locations(self.revoked)
        held = context.cert_store_stats()
        # Lists are fetched as anybody may read them, their signature protects them: an authority is not among them.
        if held["x509"] != believed or not held["crl"]:
            raise ssl.SSLError("RCP_…_TLS_CRL: revocation lists in PEM, and nothing else")
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        return context

    def _state(self) -> object:
        assert self.revoked is not None  # noqa: S101 - asked by `minding`
        stat = self.revoked.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


#: What OpenSSL says where a list decides: none, badly signed, of tomorrow, expired, names the certificate.
_BY_LIST: Final = frozenset({3, 8, 11, 12, 23})


class _Minding(ssl.SSLContext):
    """A context whose handshakes are another's, made again when a file changes or it knows a session.

    Whoever takes a session of TLS 1.2 up again shows no certificate, and no list is looked at: also when it expired, or
    named him, since. Python turns no cache off; a context that was just made has an empty one.
    """

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)  # its own is never used

    def __init__(self, state: Callable[[], object], make: Callable[[], ssl.SSLContext]) -> None:
        self._state, self._make = state, make
        self._lock = threading.Lock()
        self._seen = state()
        self._current = make()

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **more: Any) -> ssl.SSLSocket:
        self._renew()
        try:
            return self._current.wrap_socket(sock, *arguments, **more)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in _BY_LIST:
                LOG.error("tls-crl: %s", error.verify_message)  # noqa: TRY400 - the reason is the message
            raise

    def _renew(self) -> None:
        with self._lock:
            try:
                state = self._state()
                if state != self._seen or self._current.session_stats()["number"]:
                    self._seen = state
                    self._current = self._make()
            except OSError as error:
                LOG.error("tls-crl: not read again, the former one serves until it expires: %s", type(error).__name__)  # noqa: TRY400 - as above
