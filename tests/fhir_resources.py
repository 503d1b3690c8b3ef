"""Resources of every R4 type that nobody wrote: made from R4's element table, valid, small and unpleasant.

`resources` is a hypothesis strategy. A resource is made from a seed and a size, so that making one costs a fraction of
a millisecond and shrinking means a smaller size. What R4's invariants ask beyond the table is mended object by object
(`_MENDS`). They carry what loses itself easily: decimals with trailing zeros and exponents, partial dates, instants
with milliseconds and zones, extensions of primitives (also where the value is missing, also inside lists), nested
extensions, contained resources, narratives, every kind of space, characters outside the basic plane.

`plain_json` gives the bytes of a tree as a client would send them: `decimal.Decimal` as written.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.fhir.elements import Element, Shape, resource_types, shapes

Tree = dict[str, Any]

#: The types of the store [issue: Resources], and AuditEvent and Subscription, which have rules of their own.
OFFERED = (
    "Patient",
    "RelatedPerson",
    "Practitioner",
    "PractitionerRole",
    "Organization",
    "Location",
    "HealthcareService",
    "Endpoint",
    "Schedule",
    "Slot",
    "Appointment",
    "Encounter",
    "ServiceRequest",
    "Task",
    "CareTeam",
    "Condition",
    "Observation",
    "Questionnaire",
    "QuestionnaireResponse",
    "Composition",
    "DiagnosticReport",
    "CarePlan",
    "DocumentReference",
    "Binary",
    "List",
    "ImagingStudy",
    "Communication",
    "CommunicationRequest",
    "Consent",
    "Group",
    "Provenance",
    "Basic",
    "AuditEvent",
    "Subscription",
)

_STRINGS = (
    "Ève Ço’eur-d’Œuvre",
    "日本語",
    "🩺 crabe 🦀",
    "<b>&amp;</b> \"'",
    "]]>",
    "ligne 1\nligne 2",
    "ligne 1\r\nligne 2",
    "tabulation\tici",
    " espaces autour ",
    "deux  espaces",
    "\u00a0insécable\u202f!",
    "e\u0301",  # not composed
    "x",
    "a\u2028b",
    '{"json": [1.10]}',
    "http://exemple.fr/?a=1&b=2",
    "null",
    "0",
)
_URIS = (
    "http://exemple.fr/fhir/x",
    "https://exemple.fr/é?a=1&b=%20#c",
    "urn:oid:1.2.250.1.213.1.4.8",
    "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    "http://loinc.org",
    "mailto:rcp@exemple.fr",
)
_DECIMALS = (
    "1.10",
    "0.000001",
    "-0.50",
    "100",
    "1E+3",
    "1.500E-7",
    "3.14159265358979323846",
    "0",
    "0.0",
    "12345678901234567.89",
)
_DATES = ("2026", "2026-03", "2024-02-29", "1900-01-01", "9999-12-31", "0101-01-01")
_INSTANTS = (
    "2026-03-19T14:00:00.000+01:00",
    "2026-03-19T13:00:00Z",
    "2015-02-07T13:28:17.239+02:00",
    "2026-12-31T23:59:59.999-11:30",
    "1999-12-31T00:00:00.10Z",
)
_NARRATIVES = (
    "<p>Tumeur du sein</p>",
    "<p>1 &lt; 2 &amp; 3 &#233; </p><br/>",
    '<table border="1"><tbody><tr><td colspan="2">🩺 é</td></tr></tbody></table>',
    '<p style="color:red" class="x" xml:lang="fr">a<b>b</b> c</p> <!-- note -->',
    '<ul><li><a href="#a">x</a></li>\n <li><img src="#b" alt="y"/></li></ul>',
)
_CONTAINED = ("Organization", "Practitioner", "Medication", "Location", "Specimen", "Device")
_UCUM = "http://unitsofmeasure.org"


class _Maker:
    """One resource on its way."""

    def __init__(self, seed: int, size: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - the same seed makes the same resource
        self.budget = size
        self.contained: dict[str, str] = {}
        self.links = 0

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, values: Iterable[Any]) -> Any:
        return self.rng.choice(list(values))

    # Primitives

    def primitive(self, element: Element) -> Any:
        if element.codes is not None:
            return self.pick(sorted(element.codes))
        return _PRIMITIVES[element.type](self)

    def text(self) -> str:
        if self.chance(0.7):
            return str(self.pick(_STRINGS))
        letters = "".join(chr(self.rng.choice((*range(0x20, 0x7F), *range(0xA1, 0x250)))) for _ in range(8))
        return letters.strip() or "x"

    def identity(self) -> str:
        return "".join(self.rng.choices("abcXYZ019-.", k=self.rng.choice((1, 8, 64))))

    # Objects

    def extension(self, depth: int = 0) -> Tree:
        made: Tree = {"url": f"http://exemple.fr/extension/{self.rng.randrange(9)}"}
        if depth < 2 and self.chance(0.2):
            made["extension"] = [self.extension(depth + 1) for _ in range(self.rng.choice((1, 2)))]
            return made
        values = [one for one in shapes()["Extension"].elements if one.stem == "value"]
        simple = [one for one in values if one.below is None]
        element = self.pick(values if self.budget > 0 and depth == 0 else simple)
        self.put(made, element, depth=3)
        return made

    def beside(self) -> Tree:
        made: Tree = {"extension": [self.extension(1)]}
        return {"id": "p1", **made} if self.chance(0.3) else made

    def put(self, node: Tree, element: Element, depth: int) -> None:
        """Give an object one element."""
        self.budget -= 1
        if element.below is None:
            self._put_primitive(node, element)
        elif element.repeats:
            node[element.name] = [self.value(element, depth) for _ in range(self.rng.choice((1, 1, 2)))]
        else:
            node[element.name] = self.value(element, depth)

    def _put_primitive(self, node: Tree, element: Element) -> None:
        # id is a system type and the narrative's div has no value but itself: nothing stands beside them.
        bare = element.type in {"System.String", "xhtml"} or element.name in {"id", "url"}
        if not element.repeats:
            without = not bare and not element.required and self.chance(0.05)
            if not without:
                node[element.name] = self.primitive(element)
            if without or (not bare and self.chance(0.1)):
                node[f"_{element.name}"] = self.beside()
            return
        count = self.rng.choice((1, 2, 3))
        node[element.name] = [self.primitive(element) for _ in range(count)]
        if self.chance(0.25):
            extras = [self.beside() if self.chance(0.5) else None for _ in range(count)]
            extras[-1] = extras[-1] or self.beside()
            if count > 1 and self.chance(0.5) and extras[0]:
                node[element.name][0] = None
            node[f"_{element.name}"] = extras

    def value(self, element: Element, depth: int) -> Any:
        if element.type == "Reference":
            return self.reference(element)
        if element.below == "Resource":
            return self.resource(self.pick(OFFERED[:6]), inside=True)
        if element.concepts is not None:
            system, code = self.pick(sorted(element.concepts))
            return {"coding": [{"system": system, "code": code}]}
        made = self.object(str(element.below), depth + 1)
        if element.simple:
            made.pop("comparator", None)
            made.pop("_comparator", None)
            made = made if made.keys() - {"id"} else {"value": Decimal("1.10")}
        return made

    def reference(self, element: Element) -> Tree:
        targets = sorted(element.targets or resource_types())
        inside = [key for key, kind in self.contained.items() if kind in targets]
        if inside and self.chance(0.5):
            return {"reference": f"#{self.pick(inside)}"}
        kind = self.pick(targets)
        made: Tree = self.pick(
            (
                {"reference": f"{kind}/{self.identity()}"},
                {"reference": f"https://exemple.fr/fhir/{kind}/1/_history/2", "type": kind},
                {"reference": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"},
                {"identifier": {"system": "urn:oid:1.2.250.1.71.4.2.1", "value": "810000000001"}},
            )
        )
        if self.chance(0.3):
            made["display"] = self.text()
        return made

    def object(self, path: str, depth: int) -> Tree:
        if path == "Extension":
            return self.extension()
        if path == "Narrative":
            inner = self.pick(_NARRATIVES)
            return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'}
        shape = shapes()[path]
        made: Tree = {}
        for element in self.chosen(shape, depth):
            self.put(made, element, depth)
        if path in _MENDS:
            _MENDS[path](self, made)
        if not made.keys() - {"id"} and not shape.resource:
            made["extension"] = [self.extension(2)]
        return made

    def chosen(self, shape: Shape, depth: int) -> list[Element]:
        """What an object gets: all that must be there, and some of the rest while the budget lasts."""
        stems: dict[str, list[Element]] = {}
        for element in shape.elements:
            if element.name not in _NEVER and not (shape.resource and element.name in {"id", "text", "contained"}):
                stems.setdefault(element.stem, []).append(element)
        optional = [stem for stem, ways in stems.items() if not ways[0].required]
        room = max(0, min(len(optional), self.budget, (6, 4, 2, 1)[min(depth, 3)]))
        if not room and not any(ways[0].required for ways in stems.values()):
            # An object says something: something short.
            optional = [stem for stem in optional if stems[stem][0].below is None and stem != "id"] or optional
            room = 1
        wanted = set(self.rng.sample(optional, self.rng.randint(min(1, room), room)) if room else ())
        return [self.pick(ways) for stem, ways in stems.items() if ways[0].required or stem in wanted]

    def resource(self, kind: str, *, inside: bool = False) -> Tree:
        shape = shapes()[kind]
        tree: Tree = {"resourceType": kind, "id": self.identity()}
        outer, self.contained = self.contained, {} if not inside else self.contained
        if "text" in shape.names and self.chance(0.4):
            tree["text"] = self.object("Narrative", 0)
        if "contained" in shape.names and not inside and self.chance(0.4):
            tree["contained"] = []
            for key in ("c1", "c2")[: self.rng.choice((1, 1, 2))]:
                inner = self.resource(self.pick(_CONTAINED), inside=True)
                inner.pop("meta", None)
                inner["id"] = key
                tree["contained"].append(inner)
            self.contained = {one["id"]: one["resourceType"] for one in tree["contained"]}
        tree.update(self.object(kind, 0))
        for key in self.contained if not inside else ():
            # dom-3: what is contained is referred to.
            named = {"url": "http://exemple.fr/extension/contenu", "valueReference": {"reference": f"#{key}"}}
            tree["extension"] = [*tree.get("extension", []), named]
        self.contained = outer
        return tree


# What no server can understand without its meaning [FHIR R4 extensibility#modifierExtension], or what is ours to say.
_NEVER = frozenset({"modifierExtension", "implicitRules"})

_PRIMITIVES: dict[str, Callable[[_Maker], Any]] = {
    "boolean": lambda m: m.chance(0.5),
    "integer": lambda m: m.pick((-(2**31), -1, 0, 7, 2**31 - 1)),
    "unsignedInt": lambda m: m.pick((0, 7, 2**31 - 1)),
    "positiveInt": lambda m: m.pick((1, 7, 2**31 - 1)),
    "decimal": lambda m: _decimal(m.pick(_DECIMALS)),
    "string": _Maker.text,
    "markdown": _Maker.text,
    "System.String": lambda m: m.pick(("a1", "x.y", "b-2")),
    "id": _Maker.identity,
    "code": lambda m: m.pick(("fr", "a b", "x-y", "é")),
    "uri": lambda m: m.pick(_URIS),
    "url": lambda m: m.pick(_URIS[:2]),
    "canonical": lambda m: m.pick(("http://exemple.fr/q|1.2", "http://exemple.fr/q")),
    "oid": lambda m: m.pick(("urn:oid:1.2.250.1", "urn:oid:2.16.840.1.113883.6.1")),
    "uuid": lambda _: "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    "date": lambda m: m.pick(_DATES),
    "dateTime": lambda m: m.pick(_DATES + _INSTANTS),
    "instant": lambda m: m.pick(_INSTANTS),
    "time": lambda m: m.pick(("08:30:00", "23:59:59.250")),
    "base64Binary": lambda m: base64.b64encode(m.rng.randbytes(m.rng.choice((1, 2, 3, 30)))).decode("ascii"),
}


def _decimal(text: str) -> Any:
    """As the reader of JSON gives it: what has a point or an exponent is a Decimal."""
    return Decimal(text) if set(text) & {".", "E"} else int(text)


# What invariants ask beyond the table: key of the path → mend an object that was just made.


def _drop(node: Tree, *names: str) -> None:
    for name in names:
        node.pop(name, None)
        node.pop(f"_{name}", None)


def _drop_choice(node: Tree, stem: str) -> None:
    for name in list(node):
        if name.lstrip("_").startswith(stem) and name.lstrip("_") != stem:
            del node[name]


def _has(node: Tree, *names: str) -> bool:
    return any(name in node or f"_{name}" in node for name in names)


def _needs(name: str, value: Any, *, when: str | None = None) -> Callable[[_Maker, Tree], None]:
    def mend(_: _Maker, node: Tree) -> None:
        if (when is None or _has(node, when)) and not _has(node, name):
            node[name] = value

    return mend


def _excludes(name: str, *others: str) -> Callable[[_Maker, Tree], None]:
    def mend(_: _Maker, node: Tree) -> None:
        if _has(node, name):
            _drop(node, *others)

    return mend


def _measured(_: _Maker, node: Tree) -> None:
    if _has(node, "code") or _has(node, "value"):
        _drop(node, "code", "system")
        node |= {"system": _UCUM, "code": "mm"}


def _ucum(code: str) -> Callable[[_Maker, Tree], None]:
    def mend(m: _Maker, node: Tree) -> None:
        _drop(node, "value", "system", "code")
        node |= {"value": m.pick((1, 7)), "system": _UCUM, "code": code}

    return mend


def _period(m: _Maker, node: Tree) -> None:
    start, end = m.pick((("2025", "2026-03"), ("2026-03-19T14:00:00.000+01:00", "2026-03-19T13:00:00.5Z")))
    for name, value in (("start", start), ("end", end)):
        if name in node:
            node[name] = value


def _range(_: _Maker, node: Tree) -> None:
    for name, value in (("low", "0.50"), ("high", "1.10")):
        if name in node:
            node[name] = {"value": Decimal(value), "unit": "mm"}


def _ratio(_: _Maker, node: Tree) -> None:
    for name in ("numerator", "denominator"):
        node.setdefault(name, {"value": Decimal("1.10")})


def _repeat(m: _Maker, node: Tree) -> None:
    _drop(node, "offset", "when", "durationMax", "periodMax", "countMax")
    for name in ("duration", "period"):
        if _has(node, name):
            _drop(node, name, f"{name}Unit")
            node |= {name: Decimal("1.50"), f"{name}Unit": m.pick(("h", "d", "wk"))}


def _trigger(_: _Maker, node: Tree) -> None:
    _drop(node, "data", "condition")
    _drop_choice(node, "timing")
    node |= {"type": "named-event", "name": "x"}


def _one_of(first: str, second: str) -> Callable[[_Maker, Tree], None]:
    def mend(_: _Maker, node: Tree) -> None:
        if _has(node, first):
            _drop(node, second)
        elif not _has(node, second):
            node[first] = "x"

    return mend


def _appointment(m: _Maker, node: Tree) -> None:
    _drop(node, "cancelationReason", "start", "end")
    if m.chance(0.5):
        node |= {"start": "2026-03-19T14:00:00.000+01:00", "end": "2026-03-19T16:00:00+01:00"}
    else:
        node["status"] = "proposed"


def _condition(m: _Maker, node: Tree) -> None:
    _drop_choice(node, "abatement")
    if m.chance(0.3):
        _drop(node, "clinicalStatus")
        system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
        node["verificationStatus"] = {"coding": [{"system": system, "code": "entered-in-error"}]}
    else:
        _drop(node, "verificationStatus")
        system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
        node["clinicalStatus"] = {"coding": [{"system": system, "code": "active"}], "text": "é"}


def _observation(_: _Maker, node: Tree) -> None:
    if any(name.lstrip("_").startswith("value") for name in node):
        _drop(node, "dataAbsentReason", "component")


def _no_home(*names: str) -> Callable[[_Maker, Tree], None]:
    def mend(_: _Maker, node: Tree) -> None:
        for name in names:
            for one in node.get(name, ()):
                if one.get("use") == "home":
                    one["use"] = "work"
        if not _has(node, "name", "identifier"):
            node["name"] = "CHU X"

    return mend


def _question(m: _Maker, node: Tree) -> None:
    m.links += 1
    node["linkId"] = f"{m.links}"
    _drop(node, "answerOption", "answerValueSet", "initial", "maxLength", "enableWhen")
    node["type"] = "group" if "item" in node else m.pick(("string", "decimal", "date", "choice"))


def _answered(m: _Maker, node: Tree) -> None:
    m.links += 1
    node["linkId"] = f"{m.links}"
    if "answer" in node:
        _drop(node, "item")


def _list(_: _Maker, node: Tree) -> None:
    if "entry" in node:
        _drop(node, "emptyReason")
        for entry in node["entry"]:
            _drop(entry, "date", "deleted")


def _task(_: _Maker, node: Tree) -> None:
    for name, value in (("authoredOn", "2026-03"), ("lastModified", "2026-03-19T14:00:00.000+01:00")):
        if name in node:
            node[name] = value


_MENDS: dict[str, Callable[[_Maker, Tree], None]] = {
    "Quantity": _measured,
    "Age": _ucum("a"),
    "Duration": _ucum("h"),
    "Distance": _ucum("km"),
    "Count": _ucum("1"),
    "Period": _period,
    "Range": _range,
    "Ratio": _ratio,
    "Timing.repeat": _repeat,
    "TriggerDefinition": _trigger,
    "DataRequirement.codeFilter": _one_of("path", "searchParam"),
    "DataRequirement.dateFilter": _one_of("path", "searchParam"),
    "Expression": _needs("expression", "x"),
    "Attachment": _needs("contentType", "application/pdf", when="data"),
    "ContactPoint": _needs("system", "phone", when="value"),
    "Patient.contact": _needs("name", {"family": "X"}),
    "Organization": _no_home("telecom", "address"),
    "Appointment": _appointment,
    "Appointment.participant": _needs("actor", {"display": "é"}),
    "ServiceRequest": _needs("code", {"text": "RCP"}, when="orderDetail"),
    "Task": _task,
    "Questionnaire.item": _question,
    "QuestionnaireResponse.item": _answered,
    "Composition.section": lambda m, node: (
        _drop(node, "emptyReason"),
        node.setdefault("text", m.object("Narrative", 0)),
    ),
    "Condition": _condition,
    "Condition.stage": _needs("summary", {"text": "IIA"}),
    "Condition.evidence": _needs("code", [{"text": "x"}]),
    "Observation": _observation,
    "Observation.component": _excludes("dataAbsentReason", "dataAbsentReason"),
    "Observation.referenceRange": _needs("text", "x"),
    "CareTeam.participant": _excludes("onBehalfOf", "onBehalfOf"),
    "Consent": _needs("policyRule", {"text": "x"}),
    "CarePlan.activity": _excludes("detail", "reference"),
    "AuditEvent.entity": _excludes("query", "name"),
    "List": _list,
    "Group": lambda _, node: node.update(actual=True) if "member" in node else None,
}


def resource(kind: str, seed: int, size: int = 12) -> Tree:
    """One resource; the same seed and size make the same."""
    return _Maker(seed, size).resource(kind)


def fragment(path: str, seed: int, size: int = 12) -> Tree:
    """One object of a data type or of a backbone element: ``Timing.repeat``."""
    return _Maker(seed, size).object(path, 1)


def resources(*kinds: str, max_size: int = 25) -> st.SearchStrategy[Tree]:
    """Valid resources of the types named, of all `OFFERED` when none is."""
    return st.builds(resource, st.sampled_from(kinds or OFFERED), st.integers(0, 2**32 - 1), st.integers(1, max_size))


def plain_json(tree: Tree) -> bytes:
    """Bytes of a tree, written by a library and not by the gateway."""
    return _ENCODER.encode(tree)


_ENCODER = msgspec.json.Encoder(decimal_format="number")
