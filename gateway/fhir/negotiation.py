"""What a request says of the form of its answer, and the headers that answers share.

[FHIR R4 http#mime-type, #general; spec fhir-fr 3.3]

Promises: pure functions of a request; what is not offered is refused by name (406, 415).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum
from functools import lru_cache
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.errors import InvalidContent, NotFound, Unsupported
from gateway.fhir import document, xml_read
from gateway.fhir.document import Tree
from gateway.fhir.read import READABLE
from gateway.rcp.access import Caller
from gateway.settings import Limits
from gateway.web.request_id import request_id

__all__ = [
    "FHIR_JSON",
    "FHIR_XML",
    "FORMATS",
    "MEDIA",
    "NO_STORE",
    "PRIVATE",
    "Format",
    "Wish",
    "asks_fhir",
    "form_of",
    "form_pairs",
    "here",
    "http_date",
    "prefers",
    "require_format",
    "require_type",
    "strict",
    "takes",
    "tree_of",
    "wish",
]

#: Fields that a form may hold before anybody counts parameters.
_FIELDS = 2000
FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"
_PARAMETERS = "; charset=utf-8; fhirVersion=4.0"
MEDIA = FHIR_JSON + _PARAMETERS


class Format(Enum):
    """A form of a resource on the wire."""

    JSON = "json"
    XML = "xml"

    @property
    def media(self) -> str:
        """Content-Type of an answer."""
        return FORMATS[self][0] + _PARAMETERS


#: Form → its names, in ``Accept``, ``_format`` and ``Content-Type``; the first is the official one.
FORMATS: Mapping[Format, tuple[str, ...]] = {
    Format.JSON: (FHIR_JSON, "application/json", "application/json+fhir", "text/json", "json"),
    Format.XML: (FHIR_XML, "application/xml", "application/xml+fhir", "text/xml", "xml"),
}
_FORMAT_OF = {name: form for form, names in FORMATS.items() for name in names}
_ANY = frozenset({"*/*", "application/*"})
_VERSIONS = frozenset({"", "4.0", "4.0.1"})
_CHARSETS = frozenset({"", "utf-8", "utf8"})
_BAD_WEIGHT = -1.0
#: Where the scope of a request keeps its `Wish`, which is asked for twice.
_WISH = "rcp.fhir.wish"


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer is wanted.

    Attributes
    ----------
    form
        `None` when nothing that is offered was asked for.
    explicit
        Whether FHIR itself was named: else the bytes of a Binary go out as they are.
    """

    form: Format | None
    pretty: bool = False
    explicit: bool = False


NO_STORE = {"Cache-Control": "no-store"}
PRIVATE = {"Cache-Control": "private, no-cache"}


def require_type(kind: str) -> None:
    """Refuse a type that is not offered (404)."""
    if kind not in READABLE:
        raise NotFound("type-inconnu", "Type de ressource inconnu ou non offert par la passerelle.")


def here(caller: Caller, request: Request) -> Caller:
    """Return the caller as the trail knows him on this wire."""
    return caller.on("fhir", address=request.client.host if request.client else None, request_id=request_id())


def _parameters(text: str) -> tuple[str, dict[str, str]]:
    """Part a media type from its parameters, in lower case."""
    name, *rest = text.lower().split(";")
    said = (part.partition("=") for part in rest)
    # A plus sign that was not escaped in a query arrives as a space.
    return name.strip().replace(" ", "+"), {key.strip(): value.strip().strip('"') for key, _, value in said}


def _weight(parameters: Mapping[str, str]) -> float:
    try:
        weight = float(parameters.get("q") or 1)
    except ValueError:
        return _BAD_WEIGHT
    return weight if 0 < weight <= 1 else _BAD_WEIGHT


def _served(parameters: Mapping[str, str]) -> bool:
    version, charset = parameters.get("fhirversion", ""), parameters.get("charset", "")
    return version in _VERSIONS and charset in _CHARSETS


@lru_cache(maxsize=256)
def _accepted(accept: str) -> Wish:
    """The form that an ``Accept`` prefers: the heaviest, at equal weight the first."""
    best: tuple[float, Format | None, bool] = (0.0, None, False)
    for part in accept.split(","):
        name, parameters = _parameters(part)
        form = Format.JSON if name in _ANY else _FORMAT_OF.get(name)
        weight = _weight(parameters)
        if form is not None and _served(parameters) and weight > best[0]:
            best = (weight, form, name in {FHIR_JSON, FHIR_XML, "application/json+fhir", "application/xml+fhir"})
    return Wish(best[1], explicit=best[2])


def takes(accept_encoding: str, coding: str) -> bool:
    """Whether an ``Accept-Encoding`` takes a content coding, by its name or by ``*`` [RFC 9110 §12.5.3]."""
    weights: dict[str, float] = {}
    for part in accept_encoding.split(","):
        name, parameters = _parameters(part)
        weights.setdefault(name, _weight(parameters))
    return weights.get(coding, weights.get("*", 0.0)) > 0


def wish(request: Request) -> Wish:
    """Tell how the answer is wanted: ``_format`` wins over ``Accept``; no wish is JSON [FHIR R4 http#parameters]."""
    found = request.scope.get(_WISH)
    if found is None:
        query = request.scope["query_string"]
        found = _accepted(request.headers.get("accept") or "*/*")
        if b"_format" in query or b"_pretty" in query:
            found = _asked(found, request.query_params)
        request.scope[_WISH] = found
    wanted: Wish = found
    return wanted


def _asked(accepted: Wish, query: Mapping[str, str]) -> Wish:
    pretty = query.get("_pretty") in {"true", ""}
    asked = query.get("_format")
    if not asked:
        return replace(accepted, pretty=pretty)
    name, parameters = _parameters(asked)
    return Wish(_FORMAT_OF.get(name) if _served(parameters) else None, pretty, explicit=True)


def require_format(request: Request) -> None:
    """Refuse an answer format that is not offered (406)."""
    if wish(request).form is None:
        text = f"Seuls les formats {FHIR_JSON} et {FHIR_XML} sont offerts, en UTF-8 et en version 4.0."
        raise Unsupported("format-refuse", text)


def asks_fhir(request: Request) -> bool:
    """Whether a Binary is wanted as a resource: its bytes go to whoever does not ask for FHIR [FHIR R4 binary#rest]."""
    asked = wish(request)
    return asked.form is not None and asked.explicit


def form_of(request: Request) -> Format:
    """The form of a body, by its Content-Type; JSON when it is not said.

    Raises
    ------
    Unsupported
        ``type-de-contenu`` (415).
    """
    declared = request.headers.get("content-type")
    if not declared:
        return Format.JSON
    name, parameters = _parameters(declared)
    form = _FORMAT_OF.get(name) if "/" in name else None
    if form is None or not _served(parameters):
        text = f"Le corps doit être en {FHIR_JSON} ou {FHIR_XML}, en UTF-8 et en version 4.0."
        raise Unsupported("type-de-contenu", text)
    return form


def tree_of(request: Request, content: bytes, limits: Limits) -> Tree:
    """Read the resource of a body, JSON or XML by its Content-Type; where a Binary is due, other bytes are its own.

    Raises
    ------
    Unsupported
        ``type-de-contenu`` (415).
    InvalidContent
        What `gateway.fhir.document.parse` and `gateway.fhir.xml_read.parse` refuse.
    """
    if request.path_params.get("kind") == "Binary":
        sent = _binary(request, content)
        if sent is not None:
            return sent
    if form_of(request) is Format.XML:
        return xml_read.parse(content, limits)
    return document.parse(content, limits)


def _binary(request: Request, content: bytes) -> Tree | None:
    """The Binary whose own bytes a body is; none when it says that it is a resource [FHIR R4 binary#rest]."""
    declared = request.headers.get("content-type", "").strip()
    name, parameters = _parameters(declared)
    if not name.isascii() or "/" not in name or name in _FORMAT_OF or name in _ANY:
        return None
    tree: Tree = {"resourceType": "Binary"}
    if "identity" in request.path_params:
        tree["id"] = request.path_params["identity"]
    # Its parameters are part of its type, but for what is of the transport.
    tree["contentType"] = declared if parameters else name
    context = request.headers.get("x-security-context")
    if context:
        tree["securityContext"] = {"reference": context}
    if content:
        tree["data"] = b64encode(content).decode("ascii")
    return tree


def prefers(request: Request) -> str:
    """Tell what ``Prefer: return=`` asks for: representation, minimal or OperationOutcome."""
    for part in request.headers.get("prefer", "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "return":
            return value
    path: str = request.scope["path"]
    return "representation" if path.rstrip("/") != "/fhir" else "minimal"


def strict(request: Request) -> bool:
    """Whether ``Prefer: handling=strict`` was said [FHIR R4 search#errors]."""
    wishes = request.headers.get("prefer", "").replace(";", ",").split(",")
    return any(wish.replace(" ", "").lower() == "handling=strict" for wish in wishes)


def form_pairs(request: Request, content: bytes) -> list[tuple[str, str]]:
    """Parameters of a search by POST: those of its address, then those of its form [FHIR R4 http#search].

    ``_format`` and ``_pretty`` count from there too.

    Raises
    ------
    Unsupported
        ``type-de-contenu`` (415).
    InvalidContent
        ``parametre-valeur``.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/x-www-form-urlencoded":
        text = "Une recherche par POST s’écrit en application/x-www-form-urlencoded."
        raise Unsupported("type-de-contenu", text)
    try:
        said = parse_qsl(content.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise InvalidContent("parametre-valeur", "Paramètres de recherche illisibles.") from None
    control = {name: value for name, value in said if name in {"_format", "_pretty"}}
    if control:  # those of the address win
        accepted = _accepted(request.headers.get("accept") or "*/*")
        request.scope[_WISH] = _asked(accepted, control | dict(request.query_params))
    return [*request.query_params.multi_items(), *said]


def http_date(moment: datetime) -> str:
    """Write an aware datetime as an HTTP date."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
