"""Bundles of requests: every entry read and judged before anything is touched, and what each is answered.

[FHIR R4 http#transaction, bundle; spec fhir-fr 3.6]

Promises: each fault is said with the entry that it is in; an entry asks for exactly one interaction; nothing here opens
a step. Not promised: what entries do together (`gateway.fhir.transaction`, `gateway.fhir.batch`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from gateway.errors import GatewayError, InvalidContent
from gateway.fhir import document, outcome, patch, validate
from gateway.fhir.document import Tree
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.writing import Done, Operation
from gateway.model.representation import TABLES
from gateway.settings import Limits

__all__ = ["Answer", "Ask", "Bundle", "Entry", "encoded", "named", "read_bundle", "written"]

#: Elements of a request that are read here; each is a text.
_REQUEST = ("method", "url", "ifMatch", "ifNoneMatch", "ifNoneExist", "ifModifiedSince")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
#: What is read beside the types: the trail, and what the server says of itself.
_READ = frozenset({"AuditEvent", "metadata"})
_SAID = {"severity": "information", "code": "informational"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A read, search or history that an entry asks for: the steps of its path and its parameters.

    ``kind`` is a type, ``AuditEvent``, or ``metadata``.
    """

    kind: str
    steps: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    if_none_match: str | None = None
    if_modified_since: str | None = None
    head: bool = False


@dataclass(slots=True)
class Entry:
    """One entry: what it asks for, or why it cannot."""

    index: int
    full_url: str | None = None
    operation: Operation | None = None
    ask: Ask | None = None
    faults: list[Issue] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Type of the resource concerned."""
        return self.operation.kind if self.operation else self.ask.kind if self.ask else ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A Bundle of requests, read."""

    type: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one entry is answered."""

    status: int
    body: bytes | None = None
    location: str | None = None
    full_url: str | None = None
    version: int | None = None
    updated_at: datetime | None = None
    outcome: bytes | None = None


def read_bundle(tree: Tree, *, limits: Limits, base_url: str) -> Bundle:
    """Read the entries of a batch or a transaction.

    Raises
    ------
    InvalidContent
        ``bundle-type``, ``trop-d-entrees``, ``valeur-invalide``.
    """
    # Tuples, here and there: a set asks for the hash of what may be a list.
    if tree.get("resourceType") != "Bundle" or tree.get("type") not in ("transaction", "batch"):
        text = "Seul un Bundle de type « transaction » ou « batch » est accepté à cette adresse."
        raise InvalidContent("bundle-type", text, expression="Bundle.type")
    said = tree.get("entry", [])
    if not isinstance(said, list):
        raise InvalidContent("valeur-invalide", "Une liste est attendue.", expression="Bundle.entry")
    if len(said) > limits.bundle_entries:
        text = f"Trop d’entrées dans le Bundle : {len(said)}, {limits.told('bundle_entries')}."
        raise InvalidContent("trop-d-entrees", text, expression="Bundle.entry")
    reader = _Reader(limits, base_url)
    entries = tuple(reader.entry(index, one) for index, one in enumerate(said))
    places: dict[str, Entry] = {}
    for entry in entries:
        if entry.full_url is not None and places.setdefault(entry.full_url, entry) is not entry:
            text = "Deux entrées portent la même adresse complète (fullUrl)."
            where = f"Bundle.entry[{entry.index}].fullUrl"
            entry.faults.append(Issue(code="valeur-invalide", text=text, expression=where))
    return Bundle(str(tree["type"]), entries)


@dataclass(slots=True)
class _Reader:
    limits: Limits
    base_url: str

    def entry(self, index: int, said: Any) -> Entry:
        entry = Entry(index)
        path = f"Bundle.entry[{index}]"
        request = said.get("request") if isinstance(said, dict) else None
        if not isinstance(request, dict):
            text = "Élément obligatoire absent : request."
            entry.faults.append(Issue(code="element-obligatoire", text=text, expression=path))
            return entry
        texts = {f"{path}.fullUrl": said.get("fullUrl")} | {f"{path}.request.{n}": request.get(n) for n in _REQUEST}
        entry.faults += [
            Issue(code="valeur-invalide", text="Un texte est attendu.", expression=where)
            for where, value in texts.items()
            if not isinstance(value, str | None)
        ]
        if entry.faults:
            return entry
        entry.full_url = said.get("fullUrl")
        try:
            self._request(entry, request, said.get("resource"), path)
        except InvalidResource as error:
            entry.faults += [_placed(issue, entry, said.get("resource")) for issue in error.issues]
        except GatewayError as error:
            where = f"{path}.{error.expression}" if error.expression else path
            rule = bool(getattr(error, "rule", False))
            entry.faults.append(
                _placed(
                    Issue(code=error.code, text=error.text, expression=where, rule=rule), entry, said.get("resource")
                )
            )
        return entry

    def _request(self, entry: Entry, request: Mapping[str, Any], resource: Any, path: str) -> None:
        method, url = request.get("method"), str(request.get("url") or "")
        if method not in _METHODS:
            text = "Méthode inconnue : GET, HEAD, POST, PUT, PATCH ou DELETE."
            raise InvalidContent("operation-non-offerte", text, expression="request.method")
        steps, query = self._address(url)
        asks = method in {"GET", "HEAD"} or (method == "POST" and steps[1:] == ("_search",))
        if steps[0] not in TABLES and not (asks and steps[0] in _READ):
            text = "l’adresse de la requête ne désigne aucun type offert dans un Bundle."
            raise InvalidContent("valeur-invalide", text, expression="request.url")
        if asks:
            try:
                pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=self.limits.search_parameters * 4)
            except ValueError:
                text = f"Trop de paramètres de recherche : {self.limits.told('search_parameters')}."
                raise InvalidContent("trop-de-parametres", text, expression="request.url") from None
            entry.ask = Ask(
                steps[0],
                steps[1:],
                tuple(pairs),
                request.get("ifNoneMatch"),
                request.get("ifModifiedSince"),
                head=method == "HEAD",
            )
            return
        if method == "POST" and (len(steps) != 1 or query):
            raise InvalidContent("valeur-invalide", "une création s’adresse au type seul.", expression="request.url")
        if method != "POST" and (len(steps) > 2 or (len(steps) == 2) == bool(query)):
            text = "l’adresse est celle d’un identifiant ou d’une condition, l’un des deux."
            raise InvalidContent("valeur-invalide", text, expression="request.url")
        tree = {} if method == "DELETE" else self._resource(resource)
        operation = Operation(str(method), steps[0], tree, where=f"{path}.resource")
        entry.operation = operation
        operation.identity = steps[1] if len(steps) == 2 else None
        condition = request.get("ifNoneExist") if method == "POST" else query
        operation.query = str(condition).rpartition("?")[2] if condition else None
        operation.if_match = request.get("ifMatch")
        operation.if_none_match = request.get("ifNoneMatch")
        if method == "PATCH":
            carried = patch.from_binary if tree["resourceType"] == "Binary" else patch.from_parameters
            operation.patch, operation.tree = carried(tree, self.limits), {}
        elif method != "DELETE":
            if tree["resourceType"] != steps[0]:
                text = "l’adresse de la requête ne correspond pas au type de la ressource."
                raise InvalidContent("valeur-invalide", text, expression="request.url")
            validate.accept(tree, f"{path}.resource")

    def _address(self, url: str) -> tuple[tuple[str, ...], str]:
        try:
            parts = urlsplit(url.removeprefix(self.base_url + "/"))
        except ValueError:  # an address in brackets that is none
            parts = urlsplit("")
        steps = tuple(parts.path.strip("/").split("/"))
        if parts.netloc or parts.scheme:
            steps = ("",)
        return steps, parts.query

    def _resource(self, resource: Any) -> Tree:
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            raise InvalidContent("element-obligatoire", "Élément obligatoire absent : resource.")
        return resource


def _placed(issue: Issue, entry: Entry, resource: Any) -> Issue:
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    label = (
        f"Entrée {entry.index + 1} ({kind})"
        if isinstance(kind, str) and kind in TABLES
        else f"Entrée {entry.index + 1}"
    )
    return Issue(code=issue.code, text=f"{label} : {issue.text}", expression=issue.expression, rule=issue.rule)


def named(error: GatewayError, entry: Entry) -> GatewayError:
    """Say of a refusal in which entry it arose."""
    if isinstance(error, InvalidResource):
        return error
    where = f"Bundle.entry[{entry.index}]" + (".resource" if entry.operation else ".request")
    said = error.expression or ""
    below = said.partition(".")[2] if said.startswith(f"{entry.kind}.") else ""
    if not said.startswith("Bundle"):
        error.expression = f"{where}.{below}" if below else where
        error.text = f"Entrée {entry.index + 1} ({entry.kind}) : {error.text}"
    return error


def written(done: Done, base_url: str, wish: str) -> Answer:
    """Tell of a write, as ``Prefer: return=`` wishes."""
    gone = done.status == HTTPStatus.NO_CONTENT
    told = {**_SAID, "details": {"text": "Ressource supprimée." if gone else "Ressource enregistrée."}}
    return Answer(
        done.status,
        body=done.body if wish == "representation" and done.body else None,
        location=None if gone else f"{done.kind}/{done.id}/_history/{done.version}",
        full_url=f"{base_url}/{done.kind}/{done.id}" if done.id else None,
        version=done.version or None,
        updated_at=done.updated_at,
        outcome=outcome.body([told]) if wish == "OperationOutcome" else None,
    )


def encoded(kind: str, answers: list[Answer]) -> bytes:
    """Encode the response Bundle, in the order of the request."""
    entries = []
    for answer in answers:
        entry: dict[str, Any] = {}
        if answer.full_url is not None:
            entry["fullUrl"] = answer.full_url
        if answer.body is not None:
            entry["resource"] = msgspec.Raw(answer.body)
        response: dict[str, Any] = {"status": f"{answer.status} {HTTPStatus(answer.status).phrase}"}
        if answer.location is not None:
            response["location"] = answer.location
        if answer.version is not None:
            response["etag"] = f'W/"{answer.version}"'
        if answer.updated_at is not None:
            response["lastModified"] = document.instant(answer.updated_at)
        if answer.outcome is not None:
            response["outcome"] = msgspec.Raw(answer.outcome)
        entries.append({**entry, "response": response})
    body = {"resourceType": "Bundle", "type": f"{kind}-response"}
    return document.encode({**body, "entry": entries} if entries else body)
