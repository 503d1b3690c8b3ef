"""Transactions: many operations, all or nothing, in one step.

[FHIR R4 http#transaction; spec fhir-fr 3.6]

Promises: nothing of a refused transaction stays, and the OperationOutcome says which entries and why; references
between entries (``urn:uuid:``, ``urn:oid:`` or any fullUrl) and conditional references become ``Type/id``; the answer
keeps the order of the request; the same transaction again answers 200 for each entry and makes no new version.
Not offered: batch, and GET, PATCH or DELETE entries (refused by name).

Entries are carried out in the order of `gateway.fhir.owners.WRITABLE` (patients before what is about them), whatever
their order in the Bundle; only creates and updates are offered, so FHIR's order of methods has nothing to add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.errors import Conflict, GatewayError, InvalidContent, Unsupported
from gateway.fhir import document, validate
from gateway.fhir.document import Tree
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.fhir.owners import WRITABLE
from gateway.fhir.represent import Representer
from gateway.fhir.write import apply
from gateway.fhir.writing import Done, Operation, Writing
from gateway.model.representation import TABLES
from gateway.rcp.step import Step
from gateway.settings import Limits

__all__ = ["Transaction", "read_transaction"]

_PHRASES = {200: "200 OK", 201: "201 Created"}
#: Elements of a request that are read here; each is a text.
_REQUEST = ("method", "url", "ifMatch", "ifNoneMatch", "ifNoneExist")


class Transaction:
    """A transaction read and judged outside any step; `run` carries it out in one.

    Parameters
    ----------
    operations
        In the order of the Bundle.
    full_urls
        ``fullUrl`` of each entry, or `None`.
    """

    def __init__(self, operations: Sequence[Operation], full_urls: Sequence[str | None]) -> None:
        self._operations = operations
        self._full_urls = full_urls

    @property
    def kinds(self) -> list[str]:
        """Types written, in order, for the trail."""
        return [operation.kind for operation in self._operations]

    def run(self, step: Step, representer: Representer, base_url: str) -> list[Done]:
        """Carry out every operation; the caller's step commits.

        May be run again from the start after a clash: it works on copies.

        Raises
        ------
        GatewayError
            The first refusal, with the entry in its expression and its text.
        """
        writing = Writing(step, representer, base_url)
        operations = [_copy(operation) for operation in self._operations]
        order = sorted(range(len(operations)), key=lambda index: _rank(operations[index].kind))
        names: dict[str, str] = {}
        for index in order:
            with _Entry(index, operations[index]):
                writing.locate(operations[index])
            self._name(names, index, operations[index])
        # A patient's id is known once his record is: the other entries can only then refer to him.
        patients = [index for index in order if operations[index].kind == "Patient"]
        others = [index for index in order if operations[index].kind != "Patient"]
        for index in patients:
            with _Entry(index, operations[index]):
                _rewrite(writing, operations[index], names)
                apply(writing, operations[index])
            self._name(names, index, operations[index])
        for index in others:
            _name_task(operations[index], names, self._full_urls[index])
        for index in others:
            with _Entry(index, operations[index]):
                _rewrite(writing, operations[index], names)
        writing.trees.update(_known(operations))
        for index in others:
            with _Entry(index, operations[index]):
                apply(writing, operations[index])
        writing.finish()
        return [writing.done(operation) for operation in operations]

    def _name(self, names: dict[str, str], index: int, operation: Operation) -> None:
        url = self._full_urls[index]
        if url is not None and operation.identity is not None:
            names[url] = f"{operation.kind}/{operation.identity}"

    @staticmethod
    def answer(done: Sequence[Done], base_url: str, *, with_resources: bool = False) -> bytes:
        """Encode the transaction-response, in the order of the request."""
        entries: list[Any] = []
        for one in done:
            entry: dict[str, Any] = {"fullUrl": f"{base_url}/{one.kind}/{one.id}"}
            if with_resources:
                entry["resource"] = msgspec.Raw(one.body)
            entry["response"] = {
                "status": _PHRASES[one.status],
                "location": f"{one.kind}/{one.id}/_history/{one.version}",
                "etag": f'W/"{one.version}"',
                "lastModified": document.instant(one.updated_at),
            }
            entries.append(entry)
        return document.encode({"resourceType": "Bundle", "type": "transaction-response", "entry": entries})


def _known(operations: Sequence[Operation]) -> dict[str, Tree]:
    """Trees of the transaction by reference, those that are not carried out yet too."""
    return {
        f"{operation.kind}/{operation.identity}": operation.tree
        for operation in operations
        if operation.identity is not None and not operation.untouched
    }


def _copy(operation: Operation) -> Operation:
    return Operation(
        method=operation.method,
        kind=operation.kind,
        tree=_deep(operation.tree),
        query=operation.query,
        identity=operation.identity,
        if_match=operation.if_match,
        if_none_match=operation.if_none_match,
        where=operation.where,
    )


def _deep(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _deep(value) for name, value in node.items()}
    return [_deep(value) for value in node] if isinstance(node, list) else node


def _rank(kind: str) -> int:
    """Directory entries first (they are only recognised), then in the order of `WRITABLE`."""
    return WRITABLE.index(kind) if kind in WRITABLE else -1


class _Entry:
    """Says of a refusal in which entry it arose."""

    def __init__(self, index: int, operation: Operation) -> None:
        self._index = index
        self._operation = operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, GatewayError):
            return
        where = self._operation.where or self._operation.kind
        if isinstance(error, InvalidResource):
            return
        said = error.expression or ""
        below = said.partition(".")[2] if said.startswith(f"{self._operation.kind}.") else ""
        if not said.startswith("Bundle"):
            error.expression = f"{where}.{below}" if below else where
            error.text = f"Entrée {self._index + 1} ({self._operation.kind}) : {error.text}"


def read_transaction(tree: Tree, *, limits: Limits) -> Transaction:
    """Read and judge a transaction Bundle, every entry, before anything is touched.

    Raises
    ------
    InvalidResource
        With the faults of every entry, each with its place.
    InvalidContent
        ``trop-d-entrees``, ``bundle-type``.
    Unsupported
        A batch, or a method that is not offered.
    """
    if tree.get("resourceType") != "Bundle" or tree.get("type") not in {"transaction", "batch"}:
        text = "Seul un Bundle de type « transaction » est accepté à cette adresse."
        raise InvalidContent("bundle-type", text, expression="Bundle.type")
    if tree["type"] == "batch":
        raise Unsupported("lot-non-offert", "Les lots (batch) ne sont pas offerts ; utilisez une transaction.")
    entries = tree.get("entry", [])
    if not isinstance(entries, list):
        raise InvalidContent("valeur-invalide", "Une liste est attendue.", expression="Bundle.entry")
    if len(entries) > limits.bundle_entries:
        text = f"Trop d’entrées dans la transaction : {len(entries)}, {limits.told('bundle_entries')}."
        raise InvalidContent("trop-d-entrees", text, expression="Bundle.entry")
    issues: list[Issue] = []
    operations: list[Operation] = []
    full_urls: list[str | None] = []
    for index, entry in enumerate(entries):
        path = f"Bundle.entry[{index}]"
        faults = _entry_faults(entry, path)
        if faults:
            issues.extend(faults)
            continue
        full_urls.append(entry.get("fullUrl"))
        operations.append(_operation(entry, path, issues))
    named = [url for url in full_urls if url is not None]
    if len(named) != len(set(named)):
        text = "Deux entrées portent la même adresse complète (fullUrl)."
        issues.append(Issue(code="valeur-invalide", text=text, expression="Bundle.entry.fullUrl"))
    if issues:
        raise InvalidResource(issues[: validate.MAX_ISSUES])
    return Transaction(operations, full_urls)


def _entry_faults(entry: Any, path: str) -> list[Issue]:
    if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
        return [Issue(code="element-obligatoire", text="Élément obligatoire absent : request.", expression=path)]
    resource = entry.get("resource")
    if not isinstance(resource, dict):
        return [Issue(code="element-obligatoire", text="Élément obligatoire absent : resource.", expression=path)]
    said = {f"{path}.fullUrl": entry.get("fullUrl")}
    said |= {f"{path}.request.{name}": entry["request"].get(name) for name in _REQUEST}
    shapes = [where for where, value in said.items() if not isinstance(value, str | None)]
    if shapes:
        return [Issue(code="valeur-invalide", text="Un texte est attendu.", expression=where) for where in shapes]
    return [
        Issue(
            code=issue.code,
            text=f"{_label(path, resource)} : {issue.text}",
            expression=issue.expression,
            rule=issue.rule,
        )
        for issue in validate.judge(resource, f"{path}.resource")
    ]


def _label(path: str, resource: Mapping[str, Any]) -> str:
    number = int(path.partition("[")[2].rstrip("]")) + 1
    kind = resource.get("resourceType")
    return f"Entrée {number} ({kind})" if kind in TABLES else f"Entrée {number}"


def _operation(entry: Mapping[str, Any], path: str, issues: list[Issue]) -> Operation:
    request, resource = entry["request"], entry["resource"]
    kind = str(resource["resourceType"])
    method, url = request.get("method"), request.get("url")
    operation = Operation(method=str(method), kind=kind, tree=resource, where=f"{path}.resource")

    def refuse(code: str, text: str, element: str) -> None:
        issues.append(
            Issue(code=code, text=f"{_label(path, resource)} : {text}", expression=f"{path}.request.{element}")
        )

    if method not in {"POST", "PUT"}:
        refuse("operation-non-offerte", "seuls POST et PUT sont offerts dans une transaction.", "method")
        return operation
    try:
        parts = urlsplit(url or "")
    except ValueError:  # an address in brackets that is none
        parts = urlsplit("")
    steps = parts.path.strip("/").split("/")
    if kind not in TABLES or steps[0] != kind or len(steps) > 2 or parts.netloc:
        refuse("valeur-invalide", "l’adresse de la requête ne correspond pas au type de la ressource.", "url")
        return operation
    if method == "POST" and (len(steps) == 2 or parts.query):
        refuse("valeur-invalide", "une création s’adresse au type seul.", "url")
    if method == "PUT" and (len(steps) == 2) == bool(parts.query):
        refuse("valeur-invalide", "une mise à jour s’adresse à un identifiant ou à une condition.", "url")
    operation.identity = steps[1] if len(steps) == 2 else None
    condition = request.get("ifNoneExist") if method == "POST" else parts.query
    operation.query = str(condition).rpartition("?")[2] if condition else None
    operation.if_match = request.get("ifMatch")
    operation.if_none_match = request.get("ifNoneMatch")
    return operation


def _name_task(operation: Operation, names: dict[str, str], full_url: str | None) -> None:
    """Name a Task, which has the id of the inscription that it follows, for those that refer to it."""
    focus = operation.tree.get("focus")
    followed = names.get(focus.get("reference", "")) if isinstance(focus, dict) else None
    if operation.kind == "Task" and full_url is not None and full_url not in names and followed is not None:
        names[full_url] = "Task/" + followed.partition("/")[2]


def _rewrite(writing: Writing, operation: Operation, names: Mapping[str, str]) -> None:
    """Replace references between entries and conditional ones, in place; then judge what they point to."""
    if operation.untouched:
        return
    for path, reference in document.references(operation.tree):
        text = reference["reference"]
        if text in names:
            reference["reference"] = names[text]
        elif text.startswith(("urn:uuid:", "urn:oid:")):
            said = "La référence ne désigne aucune entrée de la transaction."
            raise InvalidContent("reference-inconnue", said, expression=f"{operation.kind}.{path}")
        elif "?" in text:
            reference["reference"] = _by_condition(writing, operation, path, text)
    faults = list(validate.structure(operation.tree, operation.where or operation.kind))
    if faults:
        raise InvalidResource(faults[: validate.MAX_ISSUES])


def _by_condition(writing: Writing, operation: Operation, path: str, text: str) -> str:
    kind, _, query = text.partition("?")
    expression = f"{operation.kind}.{path}"
    if kind not in TABLES:
        raise InvalidContent("reference-inconnue", "Référence conditionnelle illisible.", expression=expression)
    found = writing.matches(kind, unquote(query))
    if len(found) != 1:
        said = "Une référence conditionnelle doit désigner exactement une ressource."
        code = "plusieurs-correspondances" if found else "reference-inconnue"
        raise Conflict(code, said, expression=expression, precondition=True)
    return f"{kind}/{found[0].id}"
