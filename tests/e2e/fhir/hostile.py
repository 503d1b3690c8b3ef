"""What a hostile or broken client may send to any FHIR route: strategies that know FHIR well enough to break it deep.

A request is made from what a good one holds (types, ids, parameters, bodies) with a few things wrong, because noise
from end to end stops at the first door. Nothing here judges an answer.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode
from xml.sax.saxutils import quoteattr

from hypothesis import strategies as st

from gateway.fhir import search_columns
from tests.e2e.fhir import minimal, samples

Tree = dict[str, Any]

#: Texts that have broken servers before; each may stand wherever a text does.
TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\x00",
    "\ud800",
    "\ufeff",
    "\u202etxt",
    "ﬀİß",
    "a" * 70,
    "é" * 5000,
    "..",
    "../../metadata",
    "/",
    "\\",
    "%",
    "%00",
    "%2e%2e%2f",
    "$",
    "$everything",
    "_history",
    "*",
    "?",
    "#",
    "a|b|c|d",
    "|",
    "||",
    ",",
    "\\,",
    "'; DROP TABLE patient; --",
    '"',
    "null",
    "true",
    "-1",
    "1e999",
    "99999999999999999999",
    "0x10",
    "١٢٣",
    "NaN",
    "0000-00-00",
    "9999-12-31T23:59:60.999999999+14:00",
    "2026-02-30",
    "2026-03-29T02:30:00",
    "0001-01-01T00:00:00+14:00",
    "ge",
    "ap2026",
    "eq2026-13",
    "urn:uuid:",
    "urn:uuid:00000000-0000-0000-0000-000000000000",
    "http://[",
    "http://[::1",
    "https://x.example/fhir/Patient/1/_history/1",
    "Patient/",
    "Patient/x/y/z",
    "Patient?identifier=",
    "Patient?identifier=a|b",
    "#contained",
    "Patient.name[0].given",
    "Patient.where(true).where(true)",
    "(" * 200,
    "a.b." * 100,
    samples.CANARY,
)
#: Written into JSON as it stands: numbers that Python would not write.
NUMBERS: tuple[str, ...] = (
    "1e400",
    "-1e-400",
    "0." + "0" * 400 + "1",
    "9" * 5000,
    "1E+2",
    "-0",
    "-0.0",
    "1.10",
    "1e1000000000",
)
_RAW = re.compile(r'"@@([^"]*)@@"')

texts = st.sampled_from(TEXTS) | st.text(st.characters(codec=None, exclude_categories=[]), max_size=12)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30, 0.1]),
    st.sampled_from([f"@@{number}@@" for number in NUMBERS]),
    texts,
    st.sampled_from(
        [
            [],
            [None],
            [[]],
            [[["x"]]],
            ["x", None, 1],
            [{}],
            {},
            {"": ""},
            {"url": 1},
            {"resourceType": "Patient"},
            {"resourceType": ["Patient"]},
            {"reference": 5},
            {"reference": "Patient?identifier=x|y"},
            {"reference": "urn:uuid:nowhere"},
            {"reference": "#nowhere"},
            {"coding": "x"},
            {"coding": [{"system": {}, "code": []}]},
            {"system": 1, "value": {}},
            {"start": "2026-03-01", "end": "2026-01-01"},
            {"value": "@@1e400@@", "unit": None},
            {"extension": [{"url": "https://x.example/e", "valueString": "a", "valueCode": "b"}]},
            {"div": "<div xmlns='http://www.w3.org/1999/xhtml'><script>1</script></div>", "status": "generated"},
            {"div": "<!DOCTYPE a [<!ENTITY b 'c'>]><div>&b;</div>", "status": "generated"},
        ]
    ),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a tree stands."""
    found = [path] if path else []
    if isinstance(node, dict):
        for name, value in node.items():
            found += places(value, (*path, name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += places(value, (*path, index))
    return found


def _at(tree: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    *above, last = path
    for step in above:
        tree = tree[step]
    return tree, last


def with_value(tree: Tree, path: tuple[Any, ...], value: Any) -> Tree:
    """A copy with another value at one place."""
    made = copy.deepcopy(tree)
    holder, last = _at(made, path)
    holder[last] = value
    return made


@st.composite
def broken(draw: st.DrawFn, tree: Tree) -> Any:
    """A resource with up to three faults, anywhere; now and then with none."""
    made = copy.deepcopy(tree)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        everywhere = places(made)
        if not everywhere:
            break
        holder, last = _at(made, draw(st.sampled_from(everywhere)))
        act = draw(st.sampled_from(["replace", "replace", "remove", "add", "wrap", "double", "shadow", "deep"]))
        if act == "replace":
            holder[last] = draw(junk)
        elif act == "remove":
            del holder[last]
        elif act == "add" and isinstance(holder, dict):
            name = draw(
                st.sampled_from(
                    [
                        "id",
                        "extension",
                        "contained",
                        "text",
                        "meta",
                        "modifierExtension",
                        "fhir_comments",
                        "x",
                        "value",
                        "_value",
                        "identifier",
                        "implicitRules",
                        "language",
                    ]
                )
            )
            holder[name] = draw(junk)
        elif act == "wrap":
            holder[last] = draw(st.sampled_from([[holder[last]], {"value": holder[last]}]))
        elif act == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        elif act == "shadow" and isinstance(holder, dict):
            holder[f"_{last}"] = draw(junk)
        elif act == "deep":
            for _ in range(draw(st.sampled_from([3, 70, 150]))):
                holder[last] = {"extension": [holder[last]]} if isinstance(holder, dict) else [holder[last]]
    return made


def as_json(tree: Any) -> bytes:
    """Bytes of a tree, numbers that JSON allows and Python does not included."""
    return _RAW.sub(lambda match: match.group(1), json.dumps(tree)).encode()


def as_xml(tree: Tree) -> str:
    """The XML of a resource as R4 maps it from JSON [FHIR R4 xml]; rough where the tree is."""
    kind = str(tree.get("resourceType", "Basic"))
    inner = "".join(_element(name, value) for name, value in tree.items() if name != "resourceType")
    return f'<{kind} xmlns="http://hl7.org/fhir">{inner}</{kind}>'


def _element(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(_element(name, one) for one in value)
    if isinstance(value, dict) and "resourceType" in value:
        return f"<{name}>{as_xml(value)}</{name}>"
    if isinstance(value, dict):
        attributes = "".join(
            f" {key}={quoteattr(str(value[key]))}"
            for key in ("id", "url")
            if key in value and (key == "id" or name in {"extension", "modifierExtension"})
        )
        inner = "".join(_element(key, below) for key, below in value.items() if f" {key}=" not in attributes)
        return f"<{name}{attributes}>{inner}</{name}>"
    if name == "div":
        return str(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name} value={quoteattr(text)}/>"


_XML_FAULTS: tuple[str, ...] = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{xml}',
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>{xml}',
    '<?xml version="1.0" encoding="UTF-16"?>{xml}',
    "<?xml version='1.1'?>{xml}",
    "<!-- c -->{xml}<!-- d -->",
    "<?php x ?>{xml}",
    "{xml}{xml}",
    "{xml}&undefined;",
    "<x>{xml}</x>",
    "<Patient>{xml}</Patient>",
    '<f:Patient xmlns:f="http://hl7.org/fhir"><f:active value="true"/></f:Patient>',
    '<Patient xmlns="http://hl7.org/v2"><active value="true"/></Patient>',
    '<Patient xmlns="http://hl7.org/fhir"><active value="true" value="false"/></Patient>',
    '<Patient xmlns="http://hl7.org/fhir"><active>true</active>text</Patient>',
    '<Patient xmlns="http://hl7.org/fhir"><active value="true"><a/></active><active value="1"/></Patient>',
    '<Patient xmlns="http://hl7.org/fhir"><contained/><contained><x/></contained></Patient>',
    '<Patient xmlns="http://hl7.org/fhir"><text><div xmlns="http://www.w3.org/1999/xhtml">&#0;</div></text></Patient>',
    "<" * 500,
    '<Patient xmlns="http://hl7.org/fhir">' + "<extension>" * 5000,
    "\x00",
    "",
)


@st.composite
def xml_bodies(draw: st.DrawFn, tree: Tree) -> bytes:
    """XML, broken in its tree or in its text."""
    xml = as_xml(draw(broken(tree)) if draw(st.booleans()) else tree)
    if draw(st.booleans()):
        xml = draw(st.sampled_from(_XML_FAULTS)).replace("{xml}", xml)
    return xml.encode("utf-8", "surrogatepass")


@st.composite
def json_bodies(draw: st.DrawFn, tree: Any) -> bytes:
    """JSON, broken in its tree or in its bytes."""
    how = draw(st.integers(0, 9))
    if how <= 6 and isinstance(tree, dict):
        return as_json(draw(broken(tree)))
    whole = as_json(tree)
    if how == 7:
        return whole[: draw(st.integers(0, len(whole)))]
    if how == 8:
        return draw(
            st.sampled_from(
                [
                    b"",
                    b"null",
                    b"[]",
                    b'"x"',
                    b"{}",
                    b"\xef\xbb\xbf" + whole,
                    whole.decode().encode("utf-16"),
                    whole + whole,
                    whole[:-1] + b',"id":"a","id":"b"}',
                    b"[" * 100_000,
                    b'{"a":' * 100_000,
                    b"\xff\xfe\x00",
                    b'{"resourceType":"\\ud800"}',
                    b'{"resourceType":"Patient","x":' + b"9" * 100_000 + b"}",
                    b'{"resourceType":"SubscriptionTopic"}',
                ]
            )
        )
    return draw(st.binary(max_size=40))


PATCH_PATHS = st.sampled_from(
    [
        "",
        "/",
        "/status",
        "/id",
        "/meta/versionId",
        "/resourceType",
        "/identifier/0",
        "/identifier/-",
        "/name/0/given/99",
        "/~2",
        "/~0~1",
        "/extension/01",
        "/-",
        "status",
        "/a/b/c",
        "//",
        "/name/-1",
        "/identifier/0/value",
    ]
)
json_patches = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "merge", "", None, 5]),
            "path": PATCH_PATHS | junk,
            "from": PATCH_PATHS | junk,
            "value": junk,
        },
    ),
    max_size=5,
)
_FHIRPATHS = st.sampled_from(
    [
        "Patient",
        "Patient.name",
        "Patient.name[0].given[0]",
        "Patient.identifier.where(system='x')",
        "Observation.status",
        "status",
        "Patient.repeat(name)",
        "Patient.name.given | Patient.name.family",
        "%resource",
        "$this",
        "Patient.name.first().given.select($this)",
        "iif(true, 1, 2)",
        "'x'.matches('(a+)+$')",
        "Patient.id",
    ]
)
fhirpath_patches = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["type", "path", "name", "value", "index", "source", "destination", "x"])},
            optional={
                "valueCode": st.sampled_from(["add", "insert", "delete", "replace", "move", "explode"]) | junk,
                "valueString": _FHIRPATHS | junk,
                "valueInteger": st.sampled_from([0, 1, -1, 10**12]) | junk,
                "valueCodeableConcept": junk,
                "part": junk,
            },
        ),
        max_size=5,
    ),
    max_size=4,
).map(
    lambda operations: {
        "resourceType": "Parameters",
        "parameter": [{"name": "operation", "part": parts} for parts in operations],
    }
)


@st.composite
def bundles(draw: st.DrawFn, known: minimal.Known) -> Tree:
    """A batch or transaction whose entries ask for odd things."""
    entries = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(minimal.KINDS))
        identity = known.get(kind, f"{kind}/none")
        entry: Tree = {
            "fullUrl": draw(st.sampled_from(["urn:uuid:1", "urn:uuid:2", "https://x.example/fhir/Patient/1"]) | junk),
            "resource": minimal.resource(kind, known),
            "request": {
                "method": draw(
                    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "post", None])
                ),
                "url": draw(
                    st.sampled_from(
                        [
                            kind,
                            identity,
                            f"{kind}?identifier=a|b",
                            f"{identity}/_history/1",
                            f"/{kind}",
                            f"{kind}?_id=x&_count=0",
                            f"{kind}/$validate",
                            "metadata",
                            "",
                            "https://elsewhere.example/fhir/Patient",
                            f"{kind}?{samples.CANARY}=x",
                        ]
                    )
                    | texts
                ),
            },
        }
        for name in ("ifNoneExist", "ifMatch", "ifNoneMatch", "ifModifiedSince"):
            if draw(st.integers(0, 4)) == 0:
                entry["request"][name] = draw(st.sampled_from(['W/"1"', "identifier=a|b", "*"]) | junk)
        if draw(st.integers(0, 3)) == 0:
            del entry["resource"]
        entries.append(entry)
    bundle: Tree = {
        "resourceType": "Bundle",
        "type": draw(st.sampled_from(["transaction", "transaction", "batch", "batch", "collection", "history"])),
        "entry": entries,
    }
    return draw(broken(bundle)) if draw(st.integers(0, 3)) == 0 else bundle


_MODIFIERS = (
    "",
    "",
    "",
    ":exact",
    ":contains",
    ":not",
    ":missing",
    ":identifier",
    ":of-type",
    ":text",
    ":above",
    ":in",
    ":Patient",
    ":iterate",
    ":Nothing",
    ":",
    "::",
    f":{samples.CANARY}",
)
_VALUES = st.one_of(
    texts,
    st.sampled_from(
        [
            "true",
            "a|b",
            "|b",
            "a|",
            "a|b|c",
            "2026",
            "ge2026-03",
            "lt2026-03-09T09:00:00Z",
            "ne2026-03-09T09:00:00+01:00",
            "sa2026",
            "ap2026-01-01",
            "5.40",
            "gt5.4|http://unitsofmeasure.org|mg",
            "5||mg",
            "ap5",
            "Patient/1",
            "-_lastUpdated",
            "-date,status,_id",
            "Patient:organization",
            "Task:focus:ServiceRequest",
            "*",
            "Patient:*",
            "count",
            "data",
            "accurate",
            "id,name.family,nothing",
            "0",
            "1",
            "500",
            "a$b",
            "http://loinc.org|1$gt5",
            ",".join("a" * 3 for _ in range(300)),
        ]
    ),
)
CONTROLS: tuple[str, ...] = (
    "_id",
    "_lastUpdated",
    "_tag",
    "_profile",
    "_security",
    "_source",
    "_text",
    "_content",
    "_filter",
    "_query",
    "_list",
    "_type",
    "_count",
    "_sort",
    "_total",
    "_summary",
    "_elements",
    "_include",
    "_revinclude",
    "_contained",
    "_format",
    "_pretty",
    "_since",
    "_at",
    "_page",
    "_after",
    "_offset",
    "_before",
)


@st.composite
def queries(draw: st.DrawFn, kind: str) -> list[tuple[str, str]]:
    """Parameters of a search: those of the type with every modifier, chains, controls, noise."""
    own = list(search_columns.parameters(kind)) or ["identifier"]
    pairs = []
    for _ in range(draw(st.integers(0, 4))):
        form = draw(st.integers(0, 9))
        if form <= 3:
            name = draw(st.sampled_from(own)) + draw(st.sampled_from(_MODIFIERS))
        elif form <= 5:
            name = draw(st.sampled_from(CONTROLS)) + draw(st.sampled_from(_MODIFIERS[:12]))
        elif form == 6:
            links = [
                draw(st.sampled_from(["subject", "patient", "focus", "link", "actor:Patient", "identifier", "x"]))
                for _ in range(draw(st.integers(1, 6)))
            ]
            name = ".".join([draw(st.sampled_from(own)), *links])
        elif form == 7:
            name = (
                "_has:"
                + ":".join(
                    draw(
                        st.sampled_from(
                            [
                                "Task:focus",
                                "Observation:patient",
                                "Nothing:x",
                                "_has",
                                "Patient",
                                "",
                                "Provenance:target",
                            ]
                        )
                    )
                    for _ in range(draw(st.integers(1, 4)))
                )
                + draw(st.sampled_from([":status", ":_id", ":identifier", "", ":_has:Task:focus:status"]))
            )
        else:
            name = draw(texts)
        pairs.append((name, draw(_VALUES)))
    if draw(st.integers(0, 30)) == 0:
        pairs += [("_id", "x")] * 1500
    return pairs


HEADERS: Mapping[str, Sequence[str]] = {
    "Accept": (
        "application/fhir+json",
        "application/fhir+xml",
        "application/json;q=0",
        "text/html",
        "*/*;q=x",
        "a" * 2000,
        ",,,;;;",
        "application/fhir+json; fhirVersion=3.0",
        "",
    ),
    "If-Match": ('W/"1"', '"1"', "1", "*", 'W/"', 'W/"99999999999999999999"', 'W/"x", W/"1"', "\xe9", 'W/"-1"'),
    "If-None-Match": ('W/"1"', "*", "x" * 500, 'W/"1",W/"2"', "\xff"),
    "If-Modified-Since": ("Sat, 29 Oct 1994 19:43:31 GMT", "yesterday", "Sat, 99 Xxx 9999 99:99:99 GMT"),
    "If-None-Exist": (
        "identifier=a|b",
        "Patient?identifier=a|b",
        "?",
        "=",
        "identifier",
        "_id=x&_count=0",
        f"{samples.CANARY}=x",
        "identifier=%00",
        "\xe9=\xe9",
    ),
    "Prefer": (
        "return=minimal",
        "return=representation",
        "return=OperationOutcome",
        "return=x",
        "handling=strict",
        "handling=lenient",
        "handling=",
        "respond-async",
        ",;=,=",
        "return=minimal; handling=strict",
    ),
    "Content-Encoding": ("gzip", "identity", "br", "deflate, gzip"),
    "Accept-Encoding": ("gzip", "gzip;q=0", "*", "x"),
    "Accept-Language": ("en", "fr-CH, *;q=0.5", "\xe9"),
    "X-Request-Id": ("abc", "\xe9", "a" * 500),
    "X-Provenance": ('{"resourceType":"Provenance"}', "x"),
    "Range": ("bytes=0-1",),
    "Forwarded": ("for=x;host=y", "\xe9"),
}
BODY_TYPES: tuple[str, ...] = (
    "application/fhir+json",
    "application/fhir+json; charset=utf-8",
    "application/json",
    "application/fhir+xml",
    "application/json-patch+json",
    "application/xml-patch+xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/fhir+json; charset=utf-16",
    "text/plain",
    "",
    "a/b/c",
)


@dataclass(frozen=True, repr=False)
class Ask:
    """One request as it goes on the wire; ``target`` and header values are latin-1 texts."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    def __repr__(self) -> str:
        """What fits into a report; a body may be large."""
        told = [f"{name}: {value[:80]}" for name, value in self.headers]
        return f"{self.method} {self.target[:300]} {told} {(self.body or b'')[:600]!r}"


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="$*_-.~:|@!'()")


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    encoded = [(name.encode("utf-8", "surrogatepass"), value.encode("utf-8", "surrogatepass")) for name, value in pairs]
    return urlencode(encoded)


@st.composite
def asks(draw: st.DrawFn, method: str, template: str, known: minimal.Known) -> Ask:
    """A request to one route: its placeholders filled with what exists, or with what should not."""
    kind = draw(st.sampled_from([*minimal.KINDS, *2 * [one for one in minimal.KINDS if one in known]]))
    kind_said = (
        kind if draw(st.integers(0, 9)) else draw(texts | st.sampled_from(["patient", "SubscriptionTopic", "Bundle"]))
    )
    identity = known.get(kind, f"{kind}/none").partition("/")[2] if draw(st.integers(0, 4)) else draw(texts)
    fill = {
        "kind": kind_said,
        "identity": identity,
        "version": draw(st.sampled_from(["1", "2", "0", "99999999999999"]) | texts),
    }
    path = re.sub(
        r"\{(\w+)(?::path)?\}", lambda match: _quoted(fill.get(match.group(1)) or draw(texts) or "x"), template
    )
    # A question, or a condition; a query on a creation is refused before its body is looked at.
    asked = method in {"GET", "HEAD"} or template.endswith("{kind}")
    pairs = draw(queries(kind)) if draw(st.integers(0, 1 if asked and method != "POST" else 5)) == 0 else []
    target = path + (f"?{_query(pairs)}" if pairs else "")
    headers = {name: draw(st.sampled_from(values)) for name, values in HEADERS.items() if draw(st.integers(0, 7)) == 0}
    body: bytes | None = None
    if method in {"POST", "PUT", "PATCH"}:
        body, declared = draw(_bodies(method, template, kind, known, pairs))
        headers["Content-Type"] = declared if draw(st.integers(0, 11)) else draw(st.sampled_from(BODY_TYPES))
    return Ask(method, target, tuple(headers.items()), body)


@st.composite
def _bodies(
    draw: st.DrawFn, method: str, template: str, kind: str, known: minimal.Known, pairs: Sequence[tuple[str, str]]
) -> tuple[bytes, str]:
    if template.endswith(("_search", "/token")):
        form = draw(queries(kind))
        if template.endswith("/token"):
            form = [
                (
                    draw(st.sampled_from(["grant_type", "scope", "client_assertion", "client_assertion_type"]) | texts),
                    value,
                )
                for _, value in form
            ]
        return _query(form).encode(), "application/x-www-form-urlencoded"
    if method == "PATCH" and draw(st.booleans()):
        return draw(json_bodies(draw(json_patches))), "application/json-patch+json"
    if method == "PATCH":
        tree = draw(fhirpath_patches)
    elif template.rstrip("/") == "/fhir":
        tree = draw(bundles(known))
    else:
        tree = minimal.resource(kind, known)
        tree.update(draw(st.sampled_from([{}, {"id": known.get(kind, "x/x").partition("/")[2]}])))
        for name in ("name", "note", "text"):
            if draw(st.integers(0, 9)) == 0:
                tree[name] = draw(
                    st.sampled_from([[{"family": samples.CANARY}], [{"text": samples.CANARY}], samples.CANARY])
                )
        if "$validate" in template and draw(st.booleans()):
            tree = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": tree}]}
    if draw(st.integers(0, 3)) == 0 and isinstance(tree, dict):
        return draw(xml_bodies(tree)), "application/fhir+xml"
    return draw(json_bodies(tree)), "application/fhir+json"
