"""What the entries of a transaction say of one another: links between them become ``Type/id``, wherever R4 has them.

[FHIR R4 http#trules, bundle#references]

Promises: only what R4 names is replaced (references, elements of type uri, url, oid and uuid, ``href`` and ``src`` of
the narrative), never a canonical or a text that merely looks alike; a link to no entry is refused by its place; a
reference whose target the replacement shows to be of a wrong type is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.errors import InvalidContent
from gateway.fhir import document
from gateway.fhir.document import Tree
from gateway.fhir.elements import shapes

__all__ = ["conditional", "rewrite"]

_URN = ("urn:uuid:", "urn:oid:")
_LINKED = frozenset({"uri", "url", "oid", "uuid"})
_ATTRIBUTE = re.compile(r"""((?:href|src)\s*=\s*)(?:"([^"]*)"|'([^']*)')""")
_CONDITIONAL = re.compile(r"[A-Z][A-Za-z]+\?.+", re.DOTALL)
_BASE = re.compile(r"(.*)/[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_TYPE = re.compile(r"([A-Z][A-Za-z]+)/")
#: Asks that a reference name the very version that the transaction makes.
_VERSIONED = "http://hl7.org/fhir/StructureDefinition/resolve-as-version-specific"


#: Where something stands: the place of what holds it, and its key there; a path is written down where it is asked for.
_Place = tuple["_Place | None", str | int]


def _texts(
    node: Any, place: _Place | None, found: list[tuple[_Place, Any, str | int, str]]
) -> list[tuple[_Place, Any, str | int, str]]:
    """Every text with its place, what holds it and its key there."""
    items: Any = node.items() if type(node) is dict else enumerate(node)
    for key, value in items:
        if type(value) is str:
            found.append(((place, key), node, key, value))
        elif type(value) is dict or type(value) is list:
            _texts(value, (place, key), found)
    return found


def _path(place: _Place | None) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    while place is not None:
        place, step = place
        steps.append(step)
    return tuple(reversed(steps))


def conditional(tree: Tree) -> Iterator[tuple[str, str]]:
    """Type and search of each conditional reference of a resource."""
    for reference in document.referring(tree):
        if _CONDITIONAL.fullmatch(reference["reference"]):
            kind, _, query = reference["reference"].partition("?")
            yield kind, query


def rewrite(
    tree: Tree,
    *,
    full_url: str | None,
    names: Mapping[str, str],
    search: Callable[[str, str, str], str],
    version: Callable[[str], int | None],
) -> None:
    """Replace, in place, the links of one resource.

    Parameters
    ----------
    full_url
        Of its own entry: relative references are read from its base.
    names
        ``fullUrl`` → ``Type/id`` of the entries.
    search
        ``Type/id`` of a conditional reference, from its place, its type and its search.
    version
        Version that the transaction makes of ``Type/id``.

    Raises
    ------
    InvalidContent
        ``reference-inconnue``, ``cible-de-reference``.
    """
    match = _BASE.fullmatch(full_url or "")
    base = match.group(1) if match else None
    changed = []
    for place, holder, key, text in _texts(tree, None, []):
        if key == "div":
            holder[key] = _narrative(text, names)
        elif key == "reference":
            found = _named(text, base, names)
            if found is None and _CONDITIONAL.fullmatch(text):
                kind, _, query = text.partition("?")
                found = search(_expression(tree, _path(place)), kind, query)
            if found is not None:
                holder[key] = found
                changed.append(_path(place))
            elif text.startswith(_URN):
                said = "La référence ne désigne aucune entrée de la transaction."
                raise InvalidContent("reference-inconnue", said, expression=_expression(tree, _path(place)))
            _pin(holder, version)
        elif text.partition("#")[0] in names and _element_type(tree, _path(place)) in _LINKED:
            whole, mark, part = text.partition("#")
            holder[key] = names[whole] + mark + part
    for path in changed:
        _require_target(tree, path)


def _named(text: str, base: str | None, names: Mapping[str, str]) -> str | None:
    """What an entry is called here: by its ``fullUrl``, whole, before ``#``, or relative to the same base."""
    whole, mark, part = text.partition("#")
    found = names.get(whole)
    if found is None and base is not None and _TYPE.match(whole):
        found = names.get(f"{base}/{whole}")
    return None if found is None else found + mark + part


def _pin(reference: Tree, version: Callable[[str], int | None]) -> None:
    """Turn a reference that asks for it into one to the version that this transaction leaves."""
    said = reference.get("extension")
    asks = (
        [one for one in said if isinstance(one, dict) and one.get("url") == _VERSIONED]
        if isinstance(said, list)
        else []
    )
    if not asks:
        return
    kept = [one for one in said or () if one not in asks]
    reference.pop("extension")
    if kept:
        reference["extension"] = kept
    made = version(reference["reference"]) if any(one.get("valueBoolean") is True for one in asks) else None
    if made is not None:
        reference["reference"] = f"{reference['reference']}/_history/{made}"


def _narrative(div: str, names: Mapping[str, str]) -> str:
    def link(match: re.Match[str]) -> str:
        text = match.group(2) if match.group(2) is not None else match.group(3)
        whole, mark, part = text.partition("#")
        return f'{match.group(1)}"{names[whole]}{mark}{part}"' if whole in names else match.group(0)

    return _ATTRIBUTE.sub(link, div)


def _walk(tree: Tree, path: tuple[str | int, ...]) -> Iterator[Any]:
    """Elements of the table along a path; stops where the table knows no further."""
    shape: str | None = str(tree.get("resourceType"))
    node: Any = tree
    for step in path:
        node = node[step]
        if isinstance(step, int):
            if isinstance(node, dict) and isinstance(node.get("resourceType"), str):
                shape = node["resourceType"]
            continue
        table = shapes().get(shape or "")
        element = table.names.get(step.removeprefix("_")) if table is not None else None
        if element is None:
            return
        yield element
        shape = element.below
        if isinstance(node, dict) and isinstance(node.get("resourceType"), str):
            shape = node["resourceType"]


def _element_type(tree: Tree, path: tuple[str | int, ...]) -> str:
    found = list(_walk(tree, path))
    names = [step for step in path if isinstance(step, str)]
    return found[-1].type if len(found) == len(names) else ""


def _require_target(tree: Tree, path: tuple[str | int, ...]) -> None:
    """Refuse a replaced reference to a type that its element does not take."""
    holder: Any = tree
    for step in path[:-1]:
        holder = holder[step]
    elements = list(_walk(tree, path[:-1]))
    names = [step for step in path[:-1] if isinstance(step, str)]
    match = _TYPE.match(holder["reference"])
    if len(elements) != len(names) or not elements or match is None:
        return
    targets = elements[-1].targets
    if targets is not None and match.group(1) not in targets:
        text = f"La référence doit désigner : {', '.join(sorted(targets))}."
        raise InvalidContent("cible-de-reference", text, expression=_expression(tree, path[:-1]))


def _expression(tree: Tree, path: tuple[str | int, ...]) -> str:
    said = str(tree.get("resourceType"))
    for step in path[:-1] if path and path[-1] == "reference" else path:
        said += f"[{step}]" if isinstance(step, int) else f".{step}"
    return said
