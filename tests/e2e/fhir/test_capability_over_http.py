"""The statement is read over HTTP as a stranger reads it; all that it declares is done, what it does not is refused."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from lxml import etree

from gateway.fhir import validate
from gateway.fhir.owners import WRITABLE
from tests.e2e.fhir import hostile, minimal, samples
from tests.e2e.fhir.conftest import Shared

Tree = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
#: [FHIR R4 resourcelist]: some types that R4 has and nobody offers here.
FOREIGN = ("Medication", "Account", "Claim", "StructureDefinition", "Bundle", "Parameters")


@pytest.fixture(scope="module")
def statement(shared: Shared) -> Tree:
    """Asked without any proof, as a client does before it has one."""
    answer = httpx.get(f"{shared.served.base}/metadata", timeout=120)
    assert answer.status_code == 200
    return dict(answer.json())


@pytest.fixture(scope="module")
def rest(statement: Tree) -> Tree:
    (server,) = statement["rest"]
    return dict(server)


@pytest.fixture(scope="module")
def offered(rest: Tree) -> dict[str, Tree]:
    return {one["type"]: one for one in rest["resource"]}


@pytest.fixture(scope="module")
def known(shared: Shared, ehr: httpx.Client) -> dict[str, str]:
    return minimal.fill(ehr, shared.world.rcp.national_number, shared.world.requester.idnps)


class Faults(list[str]):
    """What was declared and did not work: all of it is told at once."""

    def expect(self, wanted: set[int], answer: httpx.Response, what: str) -> bool:
        if answer.status_code in wanted:
            return True
        self.append(f"{what}: {answer.status_code} {answer.text[:200]}")
        return False


def _codes(resource: Tree) -> set[str]:
    return {one["code"] for one in resource["interaction"]}


# The statement itself


def test_it_is_a_valid_statement(statement: Tree) -> None:
    CapabilityStatement.model_validate(statement)
    assert list(validate.judge(json.loads(json.dumps(statement)))) == []
    # Invariants of the definition [FHIR R4 capabilitystatement, cpb-1 to cpb-16], by hand.
    (rest,) = statement["rest"]
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["kind"] == "instance"
    assert statement["implementation"]["url"].endswith("/fhir")
    kinds = [one["type"] for one in rest["resource"]]
    assert len(kinds) == len(set(kinds)) > 30
    for one in rest["resource"]:
        names = [parameter["name"] for parameter in one.get("searchParam", ())]
        assert len(names) == len(set(names)), one["type"]
        assert {parameter["type"] for parameter in one.get("searchParam", ())} <= {
            "number",
            "date",
            "string",
            "token",
            "reference",
            "composite",
            "quantity",
            "uri",
            "special",
        }
        assert len(_codes(one)) == len(one["interaction"])
    assert rest["security"]["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"


def test_it_is_kept_by_its_etag_and_given_in_parts_and_in_xml(shared: Shared, statement: Tree) -> None:
    with httpx.Client(base_url=shared.served.base + "/", timeout=120) as anybody:
        first = anybody.get("metadata")
        assert anybody.get("metadata", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        assert anybody.get("metadata", headers={"If-None-Match": 'W/"other"'}).status_code == 200
        assert anybody.head("metadata").headers["etag"] == first.headers["etag"]
        part = anybody.get("metadata?_elements=fhirVersion").json()
        assert "rest" not in part
        assert part["meta"]["tag"][0]["code"] == "SUBSETTED"
        short = anybody.get("metadata?_summary=true").json()
        assert len(json.dumps(short)) < len(json.dumps(statement))
        assert short["fhirVersion"] == "4.0.1"
        pretty = anybody.get("metadata?_pretty=true")
        assert "\n" in pretty.text
        assert pretty.json() == statement
        xml = anybody.get("metadata?_format=xml")
        assert xml.headers["content-type"].startswith("application/fhir+xml")
        root = etree.fromstring(xml.content, etree.XMLParser(resolve_entities=False))
        names = {"f": "http://hl7.org/fhir"}
        assert root.tag == "{http://hl7.org/fhir}CapabilityStatement"
        assert root.xpath("f:rest/f:resource/f:type/@value", namespaces=names) == [
            one["type"] for one in statement["rest"][0]["resource"]
        ]
        token = root.xpath(
            "f:rest/f:security/f:extension/f:extension[@url='token']/f:valueUri/@value", namespaces=names
        )
        assert token == [f"{shared.served.url}/oauth/token"]
        assert anybody.get("metadata?_format=ttl").status_code == 406


def test_every_format_that_it_declares_is_spoken(ehr: httpx.Client, statement: Tree, known: dict[str, str]) -> None:
    tree = minimal.resource("Condition", known)
    for form in statement["format"]:
        for headers, query in (({"Accept": form}, ""), ({}, f"?_format={form.replace('+', '%2B')}")):
            if query or "/" in form:
                answer = ehr.get(known["Patient"] + query, headers=headers)
                assert answer.status_code == 200, form
                assert ("xml" in answer.headers["content-type"]) == ("xml" in form), form
        if "/" in form:
            body = hostile.as_xml(tree).encode() if "xml" in form else json.dumps(tree).encode()
            made = ehr.post("Condition", content=body, headers={"Content-Type": form})
            assert made.status_code == 201, (form, made.text)
    for form in ("text/turtle", "application/fhir+turtle", "text/html"):
        assert ehr.get(known["Patient"], headers={"Accept": form}).status_code == 406
        assert ehr.post("Condition", content=b"x", headers={"Content-Type": form}).status_code == 415


# Each type

#: What the documentation of a type says that each search of it holds.
BOUNDS: Mapping[str, Mapping[str, str]] = {"AuditEvent": {"date": "ge2020-01-01"}}


class Walk:
    """Does with one type all that the statement says of it."""

    def __init__(
        self, ehr: httpx.Client, shared: Shared, known: dict[str, str], resource: Tree, faults: Faults
    ) -> None:
        self.ehr = ehr
        self.shared = shared
        self.known = known
        self.kind: str = resource["type"]
        self.said = resource
        self.codes = _codes(resource)
        self.faults = faults
        self.bounds = BOUNDS.get(self.kind, {})

    def expect(self, wanted: set[int], answer: httpx.Response, what: str) -> bool:
        return self.faults.expect(wanted, answer, f"{self.kind} {what}")

    def fresh(self) -> Tree:
        """One more that no rule of the domain holds against those that are there."""
        known = self.known
        if self.kind == "ServiceRequest":
            tumour = self.ehr.post("Condition", json=minimal.resource("Condition", known)).json()
            known = known | {"Condition": f"Condition/{tumour['id']}"}
        return minimal.resource(self.kind, known)

    def make(self, what: str) -> Tree | None:
        if self.kind == "Task" and "delete" not in what:
            return self._task(what)
        tree = self._loose()
        if self.kind == "ServiceRequest" and "delete" in what:
            # An inscription stays [DECISIONS 6]; another request is its sender's alone.
            tree["code"] = minimal.CODE
            del tree["performer"], tree["reasonReference"]
        made = self.ehr.post(self.kind, json=tree)
        if not self.expect({201}, made, what):
            return None
        tree = made.json()
        assert made.headers["location"].endswith(f"/{self.kind}/{tree['id']}/_history/1")
        return tree

    def _loose(self) -> Tree:
        """One that no dossier holds: a dossier's task has its id and stays with it, another is its sender's alone."""
        tree = self.fresh()
        if self.kind == "Task":
            del tree["focus"], tree["basedOn"]
        return tree

    def _task(self, what: str) -> Tree | None:
        """A dossier has one task from its start: it is created together with its inscription."""
        bundle = samples.transaction(
            rcp=self.known["rcp"],
            start="2026-03-19T14:00:00+01:00",
            requester=self.known["requester"],
            treating=None,
            ipp=uuid.uuid4().hex,
            tumour=uuid.uuid4().hex,
            ins=None,
        )
        answer = self.ehr.post("", json=bundle, headers={"Prefer": "return=representation"})
        if not self.expect({200}, answer, what):
            return None
        entry = answer.json()["entry"][0]
        assert entry["response"]["status"].startswith("201")
        return dict(entry["resource"])

    def where(self, tree: Tree) -> str:
        """A condition that only this resource meets."""
        if "searchParam" in self.said and self.kind != "Patient":
            identifiers = tree.get("identifier") or ()
            one = identifiers[0] if isinstance(identifiers, list) and identifiers else identifiers
            names = {parameter["name"] for parameter in self.said["searchParam"]}
            if one and "identifier" in names:
                return f"identifier={one['system']}|{one['value']}"
        return f"_id={tree['id']}"

    # Interactions

    def written(self) -> None:
        tree = self.make("create") if "create" in self.codes else None
        if tree is None:
            if "create" not in self.codes:
                self.expect({403, 405}, self.ehr.post(self.kind, json=self.fresh()), "undeclared create")
                self._found()
            return
        path = f"{self.kind}/{tree['id']}"
        self._read(tree, path)
        if "update" in self.codes:
            changed = tree | {"language": "fr"}
            answer = self.ehr.put(path, json=changed, headers={"If-Match": 'W/"1"'})
            if self.expect({200}, answer, "update"):
                assert answer.json()["meta"]["versionId"] == "2", self.kind
            self.expect({412}, self.ehr.put(path, json=changed, headers={"If-Match": 'W/"1"'}), "stale update")
        if "patch" in self.codes:
            self._patched(path)
        self._conditional(tree)
        if self.said["updateCreate"]:
            self._upsert()
        if "delete" in self.codes:
            self._deleted()
        else:
            self.expect({403, 405}, self.ehr.delete(path), "undeclared delete")

    def _found(self) -> None:
        """One that only the gateway writes is found, read, and written by nobody else."""
        found = self.ehr.get(self.kind, params={**self.bounds, "_count": "1"})
        if not self.expect({200}, found, "search"):
            return
        tree = found.json()["entry"][0]["resource"]
        path = f"{self.kind}/{tree['id']}"
        if "read" in self.codes and self.expect({200}, self.ehr.get(path), "read"):
            assert self.ehr.get(path).json() == tree, self.kind
        if "vread" not in self.codes:
            self.expect({404, 405}, self.ehr.get(f"{path}/_history/1"), "undeclared vread")
        if "history-instance" not in self.codes:
            self.expect({404, 405}, self.ehr.get(f"{path}/_history"), "undeclared history")
        self.expect({403, 405}, self.ehr.put(path, json=tree), "undeclared update")
        self.expect({403, 405}, self.ehr.delete(path), "undeclared delete")

    def _read(self, tree: Tree, path: str) -> None:
        binary = {"Accept": "application/fhir+json"}
        read = self.ehr.get(path, headers=binary)
        if "read" in self.codes and self.expect({200}, read, "read"):
            assert read.json() == tree, self.kind
            etag, modified = read.headers["etag"], read.headers["last-modified"]
            if self.said["conditionalRead"] in {"not-match", "full-support"}:
                self.expect({304}, self.ehr.get(path, headers=binary | {"If-None-Match": etag}), "If-None-Match")
            if self.said["conditionalRead"] in {"modified-since", "full-support"}:
                since = binary | {"If-Modified-Since": modified}
                self.expect({304}, self.ehr.get(path, headers=since), "If-Modified-Since")
        if "vread" in self.codes:
            vread = self.ehr.get(f"{path}/_history/1", headers=binary)
            if self.expect({200}, vread, "vread"):
                assert vread.json() == tree, self.kind
        if "history-instance" in self.codes:
            history = self.ehr.get(f"{path}/_history")
            if self.expect({200}, history, "history-instance"):
                assert history.json()["entry"][-1]["resource"]["id"] == tree["id"], self.kind
        if "history-type" in self.codes:
            history = self.ehr.get(f"{self.kind}/_history?_count=5")
            if self.expect({200}, history, "history-type"):
                assert history.json()["type"] == "history", self.kind
        else:
            self.expect({404, 405}, self.ehr.get(f"{self.kind}/_history"), "undeclared history-type")

    def _patched(self, path: str) -> None:
        for body, declared in self._patches():
            version = self.ehr.get(path, headers={"Accept": "application/fhir+json"}).headers["etag"]
            headers = {"Content-Type": declared, "If-Match": version}
            answer = self.ehr.patch(path, content=body, headers=headers)
            if self.expect({200}, answer, f"patch {declared}"):
                assert answer.json()["language"] in {"en", "de", "it"}, self.kind
        headers = {"Content-Type": "application/xml-patch+xml"}
        self.expect({415}, self.ehr.patch(path, content=b"<diff/>", headers=headers), "undeclared XML patch")

    def _patches(self) -> list[tuple[bytes, str]]:
        def parameters(language: str) -> Tree:
            parts = [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": f"{self.kind}.language"},
                {"name": "value", "valueCode": language},
            ]
            return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}

        return [
            (json.dumps([{"op": "replace", "path": "/language", "value": "en"}]).encode(), JSON_PATCH),
            (json.dumps(parameters("de")).encode(), "application/fhir+json"),
            (hostile.as_xml(parameters("it")).encode(), "application/fhir+xml"),
        ]

    def _conditional(self, tree: Tree) -> None:
        where = self.where(tree)
        query = where.replace("|", "%7C")
        version = lambda: {"If-Match": self.ehr.get(f"{self.kind}/{tree['id']}").headers["etag"]}  # noqa: E731
        if self.said.get("conditionalCreate"):
            answer = self.ehr.post(self.kind, json=self.fresh(), headers={"If-None-Exist": where})
            self.expect({200}, answer, "conditionalCreate of what is there")
        if self.said.get("conditionalUpdate"):
            body = {name: value for name, value in tree.items() if name != "id"} | {"language": "es"}
            answer = self.ehr.put(f"{self.kind}?{query}", json=body, headers=version())
            self.expect({200}, answer, "conditionalUpdate")
            if "patch" in self.codes:
                content, declared = self._patches()[0]
                headers = {"Content-Type": declared} | version()
                answer = self.ehr.patch(f"{self.kind}?{query}", content=content, headers=headers)
                self.expect({200}, answer, "conditional patch")
        else:
            self.expect(
                {400, 403, 404, 405}, self.ehr.put(f"{self.kind}?{query}", json=tree), "undeclared conditionalUpdate"
            )

    def _upsert(self) -> None:
        identity = str(uuid.uuid4())
        tree = self._loose() | {"id": identity}
        answer = self.ehr.put(f"{self.kind}/{identity}", json=tree)
        if self.expect({201}, answer, "updateCreate"):
            assert answer.json()["id"] == identity, self.kind

    def _deleted(self) -> None:
        for conditional in (False, True):
            if conditional and self.said.get("conditionalDelete", "not-supported") == "not-supported":
                continue
            tree = self.make("create to delete")
            if tree is None:
                return
            path = f"{self.kind}/{tree['id']}"
            address = f"{self.kind}?{self.where(tree)}".replace("|", "%7C") if conditional else path
            answer = self.ehr.delete(address, headers={"If-Match": 'W/"1"'})
            if self.expect({200, 204}, answer, f"delete {'by condition' if conditional else ''}"):
                self.expect(
                    {410}, self.ehr.get(path, headers={"Accept": "application/fhir+json"}), "read of the deleted"
                )
                self.expect({200}, self.ehr.get(f"{path}/_history"), "history of the deleted")

    # Search

    def searched(self) -> None:
        if "search-type" not in self.codes:
            self.expect({404, 405}, self.ehr.get(self.kind), "undeclared search")
            return
        asked: list[tuple[str, str]] = []
        for parameter in self.said["searchParam"]:
            name = parameter["name"]
            asked.append((name, self._value(parameter)))
            told = parameter.get("documentation", "").partition("Modificateurs : ")[2].partition(".")[0]
            asked += [
                (f"{name}:{modifier}", MODIFIED.get(modifier) or self._value(parameter))
                for modifier in re.findall(r":([A-Za-z-]+)", told)
            ]
        self._ask_all(asked)
        self._ask_all([("_include", include) for include in self.said.get("searchInclude", ())])
        self._ask_all([("_revinclude", include) for include in self.said.get("searchRevInclude", ())])
        form = {"Content-Type": "application/x-www-form-urlencoded", "Prefer": "handling=strict"}
        self.expect(
            {200},
            self.ehr.post(f"{self.kind}/_search", data={"_id": "x", **self.bounds}, headers=form),
            "search by POST",
        )
        self._refused({one["name"] for one in self.said["searchParam"]})

    def _value(self, parameter: Tree) -> str:
        if parameter["type"] == "reference":
            return self.known["Patient"]
        return BY_NAME.get(parameter["name"]) or VALUES[parameter["type"]]

    def _refused(self, names: set[str]) -> None:
        for unknown in {"shoe-size", "_content", "vital-sign", "birthdate"} - names:
            answer = self.ehr.get(self.kind, params={unknown: "x"}, headers={"Prefer": "handling=strict"})
            self.expect({400}, answer, f"undeclared parameter {unknown}")
        for modifier in ("above", "in", "nothing"):
            self.expect({400}, self.ehr.get(self.kind, params={f"_tag:{modifier}": "x"}), f"undeclared :{modifier}")

    def _ask_all(self, pairs: list[tuple[str, str]]) -> None:
        """Many parameters in one request; if it fails, each by itself, to say which."""
        for start in range(0, len(pairs), PAIRS):
            if not self._asked(pairs[start : start + PAIRS], told=False):
                for pair in pairs[start : start + PAIRS]:
                    self._asked([pair], told=True)

    def _asked(self, pairs: list[tuple[str, str]], *, told: bool) -> bool:
        query = httpx.QueryParams([*self.bounds.items(), *pairs, ("_count", "1")])
        answer = self.ehr.get(self.kind, params=query, headers={"Prefer": "handling=strict"})
        if answer.status_code != 200:
            if told:
                self.expect({200}, answer, f"search {pairs}")
            return False
        bundle = answer.json()
        link = next(one["url"] for one in bundle["link"] if one["relation"] == "self")
        applied = httpx.URL(link).params.multi_items()
        warned = [entry for entry in bundle.get("entry", ()) if entry["search"]["mode"] == "outcome"]
        good = not warned and all(pair in applied for pair in pairs)
        if told and not good:
            self.faults.append(f"{self.kind} search {pairs}: {warned or 'not applied'}")
        return good

    # Operations

    def operated(self) -> None:
        names = {one["name"] for one in self.said.get("operation", ())}
        if "validate" in names:
            self.expect({200}, self.ehr.post(f"{self.kind}/$validate", json=self.fresh()), "$validate")
        for name in {"everything", "match", "document", "lastn", "validate"} - names:
            self.expect({404, 405}, self.ehr.post(f"{self.kind}/${name}", json=self.fresh()), f"undeclared ${name}")


#: Parameters of one request; fifty are the limit.
PAIRS = 40
#: Kind of parameter → a value that suits it.
VALUES = {
    "token": f"{minimal.KEYS}|x",
    "string": "essai",
    "date": "ge2026-01-01",
    "number": "5.0",
    "quantity": "gt5|http://unitsofmeasure.org|mm",
    "uri": "https://chu-x.example/essai",
    "composite": "http://loinc.org|1$http://loinc.org|2",
}
#: Modifier → a value that suits it, where that of the parameter does not.
MODIFIED = {
    "missing": "true",
    "identifier": f"{minimal.KEYS}|x",
    "of-type": "http://terminology.hl7.org/CodeSystem/v2-0203|PI|x",
}
#: An id; composites whose second part is not a token [FHIR R4 observation, questionnaire, documentreference: search].
BY_NAME = {
    "_id": str(uuid.UUID(int=0)),
    "code-value-date": "http://loinc.org|1$2026-03",
    "code-value-string": "http://loinc.org|1$essai",
    "code-value-quantity": "http://loinc.org|1$gt5",
    "combo-code-value-quantity": "http://loinc.org|1$gt5",
    "component-code-value-quantity": "http://loinc.org|1$gt5",
    "context-type-quantity": "x|y$gt5",
    "relationship": "DocumentReference/x$replaces",
}


def test_no_type_that_is_offered_is_left_out_below(offered: dict[str, Tree]) -> None:
    assert sorted(offered) == sorted([*WRITABLE, "AuditEvent"])


@pytest.mark.parametrize("kind", [*WRITABLE, "AuditEvent"])
def test_each_type_does_what_it_declares(
    shared: Shared, ehr: httpx.Client, offered: dict[str, Tree], known: dict[str, str], kind: str
) -> None:
    faults = Faults()
    walk = Walk(ehr, shared, known, offered[kind], faults)
    walk.written()
    walk.searched()
    walk.operated()
    assert faults == [], "\n".join(faults)


def test_the_system_does_what_it_declares(
    ehr: httpx.Client, rest: Tree, offered: dict[str, Tree], known: dict[str, str]
) -> None:
    declared = {one["code"] for one in rest["interaction"]}
    entry = {"resource": minimal.resource("Condition", known), "request": {"method": "POST", "url": "Condition"}}
    for kind in ("transaction", "batch"):
        answer = ehr.post("", json={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        assert (answer.status_code == 200) == (kind in declared), answer.text
        assert answer.json()["entry"][0]["response"]["status"].startswith("201")
    for code, path in (("history-system", "_history"), ("search-system", "?_type=Patient")):
        answer = ehr.get(path)
        assert (answer.status_code == 200) == (code in declared), answer.text
        assert answer.status_code in {200, 404, 405}
    for kind in set(FOREIGN) - set(offered):
        tree = {"resourceType": kind}
        refused = [ehr.get(kind), ehr.get(f"{kind}/x"), ehr.post(kind, json=tree), ehr.put(f"{kind}/x", json=tree)]
        assert {answer.status_code for answer in refused} <= {404, 405}, kind
