"""Certificates that their authority took back: the operator's own is looked up before anything is said to it.

Promises: a list counts only with the signature of one of the authorities that are trusted; a new one that cannot be
read, is expired, or is older never takes the place of the last valid one, which serves on, across restarts too, and the
fault is told; a certificate that no list covers is refused. Downloads nothing: whoever runs the gateway renews the file
(a cron job), which is read again when it changes. No OCSP. [ECO.1.1.6, .1.1.7, .1.1.10; spec mssante 1.3, 1.4]
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

__all__ = ["RevocationLists", "Untrusted"]

log = structlog.get_logger(__name__)

_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_MAX_BYTES = 50_000_000


class Untrusted(ssl.SSLCertVerificationError):
    """A certificate whose chain is right and which is not believed all the same; ``code`` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _now() -> datetime:
    return datetime.now(UTC)


class RevocationLists:
    """The lists of one file.

    Parameters
    ----------
    file
        One or more lists, PEM or DER.
    authorities
        PEM file of the trusted authorities; a list of another one is no list.
    kept
        Where the last valid lists are kept for the next start; nowhere for who only wants `fault`.
    wire
        How the variables of both files begin.
    """

    def __init__(
        self,
        file: Path,
        authorities: Path,
        kept: Path | None = None,
        *,
        wire: str = "RCP_MSSANTE",
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._file, self._authorities, self._kept, self._clock = file, authorities, kept, clock
        self._wire = wire
        self._lock = threading.Lock()
        self._lists: dict[x509.Name, x509.CertificateRevocationList] = {}
        self._seen: tuple[int, int] | None = None
        self._unusable = False
        self._told: str | None = None

    def require(self, certificate: bytes) -> None:
        """Refuse a certificate (DER) that was revoked, or of which nothing is known.

        Raises
        ------
        Untrusted
            ``tls-revoked``, ``tls-crl-missing``.
        """
        leaf = x509.load_der_x509_certificate(certificate)
        with self._lock:
            self._refresh()
            found = self._lists.get(leaf.issuer)
        if found is None:
            raise Untrusted("tls-crl-missing")
        if found.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None:
            raise Untrusted("tls-revoked")

    def fault(self) -> str | None:
        """Say in French what is wrong with the lists, though mail may go on with the last valid ones."""
        with self._lock:
            self._refresh()
            return self._fault()

    def _refresh(self) -> None:
        if not self._lists and self._kept is not None:
            self._take(self._kept)
        try:
            stat = self._file.stat()
            state = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            self._unusable, self._seen = True, None
        else:
            if state != self._seen:
                self._seen = state
                self._unusable = not self._take(self._file)
                if not self._unusable and self._kept is not None:
                    self._keep(self._kept)
        fault = self._fault()
        if fault != self._told:
            self._told = fault
            if fault is not None:
                log.error("tls-crl", fault=fault)

    def _fault(self) -> str | None:
        name = f"{self._wire}_TLS_CRL"
        if not self._lists:
            return f"{name} : aucune liste de révocation lisible d’une autorité de {self._wire}_TLS_CA"
        if self._unusable:
            return f"{name} : liste illisible, périmée ou trop ancienne ; la dernière valable sert encore"
        if any(not self._is_current(one) for one in self._lists.values()):
            return f"{name} : liste de révocation périmée, à renouveler"
        return None

    def _take(self, file: Path) -> bool:
        """Use the lists of a file that are better than those in use; say whether each of them was."""
        try:
            with file.open("rb") as stream:
                lists = list(_read(stream.read(_MAX_BYTES)))
            authorities = x509.load_pem_x509_certificates(self._authorities.read_bytes())
        except (OSError, ValueError):
            return False
        trusted = [one for one in lists if _signed(one, authorities)]
        for one in trusted:
            former = self._lists.get(one.issuer)
            if former is not None and self._rank(one) < self._rank(former):
                return False
            self._lists[one.issuer] = one
        return bool(trusted)

    def _rank(self, one: x509.CertificateRevocationList) -> tuple[bool, datetime]:
        return self._is_current(one), one.last_update_utc

    def _is_current(self, one: x509.CertificateRevocationList) -> bool:
        ends = one.next_update_utc
        return one.last_update_utc <= self._clock() and (ends is None or self._clock() < ends)

    def _keep(self, kept: Path) -> None:
        content = b"".join(one.public_bytes(Encoding.PEM) for one in self._lists.values())
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        try:
            part.write_bytes(content)
            part.replace(kept)
        except OSError as error:
            log.error("tls-crl-kept", error=type(error).__name__)  # noqa: TRY400 - they serve until the process ends


def _read(content: bytes) -> Iterator[x509.CertificateRevocationList]:
    blocks = _PEM.findall(content)
    if blocks:
        yield from map(x509.load_pem_x509_crl, blocks)
    else:
        yield x509.load_der_x509_crl(content)


def _signed(one: x509.CertificateRevocationList, authorities: list[x509.Certificate]) -> bool:
    """Whether the list is of an authority that is trusted, and speaks of the certificates of servers."""
    try:
        extensions = list(one.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False
    for extension in extensions:
        match extension.value:
            case x509.IssuingDistributionPoint() as scope if scope.only_contains_ca_certs or scope.indirect_crl:
                return False
            case x509.DeltaCRLIndicator():
                return False
            case x509.UnrecognizedExtension() if extension.critical:
                return False  # it may say that the list is not what it seems [RFC 5280 §5.2]
    for authority in authorities:
        if authority.subject == one.issuer:
            try:
                if one.is_signature_valid(authority.public_key()):  # type: ignore[arg-type] # others are a TypeError
                    return True
            except TypeError:
                continue
    return False
