"""``rcp-gateway check``: try each peer that the configuration names, one sentence a fault.

Promises: every peer is tried, whatever the others answer; no sentence holds a secret or a peer's own words. The mail
servers are spoken to as the worker speaks to them, up to the proof of who we are. Sends no mail and signs nobody in;
keeps one content of a few bytes in the blob store. That a peer answers today is all it says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import httpx
from sqlalchemy import func, select

from gateway.app.components import prepared
from gateway.app.gateway import open_gateway
from gateway.app.mail import MailPeers, mail_peers
from gateway.errors import GatewayError, Unavailable
from gateway.exchange.blobs import open_store
from gateway.fhir.annuaire import annuaire
from gateway.model.store import Store
from gateway.mssante.connection import Fate
from gateway.mssante.outcome import delivery
from gateway.mssante.revocation import RevocationLists
from gateway.psc.oidc import PscClient
from gateway.rcp import templates
from gateway.rcp.mllp_peers import MllpPeer
from gateway.rcp.peer_proofs import addresses
from gateway.rcp.registry import partners
from gateway.settings import Settings
from gateway.transport import Tls

__all__ = ["DICOM_CONNECTIONS", "HTTP_CONNECTIONS", "probe"]

#: Connections of the database that one process takes at most, however many callers it has (docs/configuration.md).
HTTP_CONNECTIONS = 34
DICOM_CONNECTIONS = 20


def _database(settings: Settings) -> None:
    if settings.database_url is None:
        with prepared(settings):
            return
    store = Store(settings.database_url)
    try:
        store.ping()
        store.require_current(may_migrate=False)
    finally:
        store.close()


def _blobs(settings: Settings) -> None:
    open_store(settings.blob_url or (settings.data_dir / "blobs").as_uri(), staging=settings.data_dir / "staging").put(
        b"rcp-gateway check"
    )


def _texts(folder: Path) -> None:
    templates.overlay(folder)


def _submission(peers: MailPeers) -> None:
    assert peers.submission is not None  # noqa: S101 - asked for where a server is named
    attempted = peers.submission.check()
    if attempted.fate is not Fate.DELIVERED:
        raise Unavailable(attempted.code, delivery(attempted).reason or attempted.code)


def _revocation(lists: RevocationLists) -> None:
    fault = lists.fault()
    if fault is not None:
        raise Unavailable("tls-crl", fault)


def _port_lists(tls: Tls, wire: str) -> None:
    """A list that is none, or of yesterday, lets nobody in."""
    if tls.enabled and tls.revoked is not None and tls.authorities is not None:
        _revocation(RevocationLists(tls.revoked, tls.authorities, wire=wire))


def _mllp(settings: Settings) -> None:
    """Read the port's certificate as the port does, and look for every registered sender's address."""
    settings.mllp.tls.serving()
    _port_lists(settings.mllp.tls, "RCP_MLLP")
    with open_gateway(settings) as gateway, gateway.store.session() as session:
        kept = [one.value for found in partners(session) for one in found.credentials if one.kind == "mllp"]
    hosts = sorted({host for one in kept if (host := MllpPeer.parse(one).host) is not None})
    lost = [host for host in hosts if not addresses(host)]
    if lost:
        raise Unavailable("mllp-adresse", f"Adresse introuvable pour un pair MLLP : {', '.join(lost)}.")


def _dicom(settings: Settings) -> None:
    """Read the port's certificate as the port does, and look for every registered application's address."""
    settings.dicom.tls.serving()
    _port_lists(settings.dicom.tls, "RCP_DICOM")
    with open_gateway(settings) as gateway, gateway.store.session() as session:
        kept = [
            one for found in partners(session) for one in found.credentials if one.kind == "aet" and not one.revoked_at
        ]
    hosts = {str(one.details["host"]) for one in kept if one.details.get("host")}
    lost = sorted(host for host in hosts if not addresses(host))
    if lost:
        raise Unavailable("dicom-adresse", f"Adresse introuvable pour une application DICOM : {', '.join(lost)}.")
    bound = sorted(one.value for one in kept if one.details.get("certificates"))
    if bound and settings.dicom.tls.authorities is None:
        text = f"RCP_DICOM_TLS_CA manque : sans certificat client, ces titres AE sont refusés : {', '.join(bound)}."
        raise Unavailable("dicom-certificats", text)


def _processes(settings: Settings) -> None:
    """Whether the database lets in what several processes take together; what they lack, their callers wait for."""
    wanted = settings.http_workers * HTTP_CONNECTIONS + settings.dicom.workers * DICOM_CONNECTIONS
    with open_gateway(settings) as gateway, gateway.store.session() as session:
        names = ("max_connections", "superuser_reserved_connections")
        most, reserved = (int(session.scalar(select(func.current_setting(name))) or 0) for name in names)
    if wanted > most - reserved:
        text = (
            f"RCP_HTTP_WORKERS et RCP_DICOM_WORKERS demandent jusqu’à {wanted} connexions,"
            f" la base en accepte {most - reserved} (max_connections)."
        )
        raise Unavailable("connexions", text)


def _probes(settings: Settings) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "base", lambda: _database(settings)
    yield "fichiers", lambda: _blobs(settings)
    yield "mllp", lambda: _mllp(settings)
    yield "dicom", lambda: _dicom(settings)
    if settings.http_workers > 1 or settings.dicom.workers > 1:
        yield "processus", lambda: _processes(settings)
    if settings.mail.texts is not None:
        texts = settings.mail.texts
        yield "messages", lambda: _texts(texts)
    peers = mail_peers(settings)
    if peers.submission is not None:
        yield "smtp", lambda: _submission(peers)
    if peers.mailbox is not None:
        yield "imap", peers.mailbox.check
    if peers.revoked is not None:
        revoked = peers.revoked
        yield "révocation", lambda: _revocation(revoked)
    if settings.psc.discovery_url:
        yield "psc", PscClient(settings.psc, f"{settings.public_url}/psc/retour").ping
    national = annuaire(settings)
    if national is not None:
        yield "annuaire", national.ping


def probe(settings: Settings, *, only: Collection[str] | None = None) -> Iterator[tuple[str, str | None]]:
    """Try each peer, or those of the given names.

    Yields
    ------
    tuple of str and str or None
        Its name, and the French sentence of what is wrong (`None` when it answers).
    """
    for name, ask in _probes(settings):
        if only is not None and name not in only:
            continue
        try:
            ask()
        except GatewayError as refusal:
            yield name, refusal.text
        except (OSError, httpx.HTTPError) as error:
            yield name, f"ne répond pas ({type(error).__name__})"
        else:
            yield name, None
