"""FHIR JSON: bytes to trees and back, nothing lost.

A tree is what JSON says: `dict`, `list`, `str`, `bool`, `int`, `None` and `decimal.Decimal` for every number with a
point or an exponent, because ``1.10`` and ``1.1`` are two different FHIR decimals [FHIR R4 datatypes#decimal].

Promises: what `parse` returns is written back by `encode` with the same names, values, order and decimals; content over
a limit, repeated names, control characters and malformed UTF-8 are refused with the limit or the fault named; nothing
raised here is anything but `gateway.errors.InvalidContent`.
Not promised: that the tree is a valid resource (`gateway.fhir.validate`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from gateway.errors import InvalidContent
from gateway.settings import Limits

__all__ = [
    "Tree",
    "check",
    "copied",
    "decimal",
    "decode",
    "encode",
    "instant",
    "parse",
    "parse_any",
    "references",
    "referring",
    "same_content",
    "strip_server_meta",
    "too_many",
    "with_meta",
    "written",
]

Tree = dict[str, Any]


class _AsWritten(Decimal):
    """A decimal that Python would write otherwise: ``1E2``, ``0.00000001``."""

    __slots__ = ("text",)
    text: str


def decimal(text: str) -> Decimal:
    """Read a decimal so that `encode` writes it as it was.

    Raises
    ------
    ArithmeticError
        It is none.
    """
    plain = Decimal(text)
    if str(plain) == text:
        return plain
    kept = _AsWritten(text)
    kept.text = text
    return kept


def written(number: Decimal) -> str:
    """Write a decimal as it was read."""
    return number.text if isinstance(number, _AsWritten) else str(number)


def _raw(value: Any) -> msgspec.Raw:
    if isinstance(value, _AsWritten):
        return msgspec.Raw(value.text.encode("ascii"))
    raise TypeError(type(value).__name__)


_DECODER = msgspec.json.Decoder(float_hook=decimal)
_SKIMMER = msgspec.json.Decoder(msgspec.Raw)
_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=_raw)
_SORTED = msgspec.json.Encoder(decimal_format="number", enc_hook=_raw, order="sorted")
# A JSON string and whether a colon follows: strings are consumed whole, so a colon inside one is never counted.
_NAME = re.compile(rb'"(?:[^"\\]|\\.)*+"(\s*+:)?', re.DOTALL)
# FHIR strings hold no control character but tab, line feed and carriage return [FHIR R4 datatypes#string], nor what no
# XML document can hold.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def parse(body: bytes, limits: Limits | None = None) -> Tree:
    """Read one resource.

    Parameters
    ----------
    body
        UTF-8 JSON.
    limits
        Bounds; the defaults when absent.

    Raises
    ------
    InvalidContent
        ``corps-trop-grand``, ``trop-d-elements``, ``json-illisible``, ``json-trop-profond``, ``json-nom-repete``,
        ``json-caractere`` or ``ressource-sans-type``.
    """
    tree = parse_any(body, limits)
    if not isinstance(tree, dict) or not isinstance(tree.get("resourceType"), str):
        text = "Ressource illisible : « resourceType » est absent."
        raise InvalidContent("ressource-sans-type", text, expression="Resource.resourceType")
    return tree


def parse_any(body: bytes, limits: Limits | None = None) -> Any:
    """Read any JSON under the same bounds; see `parse` for the refusals."""
    limits = limits or Limits()
    if len(body) > limits.http_body_bytes:
        text = f"Corps trop grand : {len(body)} octets, {limits.told('http_body_bytes')}."
        raise InvalidContent("corps-trop-grand", text)
    try:
        _require_few(body, limits)
        tree = _DECODER.decode(body)
    except RecursionError:
        raise _too_deep(limits) from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError):
        # The decoder's own message may quote the content; a position would not help a person more than this.
        raise InvalidContent("json-illisible", "Ressource illisible : ce n’est pas du JSON en UTF-8.") from None
    names, colons = check(tree, limits)
    if _names_written(body, colons) != names:
        raise InvalidContent("json-nom-repete", "Ressource illisible : un nom figure deux fois dans un même objet.")
    return tree


def _names_written(body: bytes, colons: int) -> int:
    """How many names a JSON text writes: its colons but those in texts, of which a reader found so many."""
    if b"\\u" not in body:
        return body.count(b":") - colons
    told = _NAME.findall(body)  # a colon may be written as an escape
    return len(told) - told.count(b"")


def _require_few(body: bytes, limits: Limits) -> None:
    """Refuse JSON with surely more nodes before objects are made of them: sixteen million commas fill 600 MB.

    Each comma and each bracket stands for one node, texts apart.
    """
    if _commas_or_brackets(body) > limits.json_nodes:
        _SKIMMER.decode(body)  # the texts of what is no JSON have no end
        if _commas_or_brackets(_NAME.sub(b"", body)) > limits.json_nodes:
            raise too_many(limits)


def _commas_or_brackets(body: bytes) -> int:
    return max(body.count(b","), body.count(b"[") + body.count(b"{"))


def decode(body: bytes) -> Any:
    """Read JSON that is kept: it was judged when it came, under the limits that held then."""
    return _DECODER.decode(body)


def copied(node: Any) -> Any:
    """Copy a tree ten times as fast as ``copy.deepcopy``: what is neither object nor list never changes."""
    if isinstance(node, dict):
        return {name: copied(one) if isinstance(one, dict | list) else one for name, one in node.items()}
    if isinstance(node, list):
        return [copied(one) if isinstance(one, dict | list) else one for one in node]
    return node


def check(tree: Any, limits: Limits) -> tuple[int, int]:
    """Judge depth, size and characters without recursion.

    Returns
    -------
    tuple of int
        How many names the objects hold, and how many colons stand in names and texts.

    Raises
    ------
    InvalidContent
        ``json-trop-profond``, ``trop-d-elements``, ``json-caractere``.
    """
    names = nodes = colons = 0
    level = [tree]
    for _ in range(limits.json_depth):
        nodes += len(level)
        below: list[Any] = []
        keys: list[str] = []
        texts: list[str] = []
        for node in level:
            kind = type(node)
            if kind is str:
                texts.append(node)
            elif kind is dict:
                keys += node
                below += node.values()
            elif kind is list:
                below += node
        names += len(keys)
        said = "".join(texts)
        colons += "".join(keys).count(":") + said.count(":")
        if _CONTROL.search(said):
            raise InvalidContent("json-caractere", "Ressource illisible : caractère de commande dans un texte.")
        if len(said) > limits.json_nodes:  # each element of a narrative costs as much as one of the tree
            nodes += sum(text.count("<") - text.count("</") for text in texts if len(text) > limits.json_nodes)
        if nodes > limits.json_nodes:
            raise too_many(limits)
        if not below:
            return names, colons
        level = below
    raise _too_deep(limits)


def too_many(limits: Limits) -> InvalidContent:
    """The refusal of a body with too many elements: each costs a microsecond wherever it is looked at."""
    return InvalidContent("trop-d-elements", f"Trop d’éléments dans le corps : {limits.told('json_nodes')}.")


def _too_deep(limits: Limits) -> InvalidContent:
    text = f"Ressource illisible : trop de niveaux imbriqués, {limits.told('json_depth')}."
    return InvalidContent("json-trop-profond", text)


def encode(tree: Any) -> bytes:
    """Write a tree as compact UTF-8 JSON, decimals as they were."""
    return _ENCODER.encode(tree)


def instant(moment: datetime) -> str:
    """Write an aware datetime as a FHIR instant in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_meta(tree: Tree, *, identity: str, version: int, updated: datetime) -> Tree:
    """Return the resource with our id, versionId and lastUpdated and everything else as it was.

    Of ``meta`` only these two are ours; a client's values for them are ignored [FHIR R4 http#create].
    """
    meta = {"versionId": str(version), "lastUpdated": instant(updated)}
    kept = tree.get("meta")
    if isinstance(kept, dict):
        meta.update({name: value for name, value in kept.items() if name not in meta})
    head: Tree = {"resourceType": tree["resourceType"], "id": identity, "meta": meta}
    head.update({name: value for name, value in tree.items() if name not in head})
    return head


def strip_server_meta(tree: Tree) -> Tree:
    """Return the resource without what only the server says: id, versionId, lastUpdated."""
    bare = {name: value for name, value in tree.items() if name not in {"id", "meta"}}
    meta = tree.get("meta")
    if isinstance(meta, dict):
        kept = {name: value for name, value in meta.items() if name not in {"versionId", "lastUpdated"}}
        if kept:
            bare["meta"] = kept
    return bare


def same_content(one: Tree, other: Tree) -> bool:
    """Whether two resources say the same, server's own elements and order of names apart.

    Decimals compare as written: ``1.10`` is not ``1.1``.
    """
    return _canonical(strip_server_meta(one)) == _canonical(strip_server_meta(other))


def _canonical(tree: Tree) -> bytes:
    return _SORTED.encode(tree)


def referring(tree: Tree) -> list[Tree]:
    """Every Reference of a resource that has a literal ``reference``, wherever it stands."""
    found: list[Tree] = []
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if type(node) is dict:
            if type(node.get("reference")) is str:
                found.append(node)
            node = node.values()
        waiting += [one for one in node if type(one) is dict or type(one) is list]
    return found


def references(node: Any, path: str = "") -> Iterator[tuple[str, Tree]]:
    """Yield every Reference below a node that has a literal ``reference``, with its FHIRPath."""
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield path, node
        for name, value in node.items():
            yield from references(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from references(value, f"{path}[{index}]")
