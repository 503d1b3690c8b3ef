"""``$document``: a report with all that it speaks of, the same bytes whatever becomes of the record afterwards."""

from __future__ import annotations

import dataclasses
import io
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pypdf
import pytest
from fhir.resources.R4B.bundle import Bundle
from lxml import etree

from gateway.exchange.blobs import BlobStore
from gateway.fhir import document, validate
from gateway.model.partner import Partner
from gateway.model.store import Store
from gateway.rcp import report, sessions
from gateway.rcp.report import Press
from gateway.rcp.report_draft import DraftTreatment, ReportDraft
from gateway.rcp.step import Steps
from gateway.settings import Limits
from tests.e2e.fhir import samples
from tests.e2e.fhir.conftest import ALL_SCOPES, Hospital, Served
from tests.report_samples import press
from tests.world import World, audit_lines

FHIR = "{http://hl7.org/fhir}"
CDA = {"c": "urn:hl7-org:v3"}


@pytest.fixture
def ehr(world: World, admit: Callable[..., Hospital]) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


@pytest.fixture
def dossier(served: Served, world: World, ehr: httpx.Client) -> str:
    """An inscription whose session is open and has somebody in it."""
    tree = samples.transaction(
        rcp=world.rcp.national_number,
        start="2026-03-19T14:00:00+01:00",
        requester=world.requester.idnps,
        treating=world.treating.rpps,
    )
    pushed = ehr.post("", json=tree)
    assert pushed.status_code == 200, pushed.text
    person = world.caller(world.coordinator)
    served.steps.run(person, lambda step: sessions.open_session(step, world.meeting.id))
    served.steps.run(person, lambda step: sessions.attend(step, world.meeting.id, world.coordinator).id)
    where = [entry["response"]["location"] for entry in pushed.json()["entry"]]
    return next(one.split("/")[1] for one in where if one.startswith("ServiceRequest/"))


@pytest.fixture
def ours(blobs: BlobStore) -> Press:
    return press(blobs)


SAID = ReportDraft(
    proposal="Chirurgie première & ganglion sentinelle.",
    treatments=(DraftTreatment(code="387713003", text="Tumorectomie"),),
    complete=True,
)


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["issue"][0]["details"]["coding"][0]["code"])


def _validated(steps: Steps, world: World, dossier: str, ours: Press, said: ReportDraft = SAID) -> str:
    person, key = world.caller(world.coordinator), uuid.UUID(dossier)
    steps.run(person, lambda step: report.draft(step, key, said).id)
    return str(steps.run(person, lambda step: report.validate(step, key, ours).id))


def _document(client: httpx.Client, key: str) -> httpx.Response:
    found = client.get(f"Composition/{key}/$document")
    assert found.status_code == 200, found.text
    return found


def _kinds(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["resourceType"] for entry in bundle["entry"]]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node["reference"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


#: What a row of the CDA says when nobody said anything; the other forms then leave the row out.
UNSAID = {"Nonrenseigné", "Nonrenseignée"}
#: What belongs to the exchange, not to the case.
LEFT_OUT = {"Appointment", "Task"}


def test_a_report_is_one_whole_document(
    served: Served, store: Store, world: World, home: httpx.Client, ehr: httpx.Client, dossier: str, ours: Press
) -> None:
    key = _validated(served.steps, world, dossier, ours)
    answer = _document(ehr, key)
    assert answer.headers["content-type"].startswith("application/fhir+json")
    bundle = answer.json()
    assert bundle["type"] == "document"
    assert not validate.judge(document.parse(answer.content))
    assert Bundle.model_validate(bundle).type == "document"
    composition = bundle["entry"][0]["resource"]
    assert composition == ehr.get(f"Composition/{key}").json()
    assert bundle["timestamp"] == composition["date"]
    # Its identifier is the one of the CDA that was mailed, as the CDA itself says it.
    reference = ehr.get(f"DocumentReference/{key}").json()
    url = next(
        one["attachment"]["url"] for one in reference["content"] if one["format"]["code"] == "urn:asip:ci-sis:frcp:2011"
    )
    cda = etree.fromstring(ehr.get(url, headers={"Accept": "*/*"}).content)
    root = cda.xpath("string(/c:ClinicalDocument/c:id/@root)", namespaces=CDA)
    assert bundle["identifier"] == {"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{root}"}
    version = cda.xpath("string(/c:ClinicalDocument/c:versionNumber/@value)", namespaces=CDA)
    assert {one["url"]: one["valueString"] for one in composition["extension"]} == {
        "http://hl7.org/fhir/StructureDefinition/composition-clinicaldocument-versionNumber": version,
        "http://hl7.org/fhir/5.0/StructureDefinition/extension-Composition.version": version,
    }
    # What it speaks of is there, each once, where references find it.
    kinds = _kinds(bundle)
    assert {
        "Patient",
        "Encounter",
        "ServiceRequest",
        "Condition",
        "Observation",
        "CarePlan",
        "Practitioner",
        "Organization",
    } <= set(kinds)
    assert not LEFT_OUT & set(kinds)
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(urls) == len(set(urls))
    said = {one for one in _references(bundle) if not one.startswith("#")}
    lost = {one for one in said if f"{served.base}/{one}" not in urls}
    assert {one.partition("/")[0] for one in lost} <= LEFT_OUT, lost
    direct = set(_references(composition))
    assert {f"ServiceRequest/{dossier}", f"Encounter/{dossier}", f"CarePlan/{key}", f"Observation/{key}"} <= direct
    assert not direct & lost
    by_kind = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert by_kind["CarePlan"]["activity"][0]["detail"]["code"]["coding"][0]["code"] == "387713003"
    # Whoever runs the RCP reads the same; the trail names the patient; XML is the same document.
    assert _document(home, key).json()["entry"][0] == bundle["entry"][0]
    with store.session() as session:
        line = [one for one in audit_lines(session) if one.get("object_type") == "Composition"][-1]
        assert (line["event"], line["object_id"]) == ("consultation", key)
        assert line["persons"]
    xml = ehr.get(f"Composition/{key}/$document", params={"_format": "xml"})
    tree = etree.fromstring(xml.content)
    assert (tree.tag, tree.find(f"{FHIR}type").get("value")) == (f"{FHIR}Bundle", "document")
    assert [one.find(f"{FHIR}resource")[0].tag for one in tree.findall(f"{FHIR}entry")] == [f"{FHIR}{k}" for k in kinds]
    # And so is what an entry of a batch asks for.
    asked = {"resourceType": "Bundle", "type": "batch", "entry": []}
    asked["entry"] = [{"request": {"method": "GET", "url": f"Composition/{key}/$document"}}]
    [entry] = ehr.post("", json=asked).json()["entry"]
    assert (entry["response"]["status"][:3], entry["resource"]) == ("200", bundle)


def test_the_document_of_a_version_stays_whatever_happens_afterwards(
    served: Served, world: World, ehr: httpx.Client, dossier: str, ours: Press
) -> None:
    key = _validated(served.steps, world, dossier, ours)
    before = _document(ehr, key)
    patient = next(
        entry["resource"] for entry in before.json()["entry"] if entry["resource"]["resourceType"] == "Patient"
    )
    encounter = next(
        entry["resource"] for entry in before.json()["entry"] if entry["resource"]["resourceType"] == "Encounter"
    )
    assert encounter["status"] == "finished"
    moved = ehr.get(f"Patient/{patient['id']}").json() | {"telecom": [{"system": "phone", "value": "0699999999"}]}
    changed = ehr.put(f"Patient/{patient['id']}", json=moved, headers={"If-Match": f'W/"{moved["meta"]["versionId"]}"'})
    assert changed.status_code == 200, changed.text
    assert changed.json()["meta"]["versionId"] != patient["meta"]["versionId"]
    assert _document(ehr, key).content == before.content
    # A correction is a document of its own, which says what it replaces and what is known by then.
    person = world.caller(world.coordinator)
    served.steps.run(person, lambda step: report.revise(step, uuid.UUID(dossier), reason="Erreur de côté"))
    after = served.steps.run(person, lambda step: str(report.validate(step, uuid.UUID(dossier), ours).id))
    second, first = _document(ehr, after).json(), _document(ehr, key)
    assert first.content == before.content
    assert second["identifier"] != first.json()["identifier"]
    composition = second["entry"][0]["resource"]
    assert composition["status"] == "amended"
    assert composition["relatesTo"] == [{"code": "replaces", "targetIdentifier": first.json()["identifier"]}]
    assert '"0699999999"' in _document(ehr, after).text
    assert '"0699999999"' not in first.text
    # Withdrawn, it says so.
    served.steps.run(person, lambda step: report.cancel(step, uuid.UUID(dossier), "Mauvais patient", ours).id)
    assert _document(ehr, after).json()["entry"][0]["resource"]["status"] == "entered-in-error"


def test_a_document_is_nobody_elses(
    served: Served,
    store: Store,
    world: World,
    admit: Callable[..., Hospital],
    ehr: httpx.Client,
    dossier: str,
    ours: Press,
) -> None:
    key = _validated(served.steps, world, dossier, ours)
    with store.session() as session:
        partner = Partner(name="Clinique d’essai", finess="690000017", patient_domains=["https://clinique.example/ipp"])
        session.add(partner)
        session.commit()
    with admit(partner, scopes=ALL_SCOPES).client() as stranger:
        assert stranger.get(f"Composition/{key}/$document").status_code == 404
    # A token that reads no patient gets none in a document either.
    with admit(world.partner, scopes="system/Composition.rs system/Encounter.r").client() as narrow:
        assert set(_kinds(_document(narrow, key).json())) == {"Composition", "Encounter"}
    for path in (f"Composition/{uuid.uuid4()}/$document", "Composition/_x/$document"):
        assert ehr.get(path).status_code == 404
    for name, value in (("persist", "true"), ("graph", "https://rcp.example/graph")):
        refused = ehr.get(f"Composition/{key}/$document", params={name: value})
        assert (refused.status_code, _code(refused)) == (422, "document-parametre")
    assert ehr.get(f"Composition/{key}/$document", params={"persist": "false"}).status_code == 200
    assert ehr.get(f"Patient/{key}/$document").status_code == 404
    assert ehr.post(f"Composition/{key}/$document").status_code == 405


def test_a_document_speaks_of_one_patient_alone(ehr: httpx.Client) -> None:
    one, other = (
        ehr.post("Patient", json=samples.patient(ipp, ins=None, family=family)).json()["id"]
        for ipp, family in (("41", "PAT-UN"), ("42", "PAT-DEUX"))
    )
    letter = {
        "resourceType": "Composition",
        "status": "final",
        "type": {"text": "Lettre"},
        "subject": {"reference": f"Patient/{one}"},
        "date": "2026-03",
        "author": [{"reference": f"Patient/{other}"}],
        "title": "Lettre",
    }
    made = ehr.post("Composition", json=letter)
    assert made.status_code == 201, made.text
    found = _document(ehr, made.json()["id"])
    bundle = found.json()
    assert [entry["resource"]["id"] for entry in bundle["entry"]] == [made.json()["id"], one]
    assert "PAT-DEUX" not in found.text
    assert not validate.judge(document.parse(found.content))
    # A partial date is no instant: the Bundle then bears the instant of the version.
    assert bundle["timestamp"] == made.json()["meta"]["lastUpdated"]
    again = ehr.put(
        f"Composition/{made.json()['id']}",
        json=made.json() | {"title": "Lettre corrigée"},
        headers={"If-Match": 'W/"1"'},
    )
    assert again.status_code == 200, again.text
    assert _document(ehr, made.json()["id"]).json()["identifier"] != bundle["identifier"]


class TestNarrow:
    """What is too large is refused, by the limit's name: a document is never cut."""

    @pytest.fixture(params=["search_included", "answer_bytes"])
    def limits(self, request: pytest.FixtureRequest) -> Limits:
        return dataclasses.replace(
            Limits(), **{request.param: {"search_included": 3, "answer_bytes": 12_000}[request.param]}
        )

    def test_it_is_refused(
        self, served: Served, world: World, ehr: httpx.Client, dossier: str, ours: Press, limits: Limits
    ) -> None:
        key = _validated(served.steps, world, dossier, ours)
        refused = ehr.get(f"Composition/{key}/$document")
        few = limits.search_included == 3
        assert refused.status_code == 422, refused.text
        assert _code(refused) == ("document-trop-grand" if few else "reponse-trop-grande")
        named = "RCP_LIMIT_SEARCH_INCLUDED" if few else "RCP_LIMIT_ANSWER_BYTES"
        assert named in refused.json()["issue"][0]["details"]["text"]


def _squeezed(text: str) -> str:
    return "".join(text.split()).replace("\u00a0", "").replace("\u202f", "")


def _cda_rows(content: bytes) -> dict[str, str]:
    """Label and text of each row of the narrative, as a reader of the CDA meets them."""
    found = {}
    for cell in etree.fromstring(content).iter("{urn:hl7-org:v3}content"):
        for line in cell.iter("{urn:hl7-org:v3}br"):
            line.text = " "
        row = cell.getparent().getparent()
        found[_squeezed(f"{row[0].text} : {''.join(cell.itertext())}")] = _squeezed("".join(cell.itertext()))
    return found


def test_every_form_says_the_same_words(
    served: Served, world: World, ehr: httpx.Client, dossier: str, ours: Press
) -> None:
    """Extracted from the three files that leave: the narrative of the CDA, the page, the FHIR document."""
    said = ReportDraft(
        summary="Découverte au dépistage <organisé> & « confirmée ».",
        proposal="Chirurgie première & ganglion sentinelle.\nPuis radiothérapie.",
        alternatives=("Chimiothérapie néoadjuvante.",),
        treatments=(DraftTreatment(code="387713003", text="Tumorectomie", start="2026-04-15", end="2026-05"),),
        recourse="Avis du centre de référence",
        follow_up="Mammographie annuelle",
        guideline="Référentiel Sein 2025.2",
        supportive_care="Soutien psychologique",
        recommended=("fertilite",),
        remark="Souhaite continuer son travail",
        complete=True,
    )
    key = _validated(served.steps, world, dossier, ours, said)
    reference = ehr.get(f"DocumentReference/{key}").json()
    kinds = {one["attachment"]["contentType"]: one["attachment"]["url"] for one in reference["content"]}
    page, cda = (
        ehr.get(url, headers={"Accept": "*/*"}).content
        for url in (kinds["application/pdf"], next(url for kind, url in kinds.items() if kind != "application/pdf"))
    )
    printed = _squeezed("".join(one.extract_text() for one in pypdf.PdfReader(io.BytesIO(page)).pages))
    narrative = _cda_rows(cda)
    composition = _document(ehr, key).json()["entry"][0]["resource"]
    lines = [
        _squeezed(" ".join(paragraph.itertext()))
        for section in composition["section"]
        for paragraph in etree.fromstring(section["text"]["div"]).iter("{http://www.w3.org/1999/xhtml}p")
    ]
    for words in (said.summary, said.proposal, said.recourse, said.follow_up, said.supportive_care, said.remark):
        assert words is not None
        assert [line for line in lines if _squeezed(words) in line], words
    assert len(lines) > 15
    for line in lines:
        assert line in narrative, line
        assert narrative[line] in printed, line
    # What the CDA has beside is that something was not said.
    beside = {text for row, text in narrative.items() if row not in lines}
    assert beside <= UNSAID, beside - UNSAID
