"""The way out of the outbox to DICOMweb servers: studies by STOW-RS `[PS3.18 10.5]`.

Promises
--------
* Only to a server that is registered at the moment of sending; in `prod` only over TLS; a redirection is not followed.
  A study that was put aside by then stays.
* Objects leave byte for byte as they were received, in requests of a bounded size and in constant memory.
* An object that the server says it stored is not sent again by a later attempt; what it refuses for good is refused and
  named, once everything else has been sent; what may work later is tried again.
* An answer that does not say what became of an object means that it is not stored.
* What is shown to a server (a token, a name and a password) is that server's alone, stands in no row and no log, and
  leaves over TLS only in `prod`, like everything else.
"""

from __future__ import annotations

import base64
import re
import ssl
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.dicom.outgoing import packed, unpacked
from gateway.errors import Fault, NotFound, Unavailable
from gateway.exchange.blobs import BlobStore
from gateway.exchange.outbox import Delivery, Outcome
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.rcp.imaging_destinations import web_destination
from gateway.rcp.imaging_sending import WEB_CHANNEL, WITHDRAWN, Manifest, ManifestObject, may_leave
from gateway.settings import WebCredential

__all__ = ["DicomWebChannel"]

_JSON: Final = "application/dicom+json"
#: Objects, and their bytes, of one request.
_OBJECTS: Final = 100
_BYTES: Final = 256 << 20
_MAX_ANSWER_BYTES: Final = 4 << 20
_CONNECT_S, _SILENCE_S = 10.0, 120.0
# Failure reasons that say « not now »: processing failure, out of resources [PS3.18 table I.2-2] [PS3.4 B.2.3].
_LATER: Final = frozenset({0x0110, 0x0213})

_TOKEN: Final = re.compile(r"[!-~]{1,16384}")

_FAILED_SOPS, _STORED_SOPS, _REASON, _SOP = "00081198", "00081199", "00081197", "00081155"


class DicomWebChannel:
    """`gateway.exchange.outbox.Channel` towards DICOMweb servers.

    Parameters
    ----------
    context
        Whom it trusts, and what it shows of itself; None where nothing was set: the system's authorities.
    clear
        Whether a server may be reached without TLS: not in ``prod``.
    credentials
        What is shown to which server.
    """

    name = WEB_CHANNEL
    idempotent = True

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        context: ssl.SSLContext | None = None,
        clear: bool = False,
        credentials: Iterable[WebCredential] = (),
    ) -> None:
        self._shown = {one.url: one for one in credentials}
        self._store = store
        self._blobs = blobs
        self._clear = clear
        self._http = httpx.Client(
            verify=context or True,
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            follow_redirects=False,
            trust_env=False,
        )

    def deliver(self, message: Message, content: bytes) -> Delivery:
        """Send once; say what happened."""
        base = message.recipient or ""
        with self._store.session() as session:
            to = web_destination(session, base)
        if to is None or to.partner_id != message.partner_id:
            return Delivery(Outcome.REFUSED, "dicomweb-destination-unknown", "Serveur DICOMweb non enregistré.")
        if urlsplit(base).scheme != "https" and not self._clear:
            return Delivery(Outcome.REFUSED, "dicomweb-clear", "Un serveur DICOMweb n’est joint qu’en TLS.")
        manifest = msgspec.json.decode(content, type=Manifest)
        with self._store.session() as session:
            if not may_leave(session, manifest):
                return Delivery(Outcome.REFUSED, *WITHDRAWN)
        done = set(unpacked(str(message.details.get("done", ""))))
        refused: dict[int, str] = {}
        later: Delivery | None = None
        for batch in self._batches(manifest.objects, done):
            known = {position: self._blobs.size(manifest.objects[position].sha256) for position in batch}
            gone = [position for position, size in known.items() if size is None]
            refused |= dict.fromkeys(gone, "blob-missing")
            there = [(position, known[position] or 0) for position in batch if position not in refused]
            if not there:
                continue
            stored, failed, later = self._sent(base, manifest.objects, there)
            done |= stored
            refused |= failed
            if later is not None:
                break
        facts: dict[str, Any] = {"done": packed(done)}
        if later is not None:
            return replace(later, facts=facts)
        if refused:
            first = next(iter(refused.values()))
            text = f"{len(refused)} objets sur {len(manifest.objects)} refusés : {first}"
            return Delivery(Outcome.REFUSED, "dicom-objects-refused", text, facts=facts | {"refused": len(refused)})
        return Delivery(Outcome.DELIVERED, facts=facts)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _batches(self, objects: Sequence[ManifestObject], done: set[int]) -> Iterator[list[int]]:
        """Give the positions of what is left, as much at once as one request holds."""
        batch: list[int] = []
        held = 0
        for position, one in enumerate(objects):
            if position in done:
                continue
            size = self._blobs.size(one.sha256) or 0
            if batch and (len(batch) >= _OBJECTS or held + size > _BYTES):
                yield batch
                batch, held = [], 0
            batch.append(position)
            held += size
        if batch:
            yield batch

    def _sent(
        self, base: str, objects: Sequence[ManifestObject], there: Sequence[tuple[int, int]]
    ) -> tuple[set[int], dict[int, str], Delivery | None]:
        """Send one request: what was stored, what was refused for good, and why to come again."""
        boundary = uuid.uuid4().hex
        heads = [_part(boundary)] * len(there)
        heads[0] = heads[0].lstrip()  # nothing stands before the first part: not every server passes over it
        end = f"\r\n--{boundary}--\r\n".encode()
        length = sum(map(len, heads)) + sum(size for _, size in there) + len(end)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),
            "Accept": _JSON,
        }

        def body() -> Iterator[bytes]:
            for head, (position, _) in zip(heads, there, strict=True):
                yield head
                yield from self._blobs.stream(objects[position].sha256)
            yield end

        try:
            headers |= self._authorization(base)
            with self._http.stream("POST", f"{base}/studies", headers=headers, content=body()) as response:
                status, answer = response.status_code, _read(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return set(), {}, Delivery(Outcome.UNAVAILABLE, "dicomweb-unreachable", type(error).__name__)
        except (Fault, NotFound, Unavailable) as error:  # bytes that were there are gone, or broken; no token
            return set(), {}, Delivery(Outcome.UNAVAILABLE, error.code, error.text)
        return _told(status, answer, {objects[position].sop_instance_uid: position for position, _ in there})

    def _authorization(self, base: str) -> dict[str, str]:
        """Say who we are in the way that the server asks for `[RFC 7617, RFC 6750]`.

        Raises
        ------
        Unavailable
            ``dicomweb-token``: none was given.
        """
        shown = self._shown.get(base.rstrip("/"))
        if shown is None:
            return {}
        if shown.kind == "basic":
            return {"Authorization": "Basic " + base64.b64encode(":".join(shown.words).encode()).decode("ascii")}
        token = self._token(*shown.words) if shown.kind == "oauth2" else shown.words[0]
        return {"Authorization": f"Bearer {token}"}

    def _token(self, address: str, client: str, secret: str) -> str:
        """Ask for a token, anew for each request: it lasts as long as one `[RFC 6749 4.4]`."""
        found: Any = None
        if urlsplit(address).scheme == "https" or self._clear:
            form = {"grant_type": "client_credentials"}
            try:
                with self._http.stream("POST", address, data=form, auth=(client, secret)) as response:
                    answer = _read(response)
                    found = answer.get("access_token") if response.status_code == 200 and answer else None
            except httpx.HTTPError:
                found = None
        if not isinstance(found, str) or not _TOKEN.fullmatch(found):
            raise Unavailable("dicomweb-token", "Aucun jeton n’a été délivré pour le serveur DICOMweb.")
        return found


def _part(boundary: str) -> bytes:
    # Its transfer syntax stands in the file: Orthanc takes no part whose type says it as well.
    return f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()


def _read(response: httpx.Response) -> Any:
    """The answer as a data set in JSON; None when it is none, or is too long."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            return None
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(found, list):  # some servers answer a list of one
        found = found[0] if len(found) == 1 else None
    return found if isinstance(found, dict) else None


def _told(
    status: int, answer: dict[str, Any] | None, positions: dict[str, int]
) -> tuple[set[int], dict[int, str], Delivery | None]:
    """Read what became of each object `[PS3.18 10.5.3]`."""
    if status in {408, 425, 429} or status >= 500:
        return set(), {}, Delivery(Outcome.UNAVAILABLE, f"dicomweb-{status}")
    if answer is None or status not in {200, 202, 409}:
        # Refused as a whole: credentials, address, form.
        return set(), dict.fromkeys(positions.values(), f"dicomweb-{status}"), None
    stored = {positions[uid] for uid, _ in _items(answer, _STORED_SOPS) if uid in positions}
    refused: dict[int, str] = {}
    again = False
    for uid, reason in _items(answer, _FAILED_SOPS):
        if uid in positions and positions[uid] not in stored:
            if reason in _LATER or reason >> 8 == 0xA7:
                again = True
            else:
                refused[positions[uid]] = f"dicom-{reason:04x}"
    again = again or bool(set(positions.values()) - stored - set(refused))
    return stored, refused, Delivery(Outcome.UNAVAILABLE, "dicomweb-not-stored") if again else None


def _items(answer: dict[str, Any], sequence: str) -> Iterator[tuple[str, int]]:
    """Each object that a sequence names, and the reason that it gives."""
    element = answer.get(sequence)
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items if isinstance(items, list) else ():
        uid, reason = (_first(item, tag) for tag in (_SOP, _REASON))
        if isinstance(uid, str):
            yield uid, reason if isinstance(reason, int) else 0


def _first(item: Any, tag: str) -> Any:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
