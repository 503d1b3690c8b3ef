"""The client of the national directory's FHIR API: one professional asked for by number.

Promises: the key goes to the configured origin and nowhere else (a ``next`` link elsewhere is refused, redirections are
not followed); no more calls a second than the contract allows; what is busy (429, 5xx, no answer) is asked again with a
growing wait and chance, and after five such answers in a row nobody is asked for a minute: whoever calls then uses what
is kept, which has its date. A refused key, a refused search and a page without end are told as ours.
Not promised: that an absent mailbox does not exist: the red list is not published.

[spec annuaire §1, §4; spec mssante §4.1]
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx

from gateway.errors import Fault, GatewayError, Unavailable
from gateway.fhir import document
from gateway.fhir.annuaire_translate import entry_of, number_of
from gateway.identifiers import SYSTEMS, IdNatPs
from gateway.rcp.directory import EntryFacts
from gateway.settings import Settings

__all__ = ["CALLS_A_SECOND", "Annuaire", "annuaire"]

#: What the contract of the open API allows to one application.
CALLS_A_SECOND: Final = 17.0
_ATTEMPTS: Final = 4
_OPENS_AFTER: Final = 5
_OPEN_S: Final = 60.0
_LONGEST_WAIT_S: Final = 8.0
_PAGES: Final = 100
_ANSWER_BYTES: Final = 16 << 20
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_MEDIA: Final = "application/fhir+json"


class Annuaire:
    """A client of one directory; safe to share between threads.

    Parameters
    ----------
    url
        Base of the API, ``…/fhir/v2``.
    key
        ``ESANTE-API-KEY``.
    sleep, now
        Turned by tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        authorities: Path | None = None,
        calls_a_second: float = CALLS_A_SECOND,
        timeout: httpx.Timeout = _TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = url.rstrip("/")
        context = ssl.create_default_context(cafile=authorities)
        headers = {"Accept": _MEDIA} | ({"ESANTE-API-KEY": key} if key else {})
        self._http = httpx.Client(verify=context, headers=headers, timeout=timeout, follow_redirects=False)
        self._every_s = 1 / calls_a_second
        self._sleep, self._now = sleep, now
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._failures = 0
        self._open_until: float | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ping(self) -> None:
        """Ask for nobody, for ``rcp-gateway check``: the service answers and takes our key.

        Raises
        ------
        Unavailable, Fault
            As `find`.
        """
        self._get(f"{self._base}/Practitioner?{urlencode({'_count': '1', '_id': '0'})}")

    def find(self, number: str) -> EntryFacts | None:
        """Ask for a professional by RPPS or national identifier, with his places and mailboxes.

        Raises
        ------
        Unavailable
            ``annuaire``: the service does not answer.
        Fault
            ``annuaire-cle``, ``annuaire-refus``, ``annuaire-reponse``.
        """
        wanted = IdNatPs.from_wire(number)
        if wanted.faults:
            return None
        try:
            return self._found(wanted)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # JSON of another shape than FHIR's.
            raise _unreadable() from error

    def _found(self, wanted: IdNatPs) -> EntryFacts | None:
        asked = {"identifier": f"{SYSTEMS['IDNPS'].system}|{wanted.value}"}
        people = (one for one in self._search("Practitioner", asked) if one.get("resourceType") == "Practitioner")
        found = next((one for one in people if number_of(one) == wanted), None)
        if found is None or not isinstance(found.get("id"), str):
            return None
        about = {"practitioner": found["id"], "_include": "PractitionerRole:organization"}
        roles: list[Mapping[str, Any]] = []
        places: dict[str, Mapping[str, Any]] = {}
        for one in self._search("PractitionerRole", about):
            if one.get("resourceType") == "Organization":
                places[f"Organization/{one.get('id')}"] = one
            elif (one.get("practitioner") or {}).get("reference") == f"Practitioner/{found['id']}":
                roles.append(one)
        return entry_of(found, roles, places)

    def _search(self, kind: str, asked: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Every resource of every page, in order."""
        url: str | None = f"{self._base}/{kind}?{urlencode(asked)}"
        for _page in range(_PAGES):
            if url is None:
                return
            answer = self._get(url)
            if answer is None:
                return
            if answer.get("resourceType") != "Bundle":
                raise _unreadable()
            entries = answer.get("entry") or []
            yield from (one["resource"] for one in entries if isinstance(one.get("resource"), dict))
            url = next((link.get("url") for link in answer.get("link") or () if link.get("relation") == "next"), None)
            if url is not None and urlsplit(url)[:2] != urlsplit(self._base)[:2]:
                raise Fault("annuaire-reponse", "L’annuaire national renvoie vers un autre serveur que le sien.")
        raise Fault("annuaire-reponse", f"La réponse de l’annuaire national dépasse la limite de {_PAGES} pages.")

    def _get(self, url: str) -> Mapping[str, Any] | None:
        """One answer; `None` for what does not exist (404, 410)."""
        for attempt in range(1, _ATTEMPTS + 1):
            self._require_closed()
            self._wait_turn()
            status, body, after = self._ask(url)
            if status not in _BUSY and status:
                with self._lock:
                    self._failures = 0
                return _read(status, body)
            self._failed()
            if attempt < _ATTEMPTS:
                self._sleep(max(after, min(_LONGEST_WAIT_S, 0.5 * 2**attempt * random.uniform(0.5, 1))))  # noqa: S311 - jitter, not a secret
        raise _silent()

    def _ask(self, url: str) -> tuple[int, bytes, float]:
        """Status (0: no answer), bytes, seconds that the server asks to wait."""
        try:
            with self._http.stream("GET", url) as answer:
                pieces, size = [], 0
                for piece in answer.iter_bytes():
                    size += len(piece)
                    if size > _ANSWER_BYTES:
                        text = f"Une réponse de l’annuaire national dépasse la limite de {_ANSWER_BYTES} octets."
                        raise Fault("annuaire-reponse", text)
                    pieces.append(piece)
                after = answer.headers.get("Retry-After", "")
                wait = min(float(after), _LONGEST_WAIT_S) if after.isascii() and after.isdigit() else 0.0
                return answer.status_code, b"".join(pieces), wait
        except httpx.HTTPError:
            return 0, b"", 0.0

    def _wait_turn(self) -> None:
        with self._lock:
            now = self._now()
            turn = max(now, self._next_at)
            self._next_at = turn + self._every_s
        if turn > now:
            self._sleep(turn - now)

    def _require_closed(self) -> None:
        """Refuse while the circuit is open; then one call tries, and closes it or not."""
        with self._lock:
            if self._open_until is None:
                return
            if self._now() < self._open_until:
                raise _silent()
            self._open_until, self._failures = None, _OPENS_AFTER - 1

    def _failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= _OPENS_AFTER:
                self._open_until = self._now() + _OPEN_S


def annuaire(settings: Settings) -> Annuaire | None:
    """Open the configured directory, or say that there is none."""
    if settings.annuaire_url is None:
        return None
    return Annuaire(settings.annuaire_url, settings.annuaire_key, authorities=settings.annuaire_authorities)


def _read(status: int, body: bytes) -> Mapping[str, Any] | None:
    if status in {404, 410}:
        return None
    if status in {401, 403}:
        raise Fault("annuaire-cle", "L’annuaire national refuse la clé de cette passerelle (RCP_ANNUAIRE_KEY).")
    if status != 200:
        raise Fault("annuaire-refus", f"L’annuaire national a refusé la demande (HTTP {status}).")
    try:
        return document.parse(body)
    except GatewayError as error:
        raise _unreadable() from error


def _unreadable() -> Fault:
    return Fault("annuaire-reponse", "La réponse de l’annuaire national ne peut pas être lue.")


def _silent() -> Unavailable:
    return Unavailable("annuaire", "L’annuaire national ne répond pas.", retry_after_s=_OPEN_S)
