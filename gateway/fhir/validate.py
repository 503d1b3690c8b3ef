"""What makes a resource unacceptable before any verb sees it.

Three judges in turn. The first is compiled from the R4 element table (``mappings/fhir-r4-elements``): names,
cardinalities, JSON types, primitive formats, required codes and reference targets, all faults of a resource at once and
each with its FHIRPath. The second is ``fhir.resources`` (R4B classes, equal to R4 for the types served here), asked
only about what the first accepted. The third is the short list of invariants that the gateway itself relies on.

Promises: `judge` never raises on any tree that `gateway.fhir.document.parse` returns; no text quotes a value.
Not promised: conformance to French profiles (their rules that matter here are business rules of the verbs).

`fhir.resources` alone would not do: it accepts any code in a required binding, any target of a reference, ``"true"``
for ``true``, and raises bare exceptions on an unknown type in a Bundle [spec fhir-fr 0.3].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from gateway import terminology
from gateway.fhir.outcome import InvalidResource, Issue

__all__ = ["MAX_ISSUES", "accept", "judge", "known_types", "shapes", "structure"]

#: Faults reported for one resource; a hundredth would help nobody and cost an answer of megabytes.
MAX_ISSUES = 20

_DATE = r"([0-9]{4})(?:-(0[1-9]|1[0-2])(?:-(0[1-9]|[12][0-9]|3[01]))?)?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_FULL = r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"

# Formats of primitives written as JSON strings [FHIR R4 datatypes#primitive].
_TEXT_FORMATS: dict[str, re.Pattern[str]] = {
    "id": re.compile(r"[A-Za-z0-9\-.]{1,64}"),
    "code": re.compile(r"[^\s]+(?:\s[^\s]+)*"),
    "uri": re.compile(r"\S+"),
    "url": re.compile(r"\S+"),
    "canonical": re.compile(r"\S+"),
    "oid": re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"),
    "uuid": re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "date": re.compile(_DATE),
    "dateTime": re.compile(rf"{_DATE}|{_FULL}T{_TIME}{_ZONE}"),
    "instant": re.compile(rf"{_FULL}T{_TIME}{_ZONE}"),
    "time": re.compile(_TIME),
    "base64Binary": re.compile(r"(?:[0-9A-Za-z+/\s]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?\s*"),
    "string": re.compile(r".*\S.*", re.DOTALL),
    "markdown": re.compile(r".*\S.*", re.DOTALL),
    "xhtml": re.compile(r"<div[\s>].*", re.DOTALL),
    "System.String": re.compile(r".*\S.*", re.DOTALL),
}
_DATED = {"date", "dateTime", "instant"}
_INTEGERS: dict[str, tuple[int, int]] = {
    "integer": (-(2**31), 2**31 - 1),
    "unsignedInt": (0, 2**31 - 1),
    "positiveInt": (1, 2**31 - 1),
}


@dataclass(frozen=True, slots=True)
class _Element:
    """One JSON name that an object may hold."""

    type: str
    below: str | None
    repeats: bool
    codes: frozenset[str] | None = None
    code_list: str | None = None
    targets: frozenset[str] | None = None


@dataclass(slots=True)
class _Object:
    """What the table says of one path: its JSON names, and what must be there."""

    names: dict[str, _Element] = field(default_factory=dict)
    required: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    choices: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@cache
def _model() -> Mapping[str, _Object]:
    lists = terminology.table("fhir-r4-required-codes")["lists"]
    # What may stand beside a primitive under its name with an underscore [FHIR R4 json#primitive].
    beside = {
        "id": _Element("System.String", below=None, repeats=False),
        "extension": _Element("Extension", below="Extension", repeats=True),
    }
    objects: dict[str, _Object] = {"_primitive": _Object(names=beside)}
    rows = terminology.table("fhir-r4-elements")["elements"]
    roots = {row["path"] for row in rows}
    for row in rows:
        parent, dot, name = row["path"].rpartition(".")
        if not dot:
            objects.setdefault(row["path"], _Object())
            continue
        owner = objects.setdefault(parent, _Object())
        types = row.get("types", ["#"])
        choice = name.endswith("[x]")
        stem = name.removesuffix("[x]")
        names = [stem + kind[0].upper() + kind[1:] for kind in types] if choice else [name]
        codes = row.get("codes")
        targets = row.get("targets")
        for json_name, kind in zip(names, types, strict=True):
            owner.names[json_name] = _Element(
                type=kind,
                below=_below(row, kind, roots),
                repeats=row["max"] == "*" or (row["max"].isdigit() and int(row["max"]) > 1),
                codes=frozenset(lists[codes]) if codes and kind == "code" else None,
                code_list=codes,
                targets=frozenset(targets) if targets and "Resource" not in targets and kind == "Reference" else None,
            )
        if row["min"]:
            owner.required.append((stem, tuple(names)))
        if choice:
            owner.choices.append((stem, tuple(names)))
    return objects


def _below(row: Mapping[str, Any], kind: str, roots: set[str]) -> str | None:
    """Path under which the value's own elements stand, or `None` for a primitive."""
    if "contentReference" in row:
        return str(row["contentReference"]).rpartition("#")[2]
    if kind in {"BackboneElement", "Element"}:
        return str(row["path"])
    if kind == "Resource":
        return "Resource"
    return kind if kind in roots else None


def shapes() -> Mapping[str, _Object]:
    """What stands below each path of the R4 tables, for whoever walks a tree by its types."""
    return _model()


def known_types() -> frozenset[str]:
    """Resource types whose elements the table describes."""
    return frozenset(path for path, shape in _model().items() if "." not in path and "meta" in shape.names)


def accept(tree: Mapping[str, Any], where: str | None = None) -> None:
    """Refuse a resource that `judge` finds faults in.

    Raises
    ------
    InvalidResource
        With up to `MAX_ISSUES` issues.
    """
    issues = judge(tree, where)
    if issues:
        raise InvalidResource(issues)


def judge(tree: Mapping[str, Any], where: str | None = None) -> list[Issue]:
    """Find the faults of one resource.

    Parameters
    ----------
    tree
        The resource.
    where
        FHIRPath of the resource in its carrier (``Bundle.entry[2].resource``); its type when it stands alone.
    """
    kind = tree.get("resourceType")
    base = where or str(kind)
    if not isinstance(kind, str) or kind not in known_types():
        text = "Type de ressource inconnu ou non offert par la passerelle."
        return [Issue(code="element-inconnu", text=text, expression=f"{base}.resourceType")]
    found: list[Issue] = []
    for issue in _walk_resource(tree, base):
        found.append(issue)
        if len(found) == MAX_ISSUES:
            return found
    return found or _second_opinion(tree, base) or list(_invariants(tree, base))


def structure(tree: Mapping[str, Any], where: str) -> Iterator[Issue]:
    """Ask the first judge alone: again after references were resolved, when their targets can be judged."""
    yield from _walk_resource(tree, where)


def _walk_resource(tree: Mapping[str, Any], path: str, around: Mapping[str, Any] | None = None) -> Iterator[Issue]:
    contained = dict(around or {}) | {
        inner["id"]: inner.get("resourceType")
        for inner in _list(tree.get("contained"))
        if isinstance(inner, dict) and isinstance(inner.get("id"), str)
    }
    yield from _walk(tree, str(tree["resourceType"]), path, contained, resource=True)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _walk(
    node: Mapping[str, Any], shape_path: str, path: str, contained: Mapping[str, Any], *, resource: bool = False
) -> Iterator[Issue]:
    shape = _model()[shape_path]
    if not node:
        yield Issue(code="valeur-invalide", text="Objet vide.", expression=path)
        return
    for name, value in node.items():
        if resource and name == "resourceType":
            continue
        if name.startswith("_"):
            yield from _walk_primitive_extension(name, value, shape, path)
            continue
        element = shape.names.get(name)
        if element is None:
            yield Issue(code="element-inconnu", text="Élément inconnu à cet endroit.", expression=f"{path}.{name}")
            continue
        yield from _walk_values(node, name, value, element, path, contained)
    for stem, names in shape.required:
        if not any(name in node or (f"_{name}" in node and shape.names[name].below is None) for name in names):
            text = f"Élément obligatoire absent : {stem}."
            yield Issue(code="element-obligatoire", text=text, expression=f"{path}.{stem}")
    for stem, names in shape.choices:
        if sum(1 for name in names if name in node) > 1:
            text = f"Une seule valeur est permise pour {stem}[x]."
            yield Issue(code="valeur-invalide", text=text, expression=f"{path}.{stem}")


def _walk_values(
    node: Mapping[str, Any], name: str, value: Any, element: _Element, path: str, contained: Mapping[str, Any]
) -> Iterator[Issue]:
    here = f"{path}.{name}"
    if not element.repeats:
        if isinstance(value, list):
            yield Issue(code="valeur-invalide", text="Une seule valeur est permise.", expression=here)
        else:
            yield from _walk_value(value, element, here, contained)
        return
    if not isinstance(value, list) or not value:
        yield Issue(code="valeur-invalide", text="Une liste non vide est attendue.", expression=here)
        return
    beside = _list(node.get(f"_{name}"))
    for index, item in enumerate(value):
        # In a list of primitives, null keeps the place of a value that only has extensions [FHIR R4 json#primitive].
        if item is None and element.below is None and index < len(beside) and beside[index] is not None:
            continue
        yield from _walk_value(item, element, f"{here}[{index}]", contained)


def _walk_value(value: Any, element: _Element, path: str, contained: Mapping[str, Any]) -> Iterator[Issue]:
    if element.below is None:
        fault = _primitive_fault(value, element)
        if fault:
            yield Issue(code=fault[0], text=fault[1], expression=path)
    elif not isinstance(value, dict):
        yield Issue(code="valeur-invalide", text="Un objet est attendu.", expression=path)
    elif element.below == "Resource":
        if isinstance(value.get("resourceType"), str) and value["resourceType"] in known_types():
            # What is contained refers to its container's other contained resources; an entry has its own.
            yield from _walk_resource(value, path, contained if ".contained[" in path else None)
        else:
            text = "Type de ressource inconnu ou non offert par la passerelle."
            yield Issue(code="element-inconnu", text=text, expression=f"{path}.resourceType")
    else:
        yield from _walk(value, element.below, path, contained, resource=element.below in known_types())
        if element.targets is not None:
            yield from _target_fault(value, element.targets, path, contained)


def _primitive_fault(value: Any, element: _Element) -> tuple[str, str] | None:
    kind = element.type
    if kind == "boolean":
        good = isinstance(value, bool)
    elif kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    elif kind == "decimal":
        good = isinstance(value, int | Decimal) and not isinstance(value, bool)
    else:
        pattern = _TEXT_FORMATS.get(kind, _TEXT_FORMATS["string"])
        good = isinstance(value, str) and pattern.fullmatch(value) is not None
        if good and kind in _DATED:
            good = _in_calendar(value)
        if good and element.codes is not None and value not in element.codes:
            return "code-hors-liste", f"Code absent de la liste obligatoire « {element.code_list} »."
    return None if good else ("valeur-invalide", f"Valeur invalide pour le type {kind}.")


def _in_calendar(text: str) -> bool:
    parts = text[:10].split("-")
    if len(parts) < 3:
        return parts[0] != "0000"
    try:
        date(int(parts[0]), int(parts[1]), int(parts[2]))
    except ValueError:
        return False
    return True


def _walk_primitive_extension(name: str, value: Any, shape: _Object, path: str) -> Iterator[Issue]:
    element = shape.names.get(name[1:])
    here = f"{path}.{name[1:]}"
    if element is None or element.below is not None:
        yield Issue(code="element-inconnu", text="Élément inconnu à cet endroit.", expression=f"{path}.{name}")
        return
    for item in _list(value) if element.repeats else [value]:
        if item is None and element.repeats:
            continue
        if isinstance(item, dict):
            yield from _walk(item, "_primitive", here, {})
        else:
            yield Issue(code="valeur-invalide", text="Un objet est attendu.", expression=here)


_LITERAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def _target_fault(
    value: Mapping[str, Any], targets: frozenset[str], path: str, contained: Mapping[str, Any]
) -> Iterator[Issue]:
    said: set[str] = set()
    if isinstance(value.get("type"), str):
        said.add(value["type"])
    reference = value.get("reference")
    if isinstance(reference, str):
        literal = _LITERAL.fullmatch(reference)
        if literal:
            said.add(literal.group(1))
        elif reference.startswith("#") and len(reference) > 1:
            inner = contained.get(reference[1:])
            if inner is None:
                text = "La référence interne ne désigne aucune ressource contenue."
                yield Issue(code="cible-de-reference", text=text, expression=path)
            else:
                said.add(str(inner))
    if said - targets:
        text = f"Type de ressource non permis ici ; attendu : {', '.join(sorted(targets))}."
        yield Issue(code="cible-de-reference", text=text, expression=path)


# pydantic's error types, in French; what is not here says only that the value is refused.
_JUDGE_TEXTS: dict[str, tuple[str, str]] = {
    "missing": ("element-obligatoire", "Élément obligatoire absent."),
    "extra_forbidden": ("element-inconnu", "Élément inconnu à cet endroit."),
    "list_type": ("valeur-invalide", "Une liste est attendue."),
    "string_type": ("valeur-invalide", "Un texte est attendu."),
}


def _second_opinion(tree: Mapping[str, Any], base: str) -> list[Issue]:
    """Ask `fhir.resources`; whatever it raises is a refusal, never an error of ours."""
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    try:
        get_fhir_model_class(str(tree["resourceType"])).model_validate(tree)
    except ValidationError as refused:
        issues = []
        for error in refused.errors(include_url=False, include_input=False, include_context=False)[:MAX_ISSUES]:
            code, text = _JUDGE_TEXTS.get(error["type"], ("valeur-invalide", "Valeur refusée par la structure R4."))
            steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"])
            issues.append(Issue(code=code, text=text, expression=base + steps))
        return issues
    except Exception:  # noqa: BLE001 - the library raises bare exceptions on content; content is never our fault
        return [Issue(code="valeur-invalide", text="Structure refusée.", expression=base)]
    return []


def _extension_faults(node: Any, path: str) -> Iterator[Issue]:
    """ext-1 everywhere, and no modifier that the gateway does not understand: it understands none."""
    if isinstance(node, dict):
        for name, value in node.items():
            here = f"{path}.{name}"
            if name == "modifierExtension":
                text = "Extension modificatrice inconnue : la ressource ne peut pas être comprise sans elle."
                yield Issue(code="extension-modificatrice", text=text, expression=here, rule=True)
            elif name == "extension":
                for index, extension in enumerate(value):
                    values = sum(1 for inner in extension if inner.startswith("value"))
                    if (values > 0) == ("extension" in extension):
                        text = "Une extension porte soit une valeur, soit des extensions (ext-1)."
                        yield Issue(code="invariant", text=text, expression=f"{here}[{index}]", rule=True)
            yield from _extension_faults(value, here)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _extension_faults(value, f"{path}[{index}]")


def _appointment_period(tree: Mapping[str, Any]) -> bool:
    return ("start" in tree) == ("end" in tree)


def _appointment_dated(tree: Mapping[str, Any]) -> bool:
    return ("start" in tree and "end" in tree) or tree["status"] in {"proposed", "cancelled", "waitlist"}


def _task_dates(tree: Mapping[str, Any]) -> bool:
    from gateway.fhir.search_columns import date_interval

    modified, authored = tree.get("lastModified"), tree.get("authoredOn")
    if not (isinstance(modified, str) and isinstance(authored, str)):
        return True
    return date_interval(modified)[1] >= date_interval(authored)[0]


#: type → (key, where, French text, holds) [FHIR R4 invariants of each type]
_INVARIANTS: dict[str, tuple[tuple[str, str, str, Callable[[Mapping[str, Any]], bool]], ...]] = {
    "Appointment": (
        ("app-2", "start", "Le début et la fin vont ensemble (app-2).", _appointment_period),
        ("app-3", "start", "Une séance retenue a un début et une fin (app-3).", _appointment_dated),
    ),
    "Patient": (
        (
            "pat-1",
            "contact",
            "Un contact a au moins un nom, un moyen de le joindre ou une organisation (pat-1).",
            lambda tree: all(
                {"name", "telecom", "address", "organization"} & contact.keys() for contact in tree.get("contact", ())
            ),
        ),
    ),
    "Task": (("inv-1", "lastModified", "La modification précède la création (inv-1).", _task_dates),),
    "Composition": (
        (
            "cmp-1",
            "section",
            "Une section a un texte, des entrées ou des sous-sections (cmp-1).",
            lambda tree: all({"text", "entry", "section"} & section.keys() for section in tree.get("section", ())),
        ),
    ),
}


def _invariants(tree: Mapping[str, Any], base: str) -> Iterator[Issue]:
    yield from _extension_faults(tree, base)
    if "implicitRules" in tree:
        text = "Règles implicites inconnues : la ressource ne peut pas être comprise sans elles."
        yield Issue(code="regles-implicites", text=text, expression=f"{base}.implicitRules", rule=True)
    for key, element, text, holds in _INVARIANTS.get(str(tree["resourceType"]), ()):
        if not holds(tree):
            yield Issue(code=f"invariant-{key}", text=text, expression=f"{base}.{element}", rule=True)
